//! Answers of the wire, streamed and whole, as frames.
//!
//! A stream tells everything up to three times: in deltas, in the event that ends a piece, and in the
//! response at its end. What is told first counts; what was told is not told again.

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::event::{
    ContentPart, Incomplete, Item, Origin, Response, StreamEvent, reshape_event, reshape_response,
};
use crate::frame::{Escaped, Frame, Signer, StopReason, Usage, citation};
use crate::ids;
use crate::lenient::aside;
use crate::model::error::ModelError;
use crate::model::provider::cited::Told;
use crate::model::provider::said::{Speech, Voice, arguments_of, is_blank, is_something, link};
use crate::model::provider::{
    StreamDecoder, Unread, WireUsage, check_count, failed_with, leniently, shared, text_of,
};
use crate::sse::Event;

#[derive(Default)]
struct Call {
    output_index: Option<u32>,
    item_id: Bytes,
    call_id: Bytes,
    /// Its number among the frames, once it has a name.
    begun: Option<u32>,
    /// Arguments that came before the name.
    early: Vec<Escaped>,
    /// The whole arguments, which count if none came in deltas.
    input: Option<Escaped>,
    has_arguments: bool,
    done: bool,
}

#[derive(Default)]
pub(super) struct Decoder {
    started: bool,
    calls: Vec<Call>,
    begun: u32,
    speech: Speech,
    /// What was said: the item's place, the part's, and how.
    said: Vec<(Option<u32>, Option<u32>, Voice)>,
    /// Texts that are whole: the item's place, the part's, and its characters.
    texts: Vec<(Option<u32>, Option<u32>, i64)>,
    /// What was told of a text, with the text's place.
    told: Option<Box<Told>>,
    /// The places of items of reasoning that were ended.
    reasoned: Vec<Option<u32>>,
    /// The places of images that were shown.
    images: Vec<Option<u32>>,
    usage: Option<Usage>,
    stop: Option<StopReason>,
    /// The last event was a piece, and not what ends one.
    is_piece: bool,
}

fn failed(code: Option<&str>, message: Option<&str>) -> ModelError {
    ModelError::told(code.unwrap_or_default(), message.unwrap_or("no message"))
}

impl Call {
    fn say(&mut self, delta: Escaped, out: &mut Vec<Frame>) {
        let Some(index) = self.begun else {
            self.early.push(delta);
            return;
        };
        if !self.has_arguments && is_blank(&delta) {
            return;
        }
        self.has_arguments = true;
        out.push(Frame::ToolArgs { index, delta });
    }

    fn end(&mut self, out: &mut Vec<Frame>) {
        let Some(index) = self.begun.filter(|_| !self.done) else {
            return;
        };
        if !self.has_arguments {
            let none = Escaped::from_valid(Bytes::from_static(b"{}"));
            let input = self.input.take().unwrap_or(none);
            self.say(input, out);
        }
        self.done = true;
        out.push(Frame::ToolDone {
            index,
            signature: Bytes::new(),
        });
    }
}

fn nameless() -> ModelError {
    ModelError::Malformed("pieces of a tool call that has no name".to_owned())
}

impl Decoder {
    /// For an answer that was not streamed.
    pub fn whole(body: &Bytes) -> Result<Vec<Frame>, ModelError> {
        let mut decoder = Self::default();
        let mut out = Vec::new();
        leniently(body, reshape_response, |body| {
            let response: Response<'_> = serde_json::from_slice(body)?;
            if is_something(response.error) {
                return Err(failed_with(response.error).into());
            }
            if response.status.is_none()
                && response.output.is_empty()
                && !is_something(response.output_text)
            {
                let message = "the answer holds no output".to_owned();
                return Err(ModelError::Malformed(message).into());
            }
            if let Some(status @ ("queued" | "in_progress")) = response.status.as_deref()
                && response.output.is_empty()
            {
                let message = format!("an answer that is not there yet, but '{status}'");
                return Err(ModelError::Malformed(message).into());
            }
            decoder.start(Some(&response), &mut out);
            decoder.rest(body, &response, &mut out)?;
            decoder.ended(Some(&response))?;
            Ok(())
        })
        .map_err(|unread: Unread| unread.into_error(body))?;
        decoder.finish(&mut out)?;
        Ok(out)
    }

