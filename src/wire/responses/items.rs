//! Items and turns: OpenAI's form of what is said, and ours. An item's id is its kind's prefix,
//! the body of its run's (or conversation's) id and its place therein, so that an item is found
//! again without a table of items.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::tools::{Shapes, arguments_of, joined_name};
use crate::frame::citation;
use crate::ids;
use crate::model::{
    Part, Role, Signature, Source, Turn, arguments_object, joined_text, shown_text,
};
use crate::tools::FILE_SEARCH;
use crate::wire::chat::decode::{arguments_text, cache_mark};

/// An item of a conversation or a response; the members depend on its type.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Item {
    pub id: String,
    /// `message`, `function_call`, `function_call_output`, `mcp_call` or `reasoning`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub members: Map<String, Value>,
}

impl Item {
    /// As JSON.
    pub fn to_value(&self) -> Value {
        let mut members = self.members.clone();
        members.insert("id".into(), json!(self.id));
        members.insert("type".into(), json!(self.kind));
        Value::Object(members)
    }
}

/// The body and the place that an item's id is made of.
pub fn place_of(id: &str) -> Option<(&str, usize)> {
    let (_, rest) = id.split_once('_')?;
    let (body, place) = rest.rsplit_once('_')?;
    Some((body, place.parse().ok()?))
}

/// Gives items their ids, in the order of what is said. Reasoning has places of its own, since not
/// every list shows it.
#[derive(Debug, Clone)]
pub struct Numbering {
    body: Box<str>,
    place: usize,
    reasoning: usize,
    /// Of lists of tools, which stand outside of what is said.
    listed: usize,
    /// How calls of the request's tools look.
    shapes: Arc<Shapes>,
    /// Whether what was found in files is shown.
    results: bool,
}

impl Numbering {
    /// Of a run or a conversation, by the body of its id.
    pub fn new(body: &str) -> Self {
        Self::at(body, [0, 0])
    }

    /// Behind items that were numbered before.
    pub fn at(body: &str, [place, reasoning]: [usize; 2]) -> Self {
        Self {
            body: body.into(),
            place,
            reasoning,
            listed: 0,
            shapes: Arc::default(),
            results: false,
        }
    }

    /// Whether items show what was found in files.
    pub fn with_results(mut self, results: bool) -> Self {
        self.results = results;
        self
    }

    /// Whether items show what was found in files.
    pub fn shows_results(&self) -> bool {
        self.results
    }

    /// The items of lists of tools.
    pub fn listed(&mut self, lists: &[Value]) -> Vec<Item> {
        let item = |list: &Value| self.item("mcp_list_tools", list.clone());
        lists.iter().map(item).collect()
    }

    /// For calls of the tools of a request, as it gave them.
    pub fn with_tools(mut self, tools: Option<&Value>) -> Self {
        self.shapes = Arc::new(Shapes::of(tools));
        self
    }

    /// How calls of the request's tools look.
    pub fn shapes(&self) -> Arc<Shapes> {
        self.shapes.clone()
    }

    /// The next places: of items, and of reasoning.
    pub fn places(&self) -> [usize; 2] {
        [self.place, self.reasoning]
    }

    /// The next item's id.
    pub fn next(&mut self, kind: &str) -> String {
        let (prefix, place) = match kind {
            "reasoning" => ("rs_", &mut self.reasoning),
            "function_call" => ("fc_", &mut self.place),
            "function_call_output" => ("fco_", &mut self.place),
            "custom_tool_call" => ("ctc_", &mut self.place),
            "custom_tool_call_output" => ("ctco_", &mut self.place),
            "local_shell_call" => ("lsh_", &mut self.place),
            "local_shell_call_output" => ("lsho_", &mut self.place),
            "mcp_list_tools" => ("mcpl_", &mut self.listed),
            "file_search_call" => ("fs_", &mut self.place),
            "mcp_call" => (ids::Kind::McpServer.prefix(), &mut self.place),
            _ => (ids::Kind::Message.prefix(), &mut self.place),
        };
        let id = format!("{prefix}{}_{place:03}", self.body);
        *place += 1;
        id
    }

