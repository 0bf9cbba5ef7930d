//! A scripted model provider on a raw socket: it answers with fixtures byte for byte, and can
//! misbehave in every way that a TCP peer can.
//!
//! The model's name says what to answer: `text` plays `fixtures/<wire>/text.sse` (or `.json`),
//! `loop` asks for tools until it is given a result, `fault-<name>` misbehaves, `flaky-<n>` is
//! overloaded n times, `status-<code>` answers with that status, `quirk-<case>` answers what the case
//! of `fixtures/quirks` says (`quirk-<case>.drip` in small pieces). Embeddings are made of a text's
//! words, so that texts with words in common are near.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A request that the provider got.
#[derive(Debug, Clone)]
pub struct Got {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

#[derive(Default)]
struct Shared {
    got: Mutex<Vec<Got>>,
    /// Connections that the gateway closed while an answer was under way.
    hung_up: AtomicUsize,
    hang_up: Notify,
    /// How often each `flaky-` model was asked, by its whole name.
    flaky: Mutex<HashMap<String, usize>>,
    /// Bytes of a torrent that the gateway has taken.
    sent: AtomicUsize,
}

/// The provider.
#[derive(Clone)]
pub struct Mock {
    pub port: u16,
    shared: Arc<Shared>,
}

pub fn fixture(wire: &str, name: &str, kind: &str) -> Option<Vec<u8>> {
    let root = env!("CARGO_MANIFEST_DIR");
    std::fs::read(format!("{root}/tests/fixtures/{wire}/{name}.{kind}")).ok()
}

impl Mock {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let mock = Self {
            port: listener.local_addr().expect("an address").port(),
            shared: Arc::default(),
        };
        let shared = mock.shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        mock
    }

    pub fn url(&self, wire: &str) -> String {
        format!("http://127.0.0.1:{}/{wire}", self.port)
    }

    pub fn got(&self) -> Vec<Got> {
        self.shared.got.lock().clone()
    }

    pub fn last(&self) -> Got {
        self.got().pop().expect("a request")
    }

    pub fn bytes_sent(&self) -> usize {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Waits until a request has come.
    pub async fn wait_for_request(&self) {
        for _ in 0..2_000 {
            if !self.shared.got.lock().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("no request came");
    }

    /// Waits until the gateway has closed a connection in mid-answer.
    pub async fn wait_for_hang_up(&self, within: Duration) -> bool {
        tokio::time::timeout(within, async {
            while self.shared.hung_up.load(Ordering::SeqCst) == 0 {
                let _ =
                    tokio::time::timeout(Duration::from_millis(5), self.shared.hang_up.notified())
                        .await;
            }
        })
        .await
        .is_ok()
    }
}

async fn read_request(stream: &mut TcpStream, buf: &mut Vec<u8>) -> Option<Got> {
    let head_end = loop {
        if let Some(at) = memchr::memmem::find(buf, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buf).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buf[..head_end]).into_owned();
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse::<usize>().ok())
        .unwrap_or(0);
    while buf.len() < head_end + length {
        if stream.read_buf(buf).await.ok()? == 0 {
            return None;
        }
    }
    let body = serde_json::from_slice(&buf[head_end..head_end + length]).unwrap_or_default();
    buf.drain(..head_end + length);
    Some(Got {
        path,
        headers,
        body,
    })
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut buf = Vec::new();
    while let Some(got) = read_request(&mut stream, &mut buf).await {
        shared.got.lock().push(got.clone());
        if answer(&mut stream, &got, &shared).await.is_none() {
            return;
        }
    }
}

async fn write_answer(
    stream: &mut TcpStream,
    status: &str,
    kind: &str,
    extra: &str,
    body: &[u8],
) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{extra}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body).await.ok()
}

/// What is told beside a good answer.
const BESIDE: &str = "x-ratelimit-remaining-tokens: 149984\r\nx-request-id: req_of_provider\r\n\
    set-cookie: provider=1\r\nopenai-processing-ms: 12\r\n";

