//! What MCP servers really send, brought into the shapes that `rmcp` reads: ids of another kind,
//! members that are null or missing or of another type, lists of messages. Nothing that can be
//! understood is refused, and nothing that a tool answered is dropped.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::model::{ClientJsonRpcMessage, ClientRequest, RequestId, ServerJsonRpcMessage};
use serde_json::{Map, Value, json};

use crate::untrusted;

/// The most requests without an answer whose kinds are remembered.
const MAX_OPEN: usize = 1024;
/// The newest revision that begins with `initialize`.
const WITH_INITIALIZE: &str = "2025-11-25";
/// The revision of a server that does not say which it speaks (specification 2025-06-18).
const UNSAID: &str = "2025-03-26";
const KNOWN: [&str; 5] = [
    "2024-11-05",
    UNSAID,
    "2025-06-18",
    WITH_INITIALIZE,
    "2026-07-28",
];

/// What kind of result a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Initialize,
    ListTools,
    CallTool,
    Other,
}

/// A request whose answer is read.
#[derive(Debug, Clone)]
pub struct Asked {
    pub id: RequestId,
    pub kind: Kind,
}

impl Asked {
    /// What `message` asks; `None` when nothing answers it.
    pub fn of(message: &ClientJsonRpcMessage) -> Option<Self> {
        let ClientJsonRpcMessage::Request(request) = message else {
            return None;
        };
        Some(Self {
            id: request.id.clone(),
            kind: match request.request {
                ClientRequest::InitializeRequest(_) => Kind::Initialize,
                ClientRequest::ListToolsRequest(_) => Kind::ListTools,
                ClientRequest::CallToolRequest(_) => Kind::CallTool,
                _ => Kind::Other,
            },
        })
    }
}

/// The requests of a session that wait for their answers, which may come on any of its streams.
#[derive(Clone, Default)]
pub struct Open(Arc<Mutex<HashMap<RequestId, Kind>>>);

impl Open {
    /// Remembers a request.
    pub fn add(&self, asked: &Asked) {
        let mut open = self.0.lock();
        if open.len() >= MAX_OPEN {
            open.clear();
        }
        open.insert(asked.id.clone(), asked.kind);
    }

    fn take(&self, id: &RequestId) -> Option<Asked> {
        let kind = self.0.lock().remove(id)?;
        let id = id.clone();
        Some(Asked { id, kind })
    }
}

/// An id, which may come back as text or as a fraction.
fn id_of(value: &Value) -> Option<RequestId> {
    match value {
        Value::String(text) => Some(match text.parse() {
            Ok(number) => RequestId::Number(number),
            Err(_) => RequestId::String(text.as_str().into()),
        }),
        Value::Number(number) => Some(RequestId::Number(whole(number)?)),
        _ => None,
    }
}

/// Which request an answer is to; `Err` for one to a request of somebody else.
fn answered(
    id: Option<RequestId>,
    is_error: bool,
    asked: Option<&Asked>,
    open: &Open,
) -> Result<Option<Asked>, ()> {
    let Some(asked) = asked else {
        return Ok(id.and_then(|id| open.take(&id)));
    };
    let is_theirs = match &id {
        None => true,
        // A proxy that cannot know the id makes one up.
        Some(RequestId::String(_)) if is_error => true,
        Some(id) => *id == asked.id,
    };
    if is_theirs {
        open.take(&asked.id);
        return Ok(Some(asked.clone()));
    }
    match id.and_then(|id| open.take(&id)) {
        Some(other) => Ok(Some(other)),
        None => Err(()),
    }
}

fn whole(number: &serde_json::Number) -> Option<i64> {
    let float = || number.as_f64().filter(|f| f.fract() == 0.0);
    number.as_i64().or_else(|| float().map(|f| f as i64))
}

/// Whether bytes are those of JSON that can hold a message.
pub fn looks_like_json(body: &[u8]) -> bool {
    matches!(without_mark(body).first(), Some(b'{' | b'['))
}

/// Without the byte order mark that some servers begin with, and without white space.
pub fn without_mark(body: &[u8]) -> &[u8] {
    let body = body.trim_ascii_start();
    body.strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(body)
        .trim_ascii()
}

