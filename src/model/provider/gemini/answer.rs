//! Answers of the wire, streamed and whole, as frames.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::frame::{Escaped, Frame, Signer, StopReason, Usage};
use crate::ids;
use crate::lenient::{self, Few, aside, few, flag, place, word};
use crate::model::error::ModelError;
use crate::model::provider::cited::{Ruler, Told};
use crate::model::provider::said::{Speech, Voice, arguments_of, is_blank, is_something, link};
use crate::model::provider::{
    StreamDecoder, Unread, check_count, failed_with, finish, leniently, shared,
};
use crate::sse::Event;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chunk<'a> {
    #[serde(borrow, default, deserialize_with = "few")]
    candidates: Few<Candidate<'a>>,
    #[serde(alias = "usage_metadata", borrow, default)]
    usage_metadata: Option<&'a RawValue>,
    #[serde(alias = "model_version", borrow, default, deserialize_with = "word")]
    model_version: Option<Cow<'a, str>>,
    #[serde(alias = "response_id", borrow, default, deserialize_with = "word")]
    response_id: Option<Cow<'a, str>>,
    #[serde(alias = "prompt_feedback", borrow, default)]
    prompt_feedback: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback {
    #[serde(
        alias = "block_reason",
        default,
        deserialize_with = "lenient::given::text"
    )]
    block_reason: Option<String>,
    #[serde(
        alias = "block_reason_message",
        default,
        deserialize_with = "lenient::given::text"
    )]
    block_reason_message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(default, deserialize_with = "place")]
    index: Option<u32>,
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(alias = "finish_reason", borrow, default, deserialize_with = "word")]
    finish_reason: Option<Cow<'a, str>>,
    /// In words for people.
    #[serde(alias = "finish_message", borrow, default, deserialize_with = "word")]
    finish_message: Option<Cow<'a, str>>,
    #[serde(alias = "grounding_metadata", borrow, default)]
    grounding_metadata: Option<&'a RawValue>,
    #[serde(alias = "citation_metadata", borrow, default)]
    citation_metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default, deserialize_with = "few")]
    parts: Few<WirePart<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePart<'a> {
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "flag")]
    thought: bool,
    #[serde(
        alias = "thought_signature",
        borrow,
        default,
        deserialize_with = "word"
    )]
    thought_signature: Option<Cow<'a, str>>,
    #[serde(alias = "function_call", borrow, default)]
    function_call: Option<FunctionCall<'a>>,
    #[serde(alias = "inline_data", borrow, default)]
    inline_data: Option<&'a RawValue>,
    #[serde(alias = "file_data", borrow, default)]
    file_data: Option<&'a RawValue>,
    #[serde(alias = "executable_code", borrow, default)]
    executable_code: Option<&'a RawValue>,
    #[serde(alias = "code_execution_result", borrow, default)]
    code_execution_result: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct FunctionCall<'a> {
    #[serde(borrow, default, deserialize_with = "word")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    #[serde(
        alias = "prompt_token_count",
        default,
        deserialize_with = "lenient::count"
    )]
    prompt_token_count: Option<u64>,
    #[serde(
        alias = "candidates_token_count",
        default,
        deserialize_with = "lenient::count"
    )]
    candidates_token_count: Option<u64>,
    #[serde(
        alias = "thoughts_token_count",
        default,
        deserialize_with = "lenient::count"
    )]
    thoughts_token_count: Option<u64>,
    #[serde(
        alias = "cached_content_token_count",
        default,
        deserialize_with = "lenient::count"
    )]
    cached_content_token_count: Option<u64>,
    #[serde(
        alias = "tool_use_prompt_token_count",
        default,
        deserialize_with = "lenient::count"
    )]
    tool_use_prompt_token_count: Option<u64>,
    #[serde(
        alias = "total_token_count",
        default,
        deserialize_with = "lenient::count"
    )]
    total_token_count: Option<u64>,
}

impl From<WireUsage> for Usage {
    fn from(wire: WireUsage) -> Self {
        let count = |count: Option<u64>| count.unwrap_or(0);
        let thoughts = count(wire.thoughts_token_count);
        let input = count(wire.prompt_token_count) + count(wire.tool_use_prompt_token_count);
        let output = match wire.candidates_token_count {
            Some(said) => said + thoughts,
            // Some tell the total alone.
            None => count(wire.total_token_count)
                .saturating_sub(input)
                .max(thoughts),
        };
        Self {
            input,
            output,
            cache_read: count(wire.cached_content_token_count),
            cache_write: 0,
            reasoning: thoughts,
        }
    }
}

/// The usage that an answer tells in its `usageMetadata`.
pub fn usage_of(told: &RawValue) -> Option<Usage> {
    aside::<WireUsage>(Some(told)).map(Usage::from)
}