async fn start_stream(stream: &mut TcpStream) -> Option<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{BESIDE}transfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.ok()
}

async fn chunk(stream: &mut TcpStream, body: &[u8]) -> Option<()> {
    let mut out = format!("{:x}\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
    stream.write_all(&out).await.ok()
}

async fn end_stream(stream: &mut TcpStream) -> Option<()> {
    stream.write_all(b"0\r\n\r\n").await.ok()
}

/// Waits until the gateway closes the connection, and notes it.
async fn until_hung_up(stream: &mut TcpStream, shared: &Shared) -> Option<()> {
    let mut byte = [0u8; 1];
    while stream.read(&mut byte).await.is_ok_and(|n| n > 0) {}
    shared.hung_up.fetch_add(1, Ordering::SeqCst);
    shared.hang_up.notify_waiters();
    None
}

async fn answer(stream: &mut TcpStream, got: &Got, shared: &Arc<Shared>) -> Option<()> {
    let (wire, rest) = got.path.trim_start_matches('/').split_once('/')?;
    let (model, streamed) = match wire {
        "gemini" => {
            let name = rest.split(['/', ':']).nth(1)?.replace("%40", "@");
            (name, rest.contains("streamGenerateContent"))
        }
        _ => (
            got.body["model"].as_str()?.to_owned(),
            got.body["stream"] == true,
        ),
    };
    // `gemini-3-text` plays the fixture `text` under a name that looks like a real one.
    let whole_name = format!("{wire}/{model}");
    let model = model
        .rsplit_once('@')
        .map_or(model.as_str(), |(name, _)| name);
    if let Some(case) = model.strip_prefix("quirk-") {
        return play_quirk(stream, wire, case, streamed).await;
    }
    if let Some(code) = model.strip_prefix("status-") {
        let extra = if matches!(code, "429" | "503") {
            "retry-after: 1\r\nx-ratelimit-remaining-tokens: 0\r\nx-request-id: req_of_failure\r\n"
        } else {
            ""
        };
        let body =
            format!("{{\"error\":{{\"message\":\"the provider says {code}\",\"type\":\"x\"}}}}");
        return write_answer(
            stream,
            &format!("{code} X"),
            "application/json",
            extra,
            body.as_bytes(),
        )
        .await;
    }
    if let Some(times) = model.strip_prefix("flaky-") {
        let times: usize = times.parse().ok()?;
        let asked = {
            let mut flaky = shared.flaky.lock();
            let asked = flaky.entry(whole_name).or_default();
            *asked += 1;
            *asked
        };
        if asked <= times {
            let extra = "retry-after: 1\r\n";
            return write_answer(
                stream,
                "429 X",
                "application/json",
                extra,
                b"{\"error\":{\"message\":\"slow down\"}}",
            )
            .await;
        }
        if !rest.to_lowercase().contains("embed") {
            return play(stream, wire, "text", streamed).await;
        }
    }
    if rest == "messages/count_tokens" {
        let body = br#"{"input_tokens":42}"#;
        return write_answer(stream, "200 OK", "application/json", "", body).await;
    }
    if rest.ends_with(":countTokens") {
        let body = br#"{"totalTokens":42}"#;
        return write_answer(stream, "200 OK", "application/json", "", body).await;
    }
    if rest == "embeddings" {
        let body = openai_embeddings(&got.body).to_string();
        return write_answer(stream, "200 OK", "application/json", "", body.as_bytes()).await;
    }
    if rest.ends_with(":batchEmbedContents") {
        let requests = got.body["requests"].as_array()?.iter();
        let texts = requests.map(|r| {
            r["content"]["parts"][0]["text"]
                .as_str()
                .unwrap_or_default()
        });
        let vectors: Vec<Value> = texts
            .map(|t| json!({ "values": words_vector(t) }))
            .collect();
        let body = json!({ "embeddings": vectors }).to_string();
        return write_answer(stream, "200 OK", "application/json", "", body.as_bytes()).await;
    }
    if model == "script" && wire == "openai_chat" {
        return play_script(stream, &got.body, streamed).await;
    }
    // Asks for tools until it is given a result.
    let model = match model {
        "loop" if has_tool_result(&got.body) => "text",
        "loop" => "tools",
        other => other,
    };
    if let Some(fault) = model.strip_prefix("fault-") {
        return misbehave(stream, wire, fault, shared).await;
    }
    play(stream, wire, model, streamed).await
}

/// A vector of a text's words; `automobile` means what `car` means.
fn words_vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0; 64];
    let words = text.split(|c: char| !c.is_alphanumeric());
    for word in words.filter(|word| !word.is_empty()) {
        let word = match word.to_lowercase().as_str() {
            "automobile" => "car".to_owned(),
            other => other.to_owned(),
        };
        let hash = word
            .bytes()
            .fold(7_usize, |h, b| h * 31 % 1_000_003 + b as usize);
        vector[hash % 64] += 1.0;
    }
    vector
}