/// The messages in `body`: one, or a list of them. `asked` is the request that it answers, where
/// that is known; `open` knows the others. An answer comes last, as it ends its stream. `None` when
/// there is no JSON.
pub fn messages(
    body: &[u8],
    asked: Option<&Asked>,
    open: &Open,
) -> Option<Vec<ServerJsonRpcMessage>> {
    // What is kept of it must be readable again, and be held.
    if untrusted::is_too_deep(body) || untrusted::is_vast(body) {
        return None;
    }
    let value: Value = serde_json::from_slice(without_mark(body)).ok()?;
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    let mut found: Vec<ServerJsonRpcMessage> = values
        .into_iter()
        .filter_map(|value| message(value, asked, open))
        .collect();
    found.sort_by_key(is_answer);
    Some(found)
}

/// Whether a message answers a request.
pub fn is_answer(message: &ServerJsonRpcMessage) -> bool {
    matches!(
        message,
        ServerJsonRpcMessage::Response(_) | ServerJsonRpcMessage::Error(_)
    )
}

fn message(value: Value, asked: Option<&Asked>, open: &Open) -> Option<ServerJsonRpcMessage> {
    let Value::Object(mut message) = value else {
        return None;
    };
    message.insert("jsonrpc".to_owned(), json!("2.0"));
    if message.get("params").is_some_and(Value::is_null) {
        message.shift_remove("params");
    }
    let is_there = |name: &str| message.get(name).is_some_and(|value| !value.is_null());
    if message
        .get("method")
        .is_none_or(|method| !method.is_string())
    {
        let id = message.get("id").and_then(id_of);
        let known = answered(id, is_there("error"), asked, open).ok()?;
        let id = known
            .as_ref()
            .map(|asked| asked.id.clone().into_json_value());
        let answer = match (is_there("error"), message.get("result")) {
            (true, _) => (
                "error",
                error(message.shift_remove("error").unwrap_or_default()),
            ),
            (false, Some(_)) => {
                let result = message.shift_remove("result").unwrap_or_default();
                let kind = known.map_or_else(|| kind_of(&result), |asked| asked.kind);
                ("result", shaped(result, kind))
            }
            (false, None) => return None,
        };
        message.retain(|name, _| name == "jsonrpc" || name == "id");
        if let Some(id) = id {
            message.insert("id".to_owned(), id);
        }
        message.insert(answer.0.to_owned(), answer.1);
    }
    let read = serde_json::from_value(Value::Object(message));
    read.inspect_err(|error| tracing::debug!(%error, "an MCP server sent what is no message"))
        .ok()
}

/// The kind of a result whose request is not known.
fn kind_of(result: &Value) -> Kind {
    let has = |name: &str| result.get(name).is_some();
    if has("protocolVersion") {
        Kind::Initialize
    } else if has("tools") {
        Kind::ListTools
    } else if has("content") || has("structuredContent") || has("isError") {
        Kind::CallTool
    } else {
        Kind::Other
    }
}

fn shaped(result: Value, kind: Kind) -> Value {
    match kind {
        Kind::Initialize => initialize(result),
        Kind::ListTools => tools(result),
        Kind::CallTool => called(result),
        Kind::Other => result,
    }
}

fn error(error: Value) -> Value {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    };
    const INTERNAL: i64 = -32603;
    let Value::Object(mut error) = error else {
        return json!({ "code": INTERNAL, "message": text(&error).unwrap_or_default() });
    };
    let code = error.get("code").and_then(|code| match code {
        Value::Number(number) => whole(number),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    });
    let code = code.filter(|code| i32::try_from(*code).is_ok());
    let said = ["message", "detail", "error", "description"]
        .iter()
        .find_map(|name| error.get(*name).and_then(text));
    let data = error.shift_remove("data").filter(|data| !data.is_null());
    let mut shaped = json!({
        "code": code.unwrap_or(INTERNAL),
        "message": said.unwrap_or_else(|| "an error without a message".to_owned()),
    });
    if let Some(data) = data {
        shaped["data"] = data;
    }
    shaped
}