#[derive(Default)]
pub(super) struct Decoder {
    started: bool,
    thinking: bool,
    calls: u32,
    /// The candidate that is read: others are other answers.
    candidate: Option<u32>,
    speech: Speech,
    ruler: Ruler,
    /// What the answer rests on, as it was told last.
    grounding: [Option<Value>; 2],
    usage: Option<Usage>,
    stop: Option<StopReason>,
}

/// What a part holds that is no text, in Markdown, which every client can carry.
fn markdown(part: &WirePart<'_>) -> Option<String> {
    let value = |raw: Option<&RawValue>| serde_json::from_str::<Value>(raw?.get()).ok();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let kind_of = |value: &Value| match text(value, "mimeType") {
        kind if kind.is_empty() => text(value, "mime_type"),
        kind => kind,
    };
    if let Some(inline) = value(part.inline_data) {
        let kind = kind_of(&inline);
        let url = format!("data:{kind};base64,{}", text(&inline, "data"));
        return Some(link(&kind, &url));
    }
    if let Some(file) = value(part.file_data) {
        let url = match text(&file, "fileUri") {
            url if url.is_empty() => text(&file, "file_uri"),
            url => url,
        };
        return Some(link(&kind_of(&file), &url));
    }
    if let Some(code) = value(part.executable_code) {
        let language = text(&code, "language").to_lowercase();
        return Some(format!("\n```{language}\n{}\n```\n", text(&code, "code")));
    }
    let result = value(part.code_execution_result)?;
    Some(format!("\n```\n{}\n```\n", text(&result, "output")))
}

impl Decoder {
    /// For an answer that was not streamed; a list holds the pieces of a stream.
    pub fn whole(body: &Bytes) -> Result<Vec<Frame>, ModelError> {
        let mut decoder = Self::default();
        let mut out = Vec::new();
        let pieces = match body.trim_ascii_start().first() {
            Some(b'[') => serde_json::from_slice::<Vec<&RawValue>>(body).ok(),
            _ => None,
        };
        let pieces: Vec<Bytes> = match pieces {
            Some(pieces) => pieces
                .iter()
                .map(|piece| body.slice_ref(piece.get().as_bytes()))
                .collect(),
            None => vec![body.clone()],
        };
        for piece in &pieces {
            decoder.chunk(piece, &mut out)?;
        }
        if decoder.stop.is_none() && decoder.candidate.is_some() {
            decoder.stop = Some(StopReason::EndTurn);
        }
        decoder.finish(&mut out)?;
        Ok(out)
    }

    fn chunk(&mut self, data: &Bytes, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        leniently(data, reshape, |data| self.read(data, out))
            .map_err(|unread| unread.into_error(data))
    }

    fn read(&mut self, data: &Bytes, out: &mut Vec<Frame>) -> Result<(), Unread> {
        let chunk: Chunk<'_> = serde_json::from_slice(data)?;
        if is_something(chunk.error) {
            return Err(failed_with(chunk.error).into());
        }
        if !self.started {
            self.started = true;
            out.push(Frame::ModelStarted {
                id: shared(chunk.response_id.as_deref().unwrap_or_default()),
                model: shared(chunk.model_version.as_deref().unwrap_or_default()),
            });
        }
        if let Some(usage) = aside::<WireUsage>(chunk.usage_metadata) {
            self.usage = Some(usage.into());
        }
        let feedback: Option<PromptFeedback> = aside(chunk.prompt_feedback);
        if let Some(feedback) = feedback.filter(|feedback| feedback.block_reason.is_some()) {
            self.stop = Some(StopReason::ContentFilter);
            let why = feedback.block_reason_message.unwrap_or_default();
            self.speech.say_text(&why, Voice::Refusal, out);
        }
        for candidate in chunk.candidates {
            let index = candidate.index.unwrap_or(0);
            if *self.candidate.get_or_insert(index) != index {
                continue;
            }
            let before = out.len();
            for part in candidate.content.into_iter().flat_map(|c| c.parts) {
                self.part(data, part, out)?;
            }
            out[before..]
                .iter()
                .for_each(|frame| self.repeated(frame, false));
            let metadata = [candidate.grounding_metadata, candidate.citation_metadata];
            for (kept, told) in self.grounding.iter_mut().zip(metadata) {
                if is_something(told) {
                    *kept = aside(told);
                }
            }
            if let Some(reason) = &candidate.finish_reason {
                let why = candidate.finish_message.as_deref().unwrap_or_default();
                self.stopped(reason, why, out)?;
            }
        }
        Ok(())
    }

