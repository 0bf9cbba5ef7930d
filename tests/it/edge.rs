//! The edge: connections, limits, ids, CORS, draining, health, metrics.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, Version};
use serde_json::{Value, json};
use smithgate::config::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::control::id;
use crate::mcp_host::initialize;
use crate::support::{Harness, free_address, ok, refused, said, text};

/// Reads one answer with a content-length from a raw connection.
async fn read_answer(stream: &mut TcpStream) -> (String, String) {
    let mut buf = Vec::new();
    loop {
        if let Some(end) = memchr::memmem::find(&buf, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buf[..end]).to_ascii_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .and_then(|v| v.parse().ok())
                .unwrap_or(0);
            while buf.len() < end + 4 + length {
                assert!(stream.read_buf(&mut buf).await.expect("bytes") > 0);
            }
            return (head, String::from_utf8_lossy(&buf[end + 4..]).into_owned());
        }
        assert!(
            stream.read_buf(&mut buf).await.expect("bytes") > 0,
            "closed: {buf:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_kept_alive_over_http_1() {
    let harness = Harness::start().await;
    let mut stream = TcpStream::connect(harness.address)
        .await
        .expect("connected");
    for n in 0..3 {
        let request = format!("GET /health HTTP/1.1\r\nhost: x\r\nx-request-id: keep-{n}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let (head, body) = read_answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(head.contains(&format!("x-request-id: keep-{n}")), "{head}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (&body["ok"], &body["service"]),
            (&json!(true), &json!("smithgate"))
        );
    }
    // A refused call with an unread body leaves the connection usable too.
    for (request, status) in [
        (
            "POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
            "401",
        ),
        ("GET /health HTTP/1.1\r\nhost: x\r\n\r\n", "200"),
    ] {
        stream.write_all(request.as_bytes()).await.expect("sent");
        let (head, _) = read_answer(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_come_in_pieces_of_all_sizes() {
    let harness = Harness::start().await;
    let connect = || async {
        TcpStream::connect(harness.address)
            .await
            .expect("connected")
    };
    // Shorter than the preface of HTTP/2.
    let mut stream = connect().await;
    stream
        .write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .expect("sent");
    let answered = tokio::time::timeout(Duration::from_secs(2), read_answer(&mut stream)).await;
    let (head, _) = answered.expect("soon");
    assert!(head.starts_with("http/1."), "{head}");
    // Byte by byte, then several at once, then one that is longer than what is read at once.
    let mut stream = connect().await;
    let health = |id: &str, pad: usize| {
        let pad = "p".repeat(pad);
        format!("GET /health HTTP/1.1\r\nhost: x\r\nx-request-id: {id}\r\nx-pad: {pad}\r\n\r\n")
    };
    for byte in health("slow", 1).bytes() {
        stream.write_all(&[byte]).await.expect("sent");
        stream.flush().await.expect("sent");
        tokio::task::yield_now().await;
    }
    let (head, _) = read_answer(&mut stream).await;
    assert!(
        head.starts_with("http/1.1 200") && head.contains("x-request-id: slow"),
        "{head}"
    );
    let several = [health("one", 1), health("two", 40_000), health("three", 1)].concat();
    stream.write_all(several.as_bytes()).await.expect("sent");
    let mut rest = Vec::new();
    while memchr::memmem::find_iter(&rest, b"x-request-id: ").count() < 3 {
        assert!(stream.read_buf(&mut rest).await.expect("bytes") > 0);
    }
    let rest = String::from_utf8_lossy(&rest).into_owned();
    let at = |id: &str| {
        rest.find(&format!("x-request-id: {id}"))
            .expect("an answer")
    };
    assert!(at("one") < at("two") && at("two") < at("three"), "{rest}");
    // The preface of HTTP/2, in pieces, and what only begins like it.
    for cut in [1, 10, 23] {
        let mut stream = connect().await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        stream.write_all(&preface[..cut]).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
        stream.write_all(&preface[cut..]).await.expect("sent");
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.expect("a frame");
        assert_eq!(
            frame[3], 4,
            "a SETTINGS frame, RFC 9113, section 3.4: {frame:?}"
        );
    }
    let mut stream = connect().await;
    stream
        .write_all(b"PRI * HTTP/9.0\r\n\r\n")
        .await
        .expect("sent");
    let (head, _) = read_answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn h2c_carries_calls_and_streams_side_by_side() {
    let harness = Harness::start().await;
    let client = Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .expect("a client");
    let body = json!({ "model": "anthropic/text", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let mut calls = Vec::new();
    for _ in 0..20 {
        let call = client
            .post(harness.url("/v1/chat/completions"))
            .bearer_auth(&harness.token)
            .json(&body);
        calls.push(tokio::spawn(async move {
            let answer = call.send().await.expect("an answer");
            assert_eq!(answer.version(), Version::HTTP_2);
            answer.text().await.expect("a body")
        }));
    }
    for call in calls {
        let stream = call.await.expect("a task");
        assert!(!said(&stream).is_empty());
        assert!(stream.ends_with("data: [DONE]\n\n"));
    }
    let listed = client
        .get(harness.url("/v1/models"))
        .bearer_auth(&harness.token)
        .send()
        .await;
    assert_eq!(
        listed.as_ref().map(|a| a.version()).ok(),
        Some(Version::HTTP_2)
    );
    ok(listed).await;
    let (status, _) = refused(client.get(harness.url("/v1/models")).send().await).await;
    assert_eq!(status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_negotiates_http_2_and_http_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let listen = free_address();
    let harness =
        Harness::start_with(|config, _| config.server.tls = Some(Tls { listen, cert, key })).await;
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).expect("a certificate");
    let build = || {
        Client::builder()
            .no_proxy()
            .tls_certs_only([root.clone()])
            .resolve("localhost", listen)
    };
    let url = |path: &str| format!("https://localhost:{}{path}", listen.port());
    for (client, version) in [
        (build().build().expect("a client"), Version::HTTP_2),
        (
            build().http1_only().build().expect("a client"),
            Version::HTTP_11,
        ),
    ] {
        let body = json!({ "model": "gemini/text", "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
        let mut tries = 0;
        let answer = loop {
            let call = client
                .post(url("/v1/chat/completions"))
                .bearer_auth(&harness.token)
                .json(&body);
            match call.send().await {
                Ok(answer) => break answer,
                Err(error) if tries > 50 => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            tries += 1;
        };
        assert_eq!(answer.version(), version);
        assert!(!said(&text(Ok(answer)).await).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_in_size_and_time() {
    let harness = Harness::start_with(|config, _| {
        config.server.max_body_bytes = 10_000;
        config.server.body_timeout_s = 1;
        config.server.keepalive_timeout_s = 2;
    })
    .await;
    let big = json!({ "model": "openai-chat/text", "messages": [{ "role": "user", "content": "x".repeat(20_000) }] });
    for path in ["/v1/chat/completions", "/v1/agents"] {
        let (status, error) = refused(harness.post(path, &big).send().await).await;
        assert_eq!(
            (status, error["code"].as_str()),
            (413, Some("payload_too_large")),
            "{path}"
        );
        // Without a declared length, it is found while reading.
        let pieces =
            futures_util::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1000])));
        let call = harness
            .request(Method::POST, path)
            .body(reqwest::Body::wrap_stream(pieces));
        match call.send().await {
            Ok(answer) => assert_eq!(answer.status(), 413),
            // The answer came while the client was still writing.
            Err(error) => assert!(error.is_request() || error.is_body(), "{error:?}"),
        }
    }
    let mut stream = TcpStream::connect(harness.address)
        .await
        .expect("connected");
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
        harness.token
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let (head, body) = read_answer(&mut stream).await;
    assert!(head.starts_with("http/1.1 408"), "{head}");
    assert!(body.contains("did not arrive in time"), "{body}");
    // A header larger than any sane one is refused, and does not hurt others.
    let mut stream = TcpStream::connect(harness.address)
        .await
        .expect("connected");
    let huge = format!(
        "GET /health HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n",
        "y".repeat(2 << 20)
    );
    let _ = stream.write_all(huge.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        !answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    // The first is shorter than the preface of HTTP/2, for which the listener looks first.
    for said in [
        "NONSENSE\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: x\r\nunfinished",
        "NONSENSE OF THE LONGER KIND\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(harness.address)
            .await
            .expect("connected");
        stream.write_all(said.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let closed =
            tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "still open after {said}");
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    ok(harness.get("/health").send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_are_kept_when_sane() {
    let harness = Harness::start().await;
    for (sent, kept) in [
        ("abc.DEF_1-2", true),
        ("has space", false),
        ("", false),
        ("ü", false),
    ] {
        let call = harness
            .get("/v1/models")
            .header("X-Request-Id", sent.as_bytes());
        let answer = call.send().await.expect("an answer");
        let id = answer.headers()["x-request-id"]
            .to_str()
            .expect("ASCII")
            .to_owned();
        assert_eq!(id == sent, kept, "{sent}: {id}");
        assert!(!id.is_empty());
    }
    let long = "a".repeat(129);
    let answer = harness
        .chat("openai-chat/text", true)
        .header("X-Request-Id", &long)
        .send()
        .await
        .expect("an answer");
    assert_ne!(answer.headers()["x-request-id"], long);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_answered() {
    let harness = Harness::start().await;
    let preflight = harness
        .client
        .request(Method::OPTIONS, harness.url("/v1/chat/completions"))
        .header("Origin", "https://app.example")
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "authorization,ic-api-version",
        )
        .send()
        .await
        .expect("an answer");
    assert_eq!(preflight.status(), 204);
    let headers = preflight.headers();
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert_eq!(
        headers["access-control-allow-headers"],
        "authorization,ic-api-version"
    );
    assert!(
        headers["access-control-allow-methods"]
            .to_str()
            .expect("ASCII")
            .contains("PATCH")
    );
    for call in [
        harness.get("/v1/models"),
        harness.chat("openai-chat/text", true),
        harness.get("/v1/none"),
    ] {
        let answer = call
            .header("Origin", "https://app.example")
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        assert_eq!(
            answer.headers()["access-control-expose-headers"],
            "X-Request-Id, Retry-After, Idempotent-Replayed, X-RateLimit-Limit-Requests, \
         X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, X-Smithgate-Route, \
         X-Smithgate-Attempts, X-Smithgate-Cache, X-Smithgate-Cost, Age, X-Smithgate-Unsupported, \
         X-Smithgate-Provider-Request-Id"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_streams_and_refuses_new_work() {
    let mut harness = Harness::start_with(|config, _| {
        config.limits.idle_timeout_ms = 1_500;
        config.server.drain_timeout_s = 10;
    })
    .await;
    let smith = harness.smith("openai-chat/fault-stall").await;
    let body = json!({ "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let call = harness
        .post("/v1/chat/completions", &body)
        .header("IC-Smith-Id", &smith);
    let mut in_flight = call.send().await.expect("an answer");
    let mut seen = in_flight
        .chunk()
        .await
        .expect("a chunk")
        .expect("bytes")
        .to_vec();
    let mut waiting = TcpStream::connect(harness.address)
        .await
        .expect("connected");
    let server = harness.take_server();
    let began = Instant::now();
    let stopping = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refusal = harness
        .chat("openai-chat/text", true)
        .send()
        .await
        .expect("an answer");
    assert_eq!(refusal.status(), 503);
    assert_eq!(refusal.headers()["retry-after"], "1");
    let (_, error) = refused(Ok(refusal)).await;
    assert_eq!(error["code"], "service_overloaded");
    // A connection from before is answered too, and closed.
    waiting
        .write_all(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let (head, _) = read_answer(&mut waiting).await;
    assert!(
        head.starts_with("http/1.1 503") && head.contains("connection: close"),
        "{head}"
    );
    assert_eq!(
        harness
            .get("/ready")
            .send()
            .await
            .expect("an answer")
            .status(),
        503
    );
    assert_eq!(
        harness
            .get("/health")
            .send()
            .await
            .expect("an answer")
            .status(),
        200
    );
    // The stream in flight goes on to its own end, here the provider's silence.
    while let Some(chunk) = in_flight.chunk().await.expect("a chunk") {
        seen.extend_from_slice(&chunk);
    }
    assert!(String::from_utf8_lossy(&seen).ends_with("data: [DONE]\n\n"));
    stopping.await.expect("stopped");
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert!(TcpStream::connect(harness.address).await.is_err());
    let run = harness
        .gateway
        .store
        .runs(&harness.tenant, &Default::default(), None, 5)
        .await
        .expect("runs");
    assert_eq!(run[0].status, smithgate::store::RunStatus::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_keeps_no_node_from_ending() {
    let mut harness = Harness::start_with(|config, _| {
        config.server.drain_timeout_s = 25;
        config.server.body_timeout_s = 60;
    })
    .await;
    let mut slow = Vec::new();
    for path in ["/v1/chat/completions", "/v1/customers", "/v1/files"] {
        let mut stream = TcpStream::connect(harness.address)
            .await
            .expect("connected");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: multipart/form-data; boundary=b\r\ncontent-length: 100000\r\n\r\n{{",
            harness.token
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        slow.push((path, stream));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    harness.take_server().stop().await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    for (path, stream) in &mut slow {
        let (head, _) = read_answer(stream).await;
        assert!(head.starts_with("http/1.1 503"), "{path}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_refuses_new_work_before_what_runs_is_late() {
    let harness = Harness::start_with(|config, _| config.limits.max_worker_lag_ms = 20).await;
    let smith = harness.smith("openai-chat/text").await;
    let call = || harness.chat("openai-chat/text", false).send();
    let deployment = id(&harness.deploy("smith", &smith).await);
    let session = harness.rpc(&deployment, &harness.token, &initialize());
    let session = session.send().await.expect("an answer").headers()["mcp-session-id"].clone();
    // More that is ready than the workers can do, each for a long time.
    let busy = CancellationToken::new();
    let load: Vec<_> = (0..16)
        .map(|_| {
            let busy = busy.clone();
            tokio::spawn(async move {
                while !busy.is_cancelled() {
                    // Work, not sleep: a process that has no processor is not overloaded by requests.
                    let until = Instant::now() + Duration::from_millis(30);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let begun = Instant::now();
    let refusal = loop {
        let answer = call().await.expect("an answer");
        match answer.status().as_u16() {
            503 => break answer,
            status => assert_eq!(status, 200),
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "all were taken");
    };
    assert_eq!(refusal.headers()["retry-after"], "1");
    let (_, error) = refused(Ok(refusal)).await;
    assert_eq!(error["code"], "service_overloaded");
    for path in ["/v1/responses", "/v1/ui/chat", "/v1/embeddings"] {
        let (status, error) = refused(harness.post(path, &json!({})).send().await).await;
        assert_eq!(
            (status, &error["code"]),
            (503, &json!("service_overloaded"))
        );
    }
    let run = json!({ "input": [{ "role": "user", "content": "hi" }] });
    let path = format!("/v1/smiths/{smith}/runs");
    let (status, _) = refused(harness.post(&path, &run).send().await).await;
    assert_eq!(status, 503);
    let replay = format!("{path}/run_x/replay");
    let (status, _) = refused(harness.post(&replay, &json!({})).send().await).await;
    assert_eq!(status, 503);
    let ask = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call",
        "params": { "name": "ask", "arguments": { "message": "hi" } } });
    let ask = harness.rpc(&deployment, &harness.token, &ask);
    let told = ask.header("mcp-session-id", session).send().await;
    let told = told.expect("an answer").text().await.expect("text");
    assert!(told.contains("service_overloaded"), "{told}");
    // Whoever looks at what there is, or watches over the node, is answered.
    ok(harness.get(&format!("/v1/smiths/{smith}")).send().await).await;
    ok(harness.get("/health").send().await).await;
    busy.cancel();
    for task in load {
        task.await.expect("ended");
    }
    let begun = Instant::now();
    while call().await.expect("an answer").status() != 200 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it stays refused"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let text = harness.metrics_text().await;
    let told = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .expect(name);
        line.rsplit(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0.0)
    };
    assert!(told("smithgate_overload_refused_total") >= 5.0);
    assert!(text.contains("smithgate_worker_lag_seconds "));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_time_is_cancelled_when_draining() {
    let mut harness = Harness::start_with(|config, _| {
        config.limits.idle_timeout_ms = 60_000;
        config.server.drain_timeout_s = 1;
    })
    .await;
    let smith = harness.smith("openai-chat/fault-stall").await;
    let body = json!({ "stream": true, "input": [{ "role": "user", "content": "hi" }] });
    let answer = harness
        .post(&format!("/v1/smiths/{smith}/runs"), &body)
        .send()
        .await
        .expect("an answer");
    let server = harness.take_server();
    let (stream, ()) = tokio::join!(answer.text(), server.stop());
    let stream = stream.expect("a body");
    assert!(stream.contains("event: run.cancelled"), "{stream}");
    assert!(stream.contains("shutting down"), "{stream}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_looks_at_the_store() {
    let harness = Harness::start().await;
    let answer = harness.client.get(harness.url("/ready")).send().await;
    assert_eq!(ok(answer).await["checks"]["db"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_happened() {
    let harness =
        Harness::start_with(|config, _| config.metrics.token = Some("scrape".into())).await;
    let url = format!("http://{}/metrics", harness.metrics);
    assert_eq!(
        harness
            .client
            .get(&url)
            .send()
            .await
            .expect("an answer")
            .status(),
        401
    );
    text(harness.chat("anthropic/text", true).send().await).await;
    refused(harness.chat("gemini/status-500", true).send().await).await;
    refused(harness.get("/v1/none").send().await).await;
    let shown = harness.client.get(&url).bearer_auth("scrape").send().await;
    let shown = text(shown).await;
    for wanted in [
        "smithgate_requests_total{route=\"/v1/chat/completions\",status=\"200\"} 1",
        "smithgate_requests_total{route=\"/v1/chat/completions\",status=\"502\"} 1",
        "smithgate_streams_open 0",
        "smithgate_provider_errors_total{kind=\"status_5xx\",provider=\"gemini\"} 1",
        "smithgate_tokens_total{kind=\"output\",model=\"text\",provider=\"anthropic\"}",
        "smithgate_time_to_first_byte_seconds_count{route=\"/v1/chat/completions\"} 2",
        "smithgate_frames_total{wire=\"chat_completions\"}",
        "smithgate_token_cache_hits_total",
    ] {
        assert!(shown.contains(wanted), "{wanted}\n{shown}");
    }
    assert!(
        !shown.contains("/v1/none"),
        "paths that clients make up are no labels"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_only_keeps_its_connection_alive_is_given_up_on() {
    let harness = Harness::start_with(|config, _| {
        config.limits.whole_answer_timeout_ms = 600;
        config.limits.idle_timeout_ms = 60_000;
    })
    .await;
    for wire in ["openai-chat", "anthropic"] {
        for fault in ["comments", "comments-late"] {
            let body = json!({ "model": format!("{wire}/fault-{fault}"), "stream": true,
                "messages": [{ "role": "user", "content": "hi" }] });
            let call = harness.post("/v1/chat/completions", &body).send();
            let told = tokio::time::timeout(std::time::Duration::from_secs(20), async {
                call.await.expect("an answer").text().await.expect("a body")
            });
            let told = told
                .await
                .unwrap_or_else(|_| panic!("{wire}/{fault} never ends"));
            assert!(told.contains("signs of life"), "{wire}/{fault}: {told}");
        }
    }
}
