//! The cases without sockets: each stream cut at every byte, and its frames through every encoder.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use smithgate::config::ProviderWire;
use smithgate::error::ApiError;
use smithgate::frame::Frame;
use smithgate::model::{ModelError, Part, Spoken, ToolDef, provider};
use smithgate::run::Collector;
use smithgate::sse::Splitter;
use smithgate::wire::chat::EventGate;
use smithgate::wire::gemini::{self, Form, GeminiGate};
use smithgate::wire::messages::{self, MessagesGate};
use smithgate::wire::responses::{Head, ResponsesGate, items::Numbering};
use smithgate::wire::{AnswerEncoder, FrameEncoder, StreamGate, chat, native, responses, ui};

use super::case::{self, Case};
use super::is_forwarded;
use super::seen::{Seen, cited};
use crate::support::WIRES;

const LIMIT: usize = 1 << 20;

fn wire_of(name: &str) -> ProviderWire {
    let found = WIRES.iter().find(|(wire, _)| *wire == name);
    found.unwrap_or_else(|| panic!("no wire '{name}'")).1
}

/// What takes tags apart, where the wire may have some; for the tools that the case asks with.
fn spoken(case: &Case, wire: ProviderWire) -> Option<Spoken> {
    let tools: Vec<ToolDef> = case.tools();
    (wire == ProviderWire::OpenaiChat).then(|| Spoken::new(&tools))
}

/// The frames of a stream that comes in these pieces, and what ended it badly.
fn frames(case: &Case, wire: ProviderWire, pieces: &[&[u8]]) -> (Vec<Frame>, Option<ModelError>) {
    let mut spoken = spoken(case, wire);
    let mut out = Vec::new();
    let mut decoded = Decoded::new(wire);
    for piece in pieces {
        let mut read = Vec::new();
        let end = decoded.piece(piece, &mut read);
        if let Some(spoken) = &mut spoken {
            spoken.frames(&mut read);
        }
        out.append(&mut read);
        if let Some(end) = end {
            if let Some(spoken) = spoken.as_mut().filter(|_| end.is_err()) {
                spoken.give_up(&mut out);
            }
            return (out, end.err());
        }
    }
    let mut read = Vec::new();
    let end = decoded.rest(&mut read);
    if let Some(spoken) = &mut spoken {
        spoken.frames(&mut read);
    }
    out.append(&mut read);
    if let Some(spoken) = spoken.as_mut().filter(|_| end.is_err()) {
        spoken.give_up(&mut out);
    }
    (out, end.err())
}

struct Decoded {
    splitter: Splitter,
    decoder: Box<dyn provider::StreamDecoder>,
}

impl Decoded {
    fn new(wire: ProviderWire) -> Self {
        Self {
            splitter: Splitter::new(LIMIT),
            decoder: provider::api(wire).decoder(),
        }
    }

    /// The frames of a piece, and the end if it has come.
    fn piece(&mut self, piece: &[u8], out: &mut Vec<Frame>) -> Option<Result<(), ModelError>> {
        self.splitter.push(Bytes::copy_from_slice(piece));
        while let Ok(Some(event)) = self.splitter.next_event() {
            if let Err(error) = self.decoder.event(&event, out) {
                return Some(Err(error));
            }
            if self.decoder.is_done() {
                return Some(self.decoder.finish(out));
            }
        }
        None
    }

    /// As a call does: the empty line behind the last event may be forgotten.
    fn rest(&mut self, out: &mut Vec<Frame>) -> Result<(), ModelError> {
        self.splitter.push(Bytes::from_static(b"\n\n"));
        while let Ok(Some(event)) = self.splitter.next_event() {
            match self.decoder.event(&event, out) {
                Err(ModelError::Malformed(_)) => break,
                other => other?,
            }
        }
        self.decoder.finish(out)
    }
}

fn told(error: ModelError) -> Value {
    let body: Value = serde_json::from_slice(&ApiError::from(error).body()).expect("an envelope");
    body["error"].clone()
}

