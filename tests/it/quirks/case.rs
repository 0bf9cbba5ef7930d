//! A case, as its file tells it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use smithgate::model::ToolDef;

use super::seen::{Seen, Shows};

/// Who asks. The first four name a model, the others a smith.
pub const CLIENTS: [&str; 10] = [
    "chat",
    "responses",
    "messages",
    "gemini",
    "smith-chat",
    "smith-responses",
    "smith-messages",
    "smith-gemini",
    "native",
    "ui",
];

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    #[serde(skip)]
    pub name: String,
    about: String,
    source: String,
    pub provider: OneOrMany,
    clients: Option<Vec<String>>,
    #[serde(default)]
    ask: Ask,
    pub answer: Option<Answer>,
    pub stream: Option<Stream>,
    sees: Option<Sees>,
    sees_whole: Option<Sees>,
    sees_stream: Option<Sees>,
    pub sees_forwarded: Option<Sees>,
    #[serde(default)]
    pub sent: BTreeMap<String, Sent>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let list = match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        };
        list.iter().map(String::as_str)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    text: Option<String>,
    system: Option<String>,
    #[serde(default)]
    tools: Vec<Value>,
    #[serde(default)]
    params: Map<String, Value>,
    chat: Option<Value>,
    responses: Option<Value>,
    messages: Option<Value>,
    gemini: Option<Value>,
    native: Option<Value>,
    ui: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    #[serde(default = "fine")]
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    body: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    #[serde(default = "fine")]
    pub status: u16,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    events: Vec<Value>,
    bytes: Option<String>,
    /// The connection ends without the body's end.
    #[serde(default)]
    pub cut: bool,
}

