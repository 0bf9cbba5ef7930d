//! A Slack of the test's own, as strict as theirs, with what emulators lack: streams and Socket Mode.
//! A model that writes slowly is behind the same address.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::Message;

pub const BOT: &str = "xoxb-own";
pub const APP: &str = "xapp-own";
pub const TEAM: &str = "T1";

/// Of each text that is asked for by its name.
pub fn long_answer() -> String {
    let code: String = (0..150)
        .map(|n| format!("let line_{n} = {n} < 9;\n"))
        .collect();
    let words = "A sentence with **bold** words & a [link](https://example.com/a). ".repeat(40);
    format!("# Begin\n\n{words}\n\n```rust\n{code}```\n\nThe end.")
}

/// As models that make pictures say them.
fn picture() -> String {
    let data = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
    format!("Here it is.\n\n![a cat](data:image/png;base64,{data})\n\nDo you like it?")
}

#[derive(Debug, Clone, Default)]
pub struct Posted {
    pub text: String,
    pub thread: Option<String>,
    pub is_streaming: bool,
    pub was_stream: bool,
}

#[derive(Default)]
pub struct Platform {
    /// Method, token and body of each call.
    pub calls: Mutex<Vec<(String, String, Value)>>,
    /// What methods answer first, in turn.
    pub answers: Mutex<HashMap<String, VecDeque<(u16, Value)>>>,
    pub messages: Mutex<BTreeMap<String, Posted>>,
    pub has_streams: Mutex<bool>,
    pub file: Mutex<Vec<u8>>,
    /// Files that are to come or have come: name, length that was told, content.
    pub uploads: Mutex<Vec<(String, usize, Vec<u8>)>>,
    /// Envelopes that were acknowledged.
    pub acknowledged: Mutex<Vec<Value>>,
    pub sockets: Mutex<usize>,
    address: Mutex<Option<SocketAddr>>,
}

pub struct Slack {
    pub address: SocketAddr,
    pub platform: Arc<Platform>,
    push: broadcast::Sender<String>,
}

fn refusal(error: &str) -> (u16, Value) {
    (200, json!({ "ok": false, "error": error }))
}

fn token_of(headers: &HeaderMap) -> String {
    let value = headers.get("authorization").and_then(|v| v.to_str().ok());
    value
        .unwrap_or_default()
        .trim_start_matches("Bearer ")
        .to_owned()
}

async fn answer(
    State(platform): State<Arc<Platform>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().to_owned();
    let token = token_of(&headers);
    if path == "/llm/chat/completions" {
        return model(&body);
    }
    if path.starts_with("/files-pri/") {
        return match token == BOT {
            true => platform.file.lock().clone().into_response(),
            // As Slack does for those that may not: its page for signing in.
            false => ([("content-type", "text/html")], "<html>").into_response(),
        };
    }
    if let Some(number) = path.strip_prefix("/upload/v1/F") {
        let number: usize = number.parse().expect("a number");
        let mut uploads = platform.uploads.lock();
        uploads[number].2 = body.to_vec();
        return format!("OK - {}", body.len()).into_response();
    }
    if path == "/response" {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        platform
            .calls
            .lock()
            .push(("response".to_owned(), token, body));
        return "ok".into_response();
    }
    let Some(method) = path.strip_prefix("/api/") else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = headers.get("content-type").and_then(|v| v.to_str().ok());
    let body: Value = match kind {
        Some(kind) if kind.starts_with("application/json") => {
            serde_json::from_slice(&body).expect("JSON")
        }
        _ => url::form_urlencoded::parse(&body)
            .map(|(name, value)| (name.into_owned(), json!(value)))
            .collect(),
    };
    let call = (method.to_owned(), token.clone(), body.clone());
    platform.calls.lock().push(call);
    let first = platform
        .answers
        .lock()
        .get_mut(method)
        .and_then(VecDeque::pop_front);
    let (status, value) = match first {
        Some(first) => first,
        None => platform.call(method, &token, &body),
    };
    let status = StatusCode::from_u16(status).expect("a status");
    let mut response = (status, value.to_string()).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        let seconds = "1".parse().expect("a value");
        response.headers_mut().insert("retry-after", seconds);
    }
    response
}

