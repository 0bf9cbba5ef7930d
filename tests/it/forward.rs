//! What becomes of a provider's answer, byte for byte and in its time: answers that are none, of
//! another kind than was asked for, packed, failing before or behind the first content, or silent;
//! and of requests that are packed.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use smithgate::config::{Alias, Config, Provider, ProviderWire, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Harness, data_lines, ok, refused, said, text};

/// What a provider does with a request, in its order.
#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    Wait(u64),
}

use Step::{Send, Wait};

/// A provider that answers as the model's name says, and closes.
#[derive(Clone, Default)]
struct Scripted {
    scripts: Arc<Mutex<HashMap<String, Vec<Step>>>>,
    got: Arc<Mutex<Vec<(String, String)>>>,
}

impl Scripted {
    async fn start() -> (Self, u16) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let scripted = Self::default();
        let provider = scripted.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(provider.clone().serve(socket));
            }
        });
        (scripted, port)
    }

    fn on(&self, model: &str, steps: Vec<Step>) {
        self.scripts.lock().insert(model.to_owned(), steps);
    }

    /// How often a model was asked.
    fn asked(&self, model: &str) -> usize {
        self.got.lock().iter().filter(|(m, _)| m == model).count()
    }

    fn last_head(&self) -> String {
        self.got.lock().last().expect("a request").1.clone()
    }

    async fn serve(self, mut socket: TcpStream) -> Option<()> {
        let _ = socket.set_nodelay(true);
        let mut read = Vec::new();
        let (head, body) = loop {
            if socket.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
            let Some(end) = memchr::memmem::find(&read, b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length = head.split("content-length: ").nth(1)?;
            let length: usize = length.split("\r\n").next()?.parse().ok()?;
            if read.len() >= end + 4 + length {
                break (head, read[end + 4..].to_vec());
            }
        };
        let body: Value = serde_json::from_slice(&body).ok()?;
        let model = body["model"].as_str()?.to_owned();
        self.got.lock().push((model.clone(), head));
        let steps = self.scripts.lock().get(&model).cloned().unwrap_or_default();
        for step in steps {
            match step {
                Send(bytes) => socket.write_all(&bytes).await.ok()?,
                Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            }
        }
        let _ = socket.shutdown().await;
        Some(())
    }
}

/// An answer with a head of these lines.
fn with_head(status: u16, lines: &str, body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status} X\r\n{lines}connection: close\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn labelled(status: u16, label: &str, body: &str) -> Vec<u8> {
    let lines = match label {
        "" => String::new(),
        label => format!("content-type: {label}\r\n"),
    };
    with_head(status, &lines, body.as_bytes())
}

fn sse(body: &str) -> Vec<u8> {
    labelled(200, "text/event-stream", body)
}

fn answer_json(status: u16, body: &str) -> Vec<u8> {
    labelled(status, "application/json", body)
}

const CHAT_STREAM: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n\
    data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"},\"finish_reason\":null}]}\n\n\
    data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
const CHAT_WHOLE: &str = "{\"id\":\"c\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}";
const ROLE: &str = "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const HEL: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\n";
const CHAT_ERROR: &str = "data: {\"error\":{\"message\":\"no more\",\"code\":429}}\n\n";

const MESSAGE_START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n";
const MESSAGE_TEXT: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n";
const MESSAGE_END: &str = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
const OVERLOADED: &str = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";

const CREATED: &str = "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"in_progress\",\"error\":null,\"output\":[]}}\n\nevent: response.in_progress\ndata: {\"type\":\"response.in_progress\",\"sequence_number\":1,\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\",\"error\":null}}\n\n";
const RESPONSE_FAILED: &str = "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":2,\"response\":{\"id\":\"resp_1\",\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"it broke\"}}}\n\n";

fn response_whole() -> Value {
    json!({ "id": "resp_1", "object": "response", "created_at": 1, "status": "completed",
        "error": null, "model": "m", "output": [{ "type": "message", "id": "msg_1", "status": "completed",
            "role": "assistant", "content": [{ "type": "output_text", "text": "Hello", "annotations": [] }] }],
        "usage": { "input_tokens": 3, "output_tokens": 2, "total_tokens": 5 } })
}

fn response_stream() -> String {
    let delta = json!({ "type": "response.output_text.delta", "sequence_number": 2,
        "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": "Hello" });
    let end =
        json!({ "type": "response.completed", "sequence_number": 3, "response": response_whole() });
    format!(
        "{CREATED}event: response.output_text.delta\ndata: {delta}\n\nevent: response.completed\ndata: {end}\n\n"
    )
}

const WIRES: [(&str, ProviderWire); 3] = [
    ("p-chat", ProviderWire::OpenaiChat),
    ("p-anthropic", ProviderWire::Anthropic),
    ("p-responses", ProviderWire::OpenaiResponses),
];

