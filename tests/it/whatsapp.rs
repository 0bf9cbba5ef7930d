//! WhatsApp, against a Cloud API of the test's own that is as strict as Meta's.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method as Verb, StatusCode, Uri};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use smithgate::auth::{Mint, MintedScope};
use smithgate::store::{Tenant, now_micros};

use crate::speaker::Speaker;
use crate::support::{Harness, PICTURE_SIZE, REPORT, ok, refused, uploaded};
use crate::tools::Workshop;

pub(crate) const TOKEN: &str = "EAAG-token";
pub(crate) const SECRET: &str = "app-secret";
pub(crate) const VERIFY: &str = "verify-me";
pub(crate) const NUMBER: &str = "106540352242922";
pub(crate) const WABA: &str = "102290129340398";
const ANN: &str = "16505551234";

#[derive(Default)]
pub(crate) struct Platform {
    /// What was posted as messages, but for receipts.
    sent: Mutex<Vec<Value>>,
    receipts: Mutex<Vec<Value>>,
    subscribed: Mutex<Vec<String>>,
    /// Answers to messages, in turn; then the ordinary one.
    answers: Mutex<VecDeque<(u16, Value)>>,
    file: Mutex<Vec<u8>>,
    /// What was uploaded.
    media: Mutex<Vec<Value>>,
    address: Mutex<Option<SocketAddr>>,
}

type Answer = (StatusCode, Vec<u8>);

fn reply(status: u16, value: &Value) -> Answer {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, value.to_string().into_bytes())
}

fn fault(status: u16, code: i64, message: &str) -> Answer {
    let error = json!({ "message": message, "type": "OAuthException", "code": code,
        "error_data": { "messaging_product": "whatsapp", "details": message }, "fbtrace_id": "x" });
    reply(status, &json!({ "error": error }))
}

/// What Meta would refuse of a message.
fn wrong(body: &Value) -> Option<&'static str> {
    let length = |value: &Value| value.as_str().map_or(0, |text| text.encode_utf16().count());
    let within = |value: &Value, most: usize| (1..=most).contains(&length(value));
    if body["messaging_product"] != "whatsapp" || body["recipient_type"] != "individual" {
        return Some("no WhatsApp message");
    }
    let is_number = |to: &str| to.len() > 5 && to.bytes().all(|b| b.is_ascii_digit());
    if !body["to"].as_str().is_some_and(is_number) {
        return Some("no number");
    }
    match body["type"].as_str() {
        Some("text") if within(&body["text"]["body"], 4096) => None,
        Some("template") if within(&body["template"]["language"]["code"], 10) => None,
        Some("interactive") => {
            let asked = &body["interactive"];
            let buttons = asked["action"]["buttons"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let fine = asked["type"] == "button"
                && within(&asked["body"]["text"], 1024)
                && (1..=3).contains(&buttons.len())
                && buttons.iter().all(|button| {
                    button["type"] == "reply"
                        && within(&button["reply"]["title"], 20)
                        && within(&button["reply"]["id"], 256)
                });
            (!fine).then_some("no buttons that are shown")
        }
        Some(kind @ ("image" | "document")) if within(&body[kind]["id"], 64) => None,
        _ => Some("no such type"),
    }
}