/// What the frames say, as the thread keeps it.
fn kept(frames: &[Frame], error: Option<ModelError>) -> Seen {
    let mut seen = Seen {
        status: 200,
        ..Seen::default()
    };
    let mut collector = Collector::default();
    for frame in frames {
        collector.add(frame);
    }
    if let Some(error) = error {
        seen.error = Some(told(error));
        return seen;
    }
    let answer = collector.finish();
    let mut before = 0;
    for part in &answer.parts {
        match part {
            Part::Text { text } => {
                before = seen.text.chars().count() as u64;
                seen.text += text;
            }
            Part::Reasoning { text, .. } => seen.reasoning += text,
            Part::Refusal { text } => seen.refusal += text,
            Part::ToolCall {
                name, arguments, ..
            } => seen.calls.push((name.clone(), arguments.clone())),
            Part::Citation { of } => {
                let (source, from, to) = cited(of);
                let by = if to > 0 { before } else { 0 };
                seen.cites.push((source, from + by, to + by));
            }
            other => panic!("no model says {other:?}"),
        }
    }
    seen.finish = Some(chat::finish_reason(answer.stop).to_owned());
    let usage = answer.usage;
    let counts = [
        ("input", usage.input),
        ("output", usage.output),
        ("cached", usage.cache_read),
        ("reasoning", usage.reasoning),
    ];
    let counts = counts.map(|(name, count)| (name.to_owned(), count));
    seen.usage = Some(counts.into_iter().collect());
    seen
}

fn streamed_chat(frames: &[Frame]) -> Vec<u8> {
    let encoder = chat::StreamEncoder::new("chatcmpl-1", 1, "m", true);
    ended(encoder, frames)
}

fn streamed_response(frames: &[Frame]) -> Vec<u8> {
    let head = Head {
        id: "resp_B".to_owned(),
        created_at: 1,
        echo: serde_json::Map::new(),
    };
    let encoder = responses::StreamEncoder::new(head, Numbering::new("B"), true, None);
    ended(encoder, frames)
}

fn streamed_message(frames: &[Frame]) -> Vec<u8> {
    let encoder = messages::StreamEncoder::new("msg_1", "m", messages::Display::Shown);
    ended(encoder, frames)
}

fn streamed_gemini(frames: &[Frame]) -> Vec<u8> {
    let encoder = gemini::StreamEncoder::new("r", "m", true, Form::Events);
    ended(encoder, frames)
}

/// As an answer without a smith is written.
fn ended(mut encoder: impl AnswerEncoder, frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut collector = Collector::default();
    for frame in frames {
        collector.add(frame);
        encoder.frame(frame, &mut out);
    }
    let answer = collector.finish();
    encoder.finish(answer.stop, &answer.usage, &mut out);
    out.to_vec()
}

/// As a run is written.
fn as_run(mut encoder: impl FrameEncoder, frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let mut collector = Collector::default();
    let begun = Frame::RunStarted {
        smith_id: "smt_1".into(),
        thread_id: "thr_1".into(),
    };
    encoder.frame(&begun, &mut out);
    for frame in frames {
        collector.add(frame);
        encoder.frame(frame, &mut out);
    }
    let answer = collector.finish();
    let done = Frame::RunCompleted {
        stop: answer.stop,
        usage: answer.usage,
        warnings: Bytes::new(),
    };
    encoder.frame(&done, &mut out);
    out.to_vec()
}

/// Holds what every encoder makes of the frames against the case.
fn check_encoders(case: &Case, stream: bool, frames: &[Frame], about: &str) {
    let Some(expected) = case.sees(stream).filter(|sees| sees.error.is_none()) else {
        return;
    };
    let ui = ui::Encoder::new("run_B", "msg_B".to_owned());
    let native = native::Encoder::new("run_B", i64::MAX, None);
    for (client, body) in [
        ("chat", streamed_chat(frames)),
        ("responses", streamed_response(frames)),
        ("messages", streamed_message(frames)),
        ("gemini", streamed_gemini(frames)),
        ("ui", as_run(ui, frames)),
        ("native", as_run(native, frames)),
    ] {
        let about = format!("{about}, written for {client}");
        let mut seen = Seen::of(client, true, 200, &body, &about);
        if client == "native" {
            // It tells no names of calls that are the caller's.
            let names = kept(frames, None).calls.into_iter().map(|(name, _)| name);
            for (call, name) in seen.calls.iter_mut().zip(names) {
                call.0 = name;
            }
        }
        if client == "native" || client == "ui" {
            // A refusal is what the assistant says there.
            let kept = kept(frames, None);
            assert!(seen.text.contains(&kept.refusal), "{about}: {seen:?}");
            (seen.text, seen.refusal) = (kept.text, kept.refusal);
        }
        if client == "ui" {
            // It takes objects alone; what is none is wrapped.
            for (call, kept) in seen.calls.iter_mut().zip(kept(frames, None).calls) {
                if !kept.1.starts_with('{') {
                    call.1 = kept.1;
                }
            }
        }
        expected.check(&seen, false, &about);
    }
    let mut collector = Collector::default();
    for frame in frames {
        collector.add(frame);
    }
    let answer = collector.finish();
    let chat = chat::full_answer("chatcmpl-1", 1, "m", &answer);
    let message = messages::message("msg_1", "m", &answer, messages::Display::Shown);
    let response = gemini::response("r", "m", &answer, true);
    for (client, whole) in [("chat", chat), ("messages", message), ("gemini", response)] {
        let about = format!("{about}, written whole for {client}");
        let seen = Seen::of(client, false, 200, whole.to_string().as_bytes(), &about);
        expected.check(&seen, false, &about);
    }
}

