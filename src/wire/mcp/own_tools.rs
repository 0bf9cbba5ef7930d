//! A smith's own tools, called by an MCP host without its model: on a deployment of this smith
//! alone.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Tool, ToolAnnotations,
};
use serde_json::{Value, json};

use super::ask::{Ask, Leave};
use super::caller::McpCaller;
use super::schema::schema;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::ids;
use crate::model::{Part, Source, shown_text};
use crate::run::Effective;
use crate::store::{EventRow, Op};
use crate::tools::{News, Next, Output, ToolCall};

/// What a host may call.
pub async fn tools(
    gateway: &Gateway,
    caller: &McpCaller,
    smith: &Effective,
) -> Result<Vec<Tool>, ApiError> {
    if !caller.is_own {
        return Ok(Vec::new());
    }
    let set = gateway
        .tools
        .set(&caller.principal.tenant_id, &smith.smith.id, &smith.config)
        .await?;
    let tools = set.defs.iter().filter_map(|def| {
        let tool = set.tools.get(&def.name)?;
        let mut shown = Tool::new(
            def.name.clone(),
            def.description.clone().unwrap_or_default(),
            schema(def.parameters.clone()),
        );
        shown.annotations = Some(
            ToolAnnotations::new()
                .read_only(tool.repeatable && !tool.needs_approval)
                .destructive(tool.needs_approval),
        );
        Some(shown)
    });
    Ok(tools.collect())
}

/// Calls one; `None` when there is none of that name.
pub async fn call(
    ask: &Ask<'_>,
    smith: &Effective,
    request: &CallToolRequestParams,
) -> Result<Option<CallToolResponse>, ApiError> {
    let caller = ask.caller;
    if !caller.is_own {
        return Ok(None);
    }
    let gateway = ask.gateway;
    let tenant = &caller.principal.tenant_id;
    let set = gateway
        .tools
        .set(tenant, &smith.smith.id, &smith.config)
        .await?;
    let Some(tool) = set.tools.get(&*request.name) else {
        return Ok(None);
    };
    let arguments = request.arguments.clone().unwrap_or_default();
    if tool.asks_first(&arguments) {
        let shown = Value::Object(arguments.clone()).to_string();
        match ask.leave(&request.name, shown, request).await? {
            Leave::Given => {}
            Leave::Refused(why) => return Ok(Some(result(Output::error(why)).into())),
            Leave::Asked(answer) => return Ok(Some(answer)),
        }
    }
    let id = ids::mint(ids::Kind::Call);
    let data = |is_error: Option<bool>| {
        let mut data = json!({ "tool": tool.name, "tool_call_id": id, "run_id": null,
            "deployment_id": caller.deployment_id });
        if let Some(is_error) = is_error {
            data["is_error"] = json!(is_error);
        }
        data
    };
    let actor = caller.principal.actor();
    let tell = |kind: &str, data: &Value| {
        let event = EventRow::new(tenant, kind, Some(&caller.smith_id), data, Some(&actor));
        gateway.journal.append(Op::Event(Box::new(event)));
    };
    tell("tool.executing", &data(None));
    let who = smith.caller();
    let call = ToolCall {
        caller: who.clone(),
        run_id: String::new(),
        idempotency_key: id.clone(),
        tool_call_id: id.clone(),
        arguments,
    };
    // Dropped with the host's request, which ends the call at its server, too.
    let mut calling = gateway.tools.begin(tool, &call).await;
    let output = loop {
        let news = tokio::select! {
            news = gateway.tools.news(tool, &who, &mut calling) => news,
            () = ask.context.ct.cancelled() => {
                tell("tool.completed", &data(Some(true)));
                return Err(ApiError::conflict("run_cancelled", "the call was cancelled"));
            }
        };
        match news {
            News::Next(Next::Done(output)) => break output,
            News::Progress(mut progress) => {
                if let Some(token) = ask.context.meta.get_progress_token() {
                    progress.progress_token = token;
                    // A host that does not listen misses nothing but this.
                    let _ = ask.context.peer.notify_progress(progress).await;
                }
            }
            News::Next(Next::Asks(question)) => {
                let answer = ask.passed_on(question.message, question.schema).await;
                // The call may have ended meanwhile, which its next step tells.
                let _ = question.reply.send(answer);
            }
        }
    };
    tell("tool.completed", &data(Some(output.is_error)));
    Ok(Some(result(output).into()))
}

fn result(output: Output) -> CallToolResult {
    let block = |part: &Part| match part {
        Part::Text { text } => Some(ContentBlock::text(text.clone())),
        Part::Image {
            source: Source::Data { media_type, data },
            ..
        } => Some(ContentBlock::image(data.clone(), media_type.clone())),
        other if other.is_media() => {
            let shown = shown_text(std::slice::from_ref(other));
            Some(ContentBlock::text(shown.into_owned()))
        }
        _ => None,
    };
    let mut content: Vec<ContentBlock> = output.content.iter().filter_map(block).collect();
    if content.is_empty() {
        content.push(ContentBlock::text(""));
    }
    match output.is_error {
        true => CallToolResult::error(content),
        false => CallToolResult::success(content),
    }
}