    fn start(&mut self, response: Option<&Response<'_>>, out: &mut Vec<Frame>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let id = response.and_then(|response| response.id.as_deref());
        let model = response.and_then(|response| response.model.as_deref());
        out.push(Frame::ModelStarted {
            id: shared(id.unwrap_or_default()),
            model: shared(model.unwrap_or_default()),
        });
    }

    /// Whether what this piece says was said before.
    fn was_said(&self, at: Option<u32>, part: Option<u32>, voice: Voice) -> bool {
        let same =
            |one: Option<u32>, other: Option<u32>| one.is_none() || other.is_none() || one == other;
        self.said.iter().any(|(said_at, said_part, said_as)| {
            *said_as == voice && same(*said_at, at) && same(*said_part, part)
        })
    }

    fn note(&mut self, at: Option<u32>, part: Option<u32>, voice: Voice) -> Result<(), ModelError> {
        if self.said.last() != Some(&(at, part, voice)) {
            check_count(self.said.len() + 1)?;
            self.said.push((at, part, voice));
        }
        Ok(())
    }

    /// Says a piece that is whole, if it was not said in pieces.
    fn say_whole(
        &mut self,
        data: &Bytes,
        (at, part, voice): (Option<u32>, Option<u32>, Voice),
        raw: Option<&RawValue>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        if is_something(raw) && !self.was_said(at, part, voice) {
            self.note(at, part, voice)?;
            self.speech.say(data, raw, voice, out)?;
        }
        Ok(())
    }

    /// Notes that a text is whole: places in the next begin behind it.
    fn whole_text(
        &mut self,
        data: &Bytes,
        at: Option<u32>,
        part: Option<u32>,
        raw: Option<&RawValue>,
    ) {
        let is_new = |texts: &[(Option<u32>, Option<u32>, i64)]| {
            !texts.iter().any(|(item, of, _)| (*item, *of) == (at, part))
        };
        if is_something(raw)
            && is_new(&self.texts)
            && let Some(text) = text_of(data, raw)
        {
            let chars = i64::try_from(text.chars()).unwrap_or_default();
            self.texts.push((at, part, chars));
        }
    }

    /// What is told of one text, whose places count from its beginning.
    fn cite(&mut self, at: Option<u32>, part: Option<u32>, citation: Value, out: &mut Vec<Frame>) {
        let others = self
            .texts
            .iter()
            .take_while(|text| (text.0, text.1) != (at, part));
        let before = others.map(|text| text.2).sum();
        self.told
            .get_or_insert_default()
            .add(citation::shifted(citation, before), out);
    }

    fn cite_all(
        &mut self,
        data: &Bytes,
        (at, part): (Option<u32>, Option<u32>),
        content: &ContentPart<'_>,
        out: &mut Vec<Frame>,
    ) {
        if is_something(content.annotations) {
            let annotations: Option<Vec<Value>> = aside(content.annotations);
            for annotation in annotations.into_iter().flatten() {
                self.cite(at, part, annotation, out);
            }
        }
        self.whole_text(data, at, part, content.text);
    }

    fn find(&self, from: Origin<'_>) -> Option<usize> {
        let place = |matches: &dyn Fn(&Call) -> bool| self.calls.iter().rposition(matches);
        let by_item = || place(&|call| !from.item_id.is_empty() && call.item_id == from.item_id);
        let by_call = || place(&|call| !from.call_id.is_empty() && call.call_id == from.call_id);
        let at = from.output_index;
        let by_place = || place(&|call| at.is_some() && call.output_index == at);
        by_item().or_else(by_call).or_else(by_place)
    }

    /// The call of a piece, which is new if it is of none that is known.
    fn call(&mut self, from: Origin<'_>) -> Result<usize, ModelError> {
        if let Some(at) = self.find(from) {
            return Ok(at);
        }
        check_count(self.calls.len() + 1)?;
        self.calls.push(Call {
            output_index: from.output_index,
            item_id: shared(from.item_id),
            call_id: shared(from.call_id),
            ..Call::default()
        });
        Ok(self.calls.len() - 1)
    }

