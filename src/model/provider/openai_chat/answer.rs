//! Answers of the wire, streamed and whole, as frames.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::calls::{Calls, Piece};
use crate::frame::{Frame, StopReason};
use crate::lenient::{Few, aside, few, place, word};
use crate::model::error::ModelError;
use crate::model::fault::Fault;
use crate::model::provider::cited::Told;
use crate::model::provider::finish::ended;
use crate::model::provider::said::{Speech, Voice, arguments_of, is_something};
use crate::model::provider::{
    StreamDecoder, Unread, WireUsage, failed_with, leniently, reasoning, shared,
};
use crate::sse::Event;

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default, deserialize_with = "word")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "word")]
    model: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "few")]
    choices: Few<Choice<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    /// Where Groq tells the usage of a stream.
    #[serde(borrow, default)]
    x_groq: Option<&'a RawValue>,
    /// Pages that the answer rests on, beside it.
    #[serde(borrow, default)]
    citations: Option<&'a RawValue>,
    #[serde(borrow, default)]
    search_results: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    /// `error` where the whole object is one.
    #[serde(borrow, default, deserialize_with = "word")]
    object: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default, deserialize_with = "place")]
    index: Option<u32>,
    #[serde(borrow, default)]
    delta: Option<Said<'a>>,
    /// In an answer that was not streamed.
    #[serde(borrow, default)]
    message: Option<Said<'a>>,
    /// In answers of the older completions.
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "word")]
    finish_reason: Option<Cow<'a, str>>,
    /// Where Moonshot tells the usage of a stream.
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Groq {
    #[serde(default)]
    usage: WireUsage,
}

/// A delta, or a whole message.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    thinking: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    images: Option<&'a RawValue>,
    #[serde(borrow, default)]
    audio: Option<&'a RawValue>,
    #[serde(borrow, default)]
    annotations: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "few")]
    tool_calls: Few<ToolCall<'a>>,
    #[serde(borrow, default)]
    function_call: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(default, deserialize_with = "place")]
    index: Option<u32>,
    #[serde(borrow, default, deserialize_with = "word")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
    /// Without the object around it.
    #[serde(borrow, default, deserialize_with = "word")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    extra_content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default, deserialize_with = "word")]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    parameters: Option<&'a RawValue>,
}

/// Kinds of what is said, each of which is taken from one choice alone, and either from deltas or
/// from messages: some servers split an answer over choices, others say it all again at its end.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Reasoning,
    Refusal,
    Calls,
}

#[derive(Default)]
pub(super) struct Decoder {
    started: bool,
    is_whole: bool,
    speech: Speech,
    reasoning: reasoning::Heard,
    calls: Calls,
    told: Option<Box<Told>>,
    /// The choice, and whether it was a delta, that each kind was first said by.
    sources: [Option<(u32, bool)>; 4],
    stop: Option<StopReason>,
    done: bool,
    /// The last event named a call.
    named: bool,
}

impl Decoder {
    /// For an answer that was not streamed.
    pub fn whole(body: &Bytes) -> Result<Vec<Frame>, ModelError> {
        let mut decoder = Self {
            is_whole: true,
            done: true,
            ..Self::default()
        };
        let mut out = Vec::new();
        leniently(body, reshape, |body| decoder.chunk(body, &mut out))
            .map_err(|unread| unread.into_error(body))?;
        decoder.finish(&mut out)?;
        Ok(out)
    }

    fn chunk(&mut self, data: &Bytes, out: &mut Vec<Frame>) -> Result<(), Unread> {
        let chunk: Chunk<'_> = serde_json::from_slice(data)?;
        self.reasoning.next();
        if let Some(error) = chunk.error.filter(|error| is_error(error)) {
            return Err(failed_with(Some(error)).into());
        }
        if chunk.object.as_deref() == Some("error") {
            let fault = Fault::told_by(&String::from_utf8_lossy(data));
            return Err(ModelError::InStream(Box::new(fault)).into());
        }
        if self.is_whole && chunk.choices.is_empty() {
            return Err(ModelError::Malformed("the answer holds no choice".to_owned()).into());
        }
        if !self.started {
            self.started = true;
            out.push(Frame::ModelStarted {
                id: shared(chunk.id.as_deref().unwrap_or_default()),
                model: shared(chunk.model.as_deref().unwrap_or_default()),
            });
        }
        self.named = false;
        let mut usage = chunk.usage;
        for choice in chunk.choices {
            if !is_something(usage) {
                usage = choice.usage;
            }
            self.choice(data, choice, out)?;
        }
        for pages in [chunk.search_results, chunk.citations] {
            if is_something(pages) {
                self.told.get_or_insert_default().pages(pages, out);
            }
        }
        let in_groq = || aside::<Groq>(chunk.x_groq.filter(|raw| raw.get().contains("\"usage\"")));
        if let Some(usage) = aside::<WireUsage>(usage).or_else(|| Some(in_groq()?.usage)) {
            out.push(Frame::ModelUsage(usage.into()));
        }
        Ok(())
    }

