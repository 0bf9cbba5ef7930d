//! `/v1/agents/{id}/ui`: an agent's MCP Apps templates (SEP-1865), HTML that hosts show as panels.

use axum::Json;
use axum::extract::multipart::{Multipart, MultipartRejection};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use utoipa::ToSchema;

use super::agents::found;
use crate::edge::AppState;
use crate::edge::extract::{Admin, bad_form, check_text};
use crate::edge::page::List;
use crate::edge::parse;
use crate::error::ApiError;
use crate::json::{Json as Tree, Object};
use crate::run::panels::{UiMetadata, UiResource};
use crate::store::now_micros;

const MAX_HTML: usize = 2 * 1024 * 1024;
const MAX_METADATA: usize = 64 * 1024;
const MAX_TEMPLATES: usize = 100;

/// A template to keep.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents the multipart form")]
pub struct UiIn {
    /// The HTML.
    #[schema(format = Binary)]
    file: String,
    /// JSON of `UiMetadata`.
    metadata: String,
}

/// `[a-z0-9][a-z0-9_-]*`, of at most 63.
pub(super) fn is_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut bytes = name.bytes();
    (1..=63).contains(&name.len())
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || b == b'_' || b == b'-')
}

fn is_named(resource: &Object, name: &str) -> bool {
    resource.get("name").and_then(Tree::as_str) == Some(name)
}

fn named<'a>(stored: &'a [Object], name: &str) -> Result<&'a Object, ApiError> {
    let found = stored.iter().find(|resource| is_named(resource, name));
    found.ok_or_else(|| ApiError::not_found("template", name))
}

/// What was said of a template, in the order in which it was: clients compare the texts. Members
/// that clients know as there or not are left out where they were null.
fn as_written(text: &[u8]) -> Result<Object, ApiError> {
    let known = [
        "name",
        "csp",
        "permissions",
        "tool",
        "prefers_border",
        "domain",
    ];
    let mut written: Object = parse(text)?;
    written.retain(|member, value| {
        match (member, value) {
            ("csp" | "permissions", Tree::Null) => return false,
            ("csp", Tree::Object(csp)) => csp.retain(|_, list| !list.is_null()),
            ("tool", Tree::Object(tool)) => tool.retain(|member, value| {
                !(value.is_null() && matches!(member, "input_schema" | "mutating"))
            }),
            _ => {}
        }
        known.contains(&member)
    });
    Ok(written)
}