async fn answer(
    State(platform): State<Arc<Platform>>,
    method: Verb,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let bearer = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    if bearer != Some(&format!("Bearer {TOKEN}")) {
        return fault(401, 190, "Invalid OAuth access token");
    }
    let path = uri.path().trim_start_matches("/v26.0/");
    let form = uploaded(&headers, &body).await;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match (method.as_str(), path) {
        ("GET", NUMBER) => reply(
            200,
            &json!({ "id": NUMBER, "display_phone_number": "+1 555-078-3881",
                "verified_name": "Jasper's Market" }),
        ),
        ("POST", path) if path.ends_with("/subscribed_apps") => {
            platform.subscribed.lock().push(path.to_owned());
            reply(200, &json!({ "success": true }))
        }
        ("POST", path) if path == format!("{NUMBER}/messages") => {
            if body["status"] == "read" {
                platform.receipts.lock().push(body);
                return reply(200, &json!({ "success": true }));
            }
            let count = {
                let mut sent = platform.sent.lock();
                sent.push(body.clone());
                sent.len()
            };
            if let Some((status, value)) = platform.answers.lock().pop_front() {
                return reply(status, &value);
            }
            if let Some(why) = wrong(&body) {
                return fault(400, 100, why);
            }
            reply(
                200,
                &json!({ "messaging_product": "whatsapp",
                    "contacts": [{ "input": body["to"], "wa_id": body["to"] }],
                    "messages": [{ "id": format!("wamid.sent{count}") }] }),
            )
        }
        ("POST", path) if path == format!("{NUMBER}/media") => {
            let form = form.expect("a form");
            let of = |name: &str| form.iter().find(|field| field.name == name);
            let file = of("file").expect("a file").told();
            assert_eq!(of("messaging_product").expect("one").text(), "whatsapp");
            assert_eq!(json!(of("type").expect("a type").text()), file["type"]);
            platform.media.lock().push(file);
            let count = platform.media.lock().len();
            reply(200, &json!({ "id": format!("media{count}") }))
        }
        ("GET", "1037543291543636") => {
            let address = platform.address.lock().expect("an address");
            let url = format!("http://{address}/whatsapp_business/attachments/?mid=1&hash=ARr");
            reply(
                200,
                &json!({ "messaging_product": "whatsapp", "url": url, "mime_type": "image/png",
                    "sha256": "x", "file_size": "24", "id": "1037543291543636" }),
            )
        }
        ("GET", "/whatsapp_business/attachments/") if uri.query() == Some("mid=1&hash=ARr") => {
            (StatusCode::OK, platform.file.lock().clone())
        }
        _ => fault(400, 100, "Unsupported request - object does not exist"),
    }
}

impl Platform {
    /// Begins to listen.
    pub(crate) async fn start() -> (Arc<Self>, SocketAddr) {
        let platform = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        *platform.address.lock() = Some(address);
        let app = Router::new().fallback(answer).with_state(platform.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (platform, address)
    }
}

struct Bot {
    harness: Harness,
    platform: Arc<Platform>,
    speaker: Arc<Speaker>,
}

impl Bot {
    async fn start() -> Self {
        let (platform, address) = Platform::start().await;
        let (speaker, speaks_at) = Speaker::start().await;
        let harness = Harness::start_with(|config, _| {
            config.channels.whatsapp_url = format!("http://{address}/v26.0");
            config.channels.whatsapp_app_secret = Some(SECRET.to_owned());
            config.channels.whatsapp_verify_token = Some(VERIFY.to_owned());
            config.server.public_url = Some("https://gateway.example".to_owned());
            config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
            Speaker::add_to(config, &speaks_at);
        })
        .await;
        let bot = Self {
            harness,
            platform,
            speaker,
        };
        let body = json!({ "phone_number_id": NUMBER, "access_token": TOKEN, "waba_id": WABA });
        let made = ok(bot.put(&body).await).await;
        let shown = json!({ "configured": true, "phone_number_id": NUMBER,
            "display_phone_number": "+1 555-078-3881", "waba_id": WABA,
            "webhook_url": "https://gateway.example/v1/whatsapp/webhook" });
        assert_eq!(made, shown);
        assert_eq!(
            bot.platform.subscribed.lock()[0],
            format!("{WABA}/subscribed_apps")
        );
        bot
    }

    async fn put(&self, body: &Value) -> reqwest::Result<reqwest::Response> {
        let put = self.harness.request(Method::PUT, "/v1/tenant/whatsapp");
        put.json(body).send().await
    }

    /// Delivers as Meta does; answers the status.
    async fn deliver(&self, value: Value) -> u16 {
        let body = delivery(NUMBER, value).to_string();
        let signed = signature(SECRET, &body);
        self.post("/v1/whatsapp/webhook", body, Some(signed)).await
    }