impl Platform {
    fn call(&self, method: &str, token: &str, body: &Value) -> (u16, Value) {
        let word = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let is_app = method == "apps.connections.open";
        match (is_app, token) {
            _ if method == "oauth.v2.access" => {}
            (true, APP) | (false, BOT | "xoxb-other") => {}
            _ => return refusal("invalid_auth"),
        }
        let mut messages = self.messages.lock();
        let ts = word("ts");
        let long = word("text").encode_utf16().count() > 4000;
        let sections = body["blocks"].as_array().into_iter().flatten();
        let mut sections = sections.filter_map(|block| block["text"]["text"].as_str());
        if long || sections.any(|text| text.encode_utf16().count() > 3000) {
            return refusal("msg_too_long");
        }
        let answer = match method {
            "auth.test" => {
                json!({ "team_id": TEAM, "team": "Lab", "user_id": "UBOT", "bot_id": "B1" })
            }
            "users.info" => json!({ "user": { "profile": { "display_name": "Ann" } } }),
            "chat.postMessage" | "chat.startStream" => {
                let is_stream = method == "chat.startStream";
                let thread = body["thread_ts"].as_str().map(str::to_owned);
                if is_stream && !*self.has_streams.lock() {
                    return (404, json!({ "ok": false, "error": "unknown_method" }));
                }
                if is_stream && (thread.is_none() || !body["recipient_user_id"].is_string()) {
                    return refusal("invalid_arguments");
                }
                if !word("channel").starts_with(['C', 'D', 'U']) {
                    return refusal("channel_not_found");
                }
                let text = word(if is_stream { "markdown_text" } else { "text" });
                if text.is_empty() {
                    return refusal("no_text");
                }
                let ts = format!("1800000000.{:06}", messages.len());
                let posted = Posted {
                    text,
                    thread,
                    is_streaming: is_stream,
                    was_stream: is_stream,
                };
                messages.insert(ts.clone(), posted);
                json!({ "channel": body["channel"], "ts": ts })
            }
            "chat.appendStream" | "chat.stopStream" | "chat.update" | "chat.delete" => {
                let Some(posted) = messages.get_mut(&ts) else {
                    return refusal("message_not_found");
                };
                match (method, posted.is_streaming) {
                    ("chat.appendStream", true) => posted.text.push_str(&word("markdown_text")),
                    ("chat.stopStream", true) => posted.is_streaming = false,
                    ("chat.update", false) => posted.text = word("text"),
                    ("chat.delete", false) => drop(messages.remove(&ts)),
                    ("chat.update" | "chat.delete", true) => {
                        return refusal("streaming_state_conflict");
                    }
                    _ => return refusal("message_not_in_streaming_state"),
                }
                json!({ "ts": ts, "channel": body["channel"] })
            }
            "chat.postEphemeral" | "assistant.threads.setStatus" => json!({}),
            "views.open" => match body["view"]["blocks"].as_array() {
                Some(blocks) if !blocks.is_empty() && !word("trigger_id").is_empty() => json!({}),
                _ => return refusal("invalid_arguments"),
            },
            "files.getUploadURLExternal" => {
                let length = word("length").parse().unwrap_or(0);
                if length == 0 || word("filename").is_empty() {
                    return refusal("invalid_arguments");
                }
                let mut uploads = self.uploads.lock();
                let id = format!("F{}", uploads.len());
                uploads.push((word("filename"), length, Vec::new()));
                let address = self.address.lock().expect("an address");
                json!({ "upload_url": format!("http://{address}/upload/v1/{id}"), "file_id": id })
            }
            "files.completeUploadExternal" => {
                // Unlike messages, files go to channels alone.
                if !word("channel_id").starts_with(['C', 'D']) {
                    return refusal("channel_not_found");
                }
                let uploads = self.uploads.lock();
                let files = body["files"].as_array().expect("files");
                let is_whole = |file: &Value| {
                    let id = file["id"].as_str().unwrap_or_default();
                    let number: usize = id[1..].parse().expect("a number");
                    let (_, length, content) = &uploads[number];
                    content.len() == *length
                };
                if !files.iter().all(is_whole) {
                    return refusal("file_not_found");
                }
                json!({ "files": files })
            }
            "apps.connections.open" => {
                let address = self.address.lock().expect("an address");
                json!({ "url": format!("ws://{address}/link?ticket=secret") })
            }
            "oauth.v2.access" => {
                // Client id and secret as `1.2:cs`.
                if !token.ends_with("MS4yOmNz") {
                    return refusal("invalid_client_id");
                }
                // A refresh token counts once.
                let is_new = self
                    .calls
                    .lock()
                    .iter()
                    .filter(|call| call.2 == *body)
                    .count()
                    == 1;
                match (
                    word("code").as_str(),
                    word("refresh_token").as_str(),
                    is_new,
                ) {
                    ("good", "", _) => json!({ "access_token": "xoxb-first", "app_id": "A1",
                        "bot_user_id": "UBOT2", "scope": "chat:write", "expires_in": 60,
                        "refresh_token": "xoxe-1", "team": { "id": "T2", "name": "Other" },
                        "authed_user": { "id": "U9" } }),
                    ("", "xoxe-1", true) => json!({ "access_token": "xoxb-other",
                        "refresh_token": "xoxe-2", "expires_in": 43_200 }),
                    ("", ..) => return refusal("invalid_refresh_token"),
                    _ => return refusal("invalid_code"),
                }
            }
            _ => return (404, json!({ "ok": false, "error": "unknown_method" })),
        };
        let mut answer = answer;
        answer["ok"] = json!(true);
        (200, answer)
    }
}

