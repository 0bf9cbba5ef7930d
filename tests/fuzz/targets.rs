//! What each fuzz target checks. The first byte of an input chooses how the rest is cut into reads;
//! what comes out must not depend on it.

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use smithgate::channel::{Channel, discord, email, forms, slack, telegram, web, whatsapp};
use smithgate::config::ProviderWire;
use smithgate::frame::{self, Escaped, Frame};
use smithgate::model::{ModelRequest, provider, rules};
use smithgate::sse::{Event, Splitter};
use smithgate::upstream::framing::{Framing, HeadEnd};
use smithgate::wire::{FrameEncoder, chat, gemini, messages, native, openai, responses, ui};

const LIMIT: usize = 2048;

/// The input's reads: pieces of a length that its first byte chooses.
fn reads(data: &[u8]) -> impl Iterator<Item = Bytes> {
    let (length, rest) = data.split_first().map_or((1, data), |(first, rest)| {
        (usize::from(*first) % 61 + 1, rest)
    });
    rest.chunks(length).map(Bytes::copy_from_slice)
}

fn whole(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(data.get(1..).unwrap_or_default())
}

fn events(reads: impl Iterator<Item = Bytes>) -> (Vec<Event>, Option<String>) {
    let mut splitter = Splitter::new(LIMIT);
    let mut out = Vec::new();
    for read in reads {
        splitter.push(read);
        loop {
            match splitter.next_event() {
                Ok(Some(event)) => out.push(event),
                Ok(None) => break,
                Err(error) => return (out, Some(error.to_string())),
            }
        }
    }
    (out, None)
}

/// The SSE splitter.
pub fn sse(data: &[u8]) {
    let (cut, cut_error) = events(reads(data));
    let (at_once, error) = events(std::iter::once(whole(data)));
    // An event that is too large is told as soon as it is seen, which depends on the reads.
    if cut_error.is_none() && error.is_none() {
        assert_eq!(cut, at_once);
    }
    for event in &cut {
        assert!(event.data.len() <= LIMIT);
    }
}

/// What is read of the input as heads and a chunked body: all that was a head, the body, and how
/// many bytes were either's.
fn answer(reads: impl Iterator<Item = Bytes>) -> (usize, BytesMut, usize, Option<String>) {
    let (mut end, mut framing) = (HeadEnd::default(), Framing::CHUNKED);
    let (mut body, mut taken) = (BytesMut::new(), 0);
    for read in reads {
        let of_head = match end.length() {
            Some(_) => 0,
            None => end.find(&read),
        };
        taken += of_head;
        if end.length().is_some() {
            match framing.decode(&read[of_head..], &mut body) {
                Ok(of_body) => taken += of_body,
                Err(error) => return (end.length().unwrap_or(0), body, 0, Some(error.to_string())),
            }
        }
    }
    (end.length().unwrap_or(0), body, taken, None)
}

/// The end of a head, and the chunked coding of a body behind it.
pub fn framing(data: &[u8]) {
    let cut = answer(reads(data));
    assert_eq!(cut, answer(std::iter::once(whole(data))));
    assert!(cut.0 + cut.1.len() <= data.len());
}

fn check_text(text: &Escaped) {
    let mut quoted = vec![b'"'];
    quoted.extend_from_slice(text.as_bytes());
    quoted.push(b'"');
    let parsed: String = serde_json::from_slice(&quoted).expect("escaped text is JSON");
    assert_eq!(parsed, text.unescape());
}

fn check(frames: &[Frame]) {
    let mut log = BytesMut::new();
    for frame in frames {
        match frame {
            Frame::Text(text) | Frame::Reasoning(text) | Frame::Refusal(text) => check_text(text),
            Frame::ToolArgs { delta, .. } => check_text(delta),
            _ => {}
        }
        frame::encode(frame, &mut log);
    }
    assert_eq!(frame::decode_all(log.freeze()).expect("decodes"), frames);
    // What the client is sent is JSON, whatever the provider said.
    all_json(frames, chat::StreamEncoder::new("c", 0, "m", true));
    let head = responses::Head {
        id: "resp_B".to_owned(),
        created_at: 0,
        echo: serde_json::Map::new(),
    };
    let numbering = responses::items::Numbering::new("B");
    all_json(
        frames,
        responses::StreamEncoder::new(head, numbering, true, None),
    );
    let display = messages::Display::Shown;
    all_json(frames, messages::StreamEncoder::new("msg_B", "m", display));
    let form = gemini::Form::Events;
    all_json(frames, gemini::StreamEncoder::new("B", "m", true, form));
    all_json(frames, ui::Encoder::new("run_B", "msg_B".to_owned()));
    all_json(frames, native::Encoder::new("run_B", i64::MAX, None));
}

