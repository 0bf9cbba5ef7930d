//! The other paths of OpenAI's API, and any path of a provider: what goes out, what comes back, and who may.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use smithgate::config::{Alias, Provider, ProviderWire, Target};

use crate::assets::run_python;
use crate::support::{Harness, ok, refused};

/// What the provider was sent.
#[derive(Debug, Clone)]
struct Sent {
    method: Method,
    target: String,
    headers: axum::http::HeaderMap,
    body: Bytes,
    /// Pieces in which the body came.
    pieces: usize,
}

impl Sent {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("text"))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

#[derive(Clone, Default)]
struct World(Arc<Mutex<Vec<Sent>>>);

impl World {
    fn last(&self) -> Sent {
        self.0.lock().last().expect("a request").clone()
    }
}

fn answer(kind: &str, body: impl Into<Body>) -> Response {
    ([("content-type", kind.to_owned())], body.into()).into_response()
}

async fn provider(State(world): State<World>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut stream = body.into_data_stream();
    let (mut body, mut pieces) = (Vec::new(), 0);
    while let Some(Ok(piece)) = stream.next().await {
        body.extend_from_slice(&piece);
        pieces += 1;
    }
    let target = head.uri.path_and_query().expect("a path").to_string();
    let sent = Sent {
        method: head.method,
        target,
        headers: head.headers,
        body: body.into(),
        pieces,
    };
    world.0.lock().push(sent.clone());
    let path = head.uri.path().trim_start_matches("/api/v1");
    let asked: Value = serde_json::from_slice(&sent.body).unwrap_or_default();
    if asked["model"] == "broken" {
        let told = sent.header("authorization").replace("Bearer ", "");
        let body = json!({ "error": { "message": format!("no such thing for {told}"),
            "type": "invalid_request_error", "code": "broken", "param": "model" } });
        let status = axum::http::StatusCode::BAD_REQUEST;
        return (status, axum::Json(body)).into_response();
    }
    if asked["model"] == "down" {
        return (axum::http::StatusCode::BAD_GATEWAY, "down").into_response();
    }
    match path {
        "/audio/speech" => answer("audio/mpeg", [0xff, 0xfb, 0x90, 0x00].repeat(50_000)),
        "/audio/transcriptions" => answer(
            "application/json",
            r#"{"text":"hello","usage":{"type":"tokens","input_tokens":14,"output_tokens":3,"total_tokens":17}}"#,
        ),
        "/completions" if asked["stream"] == true => answer(
            "text/event-stream",
            "data: {\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\"hi\",\"finish_reason\":null,\"logprobs\":null}]}\n\n\
             data: {\"id\":\"c\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12}}\n\ndata: [DONE]\n\n",
        ),
        "/completions" => answer(
            "application/json",
            r#"{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"hi","finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12}}"#,
        ),
        "/moderations" => answer("application/json", r#"{"id":"m","model":"o","results":[]}"#),
        "/images/generations" => answer(
            "application/json",
            r#"{"created":1,"data":[{"b64_json":"aGk="}],"usage":{"input_tokens":9,"output_tokens":4,"total_tokens":13,"input_tokens_details":{"image_tokens":0,"text_tokens":9}}}"#,
        ),
        "/batches" => answer(
            "application/json",
            r#"{"object":"list","data":[],"has_more":false}"#,
        ),
        "/page" => answer("text/html", "<script>alert(1)</script>"),
        _ => answer("application/json", r#"{"ok":true}"#),
    }
}

async fn start() -> (Harness, World) {
    let world = World::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let app = axum::Router::new()
        .fallback(provider)
        .with_state(world.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let harness = Harness::start_with(|config, _| {
        let of = |wire| Provider {
            wire,
            base_url: format!("http://{address}/api/v1"),
            api_key: Some("operators-key".to_owned()),
            needs_key: true,
            models: Vec::new(),
            stream_usage: true,
            responses: false,
            keys_of: None,
            auth_header: None,
            rules: Vec::new(),
        };
        config
            .providers
            .insert("elsewhere".to_owned(), of(ProviderWire::OpenaiChat));
        config
            .providers
            .insert("claude".to_owned(), of(ProviderWire::Anthropic));
        let targets = ["elsewhere/down", "elsewhere/m-2"].map(|model| Target {
            model: model.to_owned(),
            retries: 0,
            timeout_ms: None,
        });
        let targets = targets.to_vec();
        config.models.aliases.insert(
            "either".to_owned(),
            Alias {
                targets,
                ..Alias::default()
            },
        );
    })
    .await;
    (harness, world)
}

async fn own_key(harness: &Harness) {
    let body = json!({ "api_key": "projects-key" });
    let put = harness.request(Method::PUT, "/v1/tenant/model_keys/elsewhere");
    let put = put.json(&body).send().await.expect("an answer");
    assert!(put.status().is_success(), "{}", put.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_to_the_provider_of_their_model() {
    let (harness, world) = start().await;
    let body = json!({ "model": "elsewhere/m-1", "prompt": "x", "rare": { "b": 1, "a": [2] } });
    for path in [
        "completions",
        "moderations",
        "images/generations",
        "rerank",
        "responses/input_tokens",
    ] {
        let call = harness.post(&format!("/v1/{path}?a=b&key=mine"), &body);
        let answered = call
            .header("openai-project", "p")
            .header("cookie", "c")
            .send()
            .await;
        let answered = answered.expect("an answer");
        assert_eq!(answered.headers()["x-smithgate-route"], "elsewhere/m-1");
        ok(Ok(answered)).await;
        let sent = world.last();
        assert_eq!(sent.target, format!("/api/v1/{path}?a=b"));
        let as_sent = body.to_string().replace("elsewhere/m-1", "m-1");
        assert_eq!(sent.body, as_sent.as_bytes());
        assert_eq!(sent.header("authorization"), "Bearer operators-key");
        assert_eq!(
            (sent.header("openai-project"), sent.header("cookie")),
            ("p", "")
        );
    }
    // To the provider that a header names, whatever the model's name looks like.
    let call = harness.post("/v1/moderations", &json!({ "input": "x" }));
    ok(call
        .header("x-smithgate-provider", "elsewhere")
        .send()
        .await)
    .await;
    assert_eq!(world.last().json(), json!({ "input": "x" }));
    let call = harness.post("/v1/rerank", &json!({ "model": "maker/m", "query": "q" }));
    ok(call
        .header("x-smithgate-provider", "elsewhere")
        .send()
        .await)
    .await;
    assert_eq!(world.last().json()["model"], "maker/m");
    // The next target where one is down.
    let call = harness.post(
        "/v1/images/generations",
        &json!({ "model": "either", "prompt": "x" }),
    );
    let answered = call.send().await.expect("an answer");
    assert_eq!(answered.headers()["x-smithgate-attempts"], "2");
    assert_eq!(world.last().json()["model"], "m-2");

    for (body, status, code) in [
        (json!({ "model": "elsewhere/broken" }), 400, "broken"),
        (json!({ "model": "claude/m" }), 400, "unsupported"),
        (json!({ "model": "nobody/m" }), 422, "model_key_missing"),
        (json!([1]), 400, "invalid_request"),
    ] {
        let refusal = refused(harness.post("/v1/completions", &body).send().await).await;
        assert_eq!(
            (refusal.0, refusal.1["code"].as_str()),
            (status, Some(code))
        );
        assert!(
            !refusal.1.to_string().contains("operators-key"),
            "{}",
            refusal.1
        );
    }
    // What it took is written behind the answer.
    for tried in 0.. {
        let usage = ok(harness.get("/v1/usage?group_by=model").send().await).await;
        if usage.to_string().contains("m-1") {
            break;
        }
        assert!(tried < 100, "{usage}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_goes_on_as_it_arrives() {
    let (harness, world) = start().await;
    let file: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let form = |model: &str| {
        let mut form = Vec::new();
        for (name, value) in [("language", "en"), ("model", model)] {
            form.extend_from_slice(
                format!(
                    "--line\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
                )
                .as_bytes(),
            );
        }
        form.extend_from_slice(
            b"--line\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
              Content-Type: audio/wav\r\n\r\n",
        );
        form.extend_from_slice(&file);
        form.extend_from_slice(b"\r\n--line--\r\n");
        form
    };
    let post = |body: reqwest::Body| {
        harness
            .request(Method::POST, "/v1/audio/transcriptions")
            .header("content-type", "multipart/form-data; boundary=line")
            .body(body)
    };
    let heard = ok(post(form("elsewhere/whisper-1").into()).send().await).await;
    assert_eq!(heard["text"], "hello");
    let sent = world.last();
    assert!(sent.body == form("whisper-1"), "the form is another");
    assert_eq!(sent.header("content-length"), sent.body.len().to_string());
    assert_eq!(
        sent.header("content-type"),
        "multipart/form-data; boundary=line"
    );
    assert!(sent.pieces > 10, "{} pieces", sent.pieces);

    // Of unknown length.
    let whole = form("elsewhere/whisper-1");
    let pieces: Vec<std::io::Result<Vec<u8>>> = whole
        .chunks(100_000)
        .map(|piece| Ok(piece.to_vec()))
        .collect();
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    ok(post(body).send().await).await;
    let sent = world.last();
    assert!(sent.body == form("whisper-1"), "the form is another");
    assert_eq!(sent.header("transfer-encoding"), "chunked");

    // What comes back need be no text.
    let speech = json!({ "model": "elsewhere/tts", "input": "hi", "voice": "alloy" });
    let spoken = harness
        .post("/v1/audio/speech", &speech)
        .send()
        .await
        .expect("an answer");
    assert_eq!(spoken.headers()["content-type"], "audio/mpeg");
    assert_eq!(spoken.bytes().await.expect("bytes").len(), 200_000);
    let stream = json!({ "model": "elsewhere/m", "prompt": "x", "stream": true });
    let streamed = harness
        .post("/v1/completions", &stream)
        .send()
        .await
        .expect("an answer");
    assert!(
        streamed.headers()["content-type"]
            .to_str()
            .expect("text")
            .starts_with("text/event-stream")
    );
    let streamed = streamed.text().await.expect("text");
    assert!(streamed.ends_with("data: [DONE]\n\n"), "{streamed}");

    // Nobody is asked for a form that names no model, but OpenAI, of which there is no key.
    let nameless = form("x").len();
    let before = world.0.lock().len();
    let mut body = form("x");
    body.drain(..body.len() - nameless + 140);
    let (status, error) = refused(post(body.into()).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (422, Some("model_key_missing"))
    );
    assert_eq!(world.0.lock().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_account_keeps_is_reached_with_ones_own_key() {
    let (harness, world) = start().await;
    let listed = || {
        let call = harness.get("/v1/batches?limit=2");
        call.header("x-smithgate-provider", "elsewhere").send()
    };
    let passed = |method: Method, path: &str| {
        harness.request(method, &format!("/v1/passthrough/elsewhere/{path}"))
    };
    for refusal in [
        refused(listed().await).await,
        refused(passed(Method::GET, "files").send().await).await,
    ] {
        assert_eq!(
            (refusal.0, refusal.1["code"].as_str()),
            (403, Some("own_key_required"))
        );
    }
    assert!(world.0.lock().is_empty());
    own_key(&harness).await;
    ok(listed().await).await;
    assert_eq!(world.last().target, "/api/v1/batches?limit=2");
    assert_eq!(world.last().header("authorization"), "Bearer projects-key");
    for method in [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ] {
        let call = passed(method.clone(), "files/file-1/content?after=x%20y&key=k&z=1");
        let call = call
            .header("content-type", "application/octet-stream")
            .header("x-custom", "yes")
            .header("cookie", "a=b")
            .header("ic-api-version", "2026-05-01")
            .header("x-forwarded-for", "1.2.3.4")
            .header("x-api-key", "mine");
        let has_body = matches!(method, Method::POST | Method::PUT | Method::PATCH);
        let call = match has_body {
            true => call.body("{\"model\":\"elsewhere/left-alone\"}"),
            false => call,
        };
        let _ = call.send().await.expect("an answer");
        let sent = world.last();
        assert_eq!(sent.method, method);
        assert_eq!(sent.target, "/api/v1/files/file-1/content?after=x%20y&z=1");
        assert_eq!(sent.header("authorization"), "Bearer projects-key");
        assert_eq!(sent.header("x-custom"), "yes");
        for name in ["cookie", "ic-api-version", "x-forwarded-for", "x-api-key"] {
            assert_eq!(sent.header(name), "", "{name}");
        }
        if has_body {
            assert_eq!(sent.json()["model"], "elsewhere/left-alone");
        }
    }
    let page = passed(Method::GET, "page").send().await.expect("an answer");
    assert!(
        page.headers()["content-security-policy"]
            .to_str()
            .expect("text")
            .contains("sandbox")
    );
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    let broken = passed(Method::POST, "x").json(&json!({ "model": "broken" }));
    let broken = broken.send().await.expect("an answer");
    assert_eq!(broken.status(), 400);
    let told = broken.text().await.expect("text");
    assert!(
        told.contains("no such thing") && !told.contains("projects-key"),
        "{told}"
    );

    let before = world.0.lock().len();
    for path in [
        "..%2fadmin",
        "%2e%2e/admin",
        "a/%2E./b",
        "a/..%5cb",
        "a%00b",
    ] {
        // As it is written: a client would mend it.
        let raw = format!(
            "GET /v1/passthrough/elsewhere/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             connection: close\r\n\r\n",
            harness.token
        );
        let told = raw_answer(&harness, &raw).await;
        assert!(told.starts_with("HTTP/1.1 400"), "{path}: {told}");
    }
    assert_eq!(world.0.lock().len(), before);
    let smith = harness.smith("openai-chat/text").await;
    let token = harness.smith_token(&smith, &["runs:write"]).await;
    let call = harness
        .client
        .get(harness.url("/v1/passthrough/elsewhere/files"));
    let (status, error) = refused(call.bearer_auth(&token).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (403, Some("tenant_token_required"))
    );
    let call = harness
        .client
        .get(harness.url("/v1/passthrough/elsewhere/files"));
    assert_eq!(call.send().await.expect("an answer").status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_asks_no_other_model_by_a_form() {
    let (harness, world) = start().await;
    let made = json!({ "name": "k", "models": ["elsewhere/whisper-1"], "routes": ["audio"] });
    let made = ok(harness.post("/v1/tenant/keys", &made).send().await).await;
    let key = made["token"].as_str().expect("a secret").to_owned();
    let part = |name: &str, value: &str| {
        format!("--l\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let post = async |form: String| {
        let call = harness.client.post(harness.url("/v1/audio/transcriptions"));
        let call = call.bearer_auth(&key).body(form + "--l--\r\n");
        call.header("content-type", "multipart/form-data; boundary=l")
            .send()
            .await
    };
    ok(post(part("model", "elsewhere/whisper-1") + &part("file", "RIFF")).await).await;
    assert!(String::from_utf8_lossy(&world.last().body).contains("\r\nwhisper-1\r\n"));
    let asked = world.0.lock().len();
    for (form, status) in [
        (part("model", "elsewhere/other"), 403),
        (
            part("model", "elsewhere/whisper-1") + &part("model", "other"),
            400,
        ),
        (
            part("model", "elsewhere/whisper-1") + &part("MODEL", "other"),
            400,
        ),
        (part("file", "RIFF"), 400),
    ] {
        assert_eq!(refused(post(form.clone()).await).await.0, status, "{form}");
    }
    let call = harness.client.post(harness.url("/v1/images/generations"));
    let call = call.json(&json!({ "model": "elsewhere/whisper-1" }));
    let (status, error) = refused(call.bearer_auth(&key).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (403, Some("route_not_allowed"))
    );
    assert_eq!(world.0.lock().len(), asked);
}

async fn raw_answer(harness: &Harness, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let stream = tokio::net::TcpStream::connect(harness.address).await;
    let mut stream = stream.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut told = String::new();
    let _ = stream.read_to_string(&mut told).await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_client_calls_the_other_paths() {
    let (harness, _) = start().await;
    own_key(&harness).await;
    run_python(&harness, "relay.py", &[]).await;
}