/// Writes the answer that is asked for, slowly.
fn model(body: &[u8]) -> Response {
    let body: Value = serde_json::from_slice(body).expect("JSON");
    let asked = body["messages"]
        .as_array()
        .and_then(|all| all.last())
        .expect("one");
    let asked = match &asked["content"] {
        Value::Array(parts) => parts[0]["text"].as_str().unwrap_or_default().to_owned(),
        text => text.as_str().unwrap_or_default().to_owned(),
    };
    let text = match asked.as_str() {
        asked if asked.contains("long") => long_answer(),
        asked if asked.contains("picture") => picture(),
        asked => format!("You said *{asked}*"),
    };
    let delta = |delta: Value, end: Value| {
        let chunk = json!({ "id": "x", "model": "m",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": end }] });
        format!("data: {chunk}\n\n")
    };
    let letters: Vec<char> = text.chars().collect();
    let mut events: Vec<String> = letters
        .chunks(letters.len().div_ceil(8))
        .map(|piece| {
            delta(
                json!({ "content": piece.iter().collect::<String>() }),
                Value::Null,
            )
        })
        .collect();
    events.push(format!(
        "{}data: [DONE]\n\n",
        delta(json!({}), json!("stop"))
    ));
    let pause = match asked.contains("slow") {
        true => Duration::from_millis(800),
        false => Duration::ZERO,
    };
    let stream = futures_util::stream::iter(events).then(move |event| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, Infallible>(event)
    });
    (
        [("content-type", "text/event-stream")],
        Body::from_stream(stream),
    )
        .into_response()
}

/// A connection of Socket Mode: says hello, passes on what is pushed, notes what is acknowledged.
async fn link(platform: Arc<Platform>, stream: TcpStream, mut pushed: broadcast::Receiver<String>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else {
        return;
    };
    *platform.sockets.lock() += 1;
    let hello = json!({ "type": "hello", "num_connections": 1 });
    let _ = socket.send(Message::text(hello.to_string())).await;
    loop {
        tokio::select! {
            push = pushed.recv() => {
                let Ok(push) = push else { return };
                if socket.send(Message::text(push)).await.is_err() {
                    return;
                }
            }
            heard = socket.next() => match heard {
                Some(Ok(Message::Text(text))) => {
                    let heard = serde_json::from_str(text.as_str()).expect("JSON");
                    platform.acknowledged.lock().push(heard);
                }
                Some(Ok(_)) => {}
                _ => return,
            },
        }
    }
}

impl Slack {
    pub async fn start() -> Self {
        let platform = Arc::new(Platform::default());
        let inner = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let web = inner.local_addr().expect("an address");
        let app = Router::new().fallback(answer).with_state(platform.clone());
        tokio::spawn(async move { axum::serve(inner, app).await });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        *platform.address.lock() = Some(address);
        let (push, _) = broadcast::channel(100);
        let (shared, pushes) = (platform.clone(), push.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (platform, pushed) = (shared.clone(), pushes.subscribe());
                tokio::spawn(async move {
                    let mut first = [0u8; 9];
                    while stream.peek(&mut first).await.is_ok_and(|n| n > 0 && n < 9) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    if &first == b"GET /link" {
                        return link(platform, stream, pushed).await;
                    }
                    let mut web = TcpStream::connect(web).await.expect("connected");
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut web).await;
                });
            }
        });
        Self {
            address,
            platform,
            push,
        }
    }

    /// Sends an envelope to those that listen.
    pub fn push(&self, envelope: &Value) {
        self.push
            .send(envelope.to_string())
            .expect("somebody listens");
    }

    pub fn calls(&self, method: &str) -> Vec<Value> {
        let calls = self.platform.calls.lock();
        let found = calls.iter().filter(|(name, ..)| name == method);
        found.map(|(_, _, body)| body.clone()).collect()
    }

    pub fn answer(&self, method: &str, status: u16, value: Value) {
        let mut answers = self.platform.answers.lock();
        let answers = answers.entry(method.to_owned()).or_default();
        answers.push_back((status, value));
    }

    /// Waits until a message says something: what is shown before that is a part of it.
    pub async fn shows(&self, text: &str) {
        for _ in 0..300 {
            let is_there = |posted: &Posted| posted.text == text;
            if self.platform.messages.lock().values().any(is_there) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nothing says {text}");
    }

    /// Waits until a method was called so often.
    pub async fn wait(&self, method: &str, count: usize) -> Vec<Value> {
        for _ in 0..300 {
            let calls = self.calls(method);
            if calls.len() >= count {
                return calls;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let all = self.platform.calls.lock().clone();
        panic!("{method} was not called {count} times: {all:#?}");
    }
}
