//! The demo: a scripted model behind a real socket, speaking Chat Completions, so that a first
//! call needs no key and no account. Every byte takes the way that a real provider's would.
//!
//! Lives here: the script, its server, the demo's smith and greeting. May import everything.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::stream;
use serde_json::{Value, json};

use crate::config::{Config, Provider, ProviderWire};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::ids;
use crate::store::now_seconds;
use crate::store::{AgentConfig, AgentRow, Overrides, SmithProfile, SmithRow, now_micros};

/// The provider's name in model ids: `demo/echo`.
pub const PROVIDER: &str = "demo";
const MODEL: &str = "demo/echo";
const PAUSE: Duration = Duration::from_millis(30);

/// A running demo provider; ends when dropped.
pub struct Demo(tokio::task::JoinHandle<()>);

impl Drop for Demo {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Starts the scripted provider and adds it to `config`.
pub async fn start(config: &mut Config) -> std::io::Result<Demo> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let base_url = format!("http://{}/v1", listener.local_addr()?);
    if config.data_dir == Config::default().data_dir {
        config.data_dir = config.data_dir.join("demo");
    }
    config.providers.insert(
        PROVIDER.to_owned(),
        Provider {
            wire: ProviderWire::OpenaiChat,
            base_url,
            api_key: None,
            needs_key: false,
            models: vec!["echo".to_owned()],
            stream_usage: true,
            auth_header: None,
            rules: Vec::new(),
            responses: false,
            keys_of: None,
        },
    );
    config
        .models
        .default
        .get_or_insert_with(|| MODEL.to_owned());
    let app = Router::new().route("/v1/chat/completions", post(answer));
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "the demo provider ended");
        }
    });
    Ok(Demo(server))
}

/// What the script says to a conversation.
fn script(request: &Value) -> String {
    let messages = request["messages"].as_array().cloned().unwrap_or_default();
    let text_of = |message: &Value| match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|p| p["text"].as_str()).collect(),
        _ => String::new(),
    };
    let users: Vec<String> = messages
        .iter()
        .filter(|m| m["role"] == "user")
        .map(text_of)
        .collect();
    let said = users.last().map(String::as_str).unwrap_or_default();
    let before = users.len().saturating_sub(1);
    let instructions = messages.iter().find(|m| m["role"] == "system").map(text_of);
    let mut reply = format!("You said: \"{said}\". I am a scripted model inside Smithgate.");
    match before {
        0 => {}
        1 => reply.push_str(" I remember one message of yours before this one."),
        n => reply.push_str(&format!(
            " I remember {n} messages of yours before this one."
        )),
    }
    if let Some(instructions) = instructions {
        reply.push_str(&format!(" My instructions: {instructions}"));
    }
    reply
}

async fn answer(Json(request): Json<Value>) -> Response {
    let reply = script(&request);
    let words: Vec<String> = reply.split_inclusive(' ').map(str::to_owned).collect();
    let input = request["messages"].to_string().len() as u64 / 4;
    let usage = json!({
        "prompt_tokens": input,
        "completion_tokens": words.len(),
        "total_tokens": input + words.len() as u64,
    });
    let id = format!("chatcmpl-{}", ids::mint_request_id());
    let model = request["model"].clone();
    if request["stream"] != true {
        return Json(json!({
            "id": id,
            "object": "chat.completion",
            "created": now_seconds(),
            "model": model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": reply },
                "finish_reason": "stop",
            }],
            "usage": usage,
        }))
        .into_response();
    }
    let chunk = |choices: Value, usage: Value| {
        let body = json!({
            "id": id,
            "object": "chat.completion.chunk",
            "created": now_seconds(),
            "model": model,
            "choices": choices,
            "usage": usage,
        });
        Bytes::from(format!("data: {body}\n\n"))
    };
    let delta = |delta: Value, reason: Value| {
        chunk(
            json!([{ "index": 0, "delta": delta, "finish_reason": reason }]),
            Value::Null,
        )
    };
    let mut chunks = vec![delta(
        json!({ "role": "assistant", "content": "" }),
        Value::Null,
    )];
    chunks.extend(
        words
            .iter()
            .map(|word| delta(json!({ "content": word }), Value::Null)),
    );
    chunks.push(delta(json!({}), json!("stop")));
    if request["stream_options"]["include_usage"] == true {
        chunks.push(chunk(json!([]), usage));
    }
    chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
    let paced = stream::unfold(chunks.into_iter(), |mut rest| async move {
        let next = rest.next()?;
        tokio::time::sleep(PAUSE).await;
        Some((Ok::<_, Infallible>(next), rest))
    });
    let kind = [(http::header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from_stream(paced)).into_response()
}

/// The demo's smith, made when missing.
pub async fn smith(gateway: &Arc<Gateway>) -> Result<String, ApiError> {
    let store = &gateway.store;
    let tenant = store
        .first_tenant()
        .await?
        .ok_or_else(|| ApiError::internal("a started gateway has a tenant"))?;
    let now = now_micros();
    let agent = store
        .default_agent(&AgentRow {
            id: ids::mint(ids::Kind::Agent),
            tenant_id: tenant.id.clone(),
            slug: None,
            name: "Default agent".to_owned(),
            is_default: true,
            draft: AgentConfig::default(),
            active_version: None,
            rollout_version: None,
            rollout_percent: 0,
            created_at: now,
            updated_at: now,
        })
        .await?;
    let instructions = json!("Be kind and brief.");
    let (smith, _) = store
        .upsert_smith(&SmithRow {
            id: ids::mint(ids::Kind::Smith),
            tenant_id: tenant.id,
            agent_id: agent.id,
            external_id: Some("demo".to_owned()),
            profile: SmithProfile::default(),
            customer_id: None,
            pin: None,
            overrides: Overrides([("instructions".to_owned(), instructions)].into()),
            created_at: now,
        })
        .await?;
    Ok(smith.id)
}

/// What the demo prints.
pub fn greeting(listen: &str, token_file: &str, token: &str, smith: &str) -> String {
    format!(
        "Smithgate runs its demo on http://{listen}/v1 with a scripted model: no key, no account.\n\
         \n\
         The admin token is in {token_file}:\n  {token}\n\
         A smith to talk to: {smith}\n\
         \n\
         Try it in another terminal:\n\
         \n\
         curl -N http://{listen}/v1/chat/completions \\\n\
         \x20 -H \"Authorization: Bearer $(cat {token_file})\" \\\n\
         \x20 -H 'Content-Type: application/json' \\\n\
         \x20 -d '{{\"model\":\"{MODEL}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hello!\"}}]}}'\n\
         \n\
         With memory, as the smith: add -H 'IC-Smith-Id: {smith}' -H 'IC-Thread-Id: my-thread'\n\
         and leave the model empty."
    )
}
