//! MCP servers as they are: each file of `fixtures/mcp_quirks` is a server that departs from the
//! protocol in one way, and what must come of it, through a registration and a real run.
//!
//! A server does as it should where no rule says otherwise. A rule is for a JSON-RPC `message`, an
//! `http` method, a `path` or requests `with` a header, for the first `times` if it says so; it
//! answers with `status`, `type`, `headers` and a `body`, `json`, `events` or `chunks` (a number is a
//! pause in milliseconds), and then `hang`s if it says so. `$id`, `$idtext`, `$init`, `$call` and
//! `$origin` stand for the request's id, whole answers and the server's address.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Harness, ok};

#[derive(Deserialize)]
struct Case {
    about: String,
    #[serde(default = "yes")]
    session: bool,
    secret: Option<String>,
    rules: Vec<Rule>,
    expect: Expect,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Rule {
    message: Option<String>,
    http: Option<String>,
    path: Option<String>,
    with: Option<String>,
    times: Option<usize>,
    status: Option<u16>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    headers: HashMap<String, String>,
    body: Option<String>,
    json: Option<Value>,
    #[serde(default)]
    pretty: bool,
    #[serde(default)]
    prefix: String,
    events: Option<Vec<Value>>,
    chunks: Option<Vec<Value>>,
    #[serde(default)]
    hang: bool,
}

#[derive(Deserialize)]
struct Expect {
    tools: Option<Vec<String>>,
    said: Option<String>,
    #[serde(default)]
    error: Vec<String>,
    #[serde(default)]
    error_lacks: Vec<String>,
    #[serde(default)]
    answers_ping: bool,
}

struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Value,
}

async fn read(stream: &mut TcpStream, buf: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = memchr::memmem::find(buf, b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buf).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buf[..end]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|l| l.parse().ok());
    let length: usize = length.unwrap_or(0);
    while buf.len() < end + length {
        if stream.read_buf(buf).await.ok()? == 0 {
            return None;
        }
    }
    let body = serde_json::from_slice(&buf[end..end + length]).unwrap_or_default();
    buf.drain(..end + length);
    Some(Request {
        method,
        path,
        headers,
        body,
    })
}

struct Server {
    case: Case,
    origin: String,
    used: Mutex<Vec<usize>>,
    pinged: Mutex<bool>,
}

fn result(method: &str) -> Value {
    match method {
        "initialize" => json!({ "protocolVersion": "2025-06-18",
            "capabilities": { "tools": {} }, "serverInfo": { "name": "s", "version": "1" } }),
        "tools/list" => {
            json!({ "tools": [{ "name": "measure", "inputSchema": { "type": "object" } }] })
        }
        "tools/call" => json!({ "content": [{ "type": "text", "text": "12 cm" }] }),
        _ => json!({}),
    }
}

impl Server {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut buf = Vec::new();
        while let Some(request) = read(&mut stream, &mut buf).await {
            if self.answer(&mut stream, &request).await.is_none() {
                return;
            }
        }
    }

    fn filled(&self, text: &str, id: &Value) -> String {
        let whole = |method: &str| {
            json!({ "jsonrpc": "2.0", "id": id, "result": result(method) }).to_string()
        };
        text.replace("\"$idtext\"", &format!("\"{id}\""))
            .replace("\"$id\"", &id.to_string())
            .replace("$init", &whole("initialize"))
            .replace("$call", &whole("tools/call"))
            .replace("$origin", &self.origin)
    }

    async fn answer(&self, stream: &mut TcpStream, request: &Request) -> Option<()> {
        let message = request.body["method"].as_str().unwrap_or_default();
        let id = &request.body["id"];
        if *id == json!("p1") && request.body.get("result").is_some() {
            *self.pinged.lock() = true;
        }
        let rule = self.case.rules.iter().enumerate().find(|(at, rule)| {
            let is =
                |wanted: &Option<String>, got: &str| wanted.as_deref().is_none_or(|w| w == got);
            let fits = is(&rule.message, message)
                && is(&rule.http, &request.method)
                && is(&rule.path, &request.path)
                && rule
                    .with
                    .as_ref()
                    .is_none_or(|name| request.headers.contains_key(name));
            let mut used = self.used.lock();
            let fits = fits && rule.times.is_none_or(|times| used[*at] < times);
            used[*at] += usize::from(fits);
            fits
        });
        let Some((_, rule)) = rule else {
            return self.behave(stream, request, message, id).await;
        };
        let status = rule.status.unwrap_or(200);
        let mut head = format!("HTTP/1.1 {status} X\r\n");
        let kind = rule.kind.as_deref().unwrap_or("application/json");
        head.push_str(&format!("content-type: {kind}\r\n"));
        if message == "initialize" && self.case.session {
            head.push_str("mcp-session-id: s1\r\n");
        }
        for (name, value) in &rule.headers {
            head.push_str(&format!("{name}: {}\r\n", self.filled(value, id)));
        }
        let events = |events: &Vec<Value>| {
            let events = events.iter().map(|event| format!("data: {event}\n\n"));
            events.collect::<String>()
        };
        let json = |value: &Value| match rule.pretty {
            true => serde_json::to_string_pretty(value).expect("JSON"),
            false => value.to_string(),
        };
        let body = rule
            .body
            .clone()
            .or_else(|| rule.json.as_ref().map(json))
            .or_else(|| rule.events.as_ref().map(events));
        if let Some(body) = body {
            let body = format!("{}{}", rule.prefix, self.filled(&body, id));
            head.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
            return stream.write_all(head.as_bytes()).await.ok();
        }
        head.push_str("connection: close\r\n\r\n");
        if rule
            .chunks
            .as_ref()
            .is_some_and(|chunks| !chunks.is_empty())
        {
            stream.write_all(head.as_bytes()).await.ok()?;
        }
        for chunk in rule.chunks.iter().flatten() {
            match chunk {
                Value::String(text) => {
                    let text = self.filled(text, id);
                    stream.write_all(text.as_bytes()).await.ok()?;
                }
                pause => tokio::time::sleep(Duration::from_millis(pause.as_u64()?)).await,
            }
        }
        if rule.hang {
            let mut byte = [0u8; 64];
            while stream.read(&mut byte).await.is_ok_and(|n| n > 0) {}
        }
        None
    }

    /// As a server should.
    async fn behave(
        &self,
        stream: &mut TcpStream,
        request: &Request,
        message: &str,
        id: &Value,
    ) -> Option<()> {
        let (status, body) = match (&*request.method, message) {
            ("POST", _) if id.is_null() || message.is_empty() => (202, String::new()),
            ("POST", method) => {
                let body = json!({ "jsonrpc": "2.0", "id": id, "result": result(method) });
                (200, body.to_string())
            }
            ("DELETE", _) => (200, String::new()),
            _ => (405, String::new()),
        };
        let session = match message == "initialize" && self.case.session {
            true => "mcp-session-id: s1\r\n",
            false => "",
        };
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{session}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await.ok()
    }
}