/// A gateway whose providers are scripted; `any-<provider>` asks `bad`, then `good`.
async fn started(change: impl FnOnce(&mut Config)) -> (Harness, Scripted) {
    let (scripted, port) = Scripted::start().await;
    let harness = Harness::start_with(|config, _| {
        for (name, wire) in WIRES {
            config.providers.insert(
                name.to_owned(),
                Provider {
                    wire,
                    base_url: format!("http://127.0.0.1:{port}/v1?api-version=7"),
                    api_key: Some("a-secret-key".to_owned()),
                    responses: wire == ProviderWire::OpenaiResponses,
                    ..config.providers["openai-chat"].clone()
                },
            );
            let target = |model: &str| Target {
                model: format!("{name}/{model}"),
                retries: 0,
                timeout_ms: None,
            };
            let targets = vec![target("bad"), target("good")];
            config.models.aliases.insert(
                format!("any-{name}"),
                Alias {
                    targets,
                    ..Alias::default()
                },
            );
        }
        change(config);
    })
    .await;
    (harness, scripted)
}

fn responses(harness: &Harness, model: &str, stream: bool) -> RequestBuilder {
    harness.post(
        "/v1/responses",
        &json!({ "model": model, "stream": stream, "input": "hi" }),
    )
}

/// Bodies with status 200 that are no answer, and a word of the error that they become.
const NO_ANSWERS: [(&str, &str, &str); 12] = [
    (
        "application/json",
        "{\"error\":{\"message\":\"Provider returned error\",\"code\":429}}",
        "Provider returned error",
    ),
    (
        "text/event-stream",
        "{\"error\":{\"message\":\"Provider returned error\"}}",
        "Provider returned error",
    ),
    (
        "application/json",
        "[{\"error\":{\"code\":503,\"message\":\"Overloaded\",\"status\":\"UNAVAILABLE\"}}]",
        "Overloaded",
    ),
    ("", "{\"error\":\"as text\"}", "as text"),
    ("text/plain", "{\"detail\":\"Not here\"}", "Not here"),
    (
        "application/json",
        "{\"id\":\"x\",\"choices\":null,\"output\":null}",
        "an answer",
    ),
    ("application/json", "{}", "an answer"),
    (
        "text/html",
        "<html><head><title>Bad Gateway</title></head></html>",
        "Bad Gateway",
    ),
    (
        "application/json",
        "<!doctype html><title>Login</title>",
        "Login",
    ),
    ("application/json", "", "empty"),
    ("text/event-stream", "", "empty"),
    (
        "text/plain",
        "upstream connect error",
        "upstream connect error",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_an_error_and_the_next_target_is_asked() {
    let (harness, provider) = started(|_| {}).await;
    let whole_response = response_whole().to_string();
    for stream in [true, false] {
        for (label, body, word) in NO_ANSWERS {
            provider.on("bad", vec![Send(labelled(200, label, body))]);
            let good = match stream {
                true => sse(CHAT_STREAM),
                false => answer_json(200, CHAT_WHOLE),
            };
            provider.on("good", vec![Send(good)]);
            let about = format!("{label} {body} {stream}");
            let (status, error) = refused(harness.chat("p-chat/bad", stream).send().await).await;
            assert!(status >= 400, "{about}: {status}");
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains(word), "{about}: {message}");
            let answer = harness.chat("any-p-chat", stream).send().await;
            assert!(text(answer).await.contains("Hello"), "{about}");

            let good = match stream {
                true => sse(&response_stream()),
                false => answer_json(200, &whole_response),
            };
            provider.on("good", vec![Send(good)]);
            let call = responses(&harness, "p-responses/bad", stream);
            let (status, error) = refused(call.send().await).await;
            assert!(status >= 400, "{about}: {status}");
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains(word), "{about}: {message}");
            let answer = responses(&harness, "any-p-responses", stream).send().await;
            assert!(text(answer).await.contains("Hello"), "{about}");
        }
    }
    // Blanks behind a mark of the byte order are no more than others.
    let blanks = [&b"\xef\xbb\xbf"[..], &vec![b' '; 3 * 1024 * 1024]].concat();
    let head = with_head(200, "content-type: application/json\r\n", b"");
    provider.on("bad", vec![Send(head), Send(blanks), Wait(60_000)]);
    let (_, error) = refused(harness.chat("p-chat/bad", false).send().await).await;
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("nothing but blanks"), "{message}");
    // An error that comes as an event, and translated.
    for body in [
        CHAT_ERROR,
        "event: error\ndata: {\"message\":\"no more\"}\n\n",
        "data: no JSON\n\n",
        ROLE,
    ] {
        provider.on("bad", vec![Send(sse(body))]);
        provider.on("good", vec![Send(sse(CHAT_STREAM))]);
        for stream in [true, false] {
            refused(harness.chat("p-chat/bad", stream).send().await).await;
            let answer = text(harness.chat("any-p-chat", stream).send().await).await;
            assert!(answer.contains("Hello"), "{body}: {answer}");
            let answer = text(responses(&harness, "any-p-chat", stream).send().await).await;
            assert!(answer.contains("Hello"), "{body}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_the_kind_of_answer_that_it_asked_for() {
    let (harness, provider) = started(|_| {}).await;
    let (events, whole) = (response_stream(), response_whole().to_string());
    for label in ["text/event-stream", "application/json", "text/plain", ""] {
        for (chat, response, is_stream) in [
            (CHAT_STREAM, events.as_str(), true),
            (CHAT_WHOLE, whole.as_str(), false),
        ] {
            let about = format!("{label} {is_stream}");
            provider.on("m", vec![Send(labelled(200, label, chat))]);
            // By all ways: passed on, translated, a smith's.
            let smith = harness.smith("p-chat/m").await;
            let body = json!({ "model": "", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
            let of_smith = harness.post("/v1/chat/completions", &body);
            for call in [
                harness.chat("p-chat/m", true),
                of_smith.header("IC-Smith-Id", &smith),
            ] {
                let answer = call.send().await.expect("an answer");
                assert_eq!(
                    answer.headers()["content-type"],
                    "text/event-stream; charset=utf-8"
                );
                let stream = answer.text().await.expect("a body");
                assert_eq!(said(&stream), "Hello", "{about}: {stream}");
                assert_eq!(
                    data_lines(&stream).last(),
                    Some(&"[DONE]"),
                    "{about}: {stream}"
                );
                assert!(
                    stream.contains("\"finish_reason\":\"stop\""),
                    "{about}: {stream}"
                );
            }
            let answer = ok(harness.chat("p-chat/m", false).send().await).await;
            assert_eq!(
                answer["choices"][0]["message"]["content"], "Hello",
                "{about}"
            );
            assert_eq!(answer["object"], "chat.completion");
            let answer = ok(responses(&harness, "p-chat/m", false).send().await).await;
            assert_eq!(
                answer["output"][0]["content"][0]["text"], "Hello",
                "{about}"
            );

            provider.on("m", vec![Send(labelled(200, label, response))]);
            let stream = text(responses(&harness, "p-responses/m", true).send().await).await;
            assert!(
                stream.contains("event: response.created\n"),
                "{about}: {stream}"
            );
            assert!(
                stream.contains("event: response.completed\n"),
                "{about}: {stream}"
            );
            assert!(stream.contains("Hello"), "{about}: {stream}");
            let answer = ok(responses(&harness, "p-responses/m", false).send().await).await;
            assert_eq!(
                answer["output"][0]["content"][0]["text"], "Hello",
                "{about}"
            );
            assert_eq!(answer["status"], "completed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn until_the_first_content_the_next_target_is_asked() {
    let (harness, provider) = started(|_| {}).await;
    let good_message = format!("{MESSAGE_START}{MESSAGE_TEXT}{MESSAGE_END}");
    let good_response = response_stream();
    for pause in [0, 80] {
        for (name, opening, failure, good) in [
            (
                "p-anthropic",
                MESSAGE_START,
                OVERLOADED,
                good_message.as_str(),
            ),
            ("p-anthropic", MESSAGE_START, "", good_message.as_str()),
            ("p-chat", ROLE, CHAT_ERROR, CHAT_STREAM),
            ("p-chat", ": waiting\n\n", "", CHAT_STREAM),
            ("p-chat", ROLE, "data: [DONE]\n\n", CHAT_STREAM),
            (
                "p-responses",
                CREATED,
                RESPONSE_FAILED,
                good_response.as_str(),
            ),
            ("p-responses", CREATED, "", good_response.as_str()),
        ] {
            provider.on(
                "bad",
                vec![Send(sse(opening)), Wait(pause), Send(failure.into())],
            );
            provider.on("good", vec![Send(sse(good))]);
            let alias = format!("any-{name}");
            let smith = harness.smith(&alias).await;
            let body = json!({ "model": "", "stream": true, "input": "hi" });
            let run = json!({ "stream": true, "input": [{ "role": "user", "content": "hi" }] });
            for call in [
                harness.chat(&alias, true),
                responses(&harness, &alias, true),
                harness
                    .post("/v1/responses", &body)
                    .header("IC-Smith-Id", &smith),
                harness.post(&format!("/v1/smiths/{smith}/runs"), &run),
            ] {
                let (bad, good) = (provider.asked("bad"), provider.asked("good"));
                let stream = text(call.send().await).await;
                assert!(stream.contains("Hello"), "{name} {failure}: {stream}");
                assert!(!stream.contains("error\":{"), "{name} {failure}: {stream}");
                assert_eq!(provider.asked("bad"), bad + 1);
                assert_eq!(provider.asked("good"), good + 1);
            }
        }
        // Behind it the client is told.
        let begun = [ROLE, HEL].concat();
        provider.on(
            "bad",
            vec![Send(sse(&begun)), Wait(pause), Send(CHAT_ERROR.into())],
        );
        provider.on("good", vec![Send(sse(CHAT_STREAM))]);
        let smith = harness.smith("any-p-chat").await;
        let good = provider.asked("good");
        let body = json!({ "model": "", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
        for call in [
            harness.chat("any-p-chat", true),
            harness
                .post("/v1/chat/completions", &body)
                .header("IC-Smith-Id", &smith),
        ] {
            let stream = text(call.send().await).await;
            assert_eq!(said(&stream), "Hel", "{stream}");
            assert!(
                stream.contains("no more") && stream.ends_with("data: [DONE]\n\n"),
                "{stream}"
            );
        }
        let stream = text(responses(&harness, "any-p-chat", true).send().await).await;
        assert!(
            stream.contains("Hel") && stream.contains("no more"),
            "{stream}"
        );
        assert_eq!(provider.asked("good"), good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_looks_like_the_end_is_none() {
    let (harness, provider) = started(|_| {}).await;
    for text_delta in [
        "[DONE]",
        "data: [DONE]",
        "\\\"finish_reason\\\":\\\"stop\\\"",
    ] {
        let chunk = format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text_delta}\"}}}}]}}\n\n"
        );
        let tail = &CHAT_STREAM[ROLE.len()..];
        let tail = &tail[tail.find("data:").expect("an event")..];
        provider.on("m", vec![Send(sse(&chunk)), Wait(60), Send(tail.into())]);
        let stream = text(harness.chat("p-chat/m", true).send().await).await;
        assert!(said(&stream).contains("Hello"), "{stream}");
        assert!(stream.contains("\"finish_reason\":\"stop\"") && stream.ends_with("[DONE]\n\n"));
        // Cut behind it, the client is told.
        provider.on("m", vec![Send(sse(&chunk))]);
        let stream = text(harness.chat("p-chat/m", true).send().await).await;
        assert!(stream.contains("cut before its end"), "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_event_without_its_empty_line_counts() {
    let (harness, provider) = started(|_| {}).await;
    let end = CHAT_STREAM.find("\n\ndata: [DONE]").expect("an end");
    for whole in [true, false] {
        // Behind the last event, and within it.
        let cut = if whole { end } else { end - 9 };
        provider.on("m", vec![Send(sse(&CHAT_STREAM[..cut]))]);
        let smith = harness.smith("p-chat/m").await;
        let body = json!({ "model": "", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
        for call in [
            harness.chat("p-chat/m", true),
            harness
                .post("/v1/chat/completions", &body)
                .header("IC-Smith-Id", &smith),
        ] {
            let stream = text(call.send().await).await;
            assert_eq!(said(&stream), "Hello", "{stream}");
            assert_eq!(stream.contains("\"error\":{"), !whole, "{stream}");
        }
        let answer = responses(&harness, "p-chat/m", false).send().await;
        assert_eq!(answer.expect("an answer").status().is_success(), whole);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_told_its_end_is_whole_however_it_is_cut() {
    let (harness, provider) = started(|config| config.limits.idle_timeout_ms = 300).await;
    let end = CHAT_STREAM.find("data: [DONE]").expect("an end");
    let told = &CHAT_STREAM[..end];
    let not_told = [ROLE, HEL].concat();
    let smith = harness.smith("p-chat/m").await;
    let body =
        json!({ "model": "", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    for (begun, is_whole) in [(told, true), (&*not_told, false)] {
        for pause in [0, 900] {
            let lines = "content-type: text/event-stream\r\ncontent-length: 99999\r\n";
            let sent = Send(with_head(200, lines, begun.as_bytes()));
            provider.on("m", vec![sent, Wait(pause)]);
            for call in [
                harness.chat("p-chat/m", true),
                harness
                    .post("/v1/chat/completions", &body)
                    .header("IC-Smith-Id", &smith),
            ] {
                let stream = text(call.send().await).await;
                assert_eq!(stream.contains("\"error\":{"), !is_whole, "{stream}");
                assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
            }
            let stream = text(responses(&harness, "p-chat/m", true).send().await).await;
            assert_eq!(stream.contains("response.completed"), is_whole, "{stream}");
        }
    }
}

/// What comes on a connection of its own, with the time of each piece.
async fn raw(
    harness: &Harness,
    path: &str,
    headers: &str,
    body: &Value,
) -> (Vec<(Duration, String)>, String) {
    let mut socket = TcpStream::connect(harness.address)
        .await
        .expect("connected");
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        harness.token,
        body.len()
    );
    socket.write_all(head.as_bytes()).await.expect("sent");
    let begun = Instant::now();
    let mut pieces = Vec::new();
    let mut all = String::new();
    loop {
        let mut buf = vec![0; 64 * 1024];
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read(&mut buf));
        match read.await.expect("in time") {
            Ok(n) if n > 0 => {
                let piece = String::from_utf8_lossy(&buf[..n]).into_owned();
                all.push_str(&piece);
                pieces.push((begun.elapsed(), piece));
            }
            _ => return (pieces, all),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_is_silent_for_long() {
    let (harness, provider) = started(|config| {
        config.server.keep_alive_ms = 150;
        config.limits.first_byte_timeout_ms = 5_000;
        config.limits.idle_timeout_ms = 5_000;
    })
    .await;
    let smith = harness.smith("p-chat/m").await;
    let of_smith = format!("ic-smith-id: {smith}\r\n");
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let chat = |model: &str| json!({ "model": model, "stream": true, "messages": messages });
    let input = |model: &str| json!({ "model": model, "stream": true, "input": "hi" });
    let ui = json!({ "id": "c", "messages": [{ "id": "1", "role": "user", "parts": [{ "type": "text", "text": "hi" }] }] });
    let runs = format!("/v1/smiths/{smith}/runs");
    let run = json!({ "stream": true, "input": messages });
    let calls: [(&str, &str, Value); 7] = [
        ("/v1/chat/completions", "", chat("p-chat/m")),
        ("/v1/chat/completions", &of_smith, chat("")),
        ("/v1/responses", "", input("p-chat/m")),
        ("/v1/responses", "", input("p-responses/m")),
        ("/v1/responses", &of_smith, input("")),
        ("/v1/ui/chat", &of_smith, ui),
        (&runs, "", run),
    ];
    for (path, headers, body) in &calls {
        let is_forwarded = body["model"] == "p-responses/m";
        let answer = match is_forwarded {
            true => response_stream(),
            false => CHAT_STREAM.to_owned(),
        };
        let (opening, rest) = match is_forwarded {
            true => answer.split_at(CREATED.len()),
            false => answer.split_at(answer.find("\n\n").expect("an event") + 2),
        };
        // Before the head, and between the head and the first content.
        for steps in [
            vec![Wait(900), Send(sse(&answer))],
            vec![Send(sse(opening)), Wait(900), Send(rest.into())],
        ] {
            provider.on("m", steps);
            let (pieces, all) = raw(&harness, path, headers, body).await;
            assert!(all.starts_with("HTTP/1.1 200"), "{path}: {all}");
            assert!(
                pieces[0].0 < Duration::from_millis(850),
                "{path} {headers}: {:?}",
                pieces[0]
            );
            assert!(
                all.matches(": keep-alive\n\n").count() >= 2,
                "{path} {headers}: {all}"
            );
            assert!(all.contains("Hello"), "{path} {headers}: {all}");
            assert_eq!(all.matches("HTTP/1.1").count(), 1);
            let head = all.to_lowercase();
            assert!(head.contains("content-type: text/event-stream"), "{all}");
            if *path == "/v1/ui/chat" {
                assert!(head.contains("x-vercel-ai-ui-message-stream: v1"), "{all}");
            }
        }
        // What goes wrong after that is told in the stream.
        provider.on(
            "m",
            vec![
                Wait(400),
                Send(answer_json(
                    400,
                    "{\"error\":{\"message\":\"too bad\",\"code\":\"context_length_exceeded\"}}",
                )),
            ],
        );
        let (_, all) = raw(&harness, path, headers, body).await;
        assert!(
            all.starts_with("HTTP/1.1 200") && all.contains("too bad"),
            "{path}: {all}"
        );
        let shape = match *path {
            "/v1/chat/completions" => "data: {\"error\":{",
            "/v1/ui/chat" => "\"type\":\"error\"",
            "/v1/responses" if headers.is_empty() => "event: error\n",
            "/v1/responses" => "event: response.failed\n",
            _ => "event: run.failed\n",
        };
        assert!(all.contains(shape), "{path} {headers}: {all}");
        if *path != "/v1/ui/chat" {
            assert!(all.contains("context_length_exceeded"), "{path}: {all}");
        }
    }
    // In the middle of a stream that is passed on.
    let at = CHAT_STREAM.find("Hello").expect("text");
    let at = at + CHAT_STREAM[at..].find("\n\n").expect("an end") + 2;
    provider.on(
        "m",
        vec![
            Send(sse(&CHAT_STREAM[..at])),
            Wait(500),
            Send(CHAT_STREAM[at..].into()),
        ],
    );
    let (_, all) = raw(&harness, "/v1/chat/completions", "", &chat("p-chat/m")).await;
    assert!(
        all.contains(": keep-alive\n\n") && all.contains("[DONE]"),
        "{all}"
    );
}

fn packed(coding: &str, plain: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match coding {
        "gzip" => {
            let mut to = flate2::write::GzEncoder::new(Vec::new(), level);
            to.write_all(plain).expect("packed");
            to.finish().expect("packed")
        }
        "deflate" => {
            let mut to = flate2::write::ZlibEncoder::new(Vec::new(), level);
            to.write_all(plain).expect("packed");
            to.finish().expect("packed")
        }
        "br" => {
            let mut to = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20);
            to.write_all(plain).expect("packed");
            to.into_inner()
        }
        "zstd" => zstd::encode_all(plain, 3).expect("packed"),
        other => panic!("no coding '{other}'"),
    }
}

const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

#[tokio::test(flavor = "multi_thread")]
async fn packed_answers_are_unpacked() {
    let (harness, provider) = started(|config| config.limits.max_answer_bytes = 1 << 20).await;
    for coding in CODINGS {
        let answer = |status, kind: &str, body: &str| {
            let lines = format!("content-type: {kind}\r\ncontent-encoding: {coding}\r\n");
            with_head(status, &lines, &packed(coding, body.as_bytes()))
        };
        let stream = answer(200, "text/event-stream", CHAT_STREAM);
        // As it comes, cut anywhere.
        let (head, tail) = stream.split_at(stream.len() - 9);
        provider.on(
            "m",
            vec![Send(head.to_vec()), Wait(20), Send(tail.to_vec())],
        );
        let got = text(harness.chat("p-chat/m", true).send().await).await;
        assert!(
            said(&got) == "Hello" && got.ends_with("data: [DONE]\n\n"),
            "{coding}: {got}"
        );
        let got = text(responses(&harness, "p-chat/m", true).send().await).await;
        assert!(got.contains("Hello"), "{coding}: {got}");
        provider.on("m", vec![Send(answer(200, "application/json", CHAT_WHOLE))]);
        let call = harness
            .chat("p-chat/m", false)
            .send()
            .await
            .expect("an answer");
        assert!(!call.headers().contains_key("content-encoding"));
        let got = ok(Ok(call)).await;
        assert_eq!(got["choices"][0]["message"]["content"], "Hello", "{coding}");
        let error = "{\"error\":{\"message\":\"it says why\"}}";
        provider.on("m", vec![Send(answer(400, "application/json", error))]);
        let (status, error) = refused(harness.chat("p-chat/m", true).send().await).await;
        assert_eq!(
            (status, error["message"].as_str()),
            (400, Some("it says why")),
            "{coding}"
        );
        // A bomb is no answer.
        let bomb = format!("{{\"choices\":[\"{}\"]}}", " ".repeat(4 << 20));
        provider.on("m", vec![Send(answer(200, "application/json", &bomb))]);
        let (status, error) = refused(harness.chat("p-chat/m", false).send().await).await;
        assert_eq!(status, 502, "{coding}: {error}");
    }
    // Labels are no proof here either.
    let lines = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    provider.on(
        "m",
        vec![Send(with_head(200, lines, CHAT_WHOLE.as_bytes()))],
    );
    ok(harness.chat("p-chat/m", false).send().await).await;
    let unlabelled = packed("gzip", CHAT_STREAM.as_bytes());
    provider.on("m", vec![Send(with_head(200, "", &unlabelled))]);
    let got = text(harness.chat("p-chat/m", true).send().await).await;
    assert_eq!(said(&got), "Hello");
    let lines = "content-type: application/json\r\ncontent-encoding: rot13\r\n";
    provider.on("m", vec![Send(with_head(200, lines, b"{}"))]);
    for stream in [true, false] {
        let (status, error) = refused(harness.chat("p-chat/m", stream).send().await).await;
        assert_eq!(status, 502);
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("rot13"), "{message}");
    }
    let lines = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    provider.on("m", vec![Send(with_head(200, lines, b"not gzip at all"))]);
    refused(harness.chat("p-chat/m", true).send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_requests_are_unpacked() {
    let (harness, provider) = started(|config| config.server.max_body_bytes = 1 << 20).await;
    provider.on("m", vec![Send(answer_json(200, CHAT_WHOLE))]);
    let smith = harness.smith("p-chat/m").await;
    let chat = json!({ "model": "p-chat/m", "messages": [{ "role": "user", "content": "hi" }] });
    let run = json!({ "input": [{ "role": "user", "content": "hi" }] });
    let runs = format!("/v1/smiths/{smith}/runs");
    let input = json!({ "model": "p-chat/m", "input": "hi" });
    let routes = [
        ("/v1/chat/completions", chat),
        ("/v1/responses", input),
        (runs.as_str(), run),
        ("/v1/smiths", json!({ "model": "p-chat/m" })),
    ];
    let send = |path: &str, coding: &str, body: Vec<u8>| {
        let call = harness.request(reqwest::Method::POST, path);
        let call = call.header("content-type", "application/json");
        match coding {
            "" => call.body(body).send(),
            coding => call.header("content-encoding", coding).body(body).send(),
        }
    };
    let zeros = vec![b' '; 4 << 20];
    let bombs: HashMap<&str, Vec<u8>> = CODINGS.map(|c| (c, packed(c, &zeros))).into();
    assert!(bombs.values().all(|bomb| bomb.len() < 10_000));
    for (path, body) in &routes {
        let plain = body.to_string().into_bytes();
        for coding in CODINGS {
            ok(send(path, coding, packed(coding, &plain)).await).await;
            let twice = packed("gzip", &packed(coding, &plain));
            ok(send(path, &format!("{coding}, gzip"), twice).await).await;
            // A bomb, a lie, a cut.
            let told = refused(send(path, coding, bombs[coding].clone()).await).await;
            let (status, error) = told;
            assert_eq!(
                (status, error["code"].as_str()),
                (413, Some("payload_too_large")),
                "{path} {coding}"
            );
            for broken in [plain.clone(), packed(coding, &plain)[..10].to_vec()] {
                let (status, error) = refused(send(path, coding, broken).await).await;
                assert_eq!(status, 400, "{path} {coding}: {error}");
            }
        }
        ok(send(path, "identity", plain.clone()).await).await;
        let marked = [b"\xef\xbb\xbf", &plain[..]].concat();
        ok(send(path, "", marked.clone()).await).await;
        ok(send(path, "gzip", packed("gzip", &marked)).await).await;
        for (coding, named) in [("compress", "compress"), ("gzip, br, zstd", "codings")] {
            let answer = send(path, coding, plain.clone()).await.expect("an answer");
            assert_eq!(
                answer.headers()["accept-encoding"],
                "gzip, deflate, br, zstd"
            );
            let (status, error) = refused(Ok(answer)).await;
            let message = error["message"].as_str().expect("a message");
            assert!(
                status == 415 && message.contains(named),
                "{path}: {message}"
            );
        }
    }
    // A file is unpacked as it arrives.
    let file = "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--b\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nwhat is in it\r\n--b--\r\n";
    let upload = |body: Vec<u8>| {
        harness
            .request(reqwest::Method::POST, "/v1/files")
            .header("content-type", "multipart/form-data; boundary=b")
            .header("content-encoding", "zstd")
            .body(body)
            .send()
    };
    let made = ok(upload(packed("zstd", file.as_bytes())).await).await;
    let path = format!("/v1/files/{}/content", made["id"].as_str().expect("an id"));
    assert_eq!(text(harness.get(&path).send().await).await, "what is in it");
    let (status, _) = refused(upload(file.into()).await).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_keep_what_they_say() {
    let (harness, provider) = started(|_| {}).await;
    let too_long = json!({ "error": { "message": "This is too long", "type": "invalid_request_error",
        "param": "messages", "code": "context_length_exceeded" } });
    provider.on("m", vec![Send(answer_json(400, &too_long.to_string()))]);
    let smith = harness.smith("p-chat/m").await;
    let chat =
        json!({ "model": "", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let input = json!({ "model": "", "stream": true, "input": "hi" });
    let ui = json!({ "id": "c", "messages": [{ "id": "1", "role": "user", "parts": [{ "type": "text", "text": "hi" }] }] });
    for call in [
        harness.chat("p-chat/m", true),
        harness.chat("p-chat/m", false),
        responses(&harness, "p-chat/m", true),
        responses(&harness, "p-responses/m", false),
        harness
            .post("/v1/chat/completions", &chat)
            .header("IC-Smith-Id", &smith),
        harness
            .post("/v1/responses", &input)
            .header("IC-Smith-Id", &smith),
        harness
            .post("/v1/ui/chat", &ui)
            .header("IC-Smith-Id", &smith),
    ] {
        let (status, error) = refused(call.send().await).await;
        assert_eq!(status, 400);
        assert_eq!(error, too_long["error"]);
    }
    let run = json!({ "stream": true, "input": [{ "role": "user", "content": "hi" }] });
    let call = harness.post(&format!("/v1/smiths/{smith}/runs"), &run);
    let stream = text(call.send().await).await;
    let failed: Value =
        serde_json::from_str(data_lines(&stream).last().expect("an event")).expect("JSON");
    assert_eq!(failed["code"], "context_length_exceeded");
    let message = json!({ "type": "error", "error": { "type": "invalid_request_error",
        "message": "prompt is too long: 208310 tokens > 200000 maximum" } });
    provider.on("m", vec![Send(answer_json(400, &message.to_string()))]);
    let (status, error) = refused(harness.chat("p-anthropic/m", true).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (400, Some("context_length_exceeded"))
    );
    // A key that a provider repeats goes no further.
    let message = "{\"error\":\"bad key a-secret-key\"}";
    provider.on("m", vec![Send(answer_json(401, message))]);
    let (status, error) = refused(harness.chat("p-chat/m", true).send().await).await;
    assert!(
        status == 502 && !error.to_string().contains("a-secret-key"),
        "{error}"
    );
    // Nor when it does so behind a good status.
    let event = format!("event: error\ndata: {message}\n\n");
    let begun = [ROLE, HEL, &event].concat();
    let no_json = "bad key a-secret-key";
    for answer in [
        answer_json(200, message),
        sse(&event),
        sse(&begun),
        sse(&format!("data: {no_json}\n\n")),
        labelled(200, "text/plain", no_json),
    ] {
        provider.on("m", vec![Send(answer)]);
        for call in [
            harness.chat("p-chat/m", true),
            harness.chat("p-chat/m", false),
            harness.chat("p-anthropic/m", true),
            responses(&harness, "p-chat/m", true),
            responses(&harness, "p-responses/m", true),
            harness
                .post("/v1/chat/completions", &chat)
                .header("IC-Smith-Id", &smith),
            harness.post(&format!("/v1/smiths/{smith}/runs"), &run),
        ] {
            let answer = call.send().await.expect("an answer");
            let status = answer.status();
            let told = answer.text().await.expect("a text");
            // What is passed on behind content is an error of the provider's own form.
            let is_error = !status.is_success()
                || told.contains("\"code\":")
                || told.contains("event: error\ndata: {\"error\":\"bad key ***\"}");
            assert!(
                is_error && !told.contains("a-secret-key"),
                "{status} {told}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_told_however_it_is_said() {
    let (harness, provider) = started(|_| {}).await;
    let limit =
        "{\"error\":{\"message\":\"slow\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}}";
    let google = "[{\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\",\"message\":\"slow\",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"34s\"}]}}]";
    for (lines, body, seconds) in [
        ("", limit, "1"),
        ("retry-after: 7\r\n", limit, "7"),
        ("retry-after-ms: 2500\r\n", limit, "3"),
        ("x-ratelimit-reset-requests: 6m0s\r\n", limit, "360"),
        ("x-ratelimit-reset-tokens: 20ms\r\n", limit, "1"),
        ("", google, "34"),
        (
            "",
            "{\"error\":{\"message\":\"Please try again in 1.5s.\"}}",
            "2",
        ),
    ] {
        provider.on("bad", vec![Send(with_head(429, lines, body.as_bytes()))]);
        let answer = harness
            .chat("p-chat/bad", true)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.headers()["retry-after"], seconds, "{lines}{body}");
        let (status, error) = refused(Ok(answer)).await;
        assert_eq!(
            (status, error["code"].as_str()),
            (429, Some("rate_limit_exceeded"))
        );
    }
    // Nothing to pay with is no limit: another target is asked, this one not again.
    for (status, body) in [
        (
            429,
            "{\"error\":{\"message\":\"x\",\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}",
        ),
        (
            402,
            "{\"error\":{\"message\":\"Insufficient credits\",\"code\":402}}",
        ),
        (
            400,
            "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"Your credit balance is too low\"}}",
        ),
    ] {
        provider.on(
            "bad",
            vec![Send(with_head(
                status,
                "retry-after: 3\r\n",
                body.as_bytes(),
            ))],
        );
        let answer = harness
            .chat("p-chat/bad", false)
            .send()
            .await
            .expect("an answer");
        assert!(!answer.headers().contains_key("retry-after"));
        assert_eq!(answer.headers()["x-should-retry"], "false");
        let (_, error) = refused(Ok(answer)).await;
        assert_eq!(error["code"], "insufficient_quota", "{body}");
        provider.on("good", vec![Send(answer_json(200, CHAT_WHOLE))]);
        ok(harness.chat("any-p-chat", false).send().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_say_who_asks_for_what() {
    let (harness, provider) = started(|_| {}).await;
    provider.on("m", vec![Send(sse(CHAT_STREAM))]);
    text(harness.chat("p-chat/m", true).send().await).await;
    let head = provider.last_head();
    assert!(
        head.starts_with("post /v1/chat/completions?api-version=7 http/1.1"),
        "{head}"
    );
    let agent = concat!("user-agent: smithgate/", env!("CARGO_PKG_VERSION"));
    assert!(head.contains(agent), "{head}");
    assert!(head.contains("accept: text/event-stream"), "{head}");
    provider.on("m", vec![Send(answer_json(200, CHAT_WHOLE))]);
    text(harness.chat("p-chat/m", false).send().await).await;
    let head = provider.last_head();
    assert!(head.contains("accept: application/json"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_may_take_longer_than_a_streams_head() {
    let (harness, provider) = started(|config| {
        config.limits.first_byte_timeout_ms = 200;
        config.limits.whole_answer_timeout_ms = 5_000;
    })
    .await;
    provider.on("m", vec![Wait(600), Send(answer_json(200, CHAT_WHOLE))]);
    ok(harness.chat("p-chat/m", false).send().await).await;
    let (status, _) = refused(harness.chat("p-chat/m", true).send().await).await;
    assert_eq!(status, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_goes_on_behind_an_expectation() {
    let (harness, provider) = started(|_| {}).await;
    provider.on("m", vec![Send(answer_json(200, CHAT_WHOLE))]);
    let mut socket = TcpStream::connect(harness.address)
        .await
        .expect("connected");
    let body = json!({ "model": "p-chat/m", "messages": [{ "role": "user", "content": "hi" }] })
        .to_string();
    for _ in 0..3 {
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            harness.token,
            body.len()
        );
        socket.write_all(head.as_bytes()).await.expect("sent");
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            assert!(socket.read_buf(&mut read).await.expect("read") > 0);
        }
        assert!(read.starts_with(b"HTTP/1.1 100"));
        socket.write_all(body.as_bytes()).await.expect("sent");
        read.clear();
        while memchr::memmem::find(&read, b"Hello").is_none() || !read.ends_with(b"}") {
            assert!(
                socket.read_buf(&mut read).await.expect("read") > 0,
                "closed"
            );
        }
        let text = String::from_utf8_lossy(&read).to_lowercase();
        assert!(text.contains("connection: keep-alive"), "{text}");
    }
}
