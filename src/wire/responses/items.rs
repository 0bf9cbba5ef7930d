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

use super::tools::Shapes;
use crate::ids;
use crate::model::{
    Part, Role, Signature, Source, Turn, arguments_object, joined_text, shown_text,
};
use crate::tools::FILE_SEARCH;

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