fn initialize(result: Value) -> Value {
    let Value::Object(mut result) = result else {
        return result;
    };
    let version = result.get("protocolVersion").and_then(Value::as_str);
    let version = match version {
        Some(version) if KNOWN.contains(&version) => version.to_owned(),
        // Revisions are dates. A later one than all that are known is not spoken here.
        Some(version) if is_date(version) && version < WITH_INITIALIZE => version.to_owned(),
        Some(version) if is_date(version) => WITH_INITIALIZE.to_owned(),
        _ => UNSAID.to_owned(),
    };
    let text = |value: Option<&Value>| {
        let text = value.and_then(Value::as_str).unwrap_or("unnamed");
        json!(text)
    };
    let server = result.get("serverInfo").cloned().unwrap_or_default();
    let changes = result
        .get("capabilities")
        .and_then(|c| c.pointer("/tools/listChanged"))
        .and_then(truth);
    let mut of_tools = Map::new();
    if let Some(changes) = changes {
        of_tools.insert("listChanged".to_owned(), json!(changes));
    }
    let instructions = result.shift_remove("instructions").filter(Value::is_string);
    let mut shaped = json!({
        "protocolVersion": version,
        // Only tools are used here, and servers have them without saying so.
        "capabilities": { "tools": of_tools },
        "serverInfo": { "name": text(server.get("name")), "version": text(server.get("version")) },
    });
    if let Some(instructions) = instructions {
        shaped["instructions"] = instructions;
    }
    shaped
}

fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// A truth that may have come as text or as a number.
fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Some(true),
            "false" | "no" | "0" => Some(false),
            _ => None,
        },
        Value::Number(number) => number.as_f64().map(|number| number != 0.0),
        _ => None,
    }
}

fn tools(result: Value) -> Value {
    let mut result = match result {
        Value::Object(result) => result,
        Value::Array(tools) => Map::from_iter([("tools".to_owned(), Value::Array(tools))]),
        _ => Map::new(),
    };
    let listed = match result.shift_remove("tools") {
        Some(Value::Array(tools)) => tools.into_iter().filter_map(|t| tool(None, t)).collect(),
        Some(Value::Object(tools)) => tools
            .into_iter()
            .filter_map(|(name, t)| tool(Some(name), t))
            .collect(),
        _ => Vec::new(),
    };
    let cursor = match result.shift_remove("nextCursor") {
        Some(Value::String(cursor)) if !cursor.is_empty() => Some(cursor),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    result.retain(|name, _| name == "resultType");
    result.insert("tools".to_owned(), Value::Array(listed));
    if let Some(cursor) = cursor {
        result.insert("nextCursor".to_owned(), json!(cursor));
    }
    Value::Object(result)
}

/// A listed tool; `None` for what has no name to be called by.
fn tool(key: Option<String>, tool: Value) -> Option<Value> {
    let Value::Object(mut tool) = tool else {
        return None;
    };
    let name = tool.get("name").and_then(Value::as_str).map(str::to_owned);
    let name = name.or(key).filter(|name| !name.is_empty())?;
    let schema = ["inputSchema", "input_schema", "parameters"]
        .iter()
        .find_map(|name| tool.shift_remove(*name).filter(|schema| !schema.is_null()));
    let schema = match schema {
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or_default(),
        other => other.unwrap_or_default(),
    };
    let mut schema = match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    };
    if schema.get("type").is_none_or(|kind| *kind != "object") {
        schema.insert("type".to_owned(), json!("object"));
    }
    if schema.get("properties").is_some_and(Value::is_null) {
        schema.shift_remove("properties");
    }
    if schema
        .get("required")
        .is_some_and(|names| !names.is_array())
    {
        schema.shift_remove("required");
    }
    let mut shaped = json!({ "name": name, "inputSchema": schema });
    for text in ["title", "description"] {
        if let Some(value) = tool.shift_remove(text).filter(Value::is_string) {
            shaped[text] = value;
        }
    }
    if let Some(Value::Object(hints)) = tool.shift_remove("annotations") {
        let hints: Map<String, Value> = hints
            .into_iter()
            .filter(|(name, _)| name.ends_with("Hint"))
            .filter_map(|(name, hint)| Some((name, json!(truth(&hint)?))))
            .collect();
        shaped["annotations"] = Value::Object(hints);
    }
    Some(shaped)
}