    fn item(&mut self, kind: &'static str, members: Value) -> Item {
        let members = match members {
            Value::Object(members) => members,
            _ => Map::new(),
        };
        Item {
            id: self.next(kind),
            kind,
            members,
        }
    }

    /// The items of some turns, reasoning among them.
    pub fn items(&mut self, turns: &[Turn]) -> Vec<Item> {
        let mut items = Vec::new();
        let mut own: HashMap<&str, OwnCall> = HashMap::new();
        let mut theirs: HashMap<&str, &str> = HashMap::new();
        let shapes = self.shapes.clone();
        for turn in turns {
            let mut content: Vec<Value> = Vec::new();
            for part in &turn.parts {
                if let Part::Citation { of } = part {
                    let last = content
                        .last_mut()
                        .and_then(|part| part.get_mut("annotations"));
                    if let Some(Value::Array(annotations)) = last {
                        annotations.push(of.clone());
                    }
                    continue;
                }
                if turn.role != Role::Tool
                    && let Some(part) = content_part(part, turn.role)
                {
                    content.push(part);
                    continue;
                }
                let (kind, members) = match part {
                    // It is shown with its result.
                    Part::ToolCall {
                        id,
                        name,
                        arguments,
                        server: Some(server),
                        approved,
                        ..
                    } => {
                        let name = name.strip_prefix(&format!("{server}__")).unwrap_or(name);
                        let call = OwnCall {
                            server: server.clone(),
                            name: name.to_owned(),
                            arguments: arguments_object(arguments).to_string(),
                            approval: approved.then(|| format!("run_{}::{id}", self.body)),
                        };
                        own.insert(id, call);
                        continue;
                    }
                    Part::ToolResult {
                        tool_call_id,
                        content,
                        is_error,
                    } if own.contains_key(tool_call_id.as_str()) => {
                        let call = own.remove(tool_call_id.as_str()).unwrap_or_default();
                        let result = (shown_text(content).into_owned(), *is_error);
                        (call.kind(), call.members(Some(result), self.results))
                    }
                    Part::ToolCall {
                        id,
                        name,
                        arguments,
                        ..
                    } => {
                        theirs.insert(id, name);
                        shapes.call(id, name, Some(arguments))
                    }
                    Part::ToolResult {
                        tool_call_id,
                        content,
                        ..
                    } => (
                        theirs
                            .get(tool_call_id.as_str())
                            .map_or("function_call_output", |name| shapes.result(name)),
                        json!({ "call_id": tool_call_id, "output": output_of(content),
                            "status": "completed" }),
                    ),
                    Part::Reasoning {
                        text,
                        signature,
                        redacted,
                    } => {
                        let sealed = signature.as_ref().map(seal_signature);
                        let text = if *redacted { "" } else { text };
                        ("reasoning", reasoning_members(text, sealed))
                    }
                    _ => continue,
                };
                self.flush(&mut content, turn.role, &mut items);
                items.push(self.item(kind, members));
            }
            self.flush(&mut content, turn.role, &mut items);
        }
        items
    }

    fn flush(&mut self, content: &mut Vec<Value>, role: Role, items: &mut Vec<Item>) {
        if content.is_empty() {
            return;
        }
        let role = match role {
            Role::Assistant => "assistant",
            _ => "user",
        };
        let content = std::mem::take(content);
        let members = json!({ "role": role, "status": "completed", "content": content });
        items.push(self.item("message", members));
    }
}

/// A call of a tool that runs on this side.
#[derive(Debug, Clone, Default)]
pub struct OwnCall {
    pub server: String,
    pub name: String,
    /// A JSON object's text.
    pub arguments: String,
    /// The request that a human approved.
    pub approval: Option<String>,
}