fn all_json(frames: &[Frame], mut encoder: impl FrameEncoder) {
    let mut out = BytesMut::new();
    for frame in frames {
        encoder.frame(frame, &mut out);
    }
    for line in out[..].split(|b| *b == b'\n') {
        if let Some(json) = line.strip_prefix(b"data: ") {
            serde_json::from_slice::<Value>(json).expect("an event is JSON");
        }
    }
}

fn decode(wire: ProviderWire, reads: impl Iterator<Item = Bytes>) -> (Vec<Frame>, bool) {
    let mut decoder = provider::api(wire).decoder();
    let mut frames = Vec::new();
    let (events, error) = events(reads);
    for event in &events {
        if decoder.event(event, &mut frames).is_err() {
            return (frames, false);
        }
    }
    let finished = error.is_none() && decoder.finish(&mut frames).is_ok();
    (frames, finished)
}

/// Ids that are made up here differ from call to call.
fn without_minted(frames: &[Frame]) -> Vec<Frame> {
    let mut out = frames.to_vec();
    for frame in &mut out {
        if let Frame::ToolStarted { id, .. } = frame
            && id.starts_with(b"call_")
        {
            *id = Bytes::new();
        }
    }
    out
}

/// One provider's decoder, for streams and for whole answers.
pub fn provider(wire: ProviderWire, data: &[u8]) {
    let (cut, cut_finished) = decode(wire, reads(data));
    check(&cut);
    let (at_once, finished) = decode(wire, std::iter::once(whole(data)));
    if cut_finished && finished {
        assert_eq!(without_minted(&cut), without_minted(&at_once));
    }
    if let Ok(frames) = provider::api(wire).decode_full(&whole(data)) {
        check(&frames);
    }
}

const WIRES: [ProviderWire; 4] = [
    ProviderWire::OpenaiChat,
    ProviderWire::OpenaiResponses,
    ProviderWire::Anthropic,
    ProviderWire::Gemini,
];

/// The Chat Completions request decoder, on to every provider's encoder.
pub fn chat_request(data: &[u8]) {
    // Bytes that are passed over unread may be no UTF-8; they are for the provider to judge.
    if let Ok(rewritten) = openai::rewrite::rewrite(data, "m", true)
        && let Ok(before) = serde_json::from_slice::<Value>(data)
    {
        let after: Value = serde_json::from_slice(&rewritten.body).expect("stays JSON");
        assert_eq!(after["model"], "m");
        assert_eq!(after["stream_options"]["include_usage"], true);
        assert_eq!(before["messages"], after["messages"]);
    }
    let Ok(request) = serde_json::from_slice::<chat::ChatRequest>(data) else {
        return;
    };
    let Ok(decoded) = chat::decode(request) else {
        return;
    };
    ask_all(&decoded.into_request());
}

fn ask_all(request: &ModelRequest) {
    for wire in WIRES {
        for stream in [false, true] {
            let rules = rules::resolve(wire, "example.com", "m", &[]);
            let _ = provider::api(wire).body(request, &rules, stream, true);
        }
    }
}

/// The Responses request decoder, on to every provider's encoder.
pub fn responses_request(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<responses::ResponsesRequest>(data) else {
        return;
    };
    if let Ok(request) =
        responses::decode(request).and_then(responses::DecodedResponse::into_request)
    {
        ask_all(&request);
        // What was said is shown as items, which say the same again.
        for item in responses::items::Numbering::new("B").items(&request.turns) {
            let value = item.to_value();
            let members = value.as_object().expect("an object");
            responses::turns::turn_of(members).expect("an item is a turn");
        }
    }
}

/// The Messages request decoder, on to every provider's encoder.
pub fn messages_request(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<messages::MessagesRequest>(data) else {
        return;
    };
    if let Ok(decoded) = messages::decode(request) {
        ask_all(&decoded.into_request());
    }
}

/// The Gemini request decoder, on to every provider's encoder.
pub fn gemini_request(data: &[u8]) {
    let Ok(request) = serde_json::from_slice::<gemini::GeminiRequest>(data) else {
        return;
    };
    if let Ok(decoded) = gemini::decode(request) {
        ask_all(&decoded.request);
    }
}

