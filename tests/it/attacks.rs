//! What attackers send: requests that two servers would understand differently, floods, bodies of
//! those who may not send any.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Harness, ok};

const SOON: Duration = Duration::from_secs(4);

/// Sends bytes as they are, and reads until the connection is silent or closed; whether it was
/// closed, too.
async fn raw(address: SocketAddr, bytes: &[u8]) -> (String, bool) {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    // What is refused early may be closed before it is written whole.
    let _ = stream.write_all(bytes).await;
    read_out(&mut stream).await
}

async fn read_out(stream: &mut TcpStream) -> (String, bool) {
    let mut answer = Vec::new();
    let closed = loop {
        let patience = match answer.is_empty() {
            true => SOON,
            false => Duration::from_millis(1_500),
        };
        match tokio::time::timeout(patience, stream.read_buf(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => break true,
            Ok(Ok(_)) => {}
            Err(_) => break false,
        }
    };
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

fn answers(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ")
        .map(|(at, _)| &text[at + 9..at + 12])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_smuggled_behind_a_request() {
    let harness = Harness::start().await;
    let hidden = "GET /ready HTTP/1.1\r\nhost: x\r\n\r\n";
    let post = "POST /oauth/token HTTP/1.1\r\nhost: x\r\n";
    for (what, request) in [
        (
            "CL and TE",
            format!(
                "{post}content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "TE and CL",
            format!(
                "{post}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n5c\r\n{hidden}\r\n0\r\n\r\n"
            ),
        ),
        (
            "two lengths",
            format!("{post}content-length: 0\r\ncontent-length: 36\r\n\r\n{hidden}"),
        ),
        (
            "one length twice",
            format!("{post}content-length: 0\r\ncontent-length: 0\r\n\r\n{hidden}"),
        ),
        (
            "a list of lengths",
            format!("{post}content-length: 0, 36\r\n\r\n{hidden}"),
        ),
        (
            "a length with a sign",
            format!("{post}content-length: +0\r\n\r\n{hidden}"),
        ),
        (
            "a length in hex",
            format!("{post}content-length: 0x24\r\n\r\n{hidden}"),
        ),
        (
            "a length below nought",
            format!("{post}content-length: -1\r\n\r\n{hidden}"),
        ),
        (
            "a space before the colon",
            format!("{post}content-length : 36\r\n\r\n{hidden}"),
        ),
        (
            "a tab before the colon",
            format!("{post}transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "an unknown coding",
            format!("{post}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunked is not last",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "two codings",
            format!(
                "{post}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (
            "a vertical tab",
            format!("{post}transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a folded line",
            format!("{post}x: a\r\n content-length: 36\r\n\r\n{hidden}"),
        ),
        (
            "a folded coding",
            format!("{post}transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "a bare LF",
            format!("{post}x: a\ncontent-length: 36\r\n\r\n{hidden}"),
        ),
        (
            "a bare CR",
            format!("{post}x: a\rcontent-length: 36\r\n\r\n{hidden}"),
        ),
        ("a NUL", format!("{post}x: a\0b\r\n\r\n{hidden}")),
        (
            "a name without a colon",
            format!("{post}content-length\r\n\r\n{hidden}"),
        ),
        (
            "two hosts",
            format!(
                "POST /oauth/token HTTP/1.1\r\nhost: a\r\nhost: b\r\ncontent-length: 0\r\n\r\n{hidden}"
            ),
        ),
        (
            "spaces in the target",
            format!("GET /health HTTP/1.1 HTTP/1.1\r\nhost: x\r\n\r\n{hidden}"),
        ),
        (
            "only LF",
            "POST /oauth/token HTTP/1.1\nhost: x\ncontent-length: 0\n\n".to_owned() + hidden,
        ),
        (
            "chunked in HTTP/1.0",
            format!(
                "POST /oauth/token HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
    ] {
        let (answer, closed) = raw(harness.address, request.as_bytes()).await;
        assert!(closed, "{what}: still open after {answer}");
        assert_eq!(answers(&answer), ["400"], "{what}: {answer}");
        assert!(answer.contains("\"error\""), "{what}: {answer}");
    }
    // Chunks that are none: whatever is told, the connection does not go on behind them.
    let chunked = format!(
        "{post}content-type: application/x-www-form-urlencoded\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    for (what, body) in [
        ("a size that is no number", "zz\r\n"),
        ("a size with a sign", "+0\r\n\r\n"),
        ("a size with a space inside", "1 0\r\n"),
        ("a huge size", "fffffffffffffffff\r\n"),
        ("a size that overflows", "10000000000000000\r\nx"),
        ("a chunk without its end", "1\r\nab\r\n0\r\n\r\n"),
        ("a chunk that ends in LF", "1\r\na\n0\r\n\r\n"),
        ("a size that ends in LF", "1\na\r\n0\r\n\r\n"),
        ("a size that ends in CR", "1\ra\r\n0\r\n\r\n"),
        ("an extension with LF", "1;a\nb\r\na\r\n0\r\n\r\n"),
    ] {
        let request = format!("{chunked}{body}{hidden}");
        let (answer, _) = raw(harness.address, request.as_bytes()).await;
        assert!(answers(&answer).len() <= 1, "{what}: {answer}");
        assert!(!answer.contains("\"checks\""), "{what}: {answer}");
    }
    ok(harness.get("/health").send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_well_formed_still_passes() {
    let harness = Harness::start().await;
    let form = "grant_type=x&client_id=y";
    let post = format!(
        "POST /oauth/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
        form.len()
    );
    let chunked = format!(
        "POST /oauth/token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\nTransfer-Encoding: Chunked\r\n\r\n4;name=value\r\n{}\r\n{:X}\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
        &form[..4],
        form.len() - 4,
        &form[4..]
    );
    let health = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    // A method without a body may say that it has none, or a small one.
    let small = "GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello";
    let several = [&*post, "\r\n", health, small, &post, health, &chunked].concat();
    let (answer, closed) = raw(harness.address, several.as_bytes()).await;
    assert_eq!(
        answers(&answer),
        ["401", "200", "200", "401", "200", "401"],
        "{answer}"
    );
    assert!(!closed);
    // What comes along with a chunked body is not taken for a request.
    let (answer, closed) = raw(harness.address, (chunked.clone() + health).as_bytes()).await;
    assert_eq!(answers(&answer), ["401"], "{answer}");
    assert!(closed);
    // Of a chunked request, as it comes byte by byte.
    let mut stream = TcpStream::connect(harness.address)
        .await
        .expect("connected");
    for byte in chunked.bytes() {
        stream.write_all(&[byte]).await.expect("sent");
    }
    let (answer, _) = read_out(&mut stream).await;
    assert_eq!(answers(&answer), ["401"], "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_is_known_before_the_body_is_read() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/text").await;
    let token = harness.smith_token(&smith, &["traces:read"]).await;
    const LARGE: usize = 31 << 20;
    let asked = |method: &str, path: &str, token: &str| {
        let bearer = match token.is_empty() {
            true => String::new(),
            false => format!("authorization: Bearer {token}\r\n"),
        };
        format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\n{bearer}content-type: application/json\r\ncontent-length: {LARGE}\r\n\r\n{{"
        )
    };
    // Without a token: no body where none belongs, a small one on open routes.
    for (method, path, status) in [
        ("GET", "/health", "413"),
        ("GET", "/openapi.json", "413"),
        ("HEAD", "/health", "413"),
        ("DELETE", "/v1/agents/a", "413"),
        ("OPTIONS", "/v1/agents", "413"),
        ("POST", "/oauth/register", "413"),
        ("POST", "/oauth/token", "413"),
        ("POST", "/oauth/revoke", "413"),
        ("POST", "/oauth/authorize", "413"),
        ("POST", "/health", "413"),
        ("POST", "/v1/files", "401"),
        ("POST", "/v1/agents", "401"),
        ("POST", "/v1/nothing", "401"),
        ("POST", "/v1/chat/completions", "401"),
        ("POST", "/v1/responses", "401"),
        ("POST", "/v1/ui/chat", "401"),
        ("POST", "/v1/smiths/s/runs", "401"),
        ("POST", "/v1/deployments/d/mcp", "401"),
    ] {
        let begun = Instant::now();
        let (answer, _) = raw(harness.address, asked(method, path, "").as_bytes()).await;
        assert_eq!(answers(&answer), [status], "{method} {path}: {answer}");
        assert!(begun.elapsed() < SOON, "{method} {path}");
    }
    // A body that does not tell its length is cut where it is too long.
    let piece = format!("8000\r\n{}\r\n", "x".repeat(0x8000)).repeat(4);
    for (method, path) in [
        ("GET", "/health"),
        ("POST", "/oauth/register"),
        ("DELETE", "/v1/agents/a"),
    ] {
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        let (answer, closed) = raw(harness.address, (head + &piece).as_bytes()).await;
        assert_eq!(answers(&answer), ["413"], "{method} {path}: {answer}");
        assert!(closed, "{method} {path}");
    }
    // With a token that may do nothing of all this.
    let document = ok(harness.get("/openapi.json").send().await).await;
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let method = method.to_uppercase();
            let is_open = operation["security"].to_string().contains("{}");
            if !matches!(&*method, "POST" | "PUT" | "PATCH") || is_open {
                continue;
            }
            let path = path.replace("{id}", &smith).replace(['{', '}'], "");
            let (answer, _) = raw(harness.address, asked(&method, &path, &token).as_bytes()).await;
            assert_eq!(answers(&answer), ["403"], "{method} {path}: {answer}");
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_all_together_are_bounded() {
    let harness = Harness::start_with(|config, _| {
        config.server.max_body_bytes = 2 << 20;
        config.server.max_bytes_in_flight = 6 << 20;
        config.server.body_timeout_s = 20;
    })
    .await;
    let half = "x".repeat(1 << 20);
    let mut open = Vec::new();
    // A tenant's share is half of it: three bodies of 1 MiB that are not whole yet.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(harness.address)
            .await
            .expect("connected");
        let request = format!(
            "POST /v1/agents HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{half}",
            harness.token,
            half.len() + 1
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        open.push(stream);
    }
    let metrics = harness.metrics_text();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let shown = metrics.await;
    assert!(
        shown.contains("smithgate_body_bytes_in_flight 31"),
        "{shown}"
    );
    let large = json!({ "name": "a", "instructions": half });
    let refused = harness
        .post("/v1/agents", &large)
        .send()
        .await
        .expect("an answer");
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "2");
    let refused: Value = refused.json().await.expect("JSON");
    assert_eq!(refused["error"]["code"], "service_overloaded");
    // Small ones pass meanwhile, and large ones as soon as there is room.
    ok(harness
        .post("/v1/agents", &json!({ "name": "small" }))
        .send()
        .await)
    .await;
    open.truncate(1);
    let status = harness
        .post("/v1/agents", &large)
        .send()
        .await
        .expect("an answer")
        .status();
    assert_ne!(status, 503);
    drop(open);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let shown = harness.metrics_text().await;
    assert!(
        shown.contains("smithgate_body_bytes_in_flight 0"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_endless_headers_are_given_up() {
    let harness = Harness::start_with(|config, _| {
        config.server.header_timeout_s = 1;
        config.server.max_connections = 3;
    })
    .await;
    let mut slow = TcpStream::connect(harness.address)
        .await
        .expect("connected");
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n")
        .await
        .expect("sent");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if slow.write_all(b"x: y\r\n").await.is_err() {
            break;
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    for (what, header) in [
        (
            "one long header",
            format!("x: {}\r\n\r\n", "y".repeat(70_000)),
        ),
        ("many headers", "x: y\r\n".repeat(20_000)),
    ] {
        let request = format!("GET /health HTTP/1.1\r\n{header}");
        let (answer, closed) = raw(harness.address, request.as_bytes()).await;
        assert!(closed, "{what}");
        assert_eq!(answers(&answer), ["431"], "{what}");
    }
    let (answer, closed) = raw(harness.address, &[b'\n'; 300_000]).await;
    assert!(closed && answer.is_empty(), "{answer}");
    let long = format!(
        "GET /v1/models?x={} HTTP/1.1\r\nhost: x\r\n\r\n",
        "y".repeat(50_000)
    );
    let (answer, _) = raw(harness.address, long.as_bytes()).await;
    assert_eq!(answers(&answer), ["401"], "{answer}");
    // Connections are counted: of six at once three are closed.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut open = Vec::new();
    for _ in 0..6 {
        open.push(
            TcpStream::connect(harness.address)
                .await
                .expect("connected"),
        );
    }
    let mut closed = 0;
    for stream in &mut open {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut byte));
        closed += usize::from(matches!(read.await, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(closed, 3);
    drop(open);
    tokio::time::sleep(Duration::from_millis(300)).await;
    ok(harness.get("/health").send().await).await;
}

// ---- HTTP/2 ----

/// A frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn greeting() -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(SETTINGS, 0, 0, &[]));
    out
}

/// `GET path` in HPACK: two indexed fields, two literals.
fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend(path.bytes());
    block.extend([0x01, 1, b'x']);
    block
}

/// Sends as much of `flood` as is taken, and tells what came back.
async fn flood(
    harness: &Harness,
    mut flood: impl FnMut(u32) -> Vec<u8>,
    count: u32,
) -> (usize, Vec<u8>) {
    let mut stream = TcpStream::connect(harness.address)
        .await
        .expect("connected");
    stream.write_all(&greeting()).await.expect("sent");
    let (mut reading, mut writing) = stream.split();
    let sending = async {
        let mut sent = 0;
        for n in 0..count {
            let bytes = flood(n);
            let written = tokio::time::timeout(Duration::from_secs(2), writing.write_all(&bytes));
            if !matches!(written.await, Ok(Ok(()))) {
                break;
            }
            sent += bytes.len();
        }
        sent
    };
    let mut answer = Vec::new();
    let reading = async {
        loop {
            let read = tokio::time::timeout(Duration::from_secs(2), reading.read_buf(&mut answer));
            if !matches!(read.await, Ok(Ok(1..))) {
                return;
            }
        }
    };
    let (sent, ()) = tokio::join!(sending, reading);
    (sent, answer)
}

/// The code of a GOAWAY among frames.
fn goaway(mut bytes: &[u8]) -> Option<u32> {
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        let end = (9 + length).min(bytes.len());
        if bytes[3] == 7 && length >= 8 && bytes.len() >= 17 {
            return Some(u32::from_be_bytes([
                bytes[13], bytes[14], bytes[15], bytes[16],
            ]));
        }
        bytes = &bytes[end..];
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_http_2_end_their_connection_and_nothing_else() {
    const CALM: Option<u32> = Some(11);
    let harness = Harness::start().await;
    // Requests that are taken back at once (CVE-2023-44487).
    let (_, answer) = flood(
        &harness,
        |n| {
            let mut out = frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                2 * n + 1,
                &get("/health"),
            );
            out.extend(frame(RST_STREAM, 0, 2 * n + 1, &8u32.to_be_bytes()));
            out.repeat(1)
        },
        20_000,
    )
    .await;
    let rapid = goaway(&answer);
    assert_eq!(rapid, CALM);
    // A header that goes on for ever (CVE-2024-27316).
    let piece = [&[0x00, 1, b'a', 0x7f, 0x81, 0x3f][..], &[b'b'; 8192]].concat();
    let (sent, answer) = flood(
        &harness,
        |n| match n {
            0 => frame(HEADERS, END_STREAM, 1, &get("/health")),
            _ => frame(CONTINUATION, 0, 1, &piece),
        },
        20_000,
    )
    .await;
    assert!(sent < 20 << 20, "{sent} bytes were taken");
    assert!(goaway(&answer).is_some(), "{answer:?}");
    // A table entry of 3 KiB, named 20,000 times (an HPACK bomb).
    let mut bomb = get("/health");
    bomb.extend([0x40, 1, b'a', 0x7f, 0xe6, 0x16]);
    bomb.extend([b'b'; 3 * 1024 - 27]);
    bomb.extend([0xbe; 10_000]);
    let (_, answer) = flood(
        &harness,
        |_| frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb),
        1,
    )
    .await;
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains("smithgate"), "{text}");
    // Frames that want an answer, and answers that nobody reads.
    for (kind, payload, count) in [(PING, &[0; 8][..], 200_000), (SETTINGS, &[][..], 200_000)] {
        let many = frame(kind, 0, 0, payload).repeat(100);
        flood(&harness, |_| many.clone(), count / 100).await;
    }
    // More streams than are allowed.
    let (_, answer) = flood(
        &harness,
        |n| frame(HEADERS, END_HEADERS, 2 * n + 1, &get("/health")),
        2_000,
    )
    .await;
    assert!(!answer.is_empty());
    ok(harness.get("/health").send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_taken_as_it_is_written() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/text").await;
    let token = harness.smith_token(&smith, &["runs:read"]).await;
    for path in [
        "/health/../v1/agents",
        "/health/%2e%2e/v1/agents",
        "//health/../v1/agents",
        "/.well-known/oauth-protected-resource/../../v1/agents",
        "/.well-known/oauth-protected-resource/..%2f..%2fv1%2fagents",
        "/health;/../v1/agents",
        "/v1/agents/",
        "//v1/agents",
        "/V1/agents",
        "/%761/agents",
        "/v1%2fagents",
        "http://evil.test/v1/agents",
        "/v1/files/..%2f..%2f..%2fetc%2fpasswd/content",
        "/v1/files/%2fetc%2fpasswd/content",
        "/v1/skills/..%2f..%2fetc%2fpasswd/content",
    ] {
        for bearer in ["", &token] {
            let auth = match bearer {
                "" => String::new(),
                token => format!("authorization: Bearer {token}\r\n"),
            };
            let request = format!("GET {path} HTTP/1.1\r\nhost: evil.test\r\n{auth}\r\n");
            let (answer, _) = raw(harness.address, request.as_bytes()).await;
            let status = answers(&answer);
            assert!(
                matches!(&*status, ["400" | "401" | "403" | "404"]),
                "{path}: {answer}"
            );
            assert!(!answer.contains("root:"), "{path}");
        }
    }
    // No header makes another method of a request.
    for header in [
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-HTTP-Method",
    ] {
        let made = harness
            .post("/v1/agents", &json!({ "name": "kept" }))
            .send()
            .await;
        let made = ok(made).await;
        let path = format!("/v1/agents/{}", made["id"].as_str().expect("an id"));
        let read = harness.get(&path).header(header, "DELETE").send().await;
        ok(read).await;
        ok(harness.request(Method::GET, &path).send().await).await;
    }
}