impl OwnCall {
    /// The kind of its item.
    pub fn kind(&self) -> &'static str {
        match self.server == FILE_SEARCH {
            true => "file_search_call",
            false => "mcp_call",
        }
    }

    fn search_members(&self, result: Option<(String, bool)>, shows_results: bool) -> Value {
        let arguments: Value = serde_json::from_str(&self.arguments).unwrap_or_default();
        let queries: Vec<&str> = arguments["query"].as_str().into_iter().collect();
        let status = match &result {
            None => "in_progress",
            Some((_, false)) => "completed",
            Some((_, true)) => "failed",
        };
        // A line for each hit, as the tool tells the model.
        let hit = |line: &str| {
            let hit: Value = serde_json::from_str(line).ok()?;
            Some(json!({ "file_id": hit["file_id"], "filename": hit["file"],
                "score": hit["score"], "text": hit["text"], "attributes": {} }))
        };
        let found = result.filter(|_| shows_results);
        let results = found.map(|(text, _)| text.lines().filter_map(hit).collect::<Vec<_>>());
        json!({ "status": status, "queries": queries, "results": results })
    }

    /// The members of its item: under way, or with its result and whether that is a failure.
    pub fn members(&self, result: Option<(String, bool)>, shows_results: bool) -> Value {
        if self.server == FILE_SEARCH {
            return self.search_members(result, shows_results);
        }
        let (status, output, error) = match result {
            None => ("in_progress", None, None),
            Some((text, false)) => ("completed", Some(text), None),
            Some((text, true)) => ("failed", None, Some(text)),
        };
        json!({ "server_label": self.server, "name": self.name, "arguments": self.arguments,
            "status": status, "output": output, "error": error,
            "approval_request_id": self.approval })
    }
}

/// An `mcp_approval_request`.
pub fn approval_request(id: &str, server: &str, name: &str, arguments: &str) -> Value {
    json!({ "id": id, "type": "mcp_approval_request", "server_label": server, "name": name,
        "arguments": arguments })
}

/// The members of a `function_call` that is complete.
pub fn call_members(call_id: &str, name: &str, arguments: &str) -> Value {
    json!({ "call_id": call_id, "name": name, "arguments": arguments, "status": "completed" })
}

/// The members of a `reasoning` item.
pub fn reasoning_members(text: &str, sealed: Option<String>) -> Value {
    let summary = match text.is_empty() {
        true => json!([]),
        false => json!([{ "type": "summary_text", "text": text }]),
    };
    json!({ "summary": summary, "encrypted_content": sealed })
}

/// A signature as `encrypted_content`, which clients carry unread.
pub fn seal_signature(signature: &Signature) -> String {
    STANDARD.encode(serde_json::to_vec(signature).unwrap_or_default())
}

/// The other way; `None` for what was not made here.
pub fn open_signature(sealed: &str) -> Option<Signature> {
    serde_json::from_slice(&STANDARD.decode(sealed).ok()?).ok()
}

fn content_part(part: &Part, role: Role) -> Option<Value> {
    Some(match part {
        Part::Text { text } if role == Role::Assistant => {
            json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
        }
        Part::Text { text } => json!({ "type": "input_text", "text": text }),
        Part::Refusal { text } => json!({ "type": "refusal", "refusal": text }),
        Part::Image { source, detail } => json!({
            "type": "input_image",
            "image_url": source.to_url(),
            "file_id": file_id(source),
            "detail": detail.as_deref().unwrap_or("auto"),
        }),
        Part::File { source, name } => {
            let mut file = json!({ "type": "input_file", "filename": name });
            match source {
                Source::Url { url } => file["file_url"] = json!(url),
                Source::Data { .. } => file["file_data"] = json!(source.to_url()),
                Source::FileId { id } => file["file_id"] = json!(id),
            }
            file
        }
        Part::Audio { data, format } => json!({
            "type": "input_audio",
            "input_audio": { "data": data, "format": format },
        }),
        _ => return None,
    })
}