    fn stopped(&mut self, reason: &str, why: &str, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        // The numbers of the wire's own enumeration, as some servers write it.
        let reason = match reason {
            "1" => "STOP",
            "2" => "MAX_TOKENS",
            "3" => "SAFETY",
            "4" => "RECITATION",
            "5" => "OTHER",
            word => word,
        };
        if let Some(ended) = finish::ended(reason) {
            let is_empty = !self.speech.has_spoken() && self.calls == 0;
            let stop = ended.stop(reason, why, is_empty)?;
            if stop == StopReason::ContentFilter {
                self.speech.say_text(why, Voice::Refusal, out);
            }
            self.stop = Some(stop);
        }
        Ok(())
    }

    fn part(
        &mut self,
        data: &Bytes,
        part: WirePart<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let signature = part.thought_signature.as_deref().unwrap_or_default();
        if part.thought && part.function_call.is_none() {
            if is_something(part.text) {
                self.thinking = true;
                self.speech.say(data, part.text, Voice::Reasoning, out)?;
            }
            return Ok(());
        }
        if std::mem::take(&mut self.thinking) {
            out.push(Frame::ReasoningDone {
                signer: Signer::Google,
                signature: Bytes::new(),
                redacted: false,
            });
        }
        let voice = match part.thought {
            true => Voice::Reasoning,
            false => Voice::Text,
        };
        self.speech.say(data, part.text, voice, out)?;
        match markdown(&part) {
            Some(text) => self.speech.say_text(&text, Voice::Text, out),
            None if part.text.is_none() && part.function_call.is_none() && signature.is_empty() => {
                self.speech.pass_over("a part that nobody knows");
            }
            None => {}
        }
        if let Some(call) = part.function_call {
            return self.call(data, &call, signature, out);
        }
        if !signature.is_empty() {
            out.push(Frame::ReasoningDone {
                signer: Signer::Google,
                signature: shared(signature),
                redacted: false,
            });
        }
        Ok(())
    }

    fn call(
        &mut self,
        data: &Bytes,
        call: &FunctionCall<'_>,
        signature: &str,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let Some(name) = call.name.as_deref().filter(|name| !name.is_empty()) else {
            let message = "a tool call that has no name".to_owned();
            return Err(ModelError::Malformed(message));
        };
        let index = self.calls;
        check_count(index as usize + 1)?;
        self.calls += 1;
        out.push(Frame::ToolStarted {
            index,
            id: match call.id.as_deref() {
                Some(id) if !id.is_empty() => shared(id),
                _ => Bytes::from(ids::mint(ids::Kind::Call)),
            },
            name: shared(name),
        });
        let none = || Escaped::from_valid(Bytes::from_static(b"{}"));
        let arguments = arguments_of(data, call.args.or(call.arguments));
        out.push(Frame::ToolArgs {
            index,
            delta: arguments
                .filter(|text| !is_blank(text))
                .unwrap_or_else(none),
        });
        out.push(Frame::ToolDone {
            index,
            signature: shared(signature),
        });
        Ok(())
    }
}

/// Contents that are texts or lists, parts that are texts, and calls that are names.
fn reshape(chunk: &mut Value) {
    let candidates = match &mut chunk["candidates"] {
        Value::Array(candidates) => candidates.iter_mut().collect(),
        candidate @ Value::Object(_) => vec![candidate],
        _ => Vec::new(),
    };
    for candidate in candidates {
        let Some(content) = candidate.get_mut("content") else {
            continue;
        };
        if !content.is_object() && !content.is_null() {
            *content = json!({ "parts": content.take() });
        }
        let Some(parts) = content.get_mut("parts") else {
            continue;
        };
        if !parts.is_array() {
            *parts = json!([parts.take()]);
        }
        for part in parts.as_array_mut().into_iter().flatten() {
            if part.is_string() {
                *part = json!({ "text": part.take() });
            }
            if let Some(call) = part.get_mut("functionCall")
                && call.is_string()
            {
                *call = json!({ "name": call.take() });
            }
        }
    }
}

impl StreamDecoder for Decoder {
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let data = event.data.trim_ascii();
        if data == b"[DONE]" || data.is_empty() {
            return Ok(());
        }
        self.chunk(&event.data, out)
    }

    fn repeated(&mut self, frame: &Frame, is_plain: bool) {
        if let Frame::Text(text) = frame {
            self.ruler.add(text, is_plain);
        }
    }

    fn is_done(&self) -> bool {
        // The wire has no last event: usage may follow the finish reason.
        false
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let Some(mut stop) = self.stop.take() else {
            return Err(ModelError::Cut);
        };
        self.speech.end(self.calls > 0)?;
        let mut told = Told::default();
        for metadata in self.grounding.iter().flatten() {
            self.ruler.grounding(metadata, &mut told, out);
        }
        if stop == StopReason::EndTurn && self.calls > 0 {
            stop = StopReason::ToolCalls;
        }
        out.extend(self.usage.take().map(Frame::ModelUsage));
        out.push(Frame::ModelStopped(stop));
        Ok(())
    }
}
