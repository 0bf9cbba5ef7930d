//! A provider that costs next to nothing: answers are made once; a stream's chunks are written one
//! by one, back to back, as a provider does that writes each token when it has it.
//!
//! The path's first segment is the wire. The model `slow-20` gets a chunk every 20 ms for five
//! seconds, each with the time at which it was sent; `idle` gets the first text and
//! silence. `GET /hung-up` tells when a client last closed a connection in mid-stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{content_length, now_nanos};

/// Chunks of a streamed answer.
pub const CHUNKS: usize = 100;
/// How long a slow stream goes on.
const SLOW_TIME: Duration = Duration::from_secs(5);
/// Marks the time in a slow chunk.
pub const SENT_AT: &str = "sent-at-";

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// The model of a slow stream, in a request.
const SLOW: &[u8] = b"\"model\":\"slow-";

struct Answers {
    whole: Vec<u8>,
    streams: [(&'static str, Vec<Vec<u8>>); 4],
    hung_up: AtomicU64,
}

impl Answers {
    /// The writes of a streamed answer to `request`, whose path begins with the wire.
    fn stream_for(&self, request: &[u8]) -> Option<&[Vec<u8>]> {
        let path = &request[request.iter().position(|b| *b == b'/')? + 1..];
        let mut streams = self.streams.iter();
        let (_, writes) = streams.find(|(wire, _)| path.starts_with(wire.as_bytes()))?;
        Some(writes)
    }
}

fn chunk(out: &mut Vec<u8>, event: &str) {
    out.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
}

fn chat_event(delta: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{delta}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

/// About as many bytes of text as make a chunk of 200 bytes on Chat Completions.
const WORDS: &str = "tokens flow like a river, chunk by chunk, ";

fn events(wire: &str) -> Vec<String> {
    let mut events = Vec::with_capacity(CHUNKS + 4);
    match wire {
        "chat" => {
            events.extend((0..CHUNKS).map(|_| chat_event(WORDS)));
            events.push("data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n".to_owned());
            events.push("data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":100,\"total_tokens\":109}}\n\n".to_owned());
            events.push("data: [DONE]\n\n".to_owned());
        }
        "responses" => {
            let event = |name: &str, rest: &str| {
                format!("event: {name}\ndata: {{\"type\":\"{name}\",{rest}}}\n\n")
            };
            events.push(event("response.created", "\"response\":{\"id\":\"r\",\"model\":\"m\",\"status\":\"in_progress\",\"output\":[]}"));
            events.push(event("response.output_item.added", "\"output_index\":0,\"item\":{\"type\":\"message\",\"id\":\"i\",\"role\":\"assistant\",\"content\":[]}"));
            events.extend((0..CHUNKS).map(|n| event("response.output_text.delta", &format!("\"sequence_number\":{n},\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"{WORDS}\""))));
            events.push(event("response.completed", "\"response\":{\"id\":\"r\",\"model\":\"m\",\"status\":\"completed\",\"output\":[],\"usage\":{\"input_tokens\":9,\"output_tokens\":100,\"total_tokens\":109}}"));
        }
        "anthropic" => {
            let event = |name: &str, rest: &str| {
                format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n")
            };
            events.push(event("message_start", ",\"message\":{\"id\":\"msg\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}"));
            events.push(event(
                "content_block_start",
                ",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}",
            ));
            let words = format!("{WORDS}{WORDS}");
            events.extend((0..CHUNKS).map(|_| {
                event(
                    "content_block_delta",
                    &format!(
                        ",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{words}\"}}"
                    ),
                )
            }));
            events.push(event("content_block_stop", ",\"index\":0"));
            events.push(event(
                "message_delta",
                ",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":100}",
            ));
            events.push(event("message_stop", ""));
        }
        _ => {
            let words = format!("{WORDS}{WORDS}");
            let event = |rest: &str| {
                format!(
                    "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{words}\"}}],\"role\":\"model\"}},\"index\":0{rest}}}],\"modelVersion\":\"m\",\"responseId\":\"r\"}}\n\n"
                )
            };
            events.extend((0..CHUNKS - 1).map(|_| event("")));
            events.push(event(",\"finishReason\":\"STOP\"").replace("\"modelVersion\"", "\"usageMetadata\":{\"promptTokenCount\":9,\"candidatesTokenCount\":100,\"totalTokenCount\":109},\"modelVersion\""));
        }
    }
    events
}

fn stream(wire: &str) -> Vec<Vec<u8>> {
    let mut writes = vec![STREAM_HEAD.to_vec()];
    for event in events(wire) {
        let mut out = Vec::with_capacity(event.len() + 8);
        chunk(&mut out, &event);
        writes.push(out);
    }
    writes.push(b"0\r\n\r\n".to_vec());
    writes
}

fn whole() -> Vec<u8> {
    let body = format!(
        "{{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"m\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}}}",
        WORDS.repeat(8)
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let answers = Arc::new(Answers {
        whole: whole(),
        streams: ["chat", "responses", "anthropic", "gemini"].map(|wire| (wire, stream(wire))),
        hung_up: AtomicU64::new(0),
    });
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let answers = answers.clone();
        tokio::spawn(async move { connection(socket, &answers).await });
    }
}