/// Lists the templates of an agent's draft.
#[utoipa::path(get, path = "/v1/agents/{id}/ui", tag = "agents", params(("id" = String, Path)),
    responses((status = 200, body = List<UiResource>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<Json<List<Object>>, ApiError> {
    let agent = found(&gateway, &caller.tenant_id, &id).await?;
    Ok(Json(List {
        data: agent.draft.ui_resources,
    }))
}

/// Keeps a template; one of the same name is replaced.
#[utoipa::path(post, path = "/v1/agents/{id}/ui", tag = "agents", params(("id" = String, Path)),
    request_body(content = UiIn, content_type = "multipart/form-data"),
    responses((status = 201, body = UiResource)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<(StatusCode, Json<Object>), ApiError> {
    let mut agent = found(&gateway, &caller.tenant_id, &id).await?;
    let mut form = form.map_err(|e| ApiError::bad_request("invalid_request", e.body_text()))?;
    let (mut html, mut metadata) = (None, None);
    while let Some(field) = form.next_field().await.map_err(|e| bad_form(&e))? {
        let name = field.name().map(str::to_owned);
        match name.as_deref() {
            Some("file") => html = Some(field.bytes().await.map_err(|e| bad_form(&e))?),
            Some("metadata") => metadata = Some(field.bytes().await.map_err(|e| bad_form(&e))?),
            _ => {}
        }
    }
    let html = html.ok_or_else(|| ApiError::invalid("file", "is missing"))?;
    let metadata = metadata.ok_or_else(|| ApiError::invalid("metadata", "is missing"))?;
    if html.len() > MAX_HTML {
        return Err(ApiError::too_large(MAX_HTML));
    }
    if std::str::from_utf8(&html).is_err() {
        return Err(ApiError::invalid("file", "must be HTML in UTF-8"));
    }
    let text = std::str::from_utf8(&metadata)
        .map_err(|_| ApiError::invalid("metadata", "must be JSON"))?;
    check_text("metadata", text, MAX_METADATA)?;
    let mut resource = as_written(&metadata)?;
    let metadata: UiMetadata = parse(&metadata)?;
    if !is_name(&metadata.name) {
        return Err(ApiError::bad_request(
            "invalid_name",
            "a template's name is [a-z0-9][a-z0-9_-]*, of at most 63",
        )
        .param("metadata.name"));
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &html);
    let hash = hex::encode(digest.as_ref());
    resource.insert("content_hash".to_owned(), Tree::String(hash));
    let stored = &mut agent.draft.ui_resources;
    stored.retain(|other| !is_named(other, &metadata.name));
    if stored.len() >= MAX_TEMPLATES {
        return Err(ApiError::invalid(
            "metadata.name",
            format!("an agent has at most {MAX_TEMPLATES} templates"),
        ));
    }
    stored.push(resource.clone());
    agent.updated_at = now_micros();
    if !gateway
        .store
        .put_agent_ui(&agent, &metadata.name, Some(&html))
        .await?
    {
        return Err(ApiError::not_found("agent", &id));
    }
    Ok((StatusCode::CREATED, Json(resource)))
}

/// Reads what is known of a template.
#[utoipa::path(get, path = "/v1/agents/{id}/ui/{name}", tag = "agents",
    params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = UiResource)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path((id, name)): Path<(String, String)>,
) -> Result<Json<Object>, ApiError> {
    let agent = found(&gateway, &caller.tenant_id, &id).await?;
    let resource = named(&agent.draft.ui_resources, &name)?;
    Ok(Json(resource.clone()))
}

/// Reads a template's HTML.
#[utoipa::path(get, path = "/v1/agents/{id}/ui/{name}/content", tag = "agents",
    params(("id" = String, Path), ("name" = String, Path)),
    responses((status = 200, content_type = "text/html", body = String)))]
pub async fn content(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    found(&gateway, &caller.tenant_id, &id).await?;
    let html = gateway
        .store
        .agent_ui(&caller.tenant_id, &id, &name)
        .await?
        .ok_or_else(|| ApiError::not_found("template", &name))?;
    // Opened by itself, it must not act with this origin's rights.
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("sandbox allow-scripts"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
    ];
    Ok((headers, html).into_response())
}

/// Deletes a template.
#[utoipa::path(delete, path = "/v1/agents/{id}/ui/{name}", tag = "agents",
    params(("id" = String, Path), ("name" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path((id, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let mut agent = found(&gateway, &caller.tenant_id, &id).await?;
    named(&agent.draft.ui_resources, &name)?;
    agent
        .draft
        .ui_resources
        .retain(|other| !is_named(other, &name));
    agent.updated_at = now_micros();
    match gateway.store.put_agent_ui(&agent, &name, None).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("agent", &id)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_said_of_a_template_comes_back_as_it_was_said() {
        let kept = |text: &str| {
            super::as_written(text.as_bytes())
                .expect("an object")
                .to_text()
        };
        let text = r#"{"tool":{"mutating":false,"description":"d","instruction":null},"name":"a"}"#;
        assert_eq!(kept(text), text);
        let nulls = r#"{"name":"a","csp":null,"permissions":null,"tool":{"description":"d",
            "input_schema":null},"unknown":1}"#;
        assert_eq!(kept(nulls), r#"{"name":"a","tool":{"description":"d"}}"#);
        let csp = r#"{"name":"a","csp":{"frameDomains":null,"connectDomains":["x"]}}"#;
        assert_eq!(kept(csp), r#"{"name":"a","csp":{"connectDomains":["x"]}}"#);
    }

    #[test]
    fn names_of_templates_are_checked() {
        assert!(super::is_name("a") && super::is_name("0-order_card"));
        assert!(!super::is_name("") && !super::is_name("-a") && !super::is_name("A"));
        assert!(!super::is_name(&"a".repeat(64)));
    }
}