    fn begin(&mut self, at: usize, call_id: &str, name: &str, out: &mut Vec<Frame>) {
        if self.calls[at].begun.is_some() || name.is_empty() {
            return;
        }
        let is_taken = |call: &Call| call.begun.is_some() && call.call_id == call_id;
        let id = match call_id.is_empty() || self.calls.iter().any(is_taken) {
            true => Bytes::from(ids::mint(ids::Kind::Call)),
            false => shared(call_id),
        };
        let index = self.begun;
        self.begun += 1;
        let call = &mut self.calls[at];
        call.begun = Some(index);
        call.call_id = shared(call_id);
        out.push(Frame::ToolStarted {
            index,
            id,
            name: shared(name),
        });
        for delta in std::mem::take(&mut call.early) {
            call.say(delta, out);
        }
    }

    /// A call's item, as far as it is told.
    fn call_item(
        &mut self,
        data: &Bytes,
        output_index: Option<u32>,
        item: &Item<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<usize, ModelError> {
        let call_id = item.call_id.as_deref().unwrap_or_default();
        let at = self.call(Origin {
            output_index,
            item_id: item.id.as_deref().unwrap_or_default(),
            call_id,
        })?;
        let input = match item.input {
            // Free text is the one argument of a function, as such tools are told to models.
            Some(text) if item.kind.as_deref() == Some("custom_tool_call") => {
                let text: Value = aside(Some(text)).unwrap_or_default();
                Some(Escaped::escape(&json!({ "input": text }).to_string()))
            }
            _ => arguments_of(data, item.arguments).filter(|input| !is_blank(input)),
        };
        let call = &mut self.calls[at];
        if input.is_some() {
            // The whole counts more than pieces that could not be said yet.
            call.early.clear();
            call.input = input;
        }
        let id = match call_id {
            "" => item.id.as_deref().unwrap_or_default(),
            told => told,
        };
        self.begin(at, id, item.name.as_deref().unwrap_or_default(), out);
        Ok(at)
    }

    fn item_done(
        &mut self,
        data: &Bytes,
        at: Option<u32>,
        item: &Item<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        match item.kind.as_deref().unwrap_or("message") {
            "function_call" | "custom_tool_call" => {
                let call = self.call_item(data, at, item, out)?;
                if self.calls[call].begun.is_none() {
                    return Err(nameless());
                }
                self.calls[call].end(out);
            }
            "reasoning" => {
                for (part, summary) in (0..).zip(item.summary.iter().chain(&item.content)) {
                    let place = (at, Some(part), Voice::Reasoning);
                    self.say_whole(data, place, summary.text, out)?;
                }
                self.reasoning_done(at, item, out)?;
            }
            "message" => {
                for (part, content) in (0..).zip(&item.content) {
                    let part = Some(part);
                    self.say_whole(data, (at, part, Voice::Text), content.text, out)?;
                    self.say_whole(data, (at, part, Voice::Refusal), content.refusal, out)?;
                    self.cite_all(data, (at, part), content, out);
                }
            }
            "image_generation_call" => self.image(at, item, out)?,
            other => self.speech.pass_over(other),
        }
        Ok(())
    }

    /// An image as a link, which every client can carry, once.
    fn image(
        &mut self,
        at: Option<u32>,
        item: &Item<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let Some(data) = item.result.as_deref().filter(|data| !data.is_empty()) else {
            self.speech.pass_over("image_generation_call");
            return Ok(());
        };
        if !self.images.contains(&at) {
            check_count(self.images.len() + 1)?;
            self.images.push(at);
            let kind = format!("image/{}", item.output_format.as_deref().unwrap_or("png"));
            let image = link(&kind, &format!("data:{kind};base64,{data}"));
            self.speech.say_text(&image, Voice::Text, out);
        }
        Ok(())
    }

    fn reasoning_done(
        &mut self,
        at: Option<u32>,
        item: &Item<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        if self.reasoned.contains(&at) {
            return Ok(());
        }
        check_count(self.reasoned.len() + 1)?;
        self.reasoned.push(at);
        // What the next turn must send back is the item itself, without its status.
        let encrypted = item.encrypted_content.as_deref();
        let signature = encrypted.filter(|sealed| !sealed.is_empty()).map(|sealed| {
            json!({
                "type": "reasoning",
                "id": item.id,
                "summary": [],
                "encrypted_content": sealed,
            })
            .to_string()
        });
        out.push(Frame::ReasoningDone {
            signer: Signer::OpenAi,
            signature: Bytes::from(signature.unwrap_or_default()),
            redacted: false,
        });
        Ok(())
    }

    /// What a response has at its end that no event told.
    fn rest(
        &mut self,
        data: &Bytes,
        response: &Response<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let told = |voice: Voice| self.said.iter().any(|(.., said_as)| *said_as == voice);
        let (texts, reasonings) = (
            told(Voice::Text) || told(Voice::Refusal),
            told(Voice::Reasoning),
        );
        let any_reasoned = !self.reasoned.is_empty();
        for (at, item) in (0..).zip(&response.output) {
            let skip = match item.kind.as_deref().unwrap_or("message") {
                "message" => texts,
                "reasoning" => reasonings || any_reasoned,
                _ => false,
            };
            if !skip {
                self.item_done(data, Some(at), item, out)?;
            } else if item.kind.as_deref().unwrap_or("message") == "message" {
                for (part, content) in (0..).zip(&item.content) {
                    self.cite_all(data, (Some(at), Some(part)), content, out);
                }
            }
        }
        if response.output.is_empty() && !texts {
            let place = (None, None, Voice::Text);
            self.say_whole(data, place, response.output_text, out)?;
        }
        Ok(())
    }

    fn ended(&mut self, response: Option<&Response<'_>>) -> Result<(), ModelError> {
        let usage: Option<WireUsage> = response.and_then(|response| aside(response.usage));
        if let Some(usage) = usage {
            self.usage = Some(usage.into());
        }
        let status = response.and_then(|response| response.status.as_deref());
        let details: Option<Incomplete> =
            response.and_then(|response| aside(response.incomplete_details));
        let reason = details.and_then(|details| details.reason);
        self.stop = Some(match status {
            Some("cancelled") => {
                return Err(ModelError::told(
                    "",
                    "the model provider cancelled the response",
                ));
            }
            Some("failed") => {
                return Err(failed_with(response.and_then(|response| response.error)));
            }
            Some("incomplete") if reason.as_deref() == Some("content_filter") => {
                StopReason::ContentFilter
            }
            Some("incomplete") => StopReason::MaxTokens,
            _ if !self.calls.is_empty() => StopReason::ToolCalls,
            _ => StopReason::EndTurn,
        });
        Ok(())
    }

    fn arguments(
        &mut self,
        data: &Bytes,
        event: &StreamEvent<'_>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        let Some(delta) = arguments_of(data, event.delta) else {
            return Ok(());
        };
        let from = event.origin();
        let is_open = |call: &Call| !call.done;
        let at = match self.find(from) {
            Some(at) => at,
            None if from.output_index.is_none() => match self.calls.iter().rposition(is_open) {
                Some(at) => at,
                None => self.call(from)?,
            },
            None => self.call(from)?,
        };
        let call = &mut self.calls[at];
        match call.done {
            true => Err(nameless()),
            false => {
                call.say(delta, out);
                Ok(())
            }
        }
    }
}