fn fine() -> u16 {
    200
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    #[serde(default)]
    pub has: BTreeMap<String, Value>,
    #[serde(default)]
    pub lacks: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sees {
    #[serde(default)]
    text: String,
    #[serde(default)]
    reasoning: String,
    #[serde(default)]
    refusal: String,
    #[serde(default)]
    calls: Vec<Call>,
    finish: Option<String>,
    #[serde(default)]
    usage: BTreeMap<String, u64>,
    #[serde(default)]
    cites: Vec<(String, u64, u64)>,
    pub error: Option<SeesError>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    name: String,
    arguments: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeesError {
    status: Option<u16>,
    code: Option<String>,
    param: Option<String>,
    message: Option<String>,
}

/// All files, in the order of their names.
pub fn all() -> Vec<Case> {
    let root = format!("{}/tests/fixtures/quirks", env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<String> = std::fs::read_dir(&root)
        .expect("the folder of cases")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    names.sort();
    let only = std::env::var("QUIRK").unwrap_or_default();
    names.retain(|name| name.contains(&only));
    names.iter().map(|name| Case::read(name)).collect()
}

impl Case {
    /// The case of this name.
    pub fn read(name: &str) -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let path = format!("{root}/tests/fixtures/quirks/{name}.json");
        let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut case: Self =
            serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        case.name = name.to_owned();
        assert!(!case.about.is_empty() && !case.source.is_empty(), "{path}");
        case
    }

    /// What a translated answer looks like.
    pub fn sees(&self, stream: bool) -> Option<&Sees> {
        static HELLO: LazyLock<Sees> = LazyLock::new(|| Sees {
            text: "Hello".to_owned(),
            ..Sees::default()
        });
        let own = match stream {
            true => &self.sees_stream,
            false => &self.sees_whole,
        };
        let is_plain = self.answer.is_none() && self.stream.is_none();
        let told = own.as_ref().or(self.sees.as_ref());
        told.or(is_plain.then_some(&HELLO))
    }

    /// Whether this client asks.
    pub fn asks(&self, client: &str) -> bool {
        if let Some(clients) = &self.clients {
            return clients.iter().any(|name| name == client);
        }
        // On these wires the caller has no tools of its own.
        let own_tools_only = matches!(client, "native" | "ui");
        let calls = [&self.sees, &self.sees_whole, &self.sees_stream]
            .into_iter()
            .flatten()
            .any(|sees| !sees.calls.is_empty());
        let has_bodies = self.has_bodies();
        let asks_tools = calls || !self.ask.tools.is_empty() || !self.ask.params.is_empty();
        (!own_tools_only || !asks_tools) && (!has_bodies || self.own_body(client).is_some())
    }

    /// Whether the provider has an answer of this form for this client.
    pub fn plays(&self, client: &str, stream: bool) -> bool {
        match client {
            "ui" if !stream => false,
            _ => stream || self.answer.is_some() || self.stream.is_none(),
        }
    }

    fn has_bodies(&self) -> bool {
        let ask = &self.ask;
        let own = [
            &ask.chat,
            &ask.responses,
            &ask.messages,
            &ask.gemini,
            &ask.native,
            &ask.ui,
        ];
        own.iter().any(|body| body.is_some())
    }

    fn own_body(&self, client: &str) -> Option<&Value> {
        match client.trim_start_matches("smith-") {
            "chat" => self.ask.chat.as_ref(),
            "responses" => self.ask.responses.as_ref(),
            "messages" => self.ask.messages.as_ref(),
            "gemini" => self.ask.gemini.as_ref(),
            "native" => self.ask.native.as_ref(),
            _ => self.ask.ui.as_ref(),
        }
    }

    /// The path and the body of a client's request.
    pub fn body(&self, client: &str, model: &str, stream: bool) -> Option<(String, String)> {
        let wire = client.trim_start_matches("smith-");
        let path = match wire {
            "chat" => "/v1/chat/completions",
            "responses" => "/v1/responses",
            "messages" => "/v1/messages",
            "native" => "/v1/smiths/{smith}/runs",
            _ => "/v1/ui/chat",
        };
        let path = match wire {
            "gemini" => gemini_path(model, stream),
            _ => path.to_owned(),
        };
        let mut body = match self.own_body(client) {
            Some(Value::String(text)) => {
                let stream = if stream { "true" } else { "false" };
                let text = text.replace("$MODEL", model).replace("$STREAM", stream);
                return Some((path, text));
            }
            Some(own) => own.clone(),
            None if self.has_bodies() => return None,
            None => self.neutral(wire),
        };
        if wire == "gemini" {
            return Some((path, body.to_string()));
        }
        if !model.is_empty() {
            body["model"] = json!(model);
        }
        if wire != "ui" {
            body["stream"] = json!(stream);
        }
        if wire == "chat" && stream {
            body["stream_options"] = json!({ "include_usage": true });
        }
        Some((path, body.to_string()))
    }

    /// What the clients ask with.
    fn asked_tools(&self) -> Vec<Value> {
        match self.ask.tools.is_empty() {
            true => {
                let calls = self.sees(true).into_iter().flat_map(|sees| &sees.calls);
                calls.map(|call| json!({ "name": call.name })).collect()
            }
            false => self.ask.tools.iter().map(named).collect(),
        }
    }

    /// The same, as a model is asked.
    pub fn tools(&self) -> Vec<ToolDef> {
        let tool = |tool: Value| ToolDef {
            name: tool["name"].as_str().unwrap_or_default().to_owned(),
            description: None,
            parameters: tool["parameters"].clone(),
            strict: None,
        };
        self.asked_tools().into_iter().map(tool).collect()
    }

    fn neutral(&self, wire: &str) -> Value {
        let ask = &self.ask;
        let text = ask.text.as_deref().unwrap_or("hi");
        let tools = self.asked_tools();
        match wire {
            "chat" => {
                let mut messages = Vec::new();
                if let Some(system) = &ask.system {
                    messages.push(json!({ "role": "system", "content": system }));
                }
                messages.push(json!({ "role": "user", "content": text }));
                let mut body = json!({ "messages": messages });
                if !tools.is_empty() {
                    let tools = tools.into_iter();
                    body["tools"] = tools
                        .map(|tool| json!({ "type": "function", "function": tool }))
                        .collect();
                }
                for (name, value) in &ask.params {
                    body[name.as_str()] = value.clone();
                }
                body
            }
            "responses" => {
                let mut body = json!({ "input": text });
                if let Some(system) = &ask.system {
                    body["instructions"] = json!(system);
                }
                if !tools.is_empty() {
                    body["tools"] = tools
                        .into_iter()
                        .map(|mut tool| {
                            tool["type"] = json!("function");
                            tool
                        })
                        .collect();
                }
                body
            }
            "messages" => {
                let mut body = json!({ "max_tokens": 1000, "thinking": { "type": "adaptive" },
                    "messages": [{ "role": "user", "content": text }] });
                if let Some(system) = &ask.system {
                    body["system"] = json!(system);
                }
                if !tools.is_empty() {
                    body["tools"] = Value::Array(tools);
                }
                body
            }
            "gemini" => {
                let mut body = json!({ "contents": [{ "role": "user", "parts": [{ "text": text }] }],
                    "generationConfig": { "thinkingConfig": { "includeThoughts": true } } });
                if let Some(system) = &ask.system {
                    body["systemInstruction"] = json!({ "parts": [{ "text": system }] });
                }
                if !tools.is_empty() {
                    body["tools"] = json!([{ "functionDeclarations": tools }]);
                }
                body
            }
            "native" => json!({ "input": [{ "role": "user", "content": text }],
                "stream_options": { "include": ["reasoning", "tool_args", "citations"] } }),
            _ => json!({ "id": format!("c-{}", self.name), "messages": [
                { "id": "1", "role": "user", "parts": [{ "type": "text", "text": text }] }] }),
        }
    }
}

fn gemini_path(model: &str, stream: bool) -> String {
    let model = if model.is_empty() { "smith" } else { model };
    let verb = match stream {
        true => "streamGenerateContent?alt=sse",
        false => "generateContent",
    };
    format!("/v1beta/models/{model}:{verb}")
}

fn named(tool: &Value) -> Value {
    match tool {
        Value::String(name) => json!({ "name": name }),
        other => other.clone(),
    }
}

impl Answer {
    pub fn bytes(&self) -> Vec<u8> {
        match &self.body {
            Value::String(text) => text.clone().into_bytes(),
            json => json.to_string().into_bytes(),
        }
    }
}

impl Stream {
    /// The body, as this wire frames it.
    pub fn bytes(&self, wire: &str) -> Vec<u8> {
        if let Some(bytes) = &self.bytes {
            return bytes.clone().into_bytes();
        }
        let event = |event: &Value| match event {
            Value::String(data) => format!("data: {data}\n\n"),
            event if event["sse"].is_string() => event["sse"].as_str().unwrap_or("").to_owned(),
            event => match event["type"].as_str() {
                Some(kind) if matches!(wire, "anthropic" | "openai_responses") => {
                    format!("event: {kind}\ndata: {event}\n\n")
                }
                _ => format!("data: {event}\n\n"),
            },
        };
        let body: String = self.events.iter().map(event).collect();
        body.into_bytes()
    }
}

impl Sees {
    /// What a client can see of the sources.
    fn cites_of(&self, shows: Shows) -> Vec<(String, u64, u64)> {
        let is_page = |cite: &&(String, u64, u64)| cite.0.contains("://");
        match shows {
            Shows::All => self.cites.clone(),
            Shows::Pages => self.cites.iter().filter(is_page).cloned().collect(),
            Shows::Nothing => Vec::new(),
            Shows::Blocks => {
                let cites = self.cites.iter();
                cites.map(|cite| (cite.0.clone(), 0, 0)).collect()
            }
            Shows::Sources => {
                let mut once: Vec<(String, u64, u64)> = Vec::new();
                for (source, ..) in &self.cites {
                    if !once.iter().any(|told| told.0 == *source) {
                        once.push((source.clone(), 0, 0));
                    }
                }
                once
            }
        }
    }

    /// Holds what a client saw against the case. `status`: whether there was a real answer.
    pub fn check(&self, seen: &Seen, status: bool, about: &str) {
        match (&self.error, &seen.error) {
            (None, None) => {}
            (Some(expected), Some(error)) => {
                if let Some(expected) = expected.status
                    && status
                    && seen.status != 200
                {
                    assert_eq!(seen.status, expected, "{about}: {seen:?}");
                }
                let is = |expected: &Option<String>, name: &str| {
                    if let Some(expected) = expected {
                        let got = error[name].as_str();
                        assert_eq!(got, Some(expected.as_str()), "{about}: {name} of {error}");
                    }
                };
                // Not every wire has a place for them in mid-stream.
                if error.get("code").is_some() {
                    is(&expected.code, "code");
                }
                if error.get("param").is_some() {
                    is(&expected.param, "param");
                }
                if let Some(piece) = &expected.message {
                    let message = error["message"].as_str().unwrap_or_default();
                    assert!(message.contains(piece.as_str()), "{about}: {error}");
                }
                return;
            }
            _ => panic!("{about}: {seen:?}"),
        }
        assert_eq!(seen.text, self.text, "{about}: text of {seen:?}");
        assert!(
            seen.hides_reasoning || seen.reasoning == self.reasoning,
            "{about}: reasoning of {seen:?}"
        );
        assert_eq!(seen.refusal, self.refusal, "{about}: refusal of {seen:?}");
        let calls: Vec<(&str, Value)> = seen
            .calls
            .iter()
            .map(|(name, arguments)| {
                // What is no JSON is its text.
                let parsed = serde_json::from_str(arguments);
                let parsed = parsed.unwrap_or_else(|_| json!(arguments));
                (name.as_str(), parsed)
            })
            .collect();
        let expected: Vec<(&str, Value)> = self
            .calls
            .iter()
            .map(|call| (call.name.as_str(), call.arguments.clone()))
            .collect();
        assert_eq!(calls, expected, "{about}: calls");
        let (mut cites, mut expected) = (seen.cites.clone(), self.cites_of(seen.shows));
        if seen.shows == Shows::Blocks {
            // They stand where they are for, whenever they were told.
            cites.sort();
            expected.sort();
        }
        assert_eq!(cites, expected, "{about}: {seen:?}");
        if let Some(finish) = &self.finish
            && let Some(seen) = &seen.finish
        {
            assert_eq!(seen, finish, "{about}: finish");
        }
        for (name, count) in &self.usage {
            if let Some(usage) = &seen.usage {
                assert_eq!(usage.get(name), Some(count), "{about}: {name} of {usage:?}");
            }
        }
    }
}

/// What the scripted provider answers: status, headers, body, and whether the body is a stream and
/// is cut.
pub struct Played {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    pub streamed: bool,
    pub cut: bool,
}

/// The answer of a case's provider.
pub fn answer_of(name: &str, wire: &str, streamed: bool) -> Played {
    let case = Case::read(name);
    match (&case.stream, &case.answer) {
        (Some(stream), answer) if streamed || answer.is_none() => Played {
            status: stream.status,
            headers: stream.headers.clone(),
            body: stream.bytes(wire),
            streamed: true,
            cut: stream.cut,
        },
        (_, Some(answer)) => Played {
            status: answer.status,
            headers: answer.headers.clone(),
            body: answer.bytes(),
            streamed: false,
            cut: false,
        },
        _ => hello(wire, streamed),
    }
}

/// What a provider says whose case is about the request alone.
fn hello(wire: &str, streamed: bool) -> Played {
    let content = json!([{ "type": "text", "text": "Hello" }]);
    let whole = match wire {
        "openai_chat" => json!({ "id": "c", "model": "m", "choices": [{ "index": 0,
            "message": { "role": "assistant", "content": "Hello" }, "finish_reason": "stop" }] }),
        "openai_responses" => json!({ "id": "r", "model": "m", "status": "completed",
            "output": [{ "type": "message", "role": "assistant", "content": content }] }),
        "anthropic" => json!({ "id": "m", "model": "c", "type": "message", "role": "assistant",
            "content": content, "stop_reason": "end_turn" }),
        _ => {
            json!({ "candidates": [{ "content": { "role": "model", "parts": [{ "text": "Hello" }] },
            "finishReason": "STOP" }] })
        }
    };
    let events = match wire {
        "openai_chat" => vec![
            json!({ "id": "c", "model": "m",
                "choices": [{ "index": 0, "delta": { "content": "Hello" } }] }),
            json!({ "id": "c", "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }),
            json!("[DONE]"),
        ],
        "openai_responses" => vec![
            json!({ "type": "response.created", "response": { "id": "r", "model": "m" } }),
            json!({ "type": "response.output_text.delta", "output_index": 0, "content_index": 0,
                "delta": "Hello" }),
            json!({ "type": "response.completed", "response": whole }),
        ],
        "anthropic" => vec![
            json!({ "type": "message_start", "message": { "id": "m", "model": "c" } }),
            json!({ "type": "content_block_start", "index": 0,
                "content_block": { "type": "text", "text": "" } }),
            json!({ "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": "Hello" } }),
            json!({ "type": "content_block_stop", "index": 0 }),
            json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" } }),
            json!({ "type": "message_stop" }),
        ],
        _ => vec![whole.clone()],
    };
    let stream = Stream {
        status: 200,
        headers: BTreeMap::new(),
        events,
        bytes: None,
        cut: false,
    };
    Played {
        status: 200,
        headers: BTreeMap::new(),
        body: match streamed {
            true => stream.bytes(wire),
            false => whole.to_string().into_bytes(),
        },
        streamed,
        cut: false,
    }
}
