//! What a smith offers to an MCP host: the tool `ask`.

use std::sync::Arc;

use http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};

use super::mcp::McpCaller;
use super::mcp_ask::{Ask, AskIn};
use crate::error::ApiError;
use crate::gateway::Gateway;

const ASK: &str = "ask";

/// One host's view of its smith.
pub struct SmithServer {
    gateway: Arc<Gateway>,
}

fn schema(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
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
}

impl ServerHandler for SmithServer {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("smithgate", env!("CARGO_PKG_VERSION"));
        info.instructions =
            Some("One assistant with instructions and a memory of its own: ask it.".to_owned());
        info
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(vec![ask_tool()]))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        (name == ASK).then(ask_tool)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if request.name != ASK {
            let message = format!("there is no tool '{}'", request.name);
            return Err(ErrorData::invalid_params(message, None));
        }
        let parts = context.extensions.get::<Parts>();
        let caller = parts.and_then(|parts| parts.extensions.get::<Arc<McpCaller>>().cloned());
        let caller =
            caller.ok_or_else(|| ErrorData::internal_error("the call has no caller", None))?;
        let arguments = Value::Object(request.arguments.clone().unwrap_or_default());
        let input: AskIn = serde_json::from_value(arguments)
            .map_err(|e| ErrorData::invalid_params(e.to_string(), None))?;
        let ask = Ask {
            gateway: &self.gateway,
            caller: &caller,
            context: &context,
        };
        let answered = ask.answer(input, &request).await;
        Ok(answered.unwrap_or_else(|error| told(&error).into()))
    }
}