/// A result: its text, or its parts where there is more than text.
fn output_of(content: &[Part]) -> Value {
    match content.iter().any(Part::is_media) {
        true => content
            .iter()
            .filter_map(|part| content_part(part, Role::User))
            .collect(),
        false => json!(joined_text(content)),
    }
}

fn file_id(source: &Source) -> Option<&str> {
    match source {
        Source::FileId { id } => Some(id),
        _ => None,
    }
}

/// Items that a provider's own tools or a client's bookkeeping left behind: they say nothing to
/// another model.
const BOOKKEEPING: [&str; 10] = [
    "mcp_list_tools",
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "tool_search_call",
    "tool_search_output",
    "compaction",
    "compaction_summary",
    "ghost_snapshot",
];

/// The turn, or the piece of one, that an item stands for; `None` for what says nothing to a model.
/// System messages and references are none of these. An item of a kind that is not known here is
/// its text.
pub fn turn_of(item: &Map<String, Value>) -> Result<Option<Turn>, String> {
    let text = |name: &str| -> Result<String, String> {
        let found = item.get(name).and_then(Value::as_str);
        found
            .map(str::to_owned)
            .ok_or_else(|| format!("'{name}' must be a string"))
    };
    let kind = item.get("type").and_then(Value::as_str);
    match kind.unwrap_or("message") {
        "message" => {
            let role = match text("role")?.as_str() {
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => return Err(format!("'{other}' is no role of an item")),
            };
            Ok(Some(Turn {
                role,
                parts: match item.get("content") {
                    // A message that an agent interrupted before it said anything.
                    None | Some(Value::Null) if role == Role::Assistant => return Ok(None),
                    content => parts_of(content.unwrap_or(&Value::Null))?,
                },
            }))
        }
        "function_call" => {
            let name = text("name")?;
            Ok(Some(call_turn(
                text("call_id").or_else(|error| text("id").map_err(|_| error))?,
                match item.get("namespace").and_then(Value::as_str) {
                    Some(namespace) => joined_name(namespace, &name),
                    None => name,
                },
                arguments_text(item.get("arguments").unwrap_or(&Value::Null)),
            )))
        }
        "custom_tool_call" | "local_shell_call" => {
            let (name, arguments) = arguments_of(item).ok_or("'name' must be a string")?;
            let id = text("call_id").or_else(|_| text("id"))?;
            Ok(Some(call_turn(id, name, arguments)))
        }
        "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
            Ok(Some(Turn {
                role: Role::Tool,
                parts: vec![Part::ToolResult {
                    tool_call_id: text("call_id").or_else(|_| text("id"))?,
                    content: match item.get("output") {
                        Some(output @ (Value::String(_) | Value::Array(_))) => parts_of(output)?,
                        // Some clients give a text and how it went.
                        Some(Value::Object(output)) => {
                            let content = output.get("content").filter(|c| c.is_string());
                            let whole = json!(output).to_string();
                            parts_of(content.unwrap_or(&Value::String(whole)))?
                        }
                        None | Some(Value::Null) => parts_of(&Value::String(String::new()))?,
                        _ => return Err("'output' must be a text or a list of parts".to_owned()),
                    },
                    is_error: false,
                }],
            }))
        }
        "reasoning" => {
            let sealed = item.get("encrypted_content").and_then(Value::as_str);
            let signature = sealed.and_then(open_signature);
            let summary = item.get("summary").and_then(Value::as_array);
            let content = item.get("content").and_then(Value::as_array);
            let summary = summary.filter(|summary| !summary.is_empty()).or(content);
            let pieces = summary.into_iter().flatten();
            let text: String = pieces.filter_map(|piece| piece["text"].as_str()).collect();
            Ok(Some(Turn {
                role: Role::Assistant,
                parts: vec![Part::Reasoning {
                    redacted: text.is_empty(),
                    text,
                    signature,
                }],
            }))
        }
        kind if BOOKKEEPING.contains(&kind) => Ok(None),
        kind => Ok(unknown_turn(kind, item)),
    }
}

