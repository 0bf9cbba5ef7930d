//! Web pages: what their script calls over HTTP, the page itself in Chromium, and the pages on which
//! a person decides.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::post;
use futures_util::stream;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use smithgate::channel::forms::{connection_link, decision_link};
use smithgate::config::{Provider, ProviderWire};

use crate::assets::run_script;
use crate::store::postgres_url;
use crate::support::{Harness, data_lines, ok, refused, text};
use crate::tools::Workshop;

/// A model that says what it is told, word by word, `slowly` where that is a word of it; `think: a; b`
/// thinks `a` and says `b`.
pub(crate) async fn parrot() -> String {
    async fn answer(body: Bytes) -> axum::response::Response {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let asked = messages.iter().rev().find(|m| m["role"] == "user").cloned();
        let asked = asked.unwrap_or_default();
        let said = match &asked["content"] {
            Value::Array(parts) => parts.iter().filter_map(|p| p["text"].as_str()).collect(),
            one => one.as_str().unwrap_or_default().to_owned(),
        };
        let slow = body["model"] == "slow" || said.contains(" slowly ");
        let (thought, said) = match said
            .strip_prefix("think: ")
            .and_then(|s| s.split_once("; "))
        {
            Some((thought, said)) => (thought.to_owned(), said.to_owned()),
            None => (String::new(), said),
        };
        let mut deltas = vec![json!({ "role": "assistant", "content": "" })];
        if !thought.is_empty() {
            deltas.push(json!({ "reasoning_content": thought }));
        }
        let words = said
            .split_inclusive(' ')
            .map(|word| json!({ "content": word }));
        deltas.extend(words);
        let mut events: Vec<String> = deltas
            .iter()
            .map(|delta| json!([{ "index": 0, "delta": delta, "finish_reason": null }]))
            .chain([json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }])])
            .map(|choices| {
                let chunk = json!({ "id": "c", "object": "chat.completion.chunk", "created": 1,
                    "model": "parrot", "choices": choices });
                format!("data: {chunk}\n\n")
            })
            .collect();
        events.push("data: [DONE]\n\n".to_owned());
        let wait = Duration::from_millis(if slow { 150 } else { 3 });
        let events = stream::unfold(events.into_iter(), move |mut events| async move {
            tokio::time::sleep(wait).await;
            events
                .next()
                .map(|one| (Ok::<_, std::io::Error>(one), events))
        });
        axum::http::Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(events))
            .expect("an answer")
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let app = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/v1")
}

async fn gateway() -> Harness {
    gateway_on(None).await
}

async fn gateway_on(store: Option<String>) -> Harness {
    let parrot = parrot().await;
    Harness::start_with(|config, _| {
        config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
        config.store.url = store;
        config.channels.max_file_bytes = 64 * 1024;
        config.server.trust_forwarded = true;
        config.server.public_url = Some(format!("http://{}", config.server.listen));
        let mut provider: Provider = config.providers["openai-chat"].clone();
        provider.wire = ProviderWire::OpenaiChat;
        provider.base_url = parrot;
        provider.models = vec!["quick".to_owned(), "slow".to_owned()];
        config.providers.insert("parrot".to_owned(), provider);
    })
    .await
}

async fn agent(harness: &Harness, model: &str) -> String {
    let made = harness.post("/v1/agents", &json!({ "name": "A" }));
    let agent = ok(made.send().await).await;
    let agent = agent["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/agents/{agent}");
    let config = json!({ "model": model, "instructions": "Be brief." });
    ok(harness
        .request(Method::PATCH, &path)
        .json(&config)
        .send()
        .await)
    .await;
    ok(harness
        .post(&format!("{path}/versions"), &json!({}))
        .send()
        .await)
    .await;
    agent
}

/// A page and one visitor of it.
struct Page<'a> {
    harness: &'a Harness,
    id: String,
    cookie: String,
}

pub(crate) fn cookie_of(answer: &Response) -> Option<String> {
    let set = answer.headers().get("set-cookie")?.to_str().ok()?;
    set.split(';').next().map(str::to_owned)
}

impl<'a> Page<'a> {
    async fn make(harness: &'a Harness, target: Value, more: Value) -> Page<'a> {
        let mut body = json!({ "kind": "web", "target": target });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let made = ok(harness.post("/v1/deployments", &body).send().await).await;
        let id = made["id"].as_str().expect("an id").to_owned();
        assert_eq!(
            made["page_url"],
            json!(harness.url(&format!("/hosted/{id}")))
        );
        let mut page = Page {
            harness,
            id,
            cookie: String::new(),
        };
        page.load().await;
        page
    }

    async fn of_agent(harness: &'a Harness, model: &str) -> Page<'a> {
        let agent = agent(harness, model).await;
        Self::make(harness, json!({ "type": "agent", "id": agent }), json!({})).await
    }

    fn url(&self, path: &str) -> String {
        self.harness.url(&format!("/hosted/{}{path}", self.id))
    }

    async fn load(&mut self) -> String {
        let call = self.harness.client.get(self.url(""));
        let answer = call
            .header("cookie", &self.cookie)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200);
        self.cookie = cookie_of(&answer).expect("a cookie");
        answer.text().await.expect("a page")
    }

    /// Somebody else at the same page.
    async fn stranger(&self) -> Page<'a> {
        let mut other = Page {
            harness: self.harness,
            id: self.id.clone(),
            cookie: String::new(),
        };
        other.load().await;
        other
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        let call = self.harness.client.request(method, self.url(path));
        call.header("cookie", &self.cookie)
            .header("x-smithgate-page", "page")
            .header("sec-fetch-site", "same-origin")
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.call(Method::GET, path)
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.call(Method::POST, path).json(body)
    }