/// The decoder of what `useChat` posts.
pub fn ui_request(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<ui::UiRequest>(data) {
        let _ = ui::decode(request);
    }
}

/// The native run request decoder.
pub fn native_request(data: &[u8]) {
    if let Ok(body) = serde_json::from_slice::<native::RunIn>(data) {
        let _ = native::decode(body);
    }
}

/// What Telegram delivers, and what is written for it.
pub fn telegram(data: &[u8]) {
    if let Some((arrival, _)) = telegram::decode(data) {
        assert!(!arrival.key.is_empty() && !arrival.kind.is_empty());
    }
    let text = String::from_utf8_lossy(data);
    for message in telegram::Telegram.messages(&text) {
        assert!(message.encode_utf16().count() <= 4096 && !message.trim().is_empty());
        assert_eq!(
            message.matches("<b>").count(),
            message.matches("</b>").count()
        );
        assert_eq!(
            message.matches("<a ").count(),
            message.matches("</a>").count()
        );
    }
}

/// What WhatsApp delivers, and what is written for it.
pub fn whatsapp(data: &[u8]) {
    for (arrival, _) in whatsapp::decode(data) {
        assert!(!arrival.key.is_empty() && !arrival.kind.is_empty());
    }
    let text = String::from_utf8_lossy(data);
    for message in whatsapp::WhatsApp::default().messages(&text) {
        assert!(message.encode_utf16().count() <= 4096 && !message.trim().is_empty());
        assert!(!message.contains(|c| ('\u{E000}'..='\u{E00F}').contains(&c)));
    }
}

/// What Discord delivers, and what is written for it.
pub fn discord(data: &[u8]) {
    if let Some((arrival, _)) = discord::decode(data) {
        assert!(!arrival.key.is_empty() && !arrival.kind.is_empty());
        assert!(arrival.data.get("token").is_none());
    }
    let text = String::from_utf8_lossy(data);
    for message in discord::Discord.messages(&text) {
        assert!(message.encode_utf16().count() <= 2000 && !message.trim().is_empty());
    }
}

/// What a web page posts, and what is filled into the form of a question: a schema, and behind a line
/// of its own the form.
pub fn web_page(data: &[u8]) {
    if let Some(said) = web::decode(data) {
        assert!(!said.id.is_empty());
        assert!(!said.text.trim().is_empty() || !said.files.is_empty());
    }
    let (schema, form) = match memchr::memchr(b'\n', data) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    if let Ok(schema) = serde_json::from_slice::<serde_json::Value>(schema) {
        let _ = web::Settings::read(&schema);
        let (shown, answer) = forms::of_question(&schema, form);
        assert!(answer.is_object());
        assert!(!shown.contains("<script"), "{shown}");
    }
}

/// What Slack delivers, and what is written for it.
pub fn slack(data: &[u8]) {
    if let Some((arrival, _)) = slack::decode(data) {
        assert!(!arrival.key.is_empty() && !arrival.kind.is_empty());
        assert!(arrival.data.get("token").is_none() && arrival.data.get("response_url").is_none());
    }
    let text = String::from_utf8_lossy(data);
    for message in slack::Slack::default().messages(&text) {
        assert!(message.encode_utf16().count() <= 4000 && !message.trim().is_empty());
        assert!(!message.contains("<!") && !message.contains("<@"));
    }
}

/// Mail as it comes over the wire, and the letter that is written of its words.
pub fn email(data: &[u8]) {
    // What the parser of mail gives up is caught; the fuzzer's own hook would end the process there.
    static UNHOOKED: std::sync::Once = std::sync::Once::new();
    UNHOOKED.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let (head, mail) = email::decode(data);
    let is_line = |text: &str| !text.contains(['\r', '\n', '\0']);
    assert!(is_line(&head.subject));
    let people = head
        .from
        .iter()
        .chain(&head.to)
        .chain(&head.cc)
        .chain(&head.reply_to);
    for person in people {
        assert!(is_line(&person.address) && person.address.contains('@'));
    }
    for id in head
        .message_id
        .iter()
        .chain(&head.references)
        .chain(&head.in_reply_to)
    {
        assert!(is_line(id) && !id.contains(['<', '>', ' ']));
    }
    let html = email::letter(&mail.text).to_ascii_lowercase();
    for tag in [
        "<script",
        "<img",
        "<iframe",
        "<style",
        "<a href=\"javascript",
    ] {
        assert!(!html.contains(tag));
    }
}