fn call_turn(id: String, name: String, arguments: String) -> Turn {
    Turn {
        role: Role::Assistant,
        parts: vec![Part::ToolCall {
            id,
            name,
            arguments,
            signature: None,
            server: None,
            approved: false,
        }],
    }
}

/// An item of a kind that is not known here, as a text: what a tool answered is told by the user's
/// side, all else by the model's. `None` when it says nothing.
fn unknown_turn(kind: &str, item: &Map<String, Value>) -> Option<Turn> {
    let told = |name: &str| {
        let value = item.get(name).filter(|value| !value.is_null())?;
        match value {
            Value::String(text) => Some(text.clone()),
            // Its parts, where those are known, else as it was written.
            other => match parts_of(other) {
                Ok(parts) => Some(joined_text(&parts).into_owned()),
                Err(_) => Some(other.to_string()),
            },
        }
    };
    let output = told("output");
    let role = match output.is_some() {
        true => Role::User,
        false => Role::Assistant,
    };
    let text = output.or_else(|| {
        ["content", "text", "input", "arguments", "action"]
            .into_iter()
            .find_map(told)
    })?;
    (!text.is_empty()).then(|| Turn::text(role, format!("[{kind}] {text}")))
}

/// Appends a turn, joining what one speaker says in several items.
pub fn push_turn(turns: &mut Vec<Turn>, turn: Turn) {
    match turns.last_mut() {
        Some(last) if last.role == turn.role && turn.role != Role::User => {
            last.parts.extend(turn.parts);
        }
        _ => turns.push(turn),
    }
}

/// The parts of a message's content or of a tool's output.
pub fn parts_of(content: &Value) -> Result<Vec<Part>, String> {
    match content {
        Value::String(text) => Ok(vec![Part::Text { text: text.clone() }]),
        Value::Array(parts) => {
            let mut decoded = Vec::with_capacity(parts.len());
            for part in parts.iter().filter(|part| !part.is_null()) {
                decoded.push(part_of(part)?);
                decoded.extend(cache_mark(part));
                let annotations = part["annotations"].as_array().into_iter().flatten();
                let cited = annotations.cloned().filter_map(citation::shaped);
                decoded.extend(cited.map(|of| Part::Citation { of }));
            }
            Ok(decoded)
        }
        _ => Err("'content' must be a text or a list of parts".to_owned()),
    }
}

fn part_of(part: &Value) -> Result<Part, String> {
    let text = |name: &str| part[name].as_str().map(str::to_owned);
    if let Some(text) = part.as_str() {
        return Ok(Part::Text {
            text: text.to_owned(),
        });
    }
    match part["type"].as_str().unwrap_or("text") {
        "reasoning_text" | "input_text" | "output_text" | "text" | "summary_text" => {
            Ok(Part::Text {
                text: text("text").ok_or("a text part needs its 'text'")?,
            })
        }
        "refusal" => Ok(Part::Refusal {
            text: text("refusal").ok_or("a refusal needs its 'refusal'")?,
        }),
        "input_image" | "image_url" => {
            let url = text("image_url").or_else(|| {
                let url = part["image_url"]["url"].as_str();
                url.map(str::to_owned)
            });
            let url = url.as_deref().map(Source::from_url);
            Ok(Part::Image {
                source: source_of(url, text("file_id"))?,
                detail: text("detail"),
            })
        }
        "input_file" => {
            let name = text("filename");
            let data = text("file_data").filter(|data| !data.is_empty());
            let data = data.map(|data| Source::from_file_data(&data, name.as_deref()));
            let url = text("file_url").map(|url| Source::from_url(&url));
            Ok(Part::File {
                source: source_of(data.or(url), text("file_id"))?,
                name,
            })
        }
        "input_audio" => {
            let sound = |name: &str| part["input_audio"][name].as_str().map(str::to_owned);
            Ok(Part::Audio {
                data: sound("data").ok_or("a sound needs its 'data'")?,
                format: sound("format").ok_or("a sound needs its 'format'")?,
            })
        }
        other => Err(format!("'{other}' is no kind of part")),
    }
}

