//! What a smith offers to an MCP host: the tool `ask`, its own tools (`own_tools`), and its agent's
//! templates (`panels`).

use std::sync::Arc;

use http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

use super::ask::{Ask, AskIn};
use super::caller::McpCaller;
use super::schema::schema;
use super::{own_tools, panels};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::run::Effective;

const ASK: &str = "ask";

/// One host's view of its smith.
pub struct SmithServer {
    gateway: Arc<Gateway>,
}

fn ask_tool() -> Tool {
    let input = schema(json!({
        "type": "object",
        "properties": {
            "message": { "type": "string", "description": "What to say to it." },
            "thread_id": {
                "type": "string",
                "description": "The thread to go on with, from an earlier answer.",
            },
        },
        "required": ["message"],
        "additionalProperties": false,
    }));
    let output = schema(json!({
        "type": "object",
        "properties": {
            "reply": { "type": "string" },
            "thread_id": { "type": "string" },
            "run_id": { "type": "string" },
            "status": {
                "type": "string",
                "description": "'paused_for_approval' when it waits for a human's decision.",
            },
            "approvals": { "type": "array", "items": { "type": "object" } },
        },
        "required": ["reply", "thread_id", "run_id"],
    }));
    let description = "Asks the assistant behind this server, who has instructions and a memory of \
                       its own, and gives its answer.";
    Tool::new(ASK, description, input)
        .with_title("Ask")
        .with_raw_output_schema(output)
}

/// A failure that the host's model is told.
fn told(error: &ApiError) -> CallToolResult {
    let text = match &error.param {
        Some(param) => format!("{}: {param} {}", error.code, error.message),
        None => format!("{}: {}", error.code, error.message),
    };
    CallToolResult::error(vec![ContentBlock::text(text)])
}

impl SmithServer {
    /// Over `gateway`.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    async fn smith(&self, caller: &McpCaller) -> Result<Arc<Effective>, ApiError> {
        let tenant = &caller.principal.tenant_id;
        let smith = self.gateway.smiths.effective(tenant, &caller.smith_id);
        smith.await
    }

    /// A call of a tool that is not `ask`; `None` when there is none of that name.
    async fn other(
        &self,
        ask: &Ask<'_>,
        request: &CallToolRequestParams,
    ) -> Result<Option<CallToolResponse>, ApiError> {
        let smith = self.smith(ask.caller).await?;
        smith.require_published()?;
        match panels::call(ask, &smith, request).await? {
            Some(answer) => Ok(Some(answer)),
            None => own_tools::call(ask, &smith, request).await,
        }
    }
}

/// Whom a call is for, as the endpoint found out.
fn caller(context: &RequestContext<RoleServer>) -> Result<Arc<McpCaller>, ErrorData> {
    let parts = context.extensions.get::<Parts>();
    let caller = parts.and_then(|parts| parts.extensions.get::<Arc<McpCaller>>().cloned());
    caller.ok_or_else(|| ErrorData::internal_error("the call has no caller", None))
}

/// A failure of something that is no tool call.
fn failed(error: &ApiError) -> ErrorData {
    match error.status.is_client_error() {
        true => ErrorData::invalid_params(error.message.to_string(), None),
        false => ErrorData::internal_error("an internal error", None),
    }
}

impl ServerHandler for SmithServer {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .build();
        let mut info = ServerConfig::new(capabilities);
        info.server_info = Implementation::new("smithgate", env!("CARGO_PKG_VERSION"));
        info.instructions =
            Some("One assistant with instructions and a memory of its own: ask it.".to_owned());
        info
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let caller = caller(&context)?;
        let smith = self.smith(&caller).await.map_err(|e| failed(&e))?;
        let mut tools = vec![ask_tool()];
        tools.extend(panels::tools(&smith));
        let own = own_tools::tools(&self.gateway, &caller, &smith).await;
        for tool in own.map_err(|e| failed(&e))? {
            // Ours come first: a host that knows `ask` finds it under its name.
            if !tools.iter().any(|known| known.name == tool.name) {
                tools.push(tool);
            }
        }
        Ok(ListToolsResult::with_all_items(tools))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        (name == ASK).then(ask_tool)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let caller = caller(&context)?;
        let ask = Ask {
            gateway: &self.gateway,
            caller: &caller,
            context: &context,
        };
        let answered = if request.name == ASK {
            let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
            let input: AskIn = serde_json::from_value(arguments)
                .map_err(|e| ErrorData::invalid_params(e.to_string(), None))?;
            ask.answer(input, &request).await.map(Some)
        } else {
            self.other(&ask, &request).await
        };
        match answered {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                let message = format!("there is no tool '{}'", request.name);
                Err(ErrorData::invalid_params(message, None))
            }
            Err(error) => Ok(told(&error).into()),
        }
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let caller = caller(&context)?;
        let smith = self.smith(&caller).await.map_err(|e| failed(&e))?;
        let resources = panels::resources(&smith);
        Ok(ListResourcesResult::with_all_items(resources))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let caller = caller(&context)?;
        let smith = self.smith(&caller).await.map_err(|e| failed(&e))?;
        let read = panels::read(&self.gateway, &smith, &request.uri).await;
        match read.map_err(|e| failed(&e))? {
            Some(contents) => Ok(ReadResourceResult::new(vec![contents]).into()),
            None => {
                let message = format!("there is no resource '{}'", request.uri);
                Err(ErrorData::resource_not_found(message, None))
            }
        }
    }
}
