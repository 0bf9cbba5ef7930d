//! What a client understands of an answer, whatever its wire.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// In the words of no wire.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    pub status: u16,
    pub text: String,
    pub reasoning: String,
    /// The answer has no place for it.
    pub hides_reasoning: bool,
    pub refusal: String,
    /// Names and arguments.
    pub calls: Vec<(String, String)>,
    /// `None` where the wire does not tell.
    pub finish: Option<String>,
    pub usage: Option<BTreeMap<String, u64>>,
    /// URLs or names of sources, and the characters that they are for.
    pub cites: Vec<(String, u64, u64)>,
    pub shows: Shows,
    pub error: Option<Value>,
}

/// What a wire has a place for of what an answer rests on.
#[derive(Debug, Default, PartialEq, Clone, Copy)]
pub enum Shows {
    #[default]
    All,
    /// Those with a URL.
    Pages,
    /// Each source once.
    Sources,
    /// Without the places.
    Blocks,
    Nothing,
}

/// An error of Messages or of Gemini in the form of the others.
pub fn flat(error: &Value) -> Value {
    let details = &error["details"];
    if details.is_array() {
        let info = &details[0];
        let code = text_of(&info["reason"]).to_lowercase();
        return json!({ "message": error["message"], "type": error["status"], "code": code,
            "param": info["metadata"]["param"] });
    }
    match details.is_object() {
        true => json!({ "message": error["message"], "code": details["error_code"],
            "param": details["param"] }),
        false => error.clone(),
    }
}