    fn choice(
        &mut self,
        data: &Bytes,
        choice: Choice<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        if let Some(error) = choice.error.filter(|error| is_error(error)) {
            return Err(failed_with(Some(error)));
        }
        let index = choice.index.unwrap_or(0);
        if let Some(delta) = choice.delta {
            self.said(data, (index, true), delta, out)?;
        }
        if let Some(message) = choice.message {
            self.said(data, (index, false), message, out)?;
        }
        if is_something(choice.text) && self.is_from(Kind::Text, (index, true)) {
            self.speech.say(data, choice.text, Voice::Text, out)?;
        }
        if let Some(reason) = choice.finish_reason
            && let Some(ended) = ended(&reason)
            && (index == 0 || self.stop.is_none())
        {
            let is_empty = !self.speech.has_spoken() && !self.calls.is_any();
            self.stop = Some(ended.stop(&reason, "", is_empty)?);
        }
        Ok(())
    }

    fn is_from(&mut self, kind: Kind, source: (u32, bool)) -> bool {
        *self.sources[kind as usize].get_or_insert(source) == source
    }

    fn said(
        &mut self,
        data: &Bytes,
        source: (u32, bool),
        said: Said<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        self.thought(data, source, &said, out)?;
        let goes_on = [said.content, said.refusal, said.images, said.audio];
        if goes_on.into_iter().any(is_something) || said.has_calls() {
            out.extend(self.reasoning.end());
        }
        if is_something(said.content) && self.is_from(Kind::Text, source) {
            self.speech.say(data, said.content, Voice::Text, out)?;
        }
        for media in [said.images, said.audio] {
            if is_something(media) && self.is_from(Kind::Text, source) {
                self.speech.say(data, media, Voice::Text, out)?;
            }
        }
        if is_something(said.refusal) && self.is_from(Kind::Refusal, source) {
            self.speech.say(data, said.refusal, Voice::Refusal, out)?;
        }
        if is_something(said.annotations) {
            self.told
                .get_or_insert_default()
                .annotations(said.annotations, out);
        }
        let has_calls = !said.tool_calls.is_empty();
        if (said.has_calls() || !self.speech.calls.is_empty()) && self.is_from(Kind::Calls, source)
        {
            for call in said.tool_calls {
                self.tool(data, call, out)?;
            }
            if let Some(function) = said.function_call.filter(|_| !has_calls) {
                self.tool(data, ToolCall::of(function), out)?;
            }
            for call in std::mem::take(&mut self.speech.calls) {
                self.tool_part(&call, out)?;
            }
        }
        Ok(())
    }

    /// Reasoning in any of the members that it is told in; what goes back is told by its text and
    /// its details.
    fn thought(
        &mut self,
        data: &Bytes,
        source: (u32, bool),
        said: &Said<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let aloud = [
            said.reasoning_content,
            said.reasoning,
            said.reasoning_text,
            said.thinking,
        ];
        let aloud = aloud.into_iter().find(|raw| is_something(*raw)).flatten();
        let details = said
            .reasoning_details
            .filter(|raw| is_something(Some(*raw)));
        if (aloud.is_none() && details.is_none()) || !self.is_from(Kind::Reasoning, source) {
            return Ok(());
        }
        if aloud.is_some() {
            self.reasoning.text(is_something(said.reasoning_content));
            self.speech.say(data, aloud, Voice::Reasoning, out)?;
        }
        let Some(details) = details else {
            return Ok(());
        };
        let told = self.reasoning.details(details);
        match told.filter(|_| aloud.is_none()) {
            Some(text) => self.speech.say_escaped(text, Voice::Reasoning, out),
            // Alone, and no list.
            None if aloud.is_none() && !details.get().starts_with('[') => {
                self.speech
                    .say(data, Some(details), Voice::Reasoning, out)?;
            }
            None => {}
        }
        Ok(())
    }