    async fn post(&self, path: &str, body: String, signature: Option<String>) -> u16 {
        let mut call = self.harness.client.post(self.harness.url(path)).body(body);
        if let Some(signature) = signature {
            call = call.header("X-Hub-Signature-256", signature);
        }
        call.send().await.expect("an answer").status().as_u16()
    }

    async fn deployment(&self, mut body: Value) -> Value {
        body["kind"] = json!("whatsapp");
        ok(self.harness.post("/v1/deployments", &body).send().await).await
    }

    async fn catch_all(&self, model: &str, metadata: Value) -> String {
        let harness = &self.harness;
        let agent = harness.post("/v1/agents", &json!({ "name": "A" }));
        let agent = ok(agent.send().await).await;
        let agent = agent["id"].as_str().expect("an id").to_owned();
        let path = format!("/v1/agents/{agent}");
        let draft = json!({ "model": model, "instructions": "Be brief." });
        let draft = harness.request(Method::PATCH, &path).json(&draft);
        ok(draft.send().await).await;
        let version = harness.post(&format!("{path}/versions"), &json!({}));
        ok(version.send().await).await;
        let target = json!({ "type": "agent", "id": agent });
        let made = json!({ "target": target, "provider_metadata": metadata });
        let made = self.deployment(made).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Waits until so many messages were sent.
    async fn sent(&self, count: usize) -> Vec<Value> {
        for _ in 0..200 {
            let sent = self.platform.sent.lock().clone();
            if sent.len() >= count {
                return sent;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let sent = self.platform.sent.lock();
        panic!("{} of {count} messages were sent: {sent:?}", sent.len());
    }

    /// Waits until a deployment's latest delivery has a status.
    async fn latest(&self, deployment: &str, status: &str) -> Value {
        let path = format!("/v1/deployments/{deployment}/deliveries");
        let mut first = Value::Null;
        for _ in 0..200 {
            first = ok(self.harness.get(&path).send().await).await["data"][0].clone();
            if first["status"] == status {
                return first;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not {status}: {first}");
    }

    async fn events(&self, kind: &str, count: usize) -> Vec<Value> {
        let path = format!("/v1/events?type={kind}");
        for _ in 0..100 {
            let events = ok(self.harness.get(&path).send().await).await;
            let events = events["data"].as_array().cloned().unwrap_or_default();
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no {count} events of type {kind}");
    }
}

pub(crate) fn signature(secret: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body.as_bytes())))
}

pub(crate) fn delivery(number: &str, more: Value) -> Value {
    let mut value = json!({ "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": "15550783881", "phone_number_id": number },
        "contacts": [{ "profile": { "name": "Sheena Nelson" }, "wa_id": ANN }] });
    for (name, member) in more.as_object().expect("members") {
        value[name] = member.clone();
    }
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": WABA,
        "changes": [{ "value": value, "field": "messages" }] }] })
}

pub(crate) fn message(id: &str, from: &str, text: &str) -> Value {
    json!({ "from": from, "id": id, "timestamp": "1749416383", "type": "text",
        "text": { "body": text } })
}

fn texts(id: &str, text: &str) -> Value {
    json!({ "messages": [message(id, ANN, text)] })
}