fn source_of(told: Option<Source>, file_id: Option<String>) -> Result<Source, String> {
    match (told, file_id) {
        (Some(source), _) => Ok(source),
        (None, Some(id)) => Ok(Source::FileId { id }),
        (None, None) => Err("the part names neither data, a URL nor a file".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Signer;

    #[test]
    fn items_become_turns_and_the_same_items_again() {
        let signature = Signature {
            signer: Signer::OpenAi,
            value: "s".to_owned(),
        };
        let given = json!([
            { "type": "message", "role": "user", "content": "Hi" },
            { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "Hm" }],
              "encrypted_content": seal_signature(&signature) },
            { "role": "assistant", "content": [{ "type": "output_text", "text": "Wait",
              "annotations": [{ "type": "file_citation", "file_id": "f", "index": 3,
                "filename": "a.md" }] }] },
            { "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "c1", "output": "42" },
            { "type": "function_call_output", "call_id": "c2",
              "output": [{ "type": "input_text", "text": "43" }] },
        ]);
        let mut turns = Vec::new();
        for item in given.as_array().expect("items") {
            let turn = turn_of(item.as_object().expect("an object")).expect("a turn");
            push_turn(&mut turns, turn.expect("something to say"));
        }
        assert_eq!(turns.len(), 3);
        assert!(matches!(&turns[1].parts[0],
            Part::Reasoning { text, signature: Some(s), .. } if text == "Hm" && *s == signature));
        let items = Numbering::new("B").items(&turns);
        let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "msg_B_000",
                "rs_B_000",
                "msg_B_001",
                "fc_B_002",
                "fco_B_003",
                "fco_B_004"
            ]
        );
        assert_eq!(place_of(&items[3].id), Some(("B", 2)));
        assert_eq!(items[5].members["output"], "43");
        assert_eq!(
            items[2].to_value()["content"][0]["annotations"],
            given[2]["content"][0]["annotations"]
        );
    }

    #[test]
    fn what_is_no_item_is_refused() {
        for item in [
            json!({ "type": "message", "role": "system", "content": "x" }),
            json!({ "role": "user" }),
            json!({ "role": "user", "content": [{ "type": "input_image" }] }),
            json!({ "type": "function_call", "call_id": "c" }),
            json!({ "type": "function_call_output", "call_id": "c", "output": 7 }),
        ] {
            assert!(
                turn_of(item.as_object().expect("an object")).is_err(),
                "{item}"
            );
        }
    }
    #[test]
    fn what_other_agents_leave_behind_is_carried_or_says_nothing() {
        let turn = |item: Value| turn_of(item.as_object().expect("an object")).expect("an item");
        for item in [
            json!({ "type": "ghost_snapshot", "ghost_commit": {} }),
            json!({ "type": "compaction", "encrypted_content": "x" }),
            json!({ "type": "web_search_call", "action": { "query": "x" } }),
            json!({ "type": "computer_call" }),
            json!({ "type": "message", "role": "assistant", "content": null }),
        ] {
            assert_eq!(turn(item.clone()), None, "{item}");
        }
        let patch = turn(
            json!({ "type": "custom_tool_call", "call_id": "c", "name": "patch",
            "input": "*** Begin" }),
        );
        let patch = patch.expect("a call");
        assert!(
            matches!(&patch.parts[0], Part::ToolCall { name, arguments, .. }
            if name == "patch" && arguments == "{\"input\":\"*** Begin\"}")
        );
        let result =
            turn(json!({ "type": "custom_tool_call_output", "call_id": "c", "output": "ok" }));
        assert_eq!(result.map(|turn| turn.role), Some(Role::Tool));
        let told = turn(json!({ "type": "computer_call_output", "call_id": "c",
            "output": { "type": "computer_screenshot" } }));
        assert_eq!(told.map(|turn| turn.role), Some(Role::User));
        let null = turn(json!({ "type": "reasoning", "summary": null, "content": null }));
        assert!(null.is_some());
    }
}
