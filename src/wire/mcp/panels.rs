//! An agent's templates for MCP hosts (MCP Apps, SEP-1865): each is a `ui://` resource, and a tool
//! when one is bound to it. Calling the tool lets the smith answer; the host shows the panel.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, MetaObject, Resource,
    ResourceContents, Tool,
};
use serde_json::{Map, Value, json};

use super::ask::{Ask, AskIn, Leave};
use super::schema::schema;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::run::Effective;
use crate::run::panels::{UiMetadata, UiTool, resources as stored};
use crate::untrusted::Schema;

/// The media type of a panel (SEP-1865).
const MIME: &str = "text/html;profile=mcp-app";

fn templates(smith: &Effective) -> impl Iterator<Item = UiMetadata> {
    let stored = stored(&smith.config.ui_resources);
    stored.into_iter().map(|resource| resource.metadata)
}

fn uri(smith: &Effective, name: &str) -> String {
    format!("ui://{}/{name}", smith.smith.agent_id)
}

fn meta(ui: Value) -> MetaObject {
    MetaObject(Map::from_iter([("ui".to_owned(), ui)]))
}

/// How a host is to show a panel.
fn shown(template: &UiMetadata) -> MetaObject {
    let mut ui = json!({ "csp": template.csp, "permissions": template.permissions,
        "domain": template.domain, "prefersBorder": template.prefers_border });
    if let Value::Object(ui) = &mut ui {
        ui.retain(|_, value| !value.is_null());
    }
    meta(ui)
}

/// The tools that are bound to templates.
pub fn tools(smith: &Effective) -> Vec<Tool> {
    let bound = templates(smith).filter_map(|template| {
        let tool = template.tool?;
        let input = match tool.input_schema {
            Some(input) => Value::Object(input),
            None => json!({ "type": "object" }),
        };
        let mut ui = json!({ "resourceUri": uri(smith, &template.name) });
        if let Some(visibility) = tool.visibility {
            ui["visibility"] = json!(visibility);
        }
        let tool = Tool::new(template.name, tool.description, schema(input));
        Some(tool.with_meta(meta(ui)))
    });
    bound.collect()
}

/// The panels.
pub fn resources(smith: &Effective) -> Vec<Resource> {
    let panels = templates(smith).map(|template| {
        let mut panel = Resource::new(uri(smith, &template.name), template.name.clone());
        panel.description = template.tool.as_ref().map(|tool| tool.description.clone());
        panel.mime_type = Some(MIME.to_owned());
        panel.with_meta(shown(&template))
    });
    panels.collect()
}

/// A panel's HTML; `None` when there is none at that address.
pub async fn read(
    gateway: &Gateway,
    smith: &Effective,
    address: &str,
) -> Result<Option<ResourceContents>, ApiError> {
    let Some(template) = templates(smith).find(|t| uri(smith, &t.name) == address) else {
        return Ok(None);
    };
    let (tenant, agent) = (&smith.smith.tenant_id, &smith.smith.agent_id);
    let html = gateway.store.agent_ui(tenant, agent, &template.name);
    Ok(html
        .await?
        .map(|html| ResourceContents::TextResourceContents {
            uri: address.to_owned(),
            mime_type: Some(MIME.to_owned()),
            text: String::from_utf8_lossy(&html).into_owned(),
            meta: Some(shown(&template)),
        }))
}

/// Calls the tool of a template; `None` when there is none of that name.
pub async fn call(
    ask: &Ask<'_>,
    smith: &Effective,
    request: &CallToolRequestParams,
) -> Result<Option<CallToolResponse>, ApiError> {
    let named = templates(smith).find(|template| template.name == request.name);
    let Some(tool) = named.and_then(|template| template.tool) else {
        return Ok(None);
    };
    let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
    check(ask, &tool, &arguments).await?;
    let is_begun = request.request_state.as_deref();
    let is_begun = is_begun.is_some_and(|state| state.starts_with("run_"));
    if tool.mutating == Some(true) && !is_begun {
        let leave = ask.leave(&request.name, arguments.to_string(), request);
        match leave.await? {
            Leave::Given => {}
            Leave::Refused(why) => return Err(ApiError::forbidden("approval_rejected", why)),
            Leave::Asked(answer) => return Ok(Some(answer)),
        }
    }
    let task = tool.instruction.as_deref().unwrap_or(&tool.description);
    let input = AskIn {
        message: format!("{task}\n\nInput of '{}':\n{arguments}", request.name),
        thread_id: None,
    };
    let answer = ask.answer(input, request).await?;
    Ok(Some(match answer {
        CallToolResponse::Complete(result) => for_panel(result).into(),
        other => other,
    }))
}

/// An answer that is a JSON object is what the panel is given as such.
fn for_panel(mut result: CallToolResult) -> CallToolResult {
    if let Some(told) = &mut result.structured_content
        && let Some(reply) = told["reply"].as_str()
        && let Ok(Value::Object(data)) = serde_json::from_str(reply)
    {
        *told = Value::Object(data);
    }
    result
}

async fn check(ask: &Ask<'_>, tool: &UiTool, arguments: &Value) -> Result<(), ApiError> {
    let Some(input) = &tool.input_schema else {
        return Ok(());
    };
    let schema = Schema::read(&Value::Object(input.clone()))
        .map_err(|e| ApiError::invalid("input_schema", e.to_string()))?;
    let checked = schema.check(
        arguments,
        &ask.gateway.sandbox,
        &ask.caller.principal.tenant_id,
    );
    checked
        .await
        .map_err(|fault| ApiError::invalid("arguments", fault.to_string()))
}