fn status(word: &str, key: &Value, code: Option<i64>) -> Value {
    let mut status = json!({ "id": "wamid.late", "status": word, "timestamp": "1750030073",
        "recipient_id": ANN, "biz_opaque_callback_data": key });
    if let Some(code) = code {
        status["errors"] = json!([{ "code": code, "title": "Re-engagement message",
            "message": "Re-engagement message",
            "error_data": { "details": "More than 24 hours have passed." } }]);
    }
    json!({ "statuses": [status] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_answered_once_by_a_smith_of_its_number() {
    let bot = Bot::start().await;
    bot.catch_all("openai-chat/text", json!({})).await;
    assert_eq!(bot.deliver(texts("wamid.1", "Hello?")).await, 200);
    let sent = bot.sent(1).await;
    assert_eq!(
        (&sent[0]["to"], &sent[0]["type"]),
        (&json!(ANN), &json!("text"))
    );
    let key = sent[0]["biz_opaque_callback_data"].as_str();
    assert!(
        key.is_some_and(|key| key.starts_with("out_") && key.ends_with("-0")),
        "{sent:?}"
    );
    let receipts = bot.platform.receipts.lock().clone();
    assert_eq!(
        receipts[0],
        json!({ "messaging_product": "whatsapp", "status": "read", "message_id": "wamid.1",
            "typing_indicator": { "type": "text" } })
    );
    // Delivered again, with another beside it: the new one alone is answered.
    let both = json!({ "messages": [message("wamid.1", ANN, "Hello?"), message("wamid.2", ANN, "And?")],
        "statuses": [{ "id": "wamid.sent1", "status": "sent", "recipient_id": ANN,
            "biz_opaque_callback_data": key }] });
    assert_eq!(bot.deliver(both).await, 200);
    bot.sent(2).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(bot.platform.sent.lock().len(), 2);
    let smiths = bot
        .harness
        .get(&format!("/v1/smiths?external_id=whatsapp:{ANN}"));
    let smiths = ok(smiths.send().await).await;
    assert_eq!(smiths["data"][0]["display_name"], "Sheena Nelson");
    let runs = ok(bot.harness.get("/v1/runs").send().await).await;
    let runs = runs["data"].as_array().expect("runs");
    assert_eq!((runs.len(), &runs[0]["channel"]), (2, &json!("whatsapp")));
    assert_eq!(runs[0]["thread_id"], format!("whatsapp:{ANN}"));
    assert_eq!(runs[0]["metadata"]["sender"]["verified"], true);
    let events = bot.harness.get("/v1/inbound_events?source=whatsapp");
    let events = ok(events.send().await).await;
    let kinds: Vec<&str> = events["data"]
        .as_array()
        .expect("arrivals")
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert_eq!(kinds, ["status.sent", "text", "text"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_or_foreign_is_refused() {
    let bot = Bot::start().await;
    bot.catch_all("openai-chat/text", json!({})).await;
    let hook = "/v1/whatsapp/webhook";
    let body = delivery(NUMBER, texts("wamid.1", "hi")).to_string();
    assert_eq!(bot.post(hook, body.clone(), None).await, 403);
    let forged = Some(signature("other", &body));
    assert_eq!(bot.post(hook, body.clone(), forged).await, 403);
    let signed = Some(signature(SECRET, &body));
    assert_eq!(
        bot.post(hook, body.replace("hi", "ho"), signed.clone())
            .await,
        403
    );
    // No tenant's own path takes what the operator's app signed, nor any other tenant's.
    for tenant in [bot.harness.tenant.as_str(), "proj_111111111111111111111"] {
        let path = format!("{hook}/{tenant}");
        assert_eq!(bot.post(&path, body.clone(), signed.clone()).await, 403);
    }
    // What is for another number is taken, and nothing comes of it.
    let other = delivery("99", texts("wamid.1", "hi")).to_string();
    let signed = Some(signature(SECRET, &other));
    assert_eq!(bot.post(hook, other, signed).await, 200);
    let signed = Some(signature(SECRET, "{"));
    assert_eq!(bot.post(hook, "{".to_owned(), signed).await, 400);
    let events = ok(bot.harness.get("/v1/inbound_events").send().await).await;
    assert_eq!(events["data"], json!([]));
    // The handshake.
    let shake = |token: &str, mode: &str| {
        let query = format!("?hub.mode={mode}&hub.verify_token={token}&hub.challenge=1158201444");
        let url = bot.harness.url(&format!("{hook}{query}"));
        bot.harness.client.get(url).send()
    };
    let shaken = shake(VERIFY, "subscribe").await.expect("an answer");
    assert_eq!(shaken.status(), 200);
    assert!(
        shaken.headers()["content-type"]
            .to_str()
            .is_ok_and(|t| t.starts_with("text/plain"))
    );
    assert_eq!(shaken.text().await.expect("a body"), "1158201444");
    for (token, mode) in [("wrong", "subscribe"), ("", "subscribe"), (VERIFY, "other")] {
        assert_eq!(shake(token, mode).await.expect("an answer").status(), 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_set_read_and_forgotten() {
    let bot = Bot::start().await;
    let whole = json!({ "phone_number_id": NUMBER, "access_token": TOKEN, "waba_id": WABA });
    for name in ["phone_number_id", "access_token", "waba_id"] {
        let mut body = whole.clone();
        body[name] = json!(" ");
        let (status, error) = refused(bot.put(&body).await).await;
        assert_eq!((status, &error["code"]), (422, &json!("empty_config")));
        assert_eq!(error["param"], name);
    }
    let mut wrong = whole.clone();
    wrong["access_token"] = json!("stale");
    let (status, error) = refused(bot.put(&wrong).await).await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("whatsapp_api_error"))
    );
    assert!(!error.to_string().contains("stale"));
    wrong["phone_number_id"] = json!("../1");
    let (status, error) = refused(bot.put(&wrong).await).await;
    assert_eq!((status, &error["param"]), (400, &json!("phone_number_id")));
    // A number is one tenant's.
    let stranger = Tenant {
        id: "proj_stranger".to_owned(),
        name: "stranger".to_owned(),
        created_at: now_micros(),
    };
    let store = bot.harness.gateway.store.clone();
    store.create_tenant(&stranger).await.expect("made");
    let mint = Mint {
        tenant_id: stranger.id,
        scope: MintedScope::Admin,
        ttl_seconds: None,
        name: None,
    };
    let foreign = bot
        .harness
        .gateway
        .auth
        .mint(mint)
        .await
        .expect("minted")
        .token;
    let put = bot
        .harness
        .client
        .put(bot.harness.url("/v1/tenant/whatsapp"));
    let put = put.bearer_auth(foreign).json(&whole).send().await;
    let (status, error) = refused(put).await;
    assert_eq!(
        (status, &error["code"]),
        (409, &json!("phone_number_taken"))
    );
    // An app of the tenant's own, at a path of its own.
    let mut own = whole.clone();
    own["app_secret"] = json!("mine");
    let (status, error) = refused(bot.put(&own).await).await;
    assert_eq!((status, &error["param"]), (422, &json!("verify_token")));
    own["verify_token"] = json!("mine too");
    assert_eq!(refused(bot.put(&own).await).await.0, 400);
    own["verify_token"] = json!("mine-too");
    let made = ok(bot.put(&own).await).await;
    let hook = format!("/v1/whatsapp/webhook/{}", bot.harness.tenant);
    assert_eq!(
        made["webhook_url"],
        format!("https://gateway.example{hook}")
    );
    assert!(!made.to_string().contains("mine"));
    let query = "?hub.mode=subscribe&hub.verify_token=mine-too&hub.challenge=7";
    let url = bot.harness.url(&format!("{hook}{query}"));
    let shaken = bot.harness.client.get(url).send().await.expect("an answer");
    assert_eq!(shaken.text().await.expect("a body"), "7");
    bot.catch_all("openai-chat/text", json!({})).await;
    let body = delivery(NUMBER, texts("wamid.1", "hi")).to_string();
    let signed = Some(signature("mine", &body));
    assert_eq!(bot.post(&hook, body, signed).await, 200);
    bot.sent(1).await;
    // The operator's app delivers for it no more.
    assert_eq!(bot.deliver(texts("wamid.2", "hi")).await, 200);
    let gone = bot.harness.request(Method::DELETE, "/v1/tenant/whatsapp");
    assert_eq!(gone.send().await.expect("an answer").status(), 204);
    let read = ok(bot.harness.get("/v1/tenant/whatsapp").send().await).await;
    assert_eq!(read, json!({ "configured": false }));
    assert_eq!(bot.deliver(texts("wamid.3", "hi")).await, 200);
    let events = ok(bot.harness.get("/v1/inbound_events").send().await).await;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(1));
    let smith = bot.harness.smith("openai-chat/text").await;
    let target = json!({ "kind": "whatsapp", "target": { "type": "smith", "id": smith } });
    let made = bot.harness.post("/v1/deployments", &target);
    let (status, error) = refused(made.send().await).await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("whatsapp_unconfigured"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_binds_a_number_to_a_smith() {
    let bot = Bot::start().await;
    let smith = bot.harness.smith("openai-chat/text").await;
    let made = json!({ "target": { "type": "smith", "id": smith },
        "setup": { "mode": "start_token" } });
    let made = bot.deployment(made).await;
    let token = made["start_token"].as_str().expect("a token");
    assert_eq!(made["prefilled_message"], format!("/start {token}"));
    let link = made["deep_link"].as_str().expect("a link");
    let link = reqwest::Url::parse(link).expect("a URL");
    assert_eq!(
        (link.host_str(), link.path()),
        (Some("wa.me"), "/15550783881")
    );
    let text = link.query_pairs().find(|(name, _)| name == "text");
    assert_eq!(text.expect("a text").1, format!("/start {token}"));
    bot.deliver(texts("wamid.1", "hi")).await;
    bot.events("unbound_message", 1).await;
    bot.deliver(texts("wamid.2", &format!("/start {token}")))
        .await;
    let sent = bot.sent(1).await;
    assert!(
        sent[0]["text"]["body"]
            .as_str()
            .is_some_and(|text| text.contains("connected"))
    );
    bot.deliver(texts("wamid.3", "What now?")).await;
    bot.sent(2).await;
    let runs = bot.harness.get(&format!("/v1/runs?smith_id={smith}"));
    let runs = ok(runs.send().await).await;
    assert_eq!(
        runs["data"][0]["input"][0]["content"][0]["text"],
        "What now?"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_seen_by_the_model() {
    let bot = Bot::start().await;
    bot.catch_all("openai-chat/text", json!({})).await;
    // The smallest PNG there is.
    *bot.platform.file.lock() = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01".to_vec();
    let picture = |id: &str, media: &str| {
        json!({ "messages": [{ "from": ANN, "id": id, "timestamp": "1", "type": "image",
            "image": { "caption": "What is this?", "mime_type": "image/png", "sha256": "x", "id": media } }] })
    };
    bot.deliver(picture("wamid.1", "1037543291543636")).await;
    bot.sent(1).await;
    let asked = bot.harness.mock.last().body.to_string();
    assert!(
        asked.contains("data:image/png;base64,") && asked.contains("What is this?"),
        "{asked}"
    );
    // What Meta has no more is told of.
    bot.deliver(picture("wamid.2", "404")).await;
    bot.sent(2).await;
    let asked = bot.harness.mock.last().body.to_string();
    assert!(asked.contains("is no longer there"), "{asked}");
}

fn press(id: &str, from: &str, button: &Value) -> Value {
    json!({ "messages": [{ "from": from, "id": id, "timestamp": "1", "type": "interactive",
        "context": { "from": "15550783881", "id": "wamid.sent1" },
        "interactive": { "type": "button_reply",
            "button_reply": { "id": button, "title": "Approve" } } }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_a_button_for_who_asked() {
    let bot = Bot::start().await;
    let workshop = Workshop::start().await;
    bot.harness.put_workshop(&workshop).await;
    bot.catch_all("openai-chat/script", json!({})).await;
    bot.deliver(texts("wamid.1", "melt {\"thing\": \"a\"}"))
        .await;
    let asked = bot.sent(1).await.remove(0);
    let card = &asked["interactive"];
    assert!(
        card["body"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("*melt*")),
        "{asked}"
    );
    let yes = &card["action"]["buttons"][0]["reply"]["id"];
    // Somebody else's press does nothing.
    bot.deliver(press("wamid.2", "16505559999", yes)).await;
    let sent = bot.sent(2).await;
    assert!(
        sent[1]["text"]["body"]
            .as_str()
            .is_some_and(|text| text.contains("Only the person"))
    );
    assert!(workshop.ledger().is_empty());
    bot.deliver(press("wamid.3", ANN, yes)).await;
    let sent = bot.sent(4).await;
    let all: Vec<&str> = sent
        .iter()
        .filter_map(|one| one["text"]["body"].as_str())
        .collect();
    assert!(
        all.iter().any(|text| text.contains("a is molten")),
        "{all:?}"
    );
    let told = sent.iter().find(|one| {
        let text = one["text"]["body"].as_str();
        text.is_some_and(|text| text.contains("Approved: melt"))
    });
    assert_eq!(
        told.expect("an answer to the press")["context"]["message_id"],
        "wamid.3"
    );
    assert_eq!(workshop.ledger().len(), 1);
    // A second press says so.
    bot.deliver(press("wamid.4", ANN, yes)).await;
    let sent = bot.sent(5).await;
    assert!(
        sent[4]["text"]["body"]
            .as_str()
            .is_some_and(|text| text.contains("already"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_comes_in_pieces_in_whatsapps_format() {
    let bot = Bot::start().await;
    bot.catch_all("speaker/words", json!({})).await;
    let code: String = (0..400).map(|n| format!("let line_{n} = {n};\n")).collect();
    let words = "A **bold** sentence with a [link](https://example.com/a_b). ".repeat(60);
    bot.speaker
        .says(&["# Title\n\n", &words, "\n\n```rust\n", &code, "```\n"]);
    bot.deliver(texts("wamid.1", "Tell me")).await;
    let sent = bot.sent(3).await;
    let all: Vec<&str> = sent
        .iter()
        .filter_map(|one| one["text"]["body"].as_str())
        .collect();
    assert!(
        all[0].starts_with("*Title*\n\nA *bold* sentence with a link (https://example.com/a_b).")
    );
    assert!(all.iter().all(|text| text.encode_utf16().count() <= 4096));
    assert!(all.iter().all(|text| text.matches("```").count() % 2 == 0));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let sent = bot.platform.sent.lock().clone();
    let all: String = sent
        .iter()
        .filter_map(|one| one["text"]["body"].as_str())
        .collect();
    assert!(all.contains("let line_0 = 0;") && all.contains("let line_399 = 399;"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_waited_out_and_what_is_unknown_becomes_known() {
    let bot = Bot::start().await;
    let deployment = bot.catch_all("openai-chat/text", json!({})).await;
    let busy = json!({ "error": { "code": 131_056, "message": "Pair rate limit hit" } });
    bot.platform.answers.lock().push_back((400, busy));
    bot.deliver(texts("wamid.1", "hi")).await;
    bot.sent(2).await;
    bot.latest(&deployment, "sent").await;
    // Something in between broke: the message may be there.
    bot.platform.answers.lock().push_back((502, json!("?")));
    bot.deliver(texts("wamid.2", "hi")).await;
    let sent = bot.sent(3).await;
    bot.latest(&deployment, "unknown").await;
    bot.events("whatsapp.send_failed", 1).await;
    // And it is, says WhatsApp later.
    let key = &sent[2]["biz_opaque_callback_data"];
    bot.deliver(status("delivered", key, None)).await;
    bot.latest(&deployment, "sent").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bot.platform.sent.lock().len(), 3, "it is not sent again");
    // What is refused later has failed, and says why, once.
    bot.deliver(status("failed", key, Some(131_047))).await;
    let failed = bot.latest(&deployment, "failed").await;
    let why = failed["last_error"].as_str().unwrap_or_default();
    assert!(
        why.contains("131047") && why.contains("24 hours"),
        "{failed}"
    );
    let events = bot.events("whatsapp.send_failed", 2).await;
    assert_eq!(events[0]["data"]["message_id"], failed["id"]);
    bot.deliver(status("failed", key, Some(131_047))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bot.events("whatsapp.send_failed", 2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_window_is_said_and_a_template_is_sent_instead() {
    let bot = Bot::start().await;
    let template = json!({ "template": { "name": "news", "language": "de", "with_text": true } });
    let deployment = bot.catch_all("openai-chat/text", template).await;
    let closed = json!({ "error": { "code": 131_047, "message": "Re-engagement message" } });
    bot.platform.answers.lock().push_back((400, closed));
    bot.deliver(texts("wamid.1", "hi")).await;
    let sent = bot.sent(2).await;
    assert_eq!(
        (&sent[0]["type"], &sent[1]["type"]),
        (&json!("text"), &json!("template"))
    );
    let template = &sent[1]["template"];
    assert_eq!(
        (&template["name"], &template["language"]["code"]),
        (&json!("news"), &json!("de"))
    );
    let text = template["components"][0]["parameters"][0]["text"].as_str();
    assert!(
        text.is_some_and(|text| !text.is_empty() && !text.contains('\n')),
        "{template}"
    );
    bot.latest(&deployment, "sent").await;
    // Where WhatsApp says so only afterwards, too.
    bot.deliver(texts("wamid.2", "hi")).await;
    let sent = bot.sent(3).await;
    bot.latest(&deployment, "sent").await;
    let key = &sent[2]["biz_opaque_callback_data"];
    bot.deliver(status("failed", key, Some(131_047))).await;
    let sent = bot.sent(4).await;
    assert_eq!(sent[3]["template"]["name"], "news");
    bot.events("whatsapp.send_failed", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_tools_make_are_uploaded_and_sent() {
    let bot = Bot::start().await;
    let workshop = Workshop::start().await;
    bot.harness.put_workshop(&workshop).await;
    let deployment = bot.catch_all("openai-chat/script", json!({})).await;
    bot.deliver(texts("wamid.1", "paint {\"thing\": \"wall\"}"))
        .await;
    let sent = bot.sent(3).await;
    assert_eq!(sent[0]["text"]["body"], "Results:");
    assert_eq!(sent[1]["image"], json!({ "id": "media1" }));
    let document = json!({ "id": "media2", "filename": "wall.pdf" });
    assert_eq!(sent[2]["document"], document);
    assert!(sent.iter().all(|one| one["to"] == ANN));
    assert_eq!(
        *bot.platform.media.lock(),
        [
            json!({ "name": "image-1.png", "type": "image/png", "size": PICTURE_SIZE }),
            json!({ "name": "wall.pdf", "type": "application/pdf", "size": REPORT.len() })
        ]
    );
    bot.latest(&deployment, "sent").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_replies_are_buttons_whose_press_is_said() {
    let bot = Bot::start().await;
    let smith = bot.harness.tool_smith(&["suggest_replies"]).await;
    let target = json!({ "type": "smith", "id": smith });
    bot.deployment(json!({ "target": target, "address": ANN }))
        .await;
    let script = "suggest_replies {\"replies\": [\"Yes\", \"No, thanks\"]}";
    bot.deliver(texts("wamid.1", script)).await;
    let asked = bot.sent(1).await.remove(0);
    let buttons = &asked["interactive"]["action"]["buttons"];
    assert_eq!(buttons[1]["reply"]["title"], "No, thanks", "{asked}");
    let pressed = json!({ "type": "button_reply", "button_reply": buttons[1]["reply"] });
    bot.deliver(
        json!({ "messages": [{ "from": ANN, "id": "wamid.2", "timestamp": "1",
        "type": "interactive", "interactive": pressed }] }),
    )
    .await;
    bot.sent(2).await;
    let path = format!("/v1/runs?smith_id={smith}");
    let runs = ok(bot.harness.get(&path).send().await).await;
    let said = &runs["data"][0]["input"][0]["content"][0]["text"];
    assert_eq!(said, "No, thanks", "{runs}");
}