/// What went wrong with a case, if anything.
async fn tried(gateway: &Harness, name: &str, case: Case) -> Vec<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    let server = Arc::new(Server {
        used: Mutex::new(vec![0; case.rules.len()]),
        case,
        origin,
        pinged: Mutex::new(false),
    });
    let accepting = server.clone();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(accepting.clone().serve(stream));
        }
    });
    let case = &server.case;
    let mut wrong = Vec::new();
    let auth = match &case.secret {
        Some(secret) => json!({ "kind": "bearer", "secret": secret }),
        None => json!({ "kind": "none" }),
    };
    let body = json!({ "url": format!("{}/mcp", server.origin), "auth": auth });
    let put = gateway.request(Method::PUT, &format!("/v1/tenant/mcp/{name}"));
    let put = ok(put.json(&body).send().await).await;
    let error = put["discovery_error"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if let Some(tools) = &case.expect.tools {
        let listed: Vec<&str> = put["tools"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tool| tool["name"].as_str())
            .collect();
        if put["status"] != "active" || listed != *tools {
            wrong.push(format!("{} with {listed:?}: {error}", put["status"]));
        }
    }
    for part in &case.expect.error {
        if !error.contains(part) {
            wrong.push(format!("'{part}' is missing in '{error}'"));
        }
    }
    let jargon = ["::", "Transport", "model provider", "rmcp", "serde"];
    for part in jargon
        .into_iter()
        .chain(case.expect.error_lacks.iter().map(String::as_str))
    {
        if error.contains(part) {
            wrong.push(format!("'{part}' is in '{error}'"));
        }
    }
    if let Some(said) = &case.expect.said {
        let body = json!({ "model": "openai-chat/script", "mcp_servers": [name] });
        let smith = ok(gateway.post("/v1/smiths", &body).send().await).await;
        let smith = smith["id"].as_str().expect("an id").to_owned();
        let run = gateway.run(&smith, "measure {\"thing\": \"x\"}").await;
        let content = run["output"]["content"].as_str().unwrap_or_default();
        if !content.contains(said) {
            wrong.push(format!("'{said}' is missing in {run}"));
        }
    }
    if case.expect.answers_ping && !*server.pinged.lock() {
        wrong.push("the ping was not answered".to_owned());
    }
    task.abort();
    let about = &case.about;
    wrong
        .iter()
        .map(|why| format!("{name} ({about}): {why}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_depart_from_the_protocol_are_used_all_the_same() {
    let gateway = Harness::start_with(|config, _| {
        config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/mcp_quirks");
    let only = std::env::var("QUIRK").ok();
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(dir).expect("the cases") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a case");
        let case: Case = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        cases.push((name, case));
    }
    assert!(!cases.is_empty());
    let wrong: Vec<String> = futures_util::stream::iter(cases)
        .map(|(name, case)| {
            let gateway = &gateway;
            async move { tried(gateway, &name, case).await }
        })
        .buffer_unordered(8)
        .collect::<Vec<_>>()
        .await
        .concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
