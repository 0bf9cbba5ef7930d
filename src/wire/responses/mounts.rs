//! `mcp` and `file_search` tools of a request: what this one call mounts.

use serde_json::Value;

use crate::error::ApiError;
use crate::tools::{Approval, Mount, Mounts};

const MAX_SERVERS: usize = 8;
const MAX_STORES: usize = 16;
const MAX_HEADERS: usize = 32;
const MAX_TEXT: usize = 8 * 1024;
/// What the transport says itself.
const RESERVED: [&str; 12] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn names(value: &Value) -> Option<Vec<String>> {
    let names = value.as_array()?.iter();
    Some(
        names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect(),
    )
}

fn text<'a>(tool: &'a Value, name: &str, field: &str) -> Result<Option<&'a str>, ApiError> {
    let bad = |why: &str| ApiError::invalid(format!("{field}.{name}"), why.to_owned());
    match &tool[name] {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) if text.len() > MAX_TEXT => Err(bad("is too long")),
        Value::String(text) => Ok(Some(text)),
        _ => Err(bad("must be a string")),
    }
}

/// An `mcp` tool.
pub fn server(tool: &Value, field: &str, mounts: &mut Mounts) -> Result<(), ApiError> {
    let bad = |name: &str, why: &str| ApiError::invalid(format!("{field}.{name}"), why.to_owned());
    if mounts.servers.len() == MAX_SERVERS {
        let message = format!("a call mounts at most {MAX_SERVERS} servers");
        return Err(ApiError::invalid("tools", message));
    }
    let label =
        text(tool, "server_label", field)?.ok_or_else(|| bad("server_label", "is missing"))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    if label.len() > 64 || !label.chars().all(fits) {
        return Err(bad(
            "server_label",
            "must be at most 64 letters, digits, '-', '_' and '.'",
        ));
    }
    if mounts.servers.iter().any(|mount| mount.label == label) {
        return Err(bad("server_label", "is there twice"));
    }
    let url =
        text(tool, "server_url", field)?.ok_or_else(|| match tool["connector_id"].is_null() {
            true => bad("server_url", "is missing"),
            false => bad(
                "connector_id",
                "connectors of a provider are not known here: give a server_url",
            ),
        })?;
    let mut headers = Vec::new();
    match &tool["headers"] {
        Value::Null => {}
        Value::Object(given) if given.len() <= MAX_HEADERS => {
            for (name, value) in given {
                let value = value
                    .as_str()
                    .ok_or_else(|| bad("headers", "must be texts"))?;
                if RESERVED.contains(&&*name.to_ascii_lowercase()) {
                    return Err(bad("headers", &format!("'{name}' cannot be set")));
                }
                if name.len() + value.len() > MAX_TEXT {
                    return Err(bad("headers", "are too long"));
                }
                headers.push((name.clone(), value.to_owned()));
            }
        }
        _ => {
            return Err(bad(
                "headers",
                &format!("must be an object of at most {MAX_HEADERS}"),
            ));
        }
    }
    let allowed = &tool["allowed_tools"];
    let approval = &tool["require_approval"];
    mounts.servers.push(Mount {
        place: field.to_owned(),
        label: label.to_owned(),
        url: url.to_owned(),
        bearer: text(tool, "authorization", field)?
            .map(|token| token.strip_prefix("Bearer ").unwrap_or(token).to_owned()),
        headers,
        allowed: names(allowed).or_else(|| names(&allowed["tool_names"])),
        read_only: allowed["read_only"] == true,
        // What is not said is gated, as the wire's own service does.
        approval: match (approval.as_str(), names(&approval["never"]["tool_names"])) {
            (Some("never"), _) => Approval::Never,
            (None | Some("always"), None) => match names(&approval["always"]["tool_names"]) {
                Some(names) => Approval::Only(names),
                None => Approval::Always,
            },
            (_, Some(names)) => Approval::Except(names),
            (Some(_), None) => {
                return Err(bad("require_approval", "must be always, never or a filter"));
            }
        },
    });
    Ok(())
}

/// A `file_search` tool.
pub fn stores(tool: &Value, field: &str, mounts: &mut Mounts) -> Result<(), ApiError> {
    let field = format!("{field}.vector_store_ids");
    let ids = names(&tool["vector_store_ids"]).filter(|ids| !ids.is_empty());
    let ids = ids.ok_or_else(|| ApiError::invalid(field.clone(), "must name a vector store"))?;
    if mounts.stores.len() + ids.len() > MAX_STORES {
        let message = format!("a call searches at most {MAX_STORES} vector stores");
        return Err(ApiError::invalid(field, message));
    }
    let placed = ids.into_iter().enumerate();
    mounts
        .stores
        .extend(placed.map(|(at, id)| (id, format!("{field}[{at}]"))));
    Ok(())
}

/// The request's tools as the response repeats them: without secrets.
pub fn without_secrets(tools: &[Value]) -> Vec<Value> {
    let mut tools = tools.to_vec();
    for tool in tools.iter_mut().filter(|tool| tool["type"] == "mcp") {
        if let Value::Object(members) = tool {
            members.shift_remove("headers");
            members.shift_remove("authorization");
            if let Some(Value::String(url)) = members.get_mut("server_url") {
                // As a query, an address may hold one too.
                let end = url.find(['?', '#']).unwrap_or(url.len());
                url.truncate(end);
            }
        }
    }
    tools
}