    fn tool(
        &mut self,
        data: &Bytes,
        call: ToolCall<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let function = call.function;
        let name = function.as_ref().and_then(|f| f.name.as_deref());
        let name = name.filter(|name| !name.is_empty());
        let name = name.or(call.name.as_deref()).unwrap_or_default();
        let arguments = [
            function.as_ref().and_then(|f| f.arguments),
            function.as_ref().and_then(|f| f.parameters),
            call.arguments,
            call.input,
        ];
        let signature = call.extra_content.and_then(signature_of);
        self.named |= !name.is_empty();
        self.calls.take(
            Piece {
                index: call.index,
                id: call.id.as_deref().unwrap_or_default(),
                name,
                arguments: arguments
                    .into_iter()
                    .find_map(|arguments| arguments_of(data, arguments)),
                signature,
                is_whole: self.is_whole,
            },
            out,
        )
    }

    /// A call that stood among the parts of the content.
    fn tool_part(&mut self, part: &Value, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let text = Value::to_string(part);
        if let Ok(call) = serde_json::from_str::<ToolCall<'_>>(&text) {
            self.tool(&Bytes::copy_from_slice(text.as_bytes()), call, out)?;
        }
        Ok(())
    }
}

impl Said<'_> {
    fn has_calls(&self) -> bool {
        !self.tool_calls.is_empty() || self.function_call.is_some()
    }
}

impl<'a> ToolCall<'a> {
    fn of(function: Function<'a>) -> Self {
        Self {
            index: None,
            id: None,
            function: Some(function),
            name: None,
            arguments: None,
            input: None,
            extra_content: None,
        }
    }
}

fn signature_of(extra: &RawValue) -> Option<Bytes> {
    let extra: Value = serde_json::from_str(extra.get()).ok()?;
    extra["google"]["thought_signature"].as_str().map(shared)
}

/// Whether a member `error` tells of one.
fn is_error(raw: &RawValue) -> bool {
    is_something(Some(raw)) && raw.get() != "false"
}

/// Puts right what has another shape than the wire says.
fn reshape(chunk: &mut Value) {
    let choices = match &mut chunk["choices"] {
        Value::Array(choices) => choices.iter_mut().collect(),
        choice @ Value::Object(_) => vec![choice],
        _ => Vec::new(),
    };
    for choice in choices {
        for name in ["delta", "message"] {
            let Some(said) = choice.get_mut(name) else {
                continue;
            };
            if !said.is_null() && !said.is_object() {
                *said = json!({ "content": said.take() });
            }
            if let Some(calls) = said.get_mut("tool_calls") {
                unquote(calls);
                for call in calls.as_array_mut().into_iter().flatten() {
                    unquote(call);
                    function(call.get_mut("function"));
                }
            }
            function(said.get_mut("function_call"));
        }
    }
}

/// JSON that was put into a text.
fn unquote(value: &mut Value) {
    if let Some(text) = value.as_str() {
        *value = serde_json::from_str(text).unwrap_or_default();
    }
}

/// A function that is its name alone.
fn function(value: Option<&mut Value>) {
    if let Some(value) = value
        && value.is_string()
    {
        *value = json!({ "name": value.take() });
    }
}

impl StreamDecoder for Decoder {
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let data = event.data.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
        }
        if data.is_empty() || self.done {
            return Ok(());
        }
        leniently(&event.data, reshape, |data| self.chunk(data, out))
            .map_err(|unread| unread.into_error(&event.data))
    }

    fn may_repeat(&self) -> bool {
        !self.named && !self.reasoning.adds_up()
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let mut stop = match self.stop.take() {
            Some(stop) => stop,
            // Some end without a reason; the end itself was told.
            None if self.done && self.sources.iter().any(Option::is_some) => StopReason::EndTurn,
            None => return Err(ModelError::Cut),
        };
        out.extend(self.reasoning.end());
        self.calls.end(out)?;
        self.speech.end(self.calls.is_any())?;
        // Some compatible providers finish tool calls with "stop".
        if stop == StopReason::EndTurn && self.calls.is_any() {
            stop = StopReason::ToolCalls;
        }
        out.push(Frame::ModelStopped(stop));
        Ok(())
    }
}