impl Decoder {
    fn read(
        &mut self,
        data: &Bytes,
        name: Option<&[u8]>,
        out: &mut Vec<Frame>,
    ) -> Result<(), Unread> {
        let event: StreamEvent<'_> = serde_json::from_slice(data)?;
        let kind = event.kind.as_deref().map(str::as_bytes).or(name);
        let kind = kind.unwrap_or_default();
        self.is_piece = kind.ends_with(b".delta");
        if kind != b"error" && kind != b"response.failed" {
            self.start(event.response.as_ref(), out);
        }
        let (at, part) = (event.output_index, event.part());
        let place = |voice: Voice| (at, part, voice);
        match kind {
            b"response.output_text.delta" => {
                self.delta(data, place(Voice::Text), event.delta, out)?;
            }
            b"response.refusal.delta" => {
                self.delta(data, place(Voice::Refusal), event.delta, out)?;
            }
            b"response.reasoning_summary_text.delta" | b"response.reasoning_text.delta" => {
                self.delta(data, place(Voice::Reasoning), event.delta, out)?;
            }
            b"response.function_call_arguments.delta" => self.arguments(data, &event, out)?,
            b"response.output_text.done" => {
                self.say_whole(data, place(Voice::Text), event.text, out)?;
                self.whole_text(data, at, part, event.text);
            }
            b"response.output_text.annotation.added" => {
                if let Some(annotation) = aside(event.annotation) {
                    self.cite(at, part, annotation, out);
                }
            }
            b"response.refusal.done" => {
                self.say_whole(data, place(Voice::Refusal), event.refusal, out)?;
            }
            b"response.reasoning_summary_text.done" | b"response.reasoning_text.done" => {
                self.say_whole(data, place(Voice::Reasoning), event.text, out)?;
            }
            b"response.content_part.done" => {
                if let Some(content) = &event.part {
                    self.say_whole(data, place(Voice::Text), content.text, out)?;
                    self.say_whole(data, place(Voice::Refusal), content.refusal, out)?;
                    self.cite_all(data, (at, part), content, out);
                }
            }
            b"response.reasoning_summary_part.done" => {
                let text = event.part.as_ref().and_then(|part| part.text);
                self.say_whole(data, place(Voice::Reasoning), text, out)?;
            }
            b"response.function_call_arguments.done" => {
                let call = self.call(event.origin())?;
                if let Some(input) = arguments_of(data, event.arguments) {
                    self.calls[call].early.clear();
                    self.calls[call].input = Some(input);
                }
                self.begin(call, "", event.name.as_deref().unwrap_or_default(), out);
            }
            b"response.output_item.added" => {
                if let Some(item) = &event.item
                    && item.kind.as_deref() == Some("function_call")
                {
                    self.call_item(data, at, item, out)?;
                }
            }
            b"response.output_item.done" => {
                if let Some(item) = &event.item {
                    self.item_done(data, at, item, out)?;
                }
            }
            b"response.completed"
            | b"response.incomplete"
            | b"response.failed"
            | b"response.cancelled"
            | b"response.done" => {
                let response = event.response.as_ref();
                if let Some(response) = response {
                    self.rest(data, response, out)?;
                }
                self.ended(response)?;
            }
            b"error" => {
                if is_something(event.error) {
                    return Err(failed_with(event.error).into());
                }
                return Err(failed(event.code.as_deref(), event.message.as_deref()).into());
            }
            _ if is_something(event.error) => return Err(failed_with(event.error).into()),
            _ => {}
        }
        Ok(())
    }

