//! What a token delta allocates in steady state: nothing in our own code, and little in all, counted
//! by the allocator while a real gateway passes real deltas on, one by one. And what a stream holds
//! that waits.

#![allow(unsafe_code, reason = "an allocator that counts is one")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside, where there is no guard"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use smithgate::config::{Config, ProviderWire};
use smithgate::gateway::Gateway;
use smithgate::model::provider;
use smithgate::server::Server;
use smithgate::sse::Splitter;
use smithgate::wire::chat::{EventGate, StreamEncoder};
use smithgate::wire::{FrameEncoder, StreamGate, native};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The system's allocator, with a count of each thread, and of all threads of a gateway.
struct Counting;

thread_local! {
    static OWN: Cell<usize> = const { Cell::new(0) };
    static IS_GATEWAY: Cell<bool> = const { Cell::new(false) };
}
static OF_GATEWAY: AtomicUsize = AtomicUsize::new(0);
/// Bytes that all threads hold.
static LIVE: AtomicIsize = AtomicIsize::new(0);

fn note_live(size: usize, sign: isize) {
    LIVE.fetch_add(sign * size as isize, Ordering::Relaxed);
}

fn note() {
    // A thread that ends has neither any more.
    let _ = OWN.try_with(|own| own.set(own.get() + 1));
    if IS_GATEWAY.try_with(Cell::get).unwrap_or(false) {
        OF_GATEWAY.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: all calls go to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        note_live(layout.size(), 1);
        // SAFETY: the caller keeps the contract of this function, which is that one's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        note_live(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        note_live(layout.size(), -1);
        note_live(size, 1);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of this thread while `work` is done.
fn count(work: impl FnOnce()) -> usize {
    let before = OWN.get();
    work();
    OWN.get() - before
}

const WORDS: &str = "tokens flow like a river, \\\"chunk\\\" by chunk, ";

fn delta(wire: ProviderWire) -> String {
    match wire {
        ProviderWire::OpenaiChat => format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{WORDS}\"}},\"finish_reason\":null}}]}}\n\n"
        ),
        ProviderWire::OpenaiResponses => format!(
            "event: response.output_text.delta\ndata: {{\"type\":\"response.output_text.delta\",\"sequence_number\":7,\"item_id\":\"i\",\"output_index\":0,\"content_index\":0,\"delta\":\"{WORDS}\"}}\n\n"
        ),
        ProviderWire::Anthropic => format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{WORDS}\"}}}}\n\n"
        ),
        ProviderWire::Gemini => format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{WORDS}\"}}],\"role\":\"model\"}},\"index\":0}}],\"modelVersion\":\"m\",\"responseId\":\"r\"}}\n\n"
        ),
    }
}

fn opening(wire: ProviderWire) -> &'static str {
    match wire {
        ProviderWire::Anthropic => {
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
        }
        _ => "",
    }
}

const WIRES: [ProviderWire; 4] = [
    ProviderWire::OpenaiChat,
    ProviderWire::OpenaiResponses,
    ProviderWire::Anthropic,
    ProviderWire::Gemini,
];

#[test]
fn reading_translating_and_writing_a_delta_allocates_nothing() {
    for wire in WIRES {
        let encoders: [Box<dyn FrameEncoder>; 2] = [
            Box::new(StreamEncoder::new("chatcmpl-1", 1, "m", true)),
            Box::new(native::Encoder::new("run_1", 0, None)),
        ];
        for mut encoder in encoders {
            let delta = delta(wire);
            let (mut read, mut written) = (BytesMut::new(), BytesMut::with_capacity(4096));
            let (mut splitter, mut decoder) =
                (Splitter::new(1 << 20), provider::api(wire).decoder());
            let mut frames = Vec::new();
            let mut pass = |event: &str| {
                if read.capacity() - read.len() < event.len() {
                    read.reserve(2048);
                }
                read.extend_from_slice(event.as_bytes());
                splitter.push(read.split().freeze());
                while let Some(event) = splitter.next_event().expect("small") {
                    decoder.event(&event, &mut frames).expect("valid");
                }
                for frame in frames.drain(..) {
                    encoder.frame(&frame, &mut written);
                }
                written.split().freeze()
            };
            pass(opening(wire));
            for _ in 0..100 {
                assert!(pass(&delta).ends_with(b"\n\n"));
            }
            let made = count(|| {
                for _ in 0..1000 {
                    pass(&delta);
                }
            });
            assert_eq!(made, 0, "{wire:?}");
        }
    }
}