fn openai_embeddings(body: &Value) -> Value {
    use base64::Engine;
    let inputs = match &body["input"] {
        Value::Array(inputs) if inputs.iter().all(Value::is_string) => inputs.clone(),
        one => vec![one.clone()],
    };
    // `embed-wide` has vectors of four times the length.
    let times = if body["model"] == "embed-wide" { 4 } else { 1 };
    let vector_of = |text: &str| words_vector(text).repeat(times);
    let encoded = |text: &str| {
        let bytes: Vec<u8> = vector_of(text)
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect();
        base64::engine::general_purpose::STANDARD.encode(bytes)
    };
    let vectors = inputs
        .iter()
        .map(|input| input.as_str().unwrap_or_default());
    let data: Vec<Value> = vectors
        .enumerate()
        .map(|(index, text)| match body["encoding_format"].as_str() {
            Some("base64") => {
                json!({ "object": "embedding", "index": index, "embedding": encoded(text) })
            }
            _ => json!({ "object": "embedding", "index": index, "embedding": vector_of(text) }),
        })
        .collect();
    let tokens = inputs.len() * 3;
    json!({ "object": "list", "model": body["model"], "data": data,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens } })
}

/// Answers with a fixture.
async fn play(stream: &mut TcpStream, wire: &str, name: &str, streamed: bool) -> Option<()> {
    let kind = if streamed { "sse" } else { "json" };
    let body =
        fixture(wire, name, kind).unwrap_or_else(|| panic!("no fixture {wire}/{name}.{kind}"));
    if streamed {
        start_stream(stream).await?;
        chunk(stream, &body).await?;
        return end_stream(stream).await;
    }
    write_answer(stream, "200 OK", "application/json", BESIDE, &body).await
}

/// Answers what a case says.
async fn play_quirk(stream: &mut TcpStream, wire: &str, case: &str, streamed: bool) -> Option<()> {
    let (name, drips) = match case.strip_suffix(".drip") {
        Some(name) => (name, true),
        None => (case, false),
    };
    let played = crate::quirks::answer_of(name, wire, streamed);
    let kind = match played.streamed {
        true => "text/event-stream",
        false => "application/json",
    };
    let mut head = format!("HTTP/1.1 {} X\r\n", played.status);
    let mut header = |name: &str, value: &str| head.push_str(&format!("{name}: {value}\r\n"));
    if !played.headers.contains_key("content-type") {
        header("content-type", kind);
    }
    for (name, value) in &played.headers {
        header(name, value);
    }
    if !played.streamed {
        header("content-length", &played.body.len().to_string());
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        return stream.write_all(&played.body).await.ok();
    }
    header("transfer-encoding", "chunked");
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.ok()?;
    let size = if drips { 7 } else { usize::MAX };
    for piece in played.body.chunks(size.min(played.body.len().max(1))) {
        chunk(stream, piece).await?;
        if drips {
            tokio::task::yield_now().await;
        }
    }
    match played.cut {
        true => None,
        false => end_stream(stream).await,
    }
}