    /// Says something; answers its turn.
    async fn send(&self, id: &str, text: &str) -> String {
        let body = json!({ "id": id, "text": text });
        let kept = ok(self.post("/messages", &body).send().await).await;
        kept["turn"].as_str().expect("a turn").to_owned()
    }

    async fn follow(&self, turn: &str) -> String {
        text(self.get(&format!("/stream?turn={turn}")).send().await).await
    }

    /// Says something and waits for the answer, as the parts of the stream.
    async fn ask(&self, id: &str, text: &str) -> Vec<Value> {
        let turn = self.send(id, text).await;
        parts_of(&self.follow(&turn).await)
    }

    async fn history(&self) -> Value {
        ok(self.get("/messages").send().await).await
    }

    async fn state(&self) -> Value {
        ok(self.get("/state").send().await).await
    }
}

fn parts_of(stream: &str) -> Vec<Value> {
    let lines = data_lines(stream)
        .into_iter()
        .filter(|line| *line != "[DONE]");
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn said(parts: &[Value]) -> String {
    let deltas = parts.iter().filter(|part| part["type"] == "text-delta");
    deltas.filter_map(|part| part["delta"].as_str()).collect()
}

fn run_of(parts: &[Value]) -> String {
    let start = parts
        .iter()
        .find(|part| part["type"] == "start")
        .expect("a start");
    start["messageMetadata"]["runId"]
        .as_str()
        .expect("a run")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_made_of_what_its_deployment_says() {
    let harness = gateway().await;
    let agent = agent(&harness, "parrot/quick").await;
    let target = json!({ "type": "agent", "id": agent });
    for (metadata, field) in [
        (json!({ "accent": "red" }), "provider_metadata.accent"),
        (
            json!({ "allowed_origins": ["*"] }),
            "provider_metadata.allowed_origins",
        ),
        (
            json!({ "while_running": "x" }),
            "provider_metadata.while_running",
        ),
    ] {
        let body = json!({ "kind": "web", "target": target, "provider_metadata": metadata });
        let (status, error) = refused(harness.post("/v1/deployments", &body).send().await).await;
        assert_eq!(
            (status, error["param"].as_str()),
            (400, Some(field)),
            "{error}"
        );
    }
    let body = json!({ "kind": "web", "target": target, "secrets": { "password": "short" } });
    let (status, error) = refused(harness.post("/v1/deployments", &body).send().await).await;
    assert_eq!(
        (status, error["param"].as_str()),
        (400, Some("secrets.password"))
    );

    let told = json!({ "provider_metadata": { "title": "Desk <b>", "greeting": "Hello there",
        "accent": "#0a7", "theme": "dark", "suggestions": ["What's new?"],
        "allowed_origins": ["https://shop.example"] } });
    let mut page = Page::make(&harness, target.clone(), told).await;
    let read = ok(harness
        .get(&format!("/v1/deployments/{}", page.id))
        .send()
        .await)
    .await;
    assert_eq!(read["page_url"], json!(page.url("")));
    assert!(read.get("secret_keys").is_none());
    // Several pages of one agent are several pages.
    Page::make(&harness, target, json!({})).await;

    let html = page.load().await;
    for wanted in [
        "Desk &lt;b&gt;",
        "Hello there",
        "data-theme=\"dark\"",
        "What's new?",
    ] {
        assert!(html.contains(wanted), "{wanted}: {html}");
    }
    assert!(
        !html.contains("style=") && !html.contains("<script>"),
        "{html}"
    );
    let answer = harness
        .client
        .get(page.url(""))
        .send()
        .await
        .expect("an answer");
    let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
    let policy = header("content-security-policy");
    assert!(
        policy.contains("script-src 'self';") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(policy.ends_with("frame-ancestors 'self'"), "{policy}");
    assert_eq!(header("x-frame-options"), "SAMEORIGIN");
    assert_eq!(header("cache-control"), "no-store");
    let cookie = header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
        "{cookie}"
    );
    assert!(
        cookie.contains(&format!("Path=/hosted/{}", page.id)),
        "{cookie}"
    );
    let framed = harness
        .client
        .get(page.url("?embed"))
        .send()
        .await
        .expect("an answer");
    let policy = framed.headers()["content-security-policy"]
        .to_str()
        .expect("text");
    assert!(
        policy.ends_with("frame-ancestors 'self' https://shop.example"),
        "{policy}"
    );

    // By TLS a frame's cookie is one for each site that shows it.
    for (path, wanted) in [
        ("", "; Secure; SameSite=Lax"),
        ("?embed", "; SameSite=None; Partitioned"),
    ] {
        let call = harness
            .client
            .get(page.url(path))
            .header("x-forwarded-proto", "https");
        let answer = call.send().await.expect("an answer");
        let cookie = answer.headers()["set-cookie"].to_str().expect("text");
        assert!(
            cookie.starts_with("__Secure-") && cookie.ends_with(wanted),
            "{cookie}"
        );
    }

    let script = text(harness.client.get(page.url("/embed.js")).send().await).await;
    assert!(
        script.contains(&page.id) && script.contains("Desk <b>"),
        "{script}"
    );
    let at = html.find("/hosted/assets/").expect("an asset");
    let asset = html[at..].split('"').next().expect("a name");
    for coding in ["br", "gzip"] {
        let call = harness
            .client
            .get(harness.url(asset))
            .header("accept-encoding", coding);
        let answer = call.send().await.expect("an answer");
        assert_eq!(answer.headers()["content-encoding"], coding);
        assert!(
            answer.headers()["cache-control"]
                .to_str()
                .expect("text")
                .contains("immutable")
        );
    }
    let missing = harness
        .client
        .get(harness.url("/hosted/dep_none"))
        .send()
        .await;
    let missing = missing.expect("an answer");
    assert_eq!(missing.status(), 404);
    assert!(
        missing
            .text()
            .await
            .expect("a page")
            .contains("no such page")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_is_answered_once_and_finds_it_again() {
    answered_once(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_is_answered_once_on_postgres() {
    answered_once(Some(postgres_url().await)).await;
}

async fn answered_once(store: Option<String>) {
    let harness = gateway_on(store).await;
    let mut page = Page::of_agent(&harness, "parrot/quick").await;
    assert_eq!(page.history().await["messages"], json!([]));
    let long = format!(
        "# Title\n\n```rust\nfn main() {{}}\n```\n\n{}",
        "word ".repeat(400)
    );
    let parts = page.ask("m-1", &format!("think: hm; {long}")).await;
    assert_eq!(said(&parts).trim(), long.trim());
    assert!(parts.iter().any(|part| part["type"] == "reasoning-delta"));
    assert_eq!(parts.last().expect("parts")["type"], "finish");
    // The same message again is kept once and answered once.
    let body = json!({ "id": "m-1", "text": "hi" });
    let again = ok(page.post("/messages", &body).send().await).await;
    assert_eq!(again["turn"], Value::Null);
    page.ask("m-2", "and again").await;
    page.load().await;
    let history = page.history().await;
    let messages = history["messages"].as_array().expect("messages");
    let roles: Vec<&str> = messages.iter().filter_map(|m| m["role"].as_str()).collect();
    assert_eq!(
        roles,
        ["user", "assistant", "user", "assistant"],
        "{history}"
    );
    assert_eq!(
        messages[1]["parts"][0],
        json!({ "type": "reasoning", "text": "hm" })
    );
    assert_eq!(messages[1]["parts"][1]["type"], "text");
    assert_eq!(messages[3]["parts"][0]["text"], "and again");

    // One smith for the visitor, whose runs say who sent them.
    let smiths = ok(harness
        .get("/v1/smiths?external_id_prefix=web:")
        .send()
        .await)
    .await;
    assert_eq!(smiths["data"].as_array().map(Vec::len), Some(1));
    let runs = ok(harness.get("/v1/runs").send().await).await;
    assert_eq!(runs["data"].as_array().map(Vec::len), Some(2));
    let run = &runs["data"][0];
    assert_eq!(
        (&run["channel"], &run["metadata"]["sender"]["verified"]),
        (&json!("web"), &json!(false))
    );
    assert_eq!(run["metadata"]["deployment_id"], json!(page.id));
    let events = ok(harness.get("/v1/inbound_events?source=web").send().await).await;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(2), "{events}");

    // A new conversation has none of it.
    let answer = page
        .post("/new", &json!({}))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 204);
    page.cookie = cookie_of(&answer).expect("a cookie");
    assert_eq!(page.history().await["messages"], json!([]));
    page.ask("m-1b", "fresh").await;
    let smiths = ok(harness
        .get("/v1/smiths?external_id_prefix=web:")
        .send()
        .await)
    .await;
    assert_eq!(smiths["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_with_messages() {
    let harness = gateway().await;
    let page = Page::of_agent(&harness, "parrot/quick").await;
    let upload = |page: &Page, name: &str, content: Vec<u8>| {
        let call = page.call(Method::POST, &format!("/files?name={name}"));
        call.header("content-type", "application/octet-stream")
            .body(content)
    };
    let png = [
        &[0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a][..],
        &[0; 40],
    ]
    .concat();
    let image = ok(upload(&page, "a.png", png).send().await).await;
    assert_eq!(
        (&image["is_image"], &image["name"]),
        (&json!(true), &json!("a.png"))
    );
    let note = ok(upload(&page, "n.txt", b"a note".to_vec()).send().await).await;
    let (status, _) = refused(upload(&page, "big", vec![b'x'; 70_000]).send().await).await;
    assert_eq!(status, 413);
    let (status, _) = refused(upload(&page, "none", Vec::new()).send().await).await;
    assert_eq!(status, 400);

    let stranger = page.stranger().await;
    let body = json!({ "id": "f-0", "text": "mine?", "files": [note["file"]] });
    let (status, error) = refused(stranger.post("/messages", &body).send().await).await;
    assert_eq!((status, error["param"].as_str()), (400, Some("files")));

    let body = json!({ "id": "f-1", "text": "look", "files": [image["file"], note["file"]] });
    let kept = ok(page.post("/messages", &body).send().await).await;
    let parts = parts_of(&page.follow(kept["turn"].as_str().expect("a turn")).await);
    assert_eq!(parts.last().expect("parts")["type"], "finish", "{parts:?}");
    let shown = page.history().await["messages"][0]["files"].clone();
    let wanted =
        json!([{ "name": "image", "is_image": true }, { "name": "n.txt", "is_image": false }]);
    assert_eq!(shown, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_reaches_nothing_but_their_own() {
    let harness = gateway().await;
    let page = Page::of_agent(&harness, "openai-chat/script").await;
    let workshop = Workshop::start().await;
    harness.put_workshop(&workshop).await;
    let parts = page.ask("i-1", "melt {\"thing\": \"rod\"}").await;
    let run = run_of(&parts);
    let approval = page.state().await["approvals"][0]["id"].clone();
    let decision = json!({ "approval_id": approval, "approve": true });

    // Another visitor of the same page, and a visitor of another page with their own cookie.
    let stranger = page.stranger().await;
    let other = Page::of_agent(&harness, "openai-chat/script").await;
    let turn = page.send("i-2", "hello").await;
    for somebody in [&stranger, &other] {
        assert_eq!(somebody.history().await["messages"], json!([]));
        for path in [format!("/stream?run={run}"), format!("/stream?turn={turn}")] {
            let (status, _) = refused(somebody.get(&path).send().await).await;
            assert_eq!(status, 404, "{path}");
        }
        let (status, _) = refused(somebody.post("/decide", &decision).send().await).await;
        assert_eq!(status, 404);
        let stopped = ok(somebody.post("/stop", &json!({})).send().await).await;
        assert_eq!(stopped["stopped"], false);
    }
    let mut carried = Page {
        harness: &harness,
        id: page.id.clone(),
        cookie: other.cookie.clone(),
    };
    let bent = {
        let (name, value) = page.cookie.split_once('=').expect("a cookie");
        let mut value = value.as_bytes().to_vec();
        value[40] = if value[40] == b'A' { b'B' } else { b'A' };
        format!("{name}={}", String::from_utf8(value).expect("text"))
    };
    for cookie in [
        other.cookie.clone(),
        bent,
        "smithgate_visitor=x".to_owned(),
        String::new(),
    ] {
        carried.cookie = cookie;
        let (status, error) = refused(carried.get("/messages").send().await).await;
        assert_eq!(
            (status, error["code"].as_str()),
            (401, Some("unknown_visitor"))
        );
    }

    // Another origin, with the victim's cookie: nothing is read and nothing is done.
    let cross = |name: &str, value: &str| {
        let call = harness.client.post(page.url("/decide")).json(&decision);
        call.header("cookie", &page.cookie).header(name, value)
    };
    for call in [
        cross("sec-fetch-site", "cross-site").header("x-smithgate-page", "page"),
        cross("sec-fetch-site", "same-site").header("x-smithgate-page", "page"),
        cross("origin", "https://evil.example").header("x-smithgate-page", "page"),
        cross("origin", "null").header("x-smithgate-page", "page"),
        cross("sec-fetch-site", "same-origin"),
    ] {
        let (status, error) = refused(call.send().await).await;
        assert_eq!((status, error["code"].as_str()), (403, Some("cross_site")));
    }
    let preflight = harness.client.request(Method::OPTIONS, page.url("/decide"));
    let preflight = preflight.header("origin", "https://evil.example");
    let preflight = preflight.header("access-control-request-headers", "x-smithgate-page");
    let answer = preflight.send().await.expect("an answer");
    assert!(answer.status().is_client_error());
    assert!(
        answer
            .headers()
            .get("access-control-allow-headers")
            .is_none()
    );
    assert_eq!(
        page.state().await["approvals"][0]["id"],
        approval,
        "it still waits"
    );

    // Deleted, it is gone at once, also for a stream that is under way.
    let slow = Page::of_agent(&harness, "parrot/slow").await;
    let turn = slow.send("d-1", &"word ".repeat(200)).await;
    let mut stream = slow
        .get(&format!("/stream?turn={turn}"))
        .send()
        .await
        .expect("a stream");
    assert!(stream.chunk().await.expect("a chunk").is_some());
    let path = format!("/v1/deployments/{}", slow.id);
    let gone = harness
        .request(Method::DELETE, &path)
        .send()
        .await
        .expect("an answer");
    assert_eq!(gone.status(), 204);
    let (status, _) = refused(slow.get("/messages").send().await).await;
    assert_eq!(status, 404);
    let (status, _) = refused(
        slow.post("/messages", &json!({ "id": "d", "text": "hi" }))
            .send()
            .await,
    )
    .await;
    assert_eq!(status, 404);
    let rest = async { while let Ok(Some(_)) = stream.chunk().await {} };
    tokio::time::timeout(Duration::from_secs(5), rest)
        .await
        .expect("the stream ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_lets_in_and_is_not_guessed() {
    let harness = gateway().await;
    let agent = agent(&harness, "parrot/quick").await;
    let secret = json!({ "secrets": { "password": "correct horse" } });
    let mut page = Page::make(&harness, json!({ "type": "agent", "id": agent }), secret).await;
    let read = ok(harness
        .get(&format!("/v1/deployments/{}", page.id))
        .send()
        .await)
    .await;
    assert_eq!(read["secret_keys"], json!(["password"]));
    assert!(!read.to_string().contains("horse"));
    let html = page.load().await;
    assert!(html.contains("asks for a password") && !html.contains("id=\"words\""));
    for path in ["/messages", "/state"] {
        let (status, error) = refused(page.get(path).send().await).await;
        assert_eq!(
            (status, error["code"].as_str()),
            (401, Some("password_required"))
        );
    }
    let guess = |password: &str| page.post("/unlock", &json!({ "password": password }));
    let (status, error) = refused(guess("wrong").send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (401, Some("wrong_password"))
    );
    let opened = guess("correct horse").send().await.expect("an answer");
    assert_eq!(opened.status(), 204);
    let let_in = cookie_of(&opened).expect("a cookie");
    // Guesses of all visitors count together; who is in stays in.
    let mut last = StatusCode::OK;
    for _ in 0..12 {
        let stranger = page.stranger().await;
        let call = stranger.post("/unlock", &json!({ "password": "guess" }));
        last = call.send().await.expect("an answer").status();
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429);
    // What was there before the password was said is not let in by it.
    let (status, _) = refused(page.get("/messages").send().await).await;
    assert_eq!(status, 401);
    page.cookie = let_in;
    let parts = page.ask("p-1", "hello").await;
    assert_eq!(said(&parts), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_is_decided_on_the_page() {
    let harness = gateway().await;
    let workshop = Workshop::start().await;
    harness.put_workshop(&workshop).await;
    let page = Page::of_agent(&harness, "openai-chat/script").await;
    let parts = page.ask("a-1", "melt {\"thing\": \"rod\"}").await;
    let run = run_of(&parts);
    assert!(
        parts
            .iter()
            .any(|part| part["type"] == "tool-approval-request")
    );
    let asked = page.state().await["approvals"][0].clone();
    assert_eq!(
        (&asked["tool"], &asked["input"]["thing"]),
        (&json!("melt"), &json!("rod"))
    );
    let decision = json!({ "approval_id": asked["id"], "approve": true });
    ok(page.post("/decide", &decision).send().await).await;
    let all = text(page.get(&format!("/stream?run={run}")).send().await).await;
    assert!(
        all.contains("rod is molten") && all.contains("tool-output-available"),
        "{all}"
    );
    let (status, _) = refused(page.post("/decide", &decision).send().await).await;
    assert_eq!(status, 409);
    let approval = asked["id"].as_str().expect("an id");
    let kept = ok(harness
        .get(&format!("/v1/approvals/{approval}"))
        .send()
        .await)
    .await;
    assert_eq!(kept["status"], "approved");
    assert!(
        kept["actor"].as_str().is_some_and(|name| name.len() == 22),
        "{kept}"
    );
    let history = page.history().await;
    assert_eq!(
        history["messages"][1]["parts"][0]["output"],
        "rod is molten"
    );

    // A question is a form.
    page.ask("a-2", "cut {\"thing\": \"bar\"}").await;
    let asked = page.state().await["approvals"][0].clone();
    assert_eq!(asked["question"]["message"], "How wide shall bar be?");
    assert_eq!(
        asked["question"]["schema"]["properties"]["width"]["type"],
        "integer"
    );
    let answer =
        |content: Value| json!({ "approval_id": asked["id"], "approve": true, "content": content });
    let (status, _) = refused(
        page.post("/decide", &answer(json!({ "width": "x" })))
            .send()
            .await,
    )
    .await;
    assert_eq!(status, 400);
    let run = ok(page
        .post("/decide", &answer(json!({ "width": 7 })))
        .send()
        .await)
    .await;
    let run = run["run"].as_str().expect("a run");
    let all = text(page.get(&format!("/stream?run={run}")).send().await).await;
    assert!(all.contains("bar is 7 wide"), "{all}");

    // What is under way is stopped.
    let slow = Page::of_agent(&harness, "parrot/slow").await;
    let turn = slow.send("s-1", &"word ".repeat(200)).await;
    let mut stream = slow
        .get(&format!("/stream?turn={turn}"))
        .send()
        .await
        .expect("a stream");
    assert!(stream.chunk().await.expect("a chunk").is_some());
    let stopped = ok(slow.post("/stop", &json!({})).send().await).await;
    assert_eq!(stopped["stopped"], true);
    let mut rest = String::new();
    while let Ok(Some(piece)) = stream.chunk().await {
        rest.push_str(&String::from_utf8_lossy(&piece));
    }
    assert!(rest.contains("\"abort\""), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_is_answered_after_a_crash() {
    let harness = gateway().await;
    let page = Page::of_agent(&harness, "parrot/quick").await;
    let turn = page.send("c-1", "still there?").await;
    // As the node was when it had said that it has the message, whatever it did by then.
    let after = harness.crash_copy().await;
    let page = Page {
        harness: &after,
        id: page.id.clone(),
        cookie: page.cookie.clone(),
    };
    let parts = parts_of(&page.follow(&turn).await);
    assert_eq!(parts.last().expect("parts")["type"], "finish", "{parts:?}");
    assert_eq!(said(&parts), "still there?");
    let history = page.history().await;
    let messages = history["messages"].as_array().expect("messages");
    assert_eq!(messages.len(), 2, "{history}");
    let body = json!({ "id": "c-1", "text": "still there?" });
    let again = ok(page.post("/messages", &body).send().await).await;
    assert_eq!(again["turn"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_no_more_than_it_should() {
    let harness = gateway().await;
    let workshop = Workshop::start().await;
    harness.put_workshop(&workshop).await;
    let less = json!({ "provider_metadata": { "show_tools": false, "show_reasoning": false,
        "files": false, "messages_per_minute": 3 } });
    let target = json!({ "type": "agent", "id": agent(&harness, "parrot/quick").await });
    let page = Page::make(&harness, target, less.clone()).await;
    let parts = page.ask("l-1", "think: a secret; hello").await;
    assert_eq!(said(&parts), "hello");
    assert!(!format!("{parts:?}").contains("secret"), "{parts:?}");
    assert!(!page.history().await.to_string().contains("\"reasoning\""));
    let upload = page.call(Method::POST, "/files").body("x").send().await;
    assert_eq!(refused(upload).await.0, 403);
    page.ask("l-2", "two").await;
    page.ask("l-3", "three").await;
    let body = json!({ "id": "l-4", "text": "four" });
    let (status, error) = refused(page.post("/messages", &body).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (429, Some("rate_limit_exceeded"))
    );

    let target = json!({ "type": "smith", "id": harness.tool_smith(&[]).await });
    let page = Page::make(&harness, target, less).await;
    let stream = page
        .follow(&page.send("l-1", "measure {\"thing\": \"rod\"}").await)
        .await;
    let steps: Vec<Value> = parts_of(&stream);
    assert!(
        steps.iter().any(|part| part["toolName"] == "measure"),
        "{stream}"
    );
    let output = steps
        .iter()
        .find(|part| part["type"] == "tool-output-available");
    assert_eq!(output.expect("an output")["output"], "");
    let input = steps
        .iter()
        .find(|part| part["type"] == "tool-input-available");
    assert_eq!(input.expect("an input")["input"], json!({}));
    let history = page.history().await;
    assert_eq!(history["messages"][1]["parts"][0]["name"], "measure");
    assert_eq!(history["messages"][1]["parts"][0]["output"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_name_their_visitors() {
    let harness = gateway().await;
    let page = Page::of_agent(&harness, "parrot/quick").await;
    let url = harness.url(&format!("/v1/hosted/{}", page.id));
    let about = ok(harness.client.get(&url).send().await).await;
    assert_eq!(
        about,
        json!({ "id": page.id, "title": "Assistant", "greeting": "How can I help?",
            "requires_password": false, "status": "active" })
    );
    let chat = |body: Value| {
        harness
            .client
            .post(format!("{url}/chat"))
            .json(&body)
            .send()
    };
    let first = text(chat(json!({ "visitor_id": "v-1", "message": "hello" })).await).await;
    assert!(
        first.contains("event: run.completed") && first.contains("hello"),
        "{first}"
    );
    let started: Value = serde_json::from_str(data_lines(&first)[0]).expect("JSON");
    let thread = started["thread_id"].as_str().expect("a thread").to_owned();
    let body = json!({ "visitor_id": "v-1", "message": "more", "thread_id": thread });
    let second = text(chat(body).await).await;
    assert!(second.contains(&thread), "{second}");
    // Another visitor has another smith, and a thread is of its visitor alone.
    let body = json!({ "visitor_id": "v-2", "message": "mine?", "thread_id": thread });
    let other = text(chat(body).await).await;
    assert!(
        other.contains("run.completed") && !other.contains(&thread),
        "{other}"
    );
    let smiths = ok(harness
        .get("/v1/smiths?external_id_prefix=web:")
        .send()
        .await)
    .await;
    assert_eq!(smiths["data"].as_array().map(Vec::len), Some(2));
    for (body, field) in [
        (json!({ "message": "hi" }), "visitor_id"),
        (
            json!({ "visitor_id": "v".repeat(129), "message": "hi" }),
            "visitor_id",
        ),
        (json!({ "visitor_id": "v", "message": " " }), "message"),
    ] {
        let (status, error) = refused(chat(body).await).await;
        assert_eq!((status, error["param"].as_str()), (400, Some(field)));
    }
    let locked = json!({ "type": "agent", "id": agent(&harness, "parrot/quick").await });
    let secret = json!({ "secrets": { "password": "correct horse" } });
    let locked = Page::make(&harness, locked, secret).await;
    let url = harness.url(&format!("/v1/hosted/{}/chat", locked.id));
    let chat = |body: Value| harness.client.post(&url).json(&body).send();
    let body = json!({ "visitor_id": "v", "message": "hi", "password": "no" });
    assert_eq!(refused(chat(body).await).await.0, 401);
    let body = json!({ "visitor_id": "v", "message": "hi", "password": "correct horse" });
    assert!(text(chat(body).await).await.contains("run.completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_decides_once() {
    let harness = gateway().await;
    let workshop = Workshop::start().await;
    harness.put_workshop(&workshop).await;
    let smith = harness.tool_smith(&[]).await;
    let hub = &harness.gateway.hub;
    let approvals = async |script: &str| {
        let run = harness.run(&smith, script).await;
        let path = format!("/v1/approvals?smith_id={smith}&status=pending");
        let listed = ok(harness.get(&path).send().await).await;
        let found = listed["data"].as_array().expect("approvals").iter();
        let found = found.filter(|one| one["run_id"] == run["id"]);
        let found: Vec<Value> = found.cloned().collect();
        found[0]["id"].as_str().expect("an id").to_owned()
    };
    let id = approvals("melt {\"thing\": \"<script>alert(1)</script>\"}").await;
    let link =
        decision_link(hub, &harness.tenant, &id, "email", "ann@example.com").expect("a link");
    let answer = harness.client.get(&link).send().await.expect("an answer");
    for (name, value) in [
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-robots-tag", "noindex, nofollow"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(answer.headers()[name], value);
    }
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .expect("text");
    assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self'"));
    let page = answer.text().await.expect("a page");
    assert!(page.contains("melt") && page.contains("&lt;script&gt;") && !page.contains("<script>"));
    // Links are opened by machines, too: as often as they like.
    for _ in 0..3 {
        text(harness.client.get(&link).send().await).await;
    }
    let kept = ok(harness.get(&format!("/v1/approvals/{id}")).send().await).await;
    assert_eq!(kept["status"], "pending");
    let decide = |link: &str, form: &'static str| {
        let call = harness.client.post(link);
        call.header("content-type", "application/x-www-form-urlencoded")
            .body(form)
    };
    let page = decide(&link, "").send().await.expect("an answer");
    assert_eq!(page.status(), 422);
    let page = text(decide(&link, "decision=approve").send().await).await;
    assert!(page.contains("<h1>Approved</h1>"), "{page}");
    let kept = ok(harness.get(&format!("/v1/approvals/{id}")).send().await).await;
    assert_eq!(kept["actor"], "ann@example.com");
    let page = text(decide(&link, "decision=reject").send().await).await;
    assert!(
        page.contains("<h1>Approved</h1>") && page.contains("decided before"),
        "{page}"
    );

    // What is not ours, or of another tenant, opens nothing.
    let foreign = decision_link(hub, "proj_other", &id, "email", "eve").expect("a link");
    let connection = connection_link(hub, &harness.tenant, &smith, "github").expect("a link");
    let token = connection.rsplit('/').next().expect("a token");
    let swapped = harness.url(&format!("/v1/ui/decisions/{token}"));
    for link in [
        foreign,
        swapped,
        format!("{link}x"),
        harness.url("/v1/ui/decisions/x"),
    ] {
        for call in [harness.client.get(&link), decide(&link, "decision=approve")] {
            assert_eq!(
                call.send().await.expect("an answer").status(),
                404,
                "{link}"
            );
        }
    }

    // A question is a form; what does not fit is shown again.
    let id = approvals("cut {\"thing\": \"bar\"}").await;
    let link = decision_link(hub, &harness.tenant, &id, "email", "ann").expect("a link");
    let page = text(harness.client.get(&link).send().await).await;
    assert!(
        page.contains("How wide shall bar be?") && page.contains("name=\"f-width\""),
        "{page}"
    );
    let wrong = decide(&link, "decision=approve&f-width=wide")
        .send()
        .await
        .expect("an answer");
    assert_eq!(wrong.status(), 422);
    let wrong = wrong.text().await.expect("a page");
    assert!(
        wrong.contains("class=\"fault\"") && wrong.contains("name=\"f-width\""),
        "{wrong}"
    );
    let page = text(decide(&link, "decision=approve&f-width=9").send().await).await;
    assert!(page.contains("<h1>Answered</h1>"), "{page}");
    let noted = || workshop.ledger().iter().any(|line| line == "cut bar 9");
    for _ in 0..100 {
        if noted() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(noted(), "{:?}", workshop.ledger());

    // A connection begins at the provider's page.
    let page = harness
        .client
        .post(&connection)
        .send()
        .await
        .expect("an answer");
    assert_eq!(page.status(), 404, "there is no such client");
    let client = json!({ "client_id": "c", "token_uri": harness.mock.url("token"),
        "authorize_url": "https://github.example/authorize", "scopes_allowed": ["repo"] });
    let put = harness.request(Method::PUT, "/v1/tenant/providers/github");
    ok(put.json(&client).send().await).await;
    let page = text(harness.client.get(&connection).send().await).await;
    assert!(page.contains("Connect github"), "{page}");
    let still = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    let still = still.build().expect("a client");
    let led = still.post(&connection).send().await.expect("an answer");
    assert_eq!(led.status(), 303);
    let to = led.headers()["location"].to_str().expect("text");
    assert!(to.starts_with("https://github.example/authorize?") && to.contains("code_challenge"));
}

/// The page in a browser; with `SHOTS`, a folder, it leaves pictures there.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_in_a_browser() {
    let harness = gateway().await;
    let workshop = Workshop::start().await;
    harness.put_workshop(&workshop).await;
    let told = |more: Value| json!({ "provider_metadata": more });
    let of = async |model: &str| json!({ "type": "agent", "id": agent(&harness, model).await });
    let site = crate::support::free_address();
    let parrot = told(
        json!({ "title": "Willow & Co.", "greeting": "Good day.\nWhat can I do for you?",
        "suggestions": ["Where is my order?", "I would like to return something", "Opening hours"],
        "allowed_origins": [format!("http://{site}")] }),
    );
    let parrot = Page::make(&harness, of("parrot/quick").await, parrot).await;
    let slow = Page::of_agent(&harness, "parrot/slow").await;
    let smith = harness.tool_smith(&[]).await;
    let tools = json!({ "type": "smith", "id": smith });
    let tools = Page::make(&harness, tools, told(json!({ "theme": "light" }))).await;
    let locked = json!({ "secrets": { "password": "correct horse" },
        "provider_metadata": { "title": "Members", "accent": "#ffd43b", "theme": "dark" } });
    let locked = Page::make(&harness, of("parrot/quick").await, locked).await;
    let run = harness
        .run(
            &smith,
            "melt {\"thing\": \"an old bell\"}\ncut {\"thing\": \"a beam\"}",
        )
        .await;
    let path = format!("/v1/approvals?smith_id={smith}&status=pending");
    let listed = ok(harness.get(&path).send().await).await;
    assert!(run["id"].is_string());
    let asked = listed["data"].as_array().expect("approvals").iter();
    let asked: Vec<&Value> = asked.filter(|one| one["tool"] == "melt").collect();
    let id = asked[0]["id"].as_str().expect("an id");
    let hub = &harness.gateway.hub;
    let decision = decision_link(hub, &harness.tenant, id, "email", "ann").expect("a link");
    let chromium = std::env::var("TEST_CHROMIUM").expect("`.ci/test` names a browser");
    let site = site.to_string();
    let env = [
        ("PARROT", parrot.url("")),
        ("SLOW", slow.url("")),
        ("TOOLS", tools.url("")),
        ("LOCKED", locked.url("")),
        ("DECISION", decision),
        ("SITE", site),
        ("CHROMIUM", chromium),
        ("SHOTS", std::env::var("SHOTS").unwrap_or_default()),
    ];
    let env: Vec<(&str, &str)> = env
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    run_script(&harness, "TEST_NODE", "web_page.mjs", &env).await;
    assert!(
        workshop
            .ledger()
            .iter()
            .any(|line| line.starts_with("melt rod"))
    );
    assert!(workshop.ledger().iter().any(|line| line == "cut bar 12"));
}