    fn delta(
        &mut self,
        data: &Bytes,
        (at, part, voice): (Option<u32>, Option<u32>, Voice),
        delta: Option<&RawValue>,
        out: &mut Vec<Frame>,
    ) -> Result<(), ModelError> {
        if is_something(delta) {
            self.note(at, part, voice)?;
            self.speech.say(data, delta, voice, out)?;
        }
        Ok(())
    }
}

impl StreamDecoder for Decoder {
    fn event(&mut self, event: &Event, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let data = event.data.trim_ascii();
        if data == b"[DONE]" {
            // Some end without a last event.
            if self.stop.is_none() && (!self.said.is_empty() || self.begun > 0) {
                self.ended(None)?;
            }
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        let name = event.name.as_deref();
        leniently(&event.data, reshape_event, |data| {
            self.read(data, name, out)
        })
        .map_err(|unread| unread.into_error(&event.data))
    }

    fn may_repeat(&self) -> bool {
        self.is_piece
    }

    fn is_done(&self) -> bool {
        self.stop.is_some()
    }

    fn finish(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        let stop = self.stop.take().ok_or(ModelError::Cut)?;
        for call in &mut self.calls {
            if call.begun.is_none() {
                return Err(nameless());
            }
            call.end(out);
        }
        self.speech.end(self.begun > 0)?;
        out.extend(self.usage.take().map(Frame::ModelUsage));
        out.push(Frame::ModelStopped(stop));
        Ok(())
    }
}