fn called(result: Value) -> Value {
    let mut result = match result {
        Value::Object(result) => result,
        Value::Null => Map::new(),
        other => Map::from_iter([("content".to_owned(), other)]),
    };
    if result
        .get("resultType")
        .is_some_and(|kind| *kind != "complete")
    {
        return Value::Object(result);
    }
    const NAMES: [&str; 4] = ["content", "structuredContent", "isError", "toolResult"];
    let is_known = NAMES.iter().any(|name| result.contains_key(*name));
    let mut shaped = Map::new();
    if !is_known
        && result
            .keys()
            .any(|name| name != "_meta" && name != "resultType")
    {
        // It has none of a result's members, and is the result.
        shaped.insert(
            "content".to_owned(),
            json!([text_block(&Value::Object(result))]),
        );
        return Value::Object(shaped);
    }
    let is_error = result.get("isError").and_then(truth);
    let content = result
        .shift_remove("content")
        .filter(|content| !content.is_null());
    // Of revision 2024-10-07.
    let content = content.or_else(|| result.shift_remove("toolResult"));
    let blocks: Vec<Value> = match content {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(blocks)) => blocks.into_iter().filter_map(block).collect(),
        Some(other) => block(other).into_iter().collect(),
    };
    shaped.insert("content".to_owned(), Value::Array(blocks));
    if let Some(structured) = result.shift_remove("structuredContent")
        && !structured.is_null()
    {
        shaped.insert("structuredContent".to_owned(), structured);
    }
    if let Some(is_error) = is_error {
        shaped.insert("isError".to_owned(), json!(is_error));
    }
    if let Some(meta) = result.shift_remove("_meta").filter(Value::is_object) {
        shaped.insert("_meta".to_owned(), meta);
    }
    Value::Object(shaped)
}

fn text_block(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    json!({ "type": "text", "text": text })
}

/// A block of a tool's content; what is none that is known here is told as text.
fn block(block: Value) -> Option<Value> {
    let Value::Object(mut given) = block else {
        return (!block.is_null()).then(|| text_block(&block));
    };
    for (name, also) in [("mimeType", "mime_type"), ("mimeType", "mediaType")] {
        if let Some(value) = given.shift_remove(also) {
            given.entry(name).or_insert(value);
        }
    }
    // Hints for a reader, which are of no use here and may be of any shape.
    given.shift_remove("annotations");
    given.shift_remove("_meta");
    let kind = given.get("type").and_then(Value::as_str).map(str::to_owned);
    match kind.as_deref() {
        Some("text") | None if given.contains_key("text") => {
            let text = given.shift_remove("text").unwrap_or_default();
            return (!text.is_null()).then(|| text_block(&text));
        }
        Some("image") => default_type(&mut given, "image/png"),
        Some("audio") => default_type(&mut given, "audio/wav"),
        _ => {}
    }
    let given = Value::Object(given);
    let known = serde_json::from_value::<rmcp::model::ContentBlock>(given.clone()).is_ok();
    Some(match known {
        true => given,
        false => text_block(&given),
    })
}

fn default_type(block: &mut Map<String, Value>, media_type: &str) {
    if !block.get("mimeType").is_some_and(Value::is_string) {
        block.insert("mimeType".to_owned(), json!(media_type));
    }
}

/// A short text of what a server answered instead of a message, for people.
pub fn excerpt(body: &[u8]) -> String {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(without_mark(body));
    let said = match serde_json::from_str::<Value>(&text) {
        Ok(value) => [
            "/error/message",
            "/error_description",
            "/message",
            "/detail",
            "/error",
        ]
        .iter()
        .find_map(|path| {
            value
                .pointer(path)
                .and_then(Value::as_str)
                .map(str::to_owned)
        })
        .unwrap_or_else(|| text.into_owned()),
        Err(_) if text.starts_with('<') => format!("a page of HTML{}", titled(&text)),
        Err(_) => text.into_owned(),
    };
    let words: Vec<&str> = said.split_whitespace().collect();
    let mut said: String = words
        .join(" ")
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    if said.chars().count() > LONGEST {
        said = said.chars().take(LONGEST).collect();
        said.push('…');
    }
    said
}