/// Calls what the last user's message names, one `name {arguments}` on each line, then tells the
/// results; a line that names no tool is said.
async fn play_script(stream: &mut TcpStream, body: &Value, streamed: bool) -> Option<()> {
    let messages = body["messages"].as_array()?;
    let asked = messages.iter().rposition(|m| m["role"] == "user")?;
    let text = |message: &Value| match &message["content"] {
        Value::Array(parts) => parts
            .iter()
            .filter_map(|p| p["text"].as_str())
            .collect::<String>(),
        one => one.as_str().unwrap_or_default().to_owned(),
    };
    let known: Vec<&str> = body["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|tool| tool["function"]["name"].as_str())
        .collect();
    let results: Vec<String> = messages[asked..]
        .iter()
        .filter(|m| m["role"] == "tool")
        .map(text)
        .collect();
    let script = text(&messages[asked]);
    // Groups of calls are set apart by a line of dashes; each is one turn of the model.
    let turns = messages[asked + 1..]
        .iter()
        .filter(|m| m["role"] == "assistant" && m["tool_calls"].is_array())
        .count();
    let group = script.split("---").nth(turns).unwrap_or_default();
    let (mut said, mut calls) = (String::new(), Vec::new());
    for line in group.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
        if known.contains(&name) || arguments.starts_with('{') {
            let id = format!("call_{turns}_{}", calls.len());
            calls.push(json!({ "index": calls.len(), "id": id, "type": "function",
                "function": { "name": name, "arguments": arguments } }));
        } else {
            said.push_str(line);
        }
    }
    if calls.is_empty() {
        said = format!("Results: {}", results.join(" | "));
    }
    let stop = if calls.is_empty() {
        "stop"
    } else {
        "tool_calls"
    };
    let usage = json!({ "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 });
    let mut message = json!({ "role": "assistant", "content": said });
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    let head = json!({ "id": "chatcmpl-s", "object": "chat.completion", "created": 1,
        "model": "script" });
    let with = |choices: Value, usage: Value| {
        let mut chunk = head.clone();
        chunk["choices"] = choices;
        chunk["usage"] = usage;
        chunk
    };
    if !streamed {
        let choice = json!([{ "index": 0, "message": message, "finish_reason": stop }]);
        let whole = with(choice, usage).to_string();
        return write_answer(stream, "200 OK", "application/json", "", whole.as_bytes()).await;
    }
    start_stream(stream).await?;
    let delta = json!([{ "index": 0, "delta": message, "finish_reason": null }]);
    let end = json!([{ "index": 0, "delta": {}, "finish_reason": stop }]);
    let events = format!(
        "data: {}\n\ndata: {}\n\ndata: {}\n\ndata: [DONE]\n\n",
        with(delta, Value::Null),
        with(end, Value::Null),
        with(json!([]), usage)
    );
    chunk(stream, events.as_bytes()).await?;
    end_stream(stream).await
}

/// Whether a request carries a tool's result, in any wire.
fn has_tool_result(body: &Value) -> bool {
    let text = body.to_string();
    [
        r#""role":"tool""#,
        r#""tool_result""#,
        r#""functionResponse""#,
        r#""function_call_output""#,
    ]
    .iter()
    .any(|mark| text.contains(mark))
}

async fn misbehave(
    stream: &mut TcpStream,
    wire: &str,
    fault: &str,
    shared: &Arc<Shared>,
) -> Option<()> {
    let text = fixture(wire, "text", "sse")?;
    match fault {
        // Closes before any answer.
        "early" => None,
        // Resets in mid-stream, after a whole event.
        "reset" => {
            start_stream(stream).await?;
            chunk(stream, &text[..text.len() * 2 / 3]).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ = stream.set_zero_linger();
            None
        }
        // Ends cleanly as HTTP, but in the middle of the answer, inside an event.
        "half" => {
            start_stream(stream).await?;
            chunk(stream, &text[..text.len() * 2 / 3]).await?;
            end_stream(stream).await
        }
        // Begins and says nothing more.
        "stall" => {
            start_stream(stream).await?;
            chunk(stream, &text[..text.len() * 2 / 3]).await?;
            until_hung_up(stream, shared).await
        }
        // Keeps the connection alive, and says nothing: from the beginning, or from the middle on.
        "comments" | "comments-late" => {
            start_stream(stream).await?;
            if fault == "comments-late" {
                chunk(stream, &text[..text.len() * 2 / 3]).await?;
                chunk(stream, b"\n\n").await?;
            }
            while chunk(stream, b": still here\n\n").await.is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            None
        }
        // Never answers.
        "silent" => until_hung_up(stream, shared).await,
        // One endless line.
        "flood" => {
            start_stream(stream).await?;
            chunk(stream, b"data: ").await?;
            let block = vec![b'x'; 1 << 20];
            for _ in 0..64 {
                if chunk(stream, &block).await.is_none() {
                    break;
                }
            }
            None
        }
        "malformed" => {
            start_stream(stream).await?;
            chunk(stream, b"data: {\"id\":\n\ndata: nonsense\n\n").await?;
            end_stream(stream).await
        }
        // A slow answer, word by word, for ever.
        "endless" => {
            start_stream(stream).await?;
            let head: Vec<u8> = text
                .split_inclusive(|b| *b == b'\n')
                .take(2)
                .flatten()
                .copied()
                .collect();
            if wire != "openai_chat" {
                chunk(stream, &head).await?;
            }
            loop {
                let event = b"data: {\"id\":\"x\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"},\"finish_reason\":null}]}\n\n";
                if chunk(stream, event).await.is_none() {
                    shared.hung_up.fetch_add(1, Ordering::SeqCst);
                    shared.hang_up.notify_waiters();
                    return None;
                }
                let mut byte = [0u8; 1];
                match tokio::time::timeout(Duration::from_millis(10), stream.read(&mut byte)).await
                {
                    Err(_) => {}
                    Ok(_) => {
                        shared.hung_up.fetch_add(1, Ordering::SeqCst);
                        shared.hang_up.notify_waiters();
                        return None;
                    }
                }
            }
        }
        // Much text as fast as it can: 32 MiB.
        "torrent" => {
            start_stream(stream).await?;
            let event = format!(
                "data: {{\"id\":\"x\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}},\"finish_reason\":null}}]}}\n\n",
                "~".repeat(16 * 1024)
            );
            for _ in 0..2048 {
                chunk(stream, event.as_bytes()).await?;
                shared.sent.fetch_add(event.len(), Ordering::SeqCst);
            }
            chunk(stream, b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n").await?;
            end_stream(stream).await
        }
        // An error event inside a 200 stream.
        "in-stream" => {
            start_stream(stream).await?;
            chunk(stream, b"data: {\"id\":\"x\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n").await?;
            tokio::time::sleep(Duration::from_millis(30)).await;
            chunk(stream, b"data: {\"error\":{\"message\":\"the engine is on fire\",\"type\":\"server_error\"}}\n\n").await?;
            end_stream(stream).await
        }
        // An event at a time, with time between them; slower where a person's page is reloaded
        // meanwhile.
        "slow" | "slower" => {
            let pause = Duration::from_millis(if fault == "slow" { 150 } else { 500 });
            start_stream(stream).await?;
            let text = String::from_utf8_lossy(&text).into_owned();
            for event in text.split_inclusive("\n\n") {
                chunk(stream, event.as_bytes()).await?;
                tokio::time::sleep(pause).await;
            }
            end_stream(stream).await
        }
        // One byte at a time.
        "drip" => {
            start_stream(stream).await?;
            for byte in text.chunks(1) {
                chunk(stream, byte).await?;
            }
            end_stream(stream).await
        }
        other => panic!("no fault '{other}'"),
    }
}