#[test]
fn forwarding_a_delta_allocates_nothing() {
    let delta = delta(ProviderWire::OpenaiChat);
    let mut gate = EventGate::new(1 << 20, true);
    let mut read = BytesMut::new();
    let mut pass = || {
        if read.capacity() - read.len() < delta.len() {
            read.reserve(2048);
        }
        read.extend_from_slice(delta.as_bytes());
        gate.pass(read.split().freeze()).expect("small")
    };
    for _ in 0..100 {
        assert_eq!(pass(), delta);
    }
    let made = count(|| {
        for _ in 0..1000 {
            pass();
        }
    });
    assert_eq!(made, 0);
}

// ---- the whole gateway ----

fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("an address")
}

/// Reads until what was read ends with `end`.
async fn read_until(socket: &mut TcpStream, buf: &mut Vec<u8>, end: &[u8]) {
    while !buf.ends_with(end) {
        let read = socket.read_buf(buf).await.expect("read");
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(buf));
    }
}

async fn request(socket: &mut TcpStream, path: &str, headers: &str, body: &str) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.expect("sent");
}

fn chunk(event: &str) -> Bytes {
    Bytes::from(format!("{:x}\r\n{event}\r\n", event.len()))
}

const WARM: usize = 300;
const COUNT: usize = 200;
const WINDOWS: usize = 8;
const STREAMS: usize = 200;

/// A stream whose first event has been sent, and its provider's end.
async fn begun(
    gateway: SocketAddr,
    provider: &TcpListener,
    wire: ProviderWire,
    headers: &str,
    body: &str,
) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(gateway).await.expect("connected");
    client.set_nodelay(true).expect("set");
    request(&mut client, "/v1/chat/completions", headers, body).await;
    let mut upstream = provider.accept().await.expect("accepted").0;
    upstream.set_nodelay(true).expect("set");
    let mut buf = Vec::with_capacity(2048);
    while !buf.ends_with(b"}") {
        upstream.read_buf(&mut buf).await.expect("read");
    }
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    upstream.write_all(head.as_bytes()).await.expect("sent");
    let opening = opening(wire);
    if !opening.is_empty() {
        upstream.write_all(&chunk(opening)).await.expect("sent");
    }
    (client, upstream)
}

/// Bytes that the gateway holds for a stream that waits for its next delta.
async fn per_stream(
    gateway: SocketAddr,
    provider: &TcpListener,
    wire: ProviderWire,
    headers: &str,
    body: &str,
) -> isize {
    let settled = || tokio::time::sleep(std::time::Duration::from_millis(500));
    let mut open = Vec::with_capacity(WARM);
    let mut before = 0;
    for n in 0..WARM {
        if n == WARM - STREAMS {
            settled().await;
            before = LIVE.load(Ordering::Relaxed);
        }
        let (mut client, mut upstream) = begun(gateway, provider, wire, headers, body).await;
        upstream
            .write_all(&chunk(&delta(wire)))
            .await
            .expect("sent");
        let mut seen = Vec::with_capacity(2048);
        while memchr::memmem::find(&seen, b"tokens flow").is_none() {
            client.read_buf(&mut seen).await.expect("read");
        }
        open.push((client, upstream));
    }
    settled().await;
    (LIVE.load(Ordering::Relaxed) - before) / STREAMS as isize
}