async fn connection(mut socket: TcpStream, answers: &Answers) -> Option<()> {
    let mut buf = Vec::with_capacity(16 * 1024);
    loop {
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&buf, b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut buf).await.ok()? == 0 {
                return None;
            }
        };
        let end = head_end + content_length(&buf[..head_end]).unwrap_or(0);
        while buf.len() < end {
            if socket.read_buf(&mut buf).await.ok()? == 0 {
                return None;
            }
        }
        let request = &buf[..end];
        let has = |text: &str| memchr::memmem::find(request, text.as_bytes()).is_some();
        if request.starts_with(b"GET /hung-up") {
            let at = answers.hung_up.load(Ordering::SeqCst).to_string();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{at}",
                at.len()
            );
            socket.write_all(answer.as_bytes()).await.ok()?;
        } else if let Some(at) = memchr::memmem::find(request, SLOW) {
            let digits = request[at + SLOW.len()..].split(|b| *b == b'"').next()?;
            let pace = std::str::from_utf8(digits).ok()?.parse().ok()?;
            slow(&mut socket, answers, Duration::from_millis(pace)).await?;
        } else if has("\"model\":\"idle\"") {
            idle(&mut socket, answers, request).await?;
        } else if has("\"stream\":true") || has("streamGenerateContent") {
            for write in answers.stream_for(request)? {
                socket.write_all(write).await.ok()?;
            }
        } else {
            socket.write_all(&answers.whole).await.ok()?;
        }
        buf.drain(..end);
    }
}

async fn slow(socket: &mut TcpStream, answers: &Answers, pace: Duration) -> Option<()> {
    let mut ticks = tokio::time::interval(pace);
    let mut out = STREAM_HEAD.to_vec();
    for _ in 0..SLOW_TIME.as_millis() / pace.as_millis() {
        ticks.tick().await;
        chunk(
            &mut out,
            &chat_event(&format!("{WORDS}{SENT_AT}{};", now_nanos())),
        );
        if socket.write_all(&out).await.is_err() {
            answers.hung_up.store(now_nanos(), Ordering::SeqCst);
            return None;
        }
        out.clear();
    }
    chunk(&mut out, "data: [DONE]\n\n");
    out.extend_from_slice(b"0\r\n\r\n");
    socket.write_all(&out).await.ok()
}

async fn idle(socket: &mut TcpStream, answers: &Answers, request: &[u8]) -> Option<()> {
    for write in answers.stream_for(request)? {
        socket.write_all(write).await.ok()?;
        if memchr::memmem::find(write, WORDS.as_bytes()).is_some() {
            break;
        }
    }
    let mut byte = [0u8; 1];
    while socket.read(&mut byte).await.is_ok_and(|read| read > 0) {}
    answers.hung_up.store(now_nanos(), Ordering::SeqCst);
    None
}