/// The source of a citation of Messages.
fn cited_block(of: &Value) -> (String, u64, u64) {
    let source = ["url", "source", "document_title", "file_id"]
        .iter()
        .map(|name| text_of(&of[*name]));
    let source = source.into_iter().find(|text| !text.is_empty());
    (source.unwrap_or_default().to_owned(), 0, 0)
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn counts(usage: &Value, names: [(&str, &str); 4]) -> Option<BTreeMap<String, u64>> {
    usage.as_object()?;
    let count = |(name, pointer): (&str, &str)| {
        let count = usage.pointer(pointer)?.as_u64()?;
        Some((name.to_owned(), count))
    };
    Some(names.into_iter().filter_map(count).collect())
}

/// The data of a stream's events, each with its event's name as `event`.
fn events(body: &str, about: &str) -> Vec<Value> {
    let mut name = "";
    let mut events = Vec::new();
    for line in body.lines() {
        if let Some(event) = line.strip_prefix("event: ") {
            name = event;
        }
        let Some(data) = line.strip_prefix("data: ").filter(|data| *data != "[DONE]") else {
            continue;
        };
        let parsed = serde_json::from_str(data);
        let mut event: Value = parsed.unwrap_or_else(|_| panic!("{about}: no JSON: {data}"));
        if let Some(members) = event.as_object_mut()
            && !name.is_empty()
        {
            members.insert("event".to_owned(), name.into());
        }
        events.push(event);
    }
    events
}

/// A citation in the form of Responses.
pub fn cited(of: &Value) -> (String, u64, u64) {
    let source = ["url", "filename", "file_id"]
        .iter()
        .map(|name| text_of(&of[*name]));
    let source = source.into_iter().find(|text| !text.is_empty());
    let at = |name: &str| of[name].as_u64().unwrap_or_default();
    (
        source.unwrap_or_default().to_owned(),
        at("start_index"),
        at("end_index"),
    )
}

/// The list of Chat Completions.
fn annotations(list: &Value) -> impl Iterator<Item = (String, u64, u64)> {
    let list = list.as_array().into_iter().flatten();
    list.map(|annotation| {
        let of = &annotation["url_citation"];
        assert!(
            of["start_index"].is_u64() && of["title"].is_string(),
            "{annotation}"
        );
        cited(of)
    })
}

impl Seen {
    /// Of the answer to `client`.
    pub fn of(client: &str, stream: bool, status: u16, body: &[u8], about: &str) -> Self {
        let body = String::from_utf8(body.to_vec())
            .unwrap_or_else(|_| panic!("{about}: the answer is no UTF-8"));
        let mut seen = Self {
            // Messages has a status of its own for providers that have too much to do.
            status: if status == 529 { 503 } else { status },
            ..Self::default()
        };
        if !stream || status != 200 {
            let whole: Value =
                serde_json::from_str(&body).unwrap_or_else(|_| panic!("{about}: no JSON: {body}"));
            if status >= 300 {
                seen.error = Some(flat(&whole["error"]));
                return seen;
            }
            match client.trim_start_matches("smith-") {
                "chat" => seen.chat_whole(&whole),
                "responses" => seen.response(&whole),
                "messages" => seen.message(&whole),
                "gemini" => seen.gemini(&[whole]),
                _ => seen.run(&whole),
            }
            return seen;
        }
        let events = events(&body, about);
        match client.trim_start_matches("smith-") {
            "chat" => seen.chat_stream(&events),
            "responses" => seen.response_stream(&events, about),
            "messages" => seen.message_stream(&events, about),
            "gemini" => seen.gemini(&events),
            "native" => seen.run_stream(&events),
            _ => seen.ui_stream(&events),
        }
        seen
    }

    fn chat_usage(&mut self, usage: &Value) {
        let names = [
            ("input", "/prompt_tokens"),
            ("output", "/completion_tokens"),
            ("cached", "/prompt_tokens_details/cached_tokens"),
            ("reasoning", "/completion_tokens_details/reasoning_tokens"),
        ];
        if let Some(usage) = counts(usage, names) {
            self.usage = Some(usage);
        }
    }

    fn chat_whole(&mut self, whole: &Value) {
        if whole["error"].is_object() {
            self.error = Some(whole["error"].clone());
            return;
        }
        let choice = &whole["choices"][0];
        let message = &choice["message"];
        self.shows = Shows::Pages;
        self.cites = annotations(&message["annotations"]).collect();
        self.text = text_of(&message["content"]).to_owned();
        self.reasoning = text_of(&message["reasoning_content"]).to_owned();
        self.refusal = text_of(&message["refusal"]).to_owned();
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        // A client that knows functions, not tools, gets one.
        let function = message.get("function_call");
        for function in calls.map(|call| &call["function"]).chain(function) {
            self.calls.push((
                text_of(&function["name"]).to_owned(),
                text_of(&function["arguments"]).to_owned(),
            ));
        }
        self.finish = choice["finish_reason"].as_str().map(str::to_owned);
        self.chat_usage(&whole["usage"]);
    }

    fn chat_stream(&mut self, events: &[Value]) {
        self.shows = Shows::Pages;
        for event in events {
            let told = &event["choices"][0]["delta"]["annotations"];
            self.cites.extend(annotations(told));
            if event["error"].is_object() {
                self.error = Some(event["error"].clone());
            }
            let choice = &event["choices"][0];
            let delta = &choice["delta"];
            self.text += text_of(&delta["content"]);
            self.reasoning += text_of(&delta["reasoning_content"]);
            self.refusal += text_of(&delta["refusal"]);
            let calls = delta["tool_calls"].as_array().cloned().unwrap_or_default();
            // A client that knows functions, not tools, gets one.
            let function = delta.get("function_call");
            let function = function.map(|function| json!({ "function": function }));
            for call in calls.iter().chain(&function) {
                let at = call["index"].as_u64().unwrap_or_default() as usize;
                if self.calls.len() <= at {
                    self.calls.resize(at + 1, Default::default());
                }
                let function = &call["function"];
                self.calls[at].0 += text_of(&function["name"]);
                self.calls[at].1 += text_of(&function["arguments"]);
            }
            if let Some(finish) = choice["finish_reason"].as_str() {
                self.finish = Some(finish.to_owned());
            }
            self.chat_usage(&event["usage"]);
        }
    }

    /// The pieces of a stream, or the one of an answer.
    fn gemini(&mut self, pieces: &[Value]) {
        // Their places are of each part's text, and count bytes.
        self.shows = Shows::Blocks;
        for piece in pieces {
            if piece["error"].is_object() {
                self.error = Some(flat(&piece["error"]));
                return;
            }
            assert!(piece.get("event").is_none(), "{piece}");
            let candidate = &piece["candidates"][0];
            let parts = &candidate["content"]["parts"];
            for part in parts.as_array().into_iter().flatten() {
                let text = text_of(&part["text"]);
                match part["thought"] == true {
                    true => self.reasoning += text,
                    false => self.text += text,
                }
                if part["inlineData"].is_object() {
                    let of = |name: &str| text_of(&part["inlineData"][name]);
                    let (kind, data) = (of("mimeType"), of("data"));
                    self.text += &format!("![image](data:{kind};base64,{data})");
                }
                let call = &part["functionCall"];
                if call.is_object() {
                    assert!(call["args"].is_object() && call["id"].is_string(), "{call}");
                    // What is no object is wrapped.
                    let args = call["args"].get("_raw").unwrap_or(&call["args"]);
                    let args = args.as_str().map_or(args.to_string(), str::to_owned);
                    self.calls.push((text_of(&call["name"]).to_owned(), args));
                }
            }
            let blocked = &piece["promptFeedback"];
            self.refusal += text_of(&blocked["blockReasonMessage"]);
            self.refusal += text_of(&candidate["finishMessage"]);
            self.finish = match text_of(&candidate["finishReason"]) {
                // A refusal in words ends as any answer does on other wires.
                _ if !self.refusal.is_empty() => None,
                "" if blocked.is_object() => Some("content_filter".to_owned()),
                "" => self.finish.take(),
                "MAX_TOKENS" => Some("length".to_owned()),
                "SAFETY" => Some("content_filter".to_owned()),
                "STOP" if !self.calls.is_empty() => Some("tool_calls".to_owned()),
                "STOP" => Some("stop".to_owned()),
                other => Some(other.to_owned()),
            };
            let told = &candidate["groundingMetadata"];
            let name_of = |chunk: &Value| {
                let names = [&chunk["web"]["uri"], &chunk["retrievedContext"]["title"]];
                let named = names.into_iter().map(text_of).find(|name| !name.is_empty());
                named.unwrap_or_default().to_owned()
            };
            let chunks = told["groundingChunks"].as_array().into_iter().flatten();
            let mut names: Vec<(String, bool)> =
                chunks.map(|chunk| (name_of(chunk), false)).collect();
            for support in told["groundingSupports"].as_array().into_iter().flatten() {
                let at = support["groundingChunkIndices"][0]
                    .as_u64()
                    .expect("a place");
                let (name, is_used) = &mut names[at as usize];
                *is_used = true;
                self.cites.push((name.clone(), 0, 0));
            }
            let unused = names.into_iter().filter(|(_, is_used)| !is_used);
            self.cites.extend(unused.map(|(name, _)| (name, 0, 0)));
            let usage = &piece["usageMetadata"];
            if usage.is_object() {
                let count = |name: &str| usage[name].as_u64().unwrap_or_default();
                let thoughts = count("thoughtsTokenCount");
                let counts = [
                    ("input", count("promptTokenCount")),
                    ("output", count("candidatesTokenCount") + thoughts),
                    ("cached", count("cachedContentTokenCount")),
                    ("reasoning", thoughts),
                ];
                let counts = counts.map(|(name, count)| (name.to_owned(), count));
                self.usage = Some(counts.into_iter().collect());
            }
        }
    }

    fn message(&mut self, message: &Value) {
        if message["type"] == "error" {
            self.error = Some(flat(&message["error"]));
            return;
        }
        self.shows = Shows::Blocks;
        for block in message["content"].as_array().into_iter().flatten() {
            match text_of(&block["type"]) {
                "text" => {
                    self.text += text_of(&block["text"]);
                    for of in block["citations"].as_array().into_iter().flatten() {
                        self.cites.push(cited_block(of));
                    }
                }
                "thinking" => self.reasoning += text_of(&block["thinking"]),
                "tool_use" => {
                    assert!(block["input"].is_object(), "{block}");
                    let name = text_of(&block["name"]).to_owned();
                    // What is no object is wrapped.
                    let input = block["input"].get("_raw").unwrap_or(&block["input"]);
                    let input = input.as_str().map_or(input.to_string(), str::to_owned);
                    self.calls.push((name, input));
                }
                _ => {}
            }
        }
        self.message_end(message, &message["usage"]);
    }

    fn message_end(&mut self, end: &Value, usage: &Value) {
        self.refusal = text_of(&end["stop_details"]["explanation"]).to_owned();
        let finish = match text_of(&end["stop_reason"]) {
            "max_tokens" => "length",
            "tool_use" => "tool_calls",
            "refusal" => "content_filter",
            "end_turn" => "stop",
            other => other,
        };
        // A refusal in words ends as any answer does on other wires.
        self.finish = match self.refusal.is_empty() {
            true => Some(finish.to_owned()),
            false => None,
        };
        let count = |name: &str| usage[name].as_u64().unwrap_or_default();
        let cached = count("cache_read_input_tokens");
        let written = count("cache_creation_input_tokens");
        let counts = [
            ("input", count("input_tokens") + cached + written),
            ("output", count("output_tokens")),
            ("cached", cached),
        ];
        let mut counts: BTreeMap<String, u64> = counts
            .map(|(name, count)| (name.to_owned(), count))
            .into_iter()
            .collect();
        let thinking = usage["output_tokens_details"]["thinking_tokens"].as_u64();
        counts.insert("reasoning".to_owned(), thinking.unwrap_or_default());
        self.usage = usage.is_object().then_some(counts);
    }

    /// The blocks one after the other, as Anthropic's clients put them together.
    fn message_stream(&mut self, events: &[Value], about: &str) {
        let mut message = json!({ "content": [] });
        let mut usage = json!({});
        let mut open: Option<(u64, String)> = None;
        let mut is_ended = false;
        for event in events {
            assert_eq!(event["event"], event["type"], "{about}");
            assert!(!is_ended, "{about}: behind the end: {event}");
            let index = event["index"].as_u64();
            let at = index.unwrap_or_default() as usize;
            match text_of(&event["type"]) {
                "message_start" => usage = event["message"]["usage"].clone(),
                "content_block_start" => {
                    assert!(open.is_none(), "{about}: {event} within {open:?}");
                    open = index.map(|index| (index, String::new()));
                    let content = message["content"].as_array_mut().expect("a list");
                    assert_eq!(content.len(), at, "{about}");
                    content.push(event["content_block"].clone());
                }
                "content_block_delta" => {
                    let block = &mut message["content"][at];
                    let delta = &event["delta"];
                    match text_of(&delta["type"]) {
                        "citations_delta" => {
                            if !block["citations"].is_array() {
                                block["citations"] = json!([]);
                            }
                            let told = block["citations"].as_array_mut().expect("a list");
                            told.push(delta["citation"].clone());
                        }
                        "input_json_delta" => {
                            let (_, input) = open.as_mut().expect("an open block");
                            *input += text_of(&delta["partial_json"]);
                        }
                        kind => {
                            let name = kind.trim_end_matches("_delta");
                            let said = text_of(&block[name]).to_owned() + text_of(&delta[name]);
                            block[name] = json!(said);
                        }
                    }
                }
                "content_block_stop" => {
                    let (was, input) = open.take().expect("an open block");
                    assert_eq!(Some(was), index, "{about}");
                    if !input.is_empty() {
                        let input = serde_json::from_str(&input);
                        message["content"][at]["input"] = input.expect("JSON");
                    }
                }
                "message_delta" => {
                    for (name, value) in event["delta"].as_object().expect("members") {
                        message[name] = value.clone();
                    }
                    for (name, value) in event["usage"].as_object().into_iter().flatten() {
                        usage[name] = value.clone();
                    }
                }
                "message_stop" => is_ended = true,
                "error" => {
                    is_ended = true;
                    self.error = Some(flat(&event["error"]));
                }
                "ping" => {}
                other => panic!("{about}: an event '{other}'"),
            }
        }
        assert!(is_ended, "{about}: no last event: {events:?}");
        if self.error.is_none() {
            message["usage"] = usage;
            self.message(&message);
        }
    }

    fn response(&mut self, response: &Value) {
        for item in response["output"].as_array().into_iter().flatten() {
            match text_of(&item["type"]) {
                "message" => {
                    for part in item["content"].as_array().into_iter().flatten() {
                        let before = self.text.chars().count() as u64;
                        self.text += text_of(&part["text"]);
                        for of in part["annotations"].as_array().into_iter().flatten() {
                            let (source, from, to) = cited(of);
                            let by = if to > 0 { before } else { 0 };
                            self.cites.push((source, from + by, to + by));
                        }
                        self.refusal += text_of(&part["refusal"]);
                    }
                }
                "reasoning" => {
                    for part in item["summary"].as_array().into_iter().flatten() {
                        self.reasoning += text_of(&part["text"]);
                    }
                }
                "function_call" => self.calls.push((
                    text_of(&item["name"]).to_owned(),
                    text_of(&item["arguments"]).to_owned(),
                )),
                _ => {}
            }
        }
        let reason = text_of(&response["incomplete_details"]["reason"]);
        let finish = match (text_of(&response["status"]), reason) {
            ("incomplete", "content_filter") => "content_filter",
            ("incomplete", _) => "length",
            _ if !self.calls.is_empty() => "tool_calls",
            _ => "stop",
        };
        self.finish = Some(finish.to_owned());
        let names = [
            ("input", "/input_tokens"),
            ("output", "/output_tokens"),
            ("cached", "/input_tokens_details/cached_tokens"),
            ("reasoning", "/output_tokens_details/reasoning_tokens"),
        ];
        self.usage = counts(&response["usage"], names);
        if response["error"].is_object() {
            self.error = Some(response["error"].clone());
        }
    }

    /// The deltas and the response at the end, which must say the same.
    fn response_stream(&mut self, events: &[Value], about: &str) {
        let mut deltas = Self::default();
        let mut places: Vec<(u64, usize)> = Vec::new();
        let mut last = None;
        for event in events {
            let delta = text_of(&event["delta"]);
            match text_of(&event["type"]) {
                "response.output_text.delta" => deltas.text += delta,
                "response.output_text.annotation.added" => {
                    assert!(event["annotation_index"].is_u64(), "{about}: {event}");
                    deltas.cites.push(cited(&event["annotation"]));
                }
                "response.refusal.delta" => deltas.refusal += delta,
                "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                    deltas.reasoning += delta;
                }
                "response.output_item.added" if event["item"]["type"] == "function_call" => {
                    let place = event["output_index"].as_u64().unwrap_or_default();
                    places.push((place, deltas.calls.len()));
                    let name = text_of(&event["item"]["name"]).to_owned();
                    deltas.calls.push((name, String::new()));
                }
                "response.function_call_arguments.delta" => {
                    let place = event["output_index"].as_u64();
                    let found = places.iter().find(|(at, _)| Some(*at) == place);
                    let (_, call) = found.unwrap_or_else(|| panic!("{about}: {event} has no call"));
                    deltas.calls[*call].1 += delta;
                }
                "response.completed" | "response.incomplete" | "response.failed" => {
                    last = Some(&event["response"]);
                }
                "error" => {
                    self.error = Some(match event["error"].is_object() {
                        true => event["error"].clone(),
                        false => event.clone(),
                    });
                }
                _ => {}
            }
        }
        let Some(last) = last else {
            assert!(self.error.is_some(), "{about}: no last event: {events:?}");
            return;
        };
        self.response(last);
        if self.error.is_none() {
            let said = |seen: &Self| {
                (
                    seen.text.clone(),
                    seen.reasoning.clone(),
                    seen.refusal.clone(),
                    seen.calls.clone(),
                    seen.cites.len(),
                )
            };
            assert_eq!(
                said(&deltas),
                said(self),
                "{about}: deltas and the end differ"
            );
        }
    }

    fn run(&mut self, run: &Value) {
        self.text = text_of(&run["output"]["content"]).to_owned();
        self.hides_reasoning = true;
        self.shows = Shows::Nothing;
        if run["error"].is_object() {
            self.error = Some(run["error"].clone());
        }
    }

    fn run_stream(&mut self, events: &[Value]) {
        let mut calls: Vec<(String, String)> = Vec::new();
        for event in events {
            let delta = text_of(&event["delta"]);
            match text_of(&event["event"]) {
                "message.delta" => self.text += delta,
                "reasoning.delta" => self.reasoning += delta,
                "tool.args.delta" => {
                    let id = text_of(&event["tool_call_id"]);
                    match calls.iter_mut().find(|(known, _)| known == id) {
                        Some((_, arguments)) => *arguments += delta,
                        None => calls.push((id.to_owned(), delta.to_owned())),
                    }
                }
                "run.failed" => {
                    let told = json!({ "message": event["error"], "code": event["code"],
                        "param": event["param"] });
                    self.error = Some(told);
                }
                "message.citation" => self.cites.push(cited(&event["citation"])),
                _ => {}
            }
        }
        self.calls = calls;
    }

    fn ui_stream(&mut self, events: &[Value]) {
        self.shows = Shows::Sources;
        for event in events {
            match text_of(&event["type"]) {
                "source-url" => self.cites.push((text_of(&event["url"]).to_owned(), 0, 0)),
                "source-document" => {
                    assert!(event["mediaType"].is_string(), "{event}");
                    self.cites.push((text_of(&event["title"]).to_owned(), 0, 0));
                }
                "data-error" => self.error = Some(event["data"].clone()),
                "text-delta" => self.text += text_of(&event["delta"]),
                "reasoning-delta" => self.reasoning += text_of(&event["delta"]),
                "tool-input-available" => self.calls.push((
                    text_of(&event["toolName"]).to_owned(),
                    event["input"].to_string(),
                )),
                "finish" => {
                    let finish = text_of(&event["finishReason"]).replace('-', "_");
                    self.finish = Some(finish);
                }
                "error" => {
                    // Its code came before it.
                    let told = self.error.as_ref().map(|told| &told["message"]);
                    assert_eq!(told, Some(&event["errorText"]), "{event}");
                }
                _ => {}
            }
        }
    }
}