/// Allocations a delta of a stream that `body` asks for; the provider sends a delta when the client
/// has the one before. The lowest of several windows: what else the gateway does at times, such as
/// ending the streams of the case before, falls into some of them only.
async fn per_delta(
    gateway: SocketAddr,
    provider: &TcpListener,
    wire: ProviderWire,
    headers: &str,
    body: &str,
) -> f64 {
    let (mut client, mut upstream) = begun(gateway, provider, wire, headers, body).await;
    let mut buf = Vec::with_capacity(64 * 1024);
    let delta = chunk(&delta(wire));
    let mut lowest = usize::MAX;
    for _ in 0..WINDOWS {
        let before = OF_GATEWAY.load(Ordering::Relaxed);
        for _ in 0..COUNT {
            upstream.write_all(&delta).await.expect("sent");
            let mut seen = false;
            while !seen {
                buf.clear();
                read_until(&mut client, &mut buf, b"\n\n\r\n").await;
                seen = memchr::memmem::find(&buf, b"tokens flow").is_some();
            }
        }
        lowest = lowest.min(OF_GATEWAY.load(Ordering::Relaxed) - before);
    }
    lowest as f64 / COUNT as f64
}

#[test]
fn a_delta_through_the_whole_gateway_allocates_little() {
    let gateway_runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(|| IS_GATEWAY.set(true))
        .enable_all()
        .build()
        .expect("a runtime");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let provider = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .expect("bound");
    let base_url = format!("http://{}", provider.local_addr().expect("an address"));
    let mut config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    config.server.listen = free();
    config.metrics.listen = None;
    config.limits.max_worker_lag_ms = 0;
    for (name, wire) in [
        ("chat", ProviderWire::OpenaiChat),
        ("anthropic", ProviderWire::Anthropic),
    ] {
        let provider =
            serde_json::json!({ "wire": wire, "base_url": base_url, "needs_key": false });
        let provider = serde_json::from_value(provider).expect("a provider");
        config.providers.insert(format!("{name}-mock"), provider);
    }
    let address = config.server.listen;
    let (server, token) = gateway_runtime.block_on(async {
        let (gateway, first) = Gateway::start(config).await.expect("a gateway");
        let server = Server::start(gateway).await.expect("a server");
        (server, first.expect("an empty store").admin_token)
    });
    let bearer = format!("authorization: Bearer {token}\r\n");
    let (seen, held) = runtime.block_on(async {
        let mut socket = TcpStream::connect(address).await.expect("connected");
        request(&mut socket, "/v1/smiths", &bearer, "{\"model\":\"chat-mock/m\"}").await;
        let mut made = Vec::new();
        read_until(&mut socket, &mut made, b"}").await;
        let made = String::from_utf8(made).expect("text");
        let at = made.find("smt_").expect("a smith");
        let id = made[at..].split('"').next().unwrap_or_default();
        let smith = format!("{bearer}ic-smith-id: {id}\r\n");
        let body = |model: &str| {
            format!("{{\"model\":\"{model}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}")
        };
        let chat = ProviderWire::OpenaiChat;
        let cases = [
            (chat, &bearer, body("chat-mock/m")),
            (ProviderWire::Anthropic, &bearer, body("anthropic-mock/m")),
            (chat, &smith, body("")),
        ];
        let (mut made, mut held) = (Vec::new(), Vec::new());
        for (wire, headers, body) in &cases {
            held.push(per_stream(address, &provider, *wire, headers, body).await);
        }
        for (wire, headers, body) in &cases {
            made.push(per_delta(address, &provider, *wire, headers, body).await);
        }
        (made, held)
    });
    gateway_runtime.block_on(server.stop());
    println!("bytes a stream that waits: forwarded, translated, smith run: {held:?}");
    println!("allocations a delta: forwarded, translated, smith run: {seen:?}");
    // Two are Pingora's, which makes a text of each chunk's length; a run's frames are kept.
    for (what, made, most) in [
        ("forwarded", seen[0], 2.1),
        ("translated", seen[1], 2.1),
        ("smith run", seen[2], 2.5),
    ] {
        assert!(made <= most, "{what}: {made} allocations a delta");
    }
    // Half of it is Pingora's: its tasks, the maps of its headers.
    for (what, held, most) in [
        ("forwarded", held[0], 11 * 1024),
        // Of two runs of the same build, one may hold fifty bytes more.
        ("translated", held[1], 13 * 1024 + 256),
        ("smith run", held[2], 17 * 1024),
    ] {
        assert!(held <= most, "{what}: {held} bytes a stream that waits");
    }
}