fn check_stream(case: &Case, wire: &str) {
    let Some(stream) = &case.stream else {
        return;
    };
    let Some(expected) = case.sees(true) else {
        return;
    };
    if stream.status != 200 || !stream.headers.is_empty() {
        return;
    }
    let (name, wire, about) = (wire, wire_of(wire), format!("{} ({wire})", case.name));
    let body = stream.bytes(name);
    let (whole, error) = frames(case, wire, &[&body]);
    check_encoders(case, true, &whole, &about);
    let seen = kept(&whole, error);
    expected.check(&seen, false, &about);
    for at in 0..body.len() {
        let (frames, error) = frames(case, wire, &[&body[..at], &body[at..]]);
        assert_eq!(kept(&frames, error), seen, "{about}: cut at {at}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    let (frames, error) = frames(case, wire, &bytes);
    assert_eq!(kept(&frames, error), seen, "{about}: byte by byte");
}

fn check_answer(case: &Case, wire: &str) {
    let (Some(answer), Some(expected)) = (&case.answer, case.sees(false)) else {
        return;
    };
    if answer.status != 200 || !answer.headers.is_empty() {
        return;
    }
    let about = format!("{} ({wire}), whole", case.name);
    let body = Bytes::from(answer.bytes());
    match provider::api(wire_of(wire)).decode_full(&body) {
        Ok(mut frames) => {
            if let Some(mut spoken) = spoken(case, wire_of(wire)) {
                spoken.frames(&mut frames);
            }
            check_encoders(case, false, &frames, &about);
            expected.check(&kept(&frames, None), false, &about);
        }
        Err(error) => expected.check(&kept(&[], Some(error)), false, &about),
    }
}

#[test]
fn streams_cut_at_every_byte_and_whole_answers_say_what_the_case_says() {
    for case in case::all() {
        for wire in case.provider.iter() {
            check_stream(&case, wire);
            check_answer(&case, wire);
        }
    }
}

fn gate_of(wire: &str) -> Box<dyn StreamGate> {
    match wire {
        "openai_chat" => Box::new(EventGate::new(LIMIT, false)),
        "anthropic" => Box::new(MessagesGate::new(LIMIT)),
        "gemini" => Box::new(GeminiGate::new(LIMIT, Form::Events)),
        _ => Box::new(ResponsesGate::new(LIMIT)),
    }
}

/// What a gate lets through, and what it tells in the end.
fn passed(wire: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let mut gate = gate_of(wire);
    let mut out = Vec::new();
    for piece in pieces {
        let piece = Bytes::copy_from_slice(piece);
        out.extend_from_slice(&gate.pass(piece).expect("no event is too large"));
        if gate.is_done() {
            return out;
        }
    }
    match gate.end() {
        Some(end) => out.extend_from_slice(&end),
        None => {
            let mut told = BytesMut::new();
            gate.write_error(&ApiError::from(ModelError::Cut), &mut told);
            out.extend_from_slice(&told);
        }
    }
    out
}

#[test]
fn forwarded_streams_are_the_same_however_they_are_cut() {
    for case in case::all() {
        let (Some(stream), Some(expected)) = (&case.stream, &case.sees_forwarded) else {
            continue;
        };
        if stream.status != 200 || !stream.headers.is_empty() || expected.error.is_some() {
            continue;
        }
        for wire in case.provider.iter() {
            let Some(client) = ["chat", "responses", "messages", "gemini"]
                .into_iter()
                .find(|client| is_forwarded(client, wire))
            else {
                continue;
            };
            let body = stream.bytes(wire);
            let whole = passed(wire, &[&body]);
            let about = format!("{} ({wire}), forwarded", case.name);
            let seen = Seen::of(client, true, 200, &whole, &about);
            expected.check(&seen, false, &about);
            for at in 0..body.len() {
                let cut = passed(wire, &[&body[..at], &body[at..]]);
                assert_eq!(
                    String::from_utf8_lossy(&cut),
                    String::from_utf8_lossy(&whole),
                    "{about}: cut at {at}"
                );
            }
        }
    }
}