fn titled(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title>").and_then(|at| {
        let from = at + "<title>".len();
        let to = lower[from..].find("</title>")?;
        page.get(from..from + to)
    });
    title.map_or_else(String::new, |title| format!(", \"{}\"", title.trim()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmcp::model::{CallToolResult, ServerResult};

    use super::*;

    fn read(kind: Kind, result: Value) -> ServerResult {
        let asked = Asked {
            id: RequestId::Number(3),
            kind,
        };
        let body = json!({ "id": "3", "result": result }).to_string();
        let mut read = messages(body.as_bytes(), Some(&asked), &Open::default()).expect("JSON");
        match read.pop().expect("a message") {
            ServerJsonRpcMessage::Response(response) => {
                assert_eq!(response.id, RequestId::Number(3));
                response.result
            }
            other => panic!("{other:?}"),
        }
    }

    fn call(result: Value) -> CallToolResult {
        match read(Kind::CallTool, result) {
            ServerResult::CallToolResult(result) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn results_of_any_shape_are_told() {
        for (result, said, is_error) in [
            (
                json!({ "content": null, "isError": "true" }),
                json!([]),
                true,
            ),
            (json!({ "content": "hi" }), json!(["hi"]), false),
            (
                json!({ "content": ["a", "b", 3] }),
                json!(["a", "b", "3"]),
                false,
            ),
            (
                json!({ "content": { "type": "text", "text": "x" } }),
                json!(["x"]),
                false,
            ),
            (
                json!({ "content": [{ "text": "untyped" }] }),
                json!(["untyped"]),
                false,
            ),
            (
                json!({ "content": [{ "type": "chart", "x": 1 }] }),
                json!(["{\"type\":\"chart\",\"x\":1}"]),
                false,
            ),
            (json!("bare"), json!(["bare"]), false),
            (json!({ "output": 7 }), json!(["{\"output\":7}"]), false),
            (json!({ "toolResult": "old" }), json!(["old"]), false),
            (
                json!({ "content": [], "isError": 0, "action": "accept" }),
                json!([]),
                false,
            ),
        ] {
            let read = call(result.clone());
            let texts: Vec<&str> = read
                .content
                .iter()
                .filter_map(|block| block.as_text().map(|text| text.text.as_str()))
                .collect();
            assert_eq!(json!(texts), said, "{result}");
            assert_eq!(read.is_error.unwrap_or(false), is_error, "{result}");
        }
        let structured = call(json!({ "structuredContent": { "n": 1 } }));
        assert_eq!(structured.structured_content, Some(json!({ "n": 1 })));
    }

    #[test]
    fn errors_of_any_shape_are_errors() {
        for (error, code, said) in [
            (json!("broken"), -32603, "broken"),
            (
                json!({ "code": "-32001", "message": null, "detail": "late" }),
                -32001,
                "late",
            ),
            (json!({ "code": -32602.0, "message": "bad" }), -32602, "bad"),
        ] {
            let body = json!({ "error": error, "result": null, "id": null }).to_string();
            let asked = Asked {
                id: RequestId::Number(1),
                kind: Kind::CallTool,
            };
            let read = messages(body.as_bytes(), Some(&asked), &Open::default()).expect("JSON");
            let [ServerJsonRpcMessage::Error(error)] = &read[..] else {
                panic!("{read:?}");
            };
            assert_eq!((error.error.code.0, &*error.error.message), (code, said));
            assert_eq!(error.id, Some(RequestId::Number(1)));
        }
    }

    #[test]
    fn an_answer_to_another_request_is_not_taken() {
        let asked = Asked {
            id: RequestId::Number(3),
            kind: Kind::CallTool,
        };
        for (id, is_taken) in [
            (json!(3), true),
            (json!(3.0), true),
            (json!(null), true),
            (json!(4), false),
            (json!("4"), false),
            (json!("other"), false),
        ] {
            let body = json!({ "id": id, "result": { "content": "x" } }).to_string();
            let read = messages(body.as_bytes(), Some(&asked), &Open::default()).expect("JSON");
            assert_eq!(!read.is_empty(), is_taken, "{id}");
        }
    }

    #[test]
    fn an_answer_without_error_has_a_null_one() {
        let body = br#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a"}]},"error":null}"#;
        let read = messages(body, None, &Open::default()).expect("JSON");
        assert!(
            matches!(&read[..], [ServerJsonRpcMessage::Response(_)]),
            "{read:?}"
        );
    }

    proptest! {
        #[test]
        fn every_result_has_its_kind(text in "\\PC{0,80}", nested in any::<bool>()) {
            let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            let value = if nested { json!({ "content": [value.clone()], "tools": [value] }) } else { value };
            let is_call = matches!(read(Kind::CallTool, value.clone()), ServerResult::CallToolResult(_) | ServerResult::EmptyResult(_));
            prop_assert!(is_call);
            let is_list = matches!(read(Kind::ListTools, value), ServerResult::ListToolsResult(_));
            prop_assert!(is_list);
        }
    }
}
