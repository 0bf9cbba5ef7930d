//! Discord, against an API of the test's own that is as strict as theirs.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method as Verb, StatusCode, Uri};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};

use crate::speaker::Speaker;
use crate::support::{Harness, PICTURE_SIZE, REPORT, Uploaded, ok, refused, uploaded};
use crate::tools::Workshop;

pub(crate) const TOKEN: &str = "MTk4NjIy.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs";
pub(crate) const APPLICATION: &str = "775799577604522054";
const CHANNEL: &str = "645027906669510667";
const BOT: &str = "775799577604522999";
const ANN: &str = "53908232506183680";

#[derive(Default)]
pub(crate) struct Platform {
    pub(crate) verify_key: Mutex<String>,
    commands: Mutex<Value>,
    /// Answers of interactions, by token; `None`: a person is shown that one is awaited.
    pub(crate) originals: Mutex<HashMap<String, Option<Value>>>,
    /// What was sent or changed: how, where, and the body.
    calls: Mutex<Vec<(String, String, Value)>>,
    /// Answers to messages, in turn; then the ordinary one.
    answers: Mutex<VecDeque<(u16, Value)>>,
    nonces: Mutex<HashMap<String, String>>,
    file: Mutex<Vec<u8>>,
    gateway: Mutex<String>,
    next: AtomicU64,
}

type Answer = (StatusCode, Vec<u8>);

fn reply(status: u16, value: &Value) -> Answer {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, value.to_string().into_bytes())
}

fn fault(status: u16, code: i64, message: &str) -> Answer {
    reply(status, &json!({ "message": message, "code": code }))
}

/// What Discord would refuse of a message.
fn wrong(body: &Value) -> Option<&'static str> {
    let text = body["content"].as_str().unwrap_or_default();
    let rows = body["components"].as_array().cloned().unwrap_or_default();
    let is_button = |button: &Value| {
        let id = button["custom_id"].as_str().map_or(0, str::len);
        button["type"] == 2 && (1..=100).contains(&id) && button["label"].is_string()
    };
    let files = body["files"].as_array().cloned().unwrap_or_default();
    let named = body["attachments"].as_array().cloned().unwrap_or_default();
    let is_named = |(at, file): (usize, &Value)| {
        named[at]["id"] == at && named[at]["filename"] == file["name"]
    };
    if files.len() != named.len() || !files.iter().enumerate().all(is_named) {
        return Some("attachments are not those that came");
    }
    if (text.is_empty() && files.is_empty()) || text.encode_utf16().count() > 2000 {
        return Some("content must be between 1 and 2000 in length");
    }
    if body["allowed_mentions"]["parse"] != json!([]) {
        return Some("the test wants nobody to be mentioned");
    }
    let buttons = |row: &Value| row["components"].as_array().cloned().unwrap_or_default();
    let fine = rows.iter().all(|row| {
        row["type"] == 1
            && (1..=5).contains(&buttons(row).len())
            && buttons(row).iter().all(is_button)
    });
    (!fine).then_some("no components")
}

impl Platform {
    /// Begins to listen.
    pub(crate) async fn start() -> (Arc<Self>, SocketAddr) {
        let platform = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().fallback(answer).with_state(platform.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (platform, address)
    }

    fn id(&self) -> String {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        (900_000_000_000_000_000 + next).to_string()
    }

    fn message(&self, how: &str, place: &str, body: &Value, id: Option<String>) -> Answer {
        let call = (how.to_owned(), place.to_owned(), body.clone());
        self.calls.lock().push(call);
        if let Some((status, value)) = self.answers.lock().pop_front() {
            return reply(status, &value);
        }
        if let Some(why) = wrong(body) {
            return fault(400, 50_035, why);
        }
        let id = id.unwrap_or_else(|| self.id());
        reply(
            200,
            &json!({ "id": id, "content": body["content"], "flags": 4 }),
        )
    }
}

async fn answer(
    State(platform): State<Arc<Platform>>,
    method: Verb,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let path = uri.path();
    if path == "/attachments/1/2/pixel.png" {
        return match uri.query() {
            Some("ex=1&is=2&hm=3") => (StatusCode::OK, platform.file.lock().clone()),
            _ => fault(404, 0, "This content is no longer available."),
        };
    }
    if !header("user-agent").is_some_and(|agent| agent.starts_with("DiscordBot (")) {
        return fault(403, 40_333, "internal network error");
    }
    let path = path.strip_prefix("/api/v10/").unwrap_or_default();
    // Files are told of by what they are.
    let body: Value = match uploaded(&headers, &body).await {
        Some(form) => {
            let (json, files) = form.split_first().expect("fields");
            assert_eq!(json.name, "payload_json");
            let mut body: Value = serde_json::from_str(&json.text()).expect("JSON");
            let is_numbered = |(at, file): (usize, &Uploaded)| file.name == format!("files[{at}]");
            assert!(files.iter().enumerate().all(is_numbered), "{files:?}");
            body["files"] = files.iter().map(Uploaded::told).collect();
            body
        }
        None => serde_json::from_slice(&body).unwrap_or_default(),
    };
    let parts: Vec<&str> = path.split('/').collect();
    let has_token = header("authorization") == Some(&format!("Bot {TOKEN}"));
    match (method.as_str(), parts.as_slice()) {
        ("GET" | "PATCH", ["webhooks", APPLICATION, token, "messages", message]) => {
            let mut originals = platform.originals.lock();
            let Some(original) = originals.get_mut(*token) else {
                return fault(404, 10_015, "Unknown Webhook");
            };
            if method == Verb::GET {
                let flags = if original.is_some() { 4 } else { 128 + 4 };
                let content = original
                    .as_ref()
                    .map_or(&json!(""), |body| &body["content"])
                    .clone();
                let id = "800000000000000000";
                return reply(
                    200,
                    &json!({ "id": id, "flags": flags, "content": content }),
                );
            }
            let is_original = *message == "@original" || *message == "800000000000000000";
            let id = is_original.then(|| "800000000000000000".to_owned());
            let answer =
                platform.message("edit", message, &body, id.or(Some((*message).to_owned())));
            if answer.0.is_success() && is_original {
                *original = Some(body);
            }
            answer
        }
        ("POST", ["webhooks", APPLICATION, token]) => {
            if !platform.originals.lock().contains_key(*token) {
                return fault(404, 10_015, "Unknown Webhook");
            }
            platform.message("follow", token, &body, None)
        }
        ("POST", ["interactions", id, token, "callback"]) => {
            platform.originals.lock().insert((*token).to_owned(), None);
            let call = ("callback".to_owned(), (*id).to_owned(), body);
            platform.calls.lock().push(call);
            (StatusCode::NO_CONTENT, Vec::new())
        }
        _ if !has_token => fault(401, 0, "401: Unauthorized"),
        ("GET", ["applications", "@me"]) => {
            let key = platform.verify_key.lock().clone();
            reply(
                200,
                &json!({ "id": APPLICATION, "name": "Smith", "verify_key": key }),
            )
        }
        ("GET", ["gateway", "bot"]) => {
            let url = platform.gateway.lock().clone();
            reply(200, &json!({ "url": url, "shards": 1 }))
        }
        ("PUT", ["applications", APPLICATION, "commands"]) => {
            platform.commands.lock().clone_from(&body);
            reply(200, &body)
        }
        ("POST", ["users", "@me", "channels"]) => reply(
            200,
            &json!({ "id": format!("7{}", body["recipient_id"].as_str().unwrap_or_default()) }),
        ),
        ("POST", ["channels", channel, "messages"]) => {
            let nonce = body["nonce"].as_str().unwrap_or_default().to_owned();
            if nonce.is_empty() || nonce.len() > 25 || body["enforce_nonce"] != true {
                return fault(400, 50_035, "the test wants a nonce");
            }
            let known = platform.nonces.lock().get(&nonce).cloned();
            if let Some(id) = known {
                return reply(200, &json!({ "id": id }));
            }
            let id = platform.id();
            platform.nonces.lock().insert(nonce, id.clone());
            platform.message("send", channel, &body, Some(id))
        }
        ("PATCH", ["channels", _, "messages", message]) => {
            platform.message("edit", message, &body, Some((*message).to_owned()))
        }
        ("POST", ["channels", _, "typing"]) => (StatusCode::NO_CONTENT, Vec::new()),
        _ => fault(404, 0, "404: Not Found"),
    }
}

struct Bot {
    harness: Harness,
    platform: Arc<Platform>,
    speaker: Arc<Speaker>,
    address: SocketAddr,
    pair: Ed25519KeyPair,
    hook: String,
    /// Answers what was sent so far, but for edits.
    ids: AtomicU64,
}

pub(crate) fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// The application's own, which Discord signs with.
pub(crate) fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a pair")
}

/// What a person asks with the command of that name.
pub(crate) fn question(text: &str) -> Value {
    json!({ "id": "1", "name": "ask", "type": 1,
        "options": [{ "name": "message", "type": 3, "value": text }] })
}

/// The `number`th interaction, of kind `kind`, that was made so many seconds ago.
pub(crate) fn interaction(number: u64, kind: u64, user: &str, data: &Value, ago_s: u64) -> Value {
    let made_ms = (now_s() - ago_s) * 1000 - 1_420_070_400_000;
    let id = (made_ms << 22) + number;
    json!({ "type": kind, "id": id.to_string(), "token": format!("aW50ZXJhY3Rpb24_{number}-x"),
        "version": 1, "application_id": APPLICATION, "channel_id": CHANNEL, "context": 0,
        "guild_id": "290926798626357999", "locale": "en-US", "data": data,
        "member": { "nick": null, "roles": [],
            "user": { "id": user, "username": "ann", "global_name": "Ann", "discriminator": "0" } } })
}

impl Bot {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(gateway: Option<&str>) -> Self {
        let (platform, address) = Platform::start().await;
        *platform.gateway.lock() = gateway.unwrap_or_default().to_owned();
        let pair = pair();
        let key = hex::encode(pair.public_key().as_ref());
        platform.verify_key.lock().clone_from(&key);
        let (speaker, speaks_at) = Speaker::start().await;
        let harness = Harness::start_with(|config, _| {
            config.channels.discord_url = format!("http://{address}/api/v10");
            config.server.public_url = Some("https://gateway.example".to_owned());
            config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
            Speaker::add_to(config, &speaks_at);
        })
        .await;
        let hook = format!("/v1/discord/webhook/{}", harness.tenant);
        let bot = Self {
            harness,
            platform,
            speaker,
            address,
            pair,
            hook,
            ids: AtomicU64::new(0),
        };
        let body = json!({ "application_id": APPLICATION, "public_key": key.to_uppercase(),
            "bot_token": TOKEN, "gateway": gateway.is_some() });
        let made = ok(bot.put(&body).await).await;
        let shown = json!({ "configured": true, "application_id": APPLICATION, "public_key": key,
            "has_bot_token": true, "webhook_url": format!("https://gateway.example{}", bot.hook) });
        assert_eq!(made, shown);
        bot
    }

    async fn put(&self, body: &Value) -> reqwest::Result<reqwest::Response> {
        let put = self.harness.request(Method::PUT, "/v1/tenant/discord");
        put.json(body).send().await
    }

    async fn post(&self, path: &str, body: &str, at: &str, pair: &Ed25519KeyPair) -> (u16, Value) {
        let signature = pair.sign(format!("{at}{body}").as_bytes());
        let call = self.harness.client.post(self.harness.url(path));
        let call = call
            .header("X-Signature-Ed25519", hex::encode(signature.as_ref()))
            .header("X-Signature-Timestamp", at);
        let answer = call.body(body.to_owned()).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Delivers an interaction as Discord does; answers the type of the answer.
    async fn deliver(&self, interaction: &Value) -> u64 {
        let token = interaction["token"].as_str().unwrap_or_default().to_owned();
        if interaction["type"] == 2 {
            self.platform.originals.lock().entry(token).or_insert(None);
        } else {
            let card = Some(json!({}));
            self.platform.originals.lock().entry(token).or_insert(card);
        }
        let now = now_s().to_string();
        let (status, answer) = self
            .post(&self.hook, &interaction.to_string(), &now, &self.pair)
            .await;
        assert_eq!(status, 200, "{answer}");
        answer["type"].as_u64().expect("a type")
    }

    /// An interaction that was made so many seconds ago.
    fn interaction(&self, kind: u64, user: &str, data: Value, ago_s: u64) -> Value {
        let number = self.ids.fetch_add(1, Ordering::Relaxed);
        interaction(number, kind, user, &data, ago_s)
    }

    fn ask(&self, text: &str) -> Value {
        self.interaction(2, ANN, question(text), 0)
    }

    fn command(&self, name: &str) -> Value {
        self.interaction(2, ANN, json!({ "id": "1", "name": name, "type": 1 }), 0)
    }

    fn press(&self, user: &str, button: &Value) -> Value {
        let data = json!({ "component_type": 2, "custom_id": button });
        self.interaction(3, user, data, 0)
    }

    async fn deployment(&self, mut body: Value) -> Value {
        body["kind"] = json!("discord");
        ok(self.harness.post("/v1/deployments", &body).send().await).await
    }

    async fn catch_all(&self, model: &str) -> String {
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
        let made = json!({ "target": { "type": "agent", "id": agent } });
        let made = self.deployment(made).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    fn calls(&self) -> Vec<(String, String, Value)> {
        self.platform.calls.lock().clone()
    }

    /// Waits until a call is as it should be.
    async fn until(&self, found: impl Fn(&(String, String, Value)) -> bool) -> Value {
        for _ in 0..240 {
            if let Some((_, _, body)) = self.calls().into_iter().find(|call| found(call)) {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it was not called: {:?}", self.calls());
    }

    /// Waits until something is said, wherever.
    async fn says(&self, words: &str) -> Value {
        self.until(|(_, _, body)| {
            let text = body["content"].as_str();
            text.is_some_and(|text| text.contains(words) && !text.ends_with(" …"))
        })
        .await
    }

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
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_came_unheard_does_not_come_twice() {
    let bot = Bot::start().await;
    let deployment = bot.catch_all("openai-chat/text").await;
    bot.platform.answers.lock().push_back((200, Value::Null));
    assert_eq!(bot.deliver(&bot.ask("Hello?")).await, 5);
    let sent = bot.latest(&deployment, "sent").await;
    assert_eq!(sent["attempts"], 1, "{sent}");
    let hows: Vec<String> = bot.calls().into_iter().map(|(how, ..)| how).collect();
    assert_eq!(hows, ["edit"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_once_where_it_was_asked() {
    let bot = Bot::start().await;
    let commands = bot.platform.commands.lock().clone();
    let names: Vec<&str> = commands
        .as_array()
        .expect("commands")
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(names, ["ask", "new", "stop", "help", "start"]);
    let deployment = bot.catch_all("openai-chat/text").await;
    let asked = bot.ask("Hello?");
    assert_eq!(bot.deliver(&asked).await, 5);
    let delivery = bot.latest(&deployment, "sent").await;
    let original = bot.platform.originals.lock()[asked["token"].as_str().expect("a token")].clone();
    let original = original.expect("an answer");
    assert!(
        original["content"]
            .as_str()
            .is_some_and(|text| !text.ends_with(" …"))
    );
    assert!(
        bot.calls().iter().all(|(how, _, _)| how == "edit"),
        "{:?}",
        bot.calls()
    );
    assert_eq!(delivery["channel"], "discord");
    // Delivered again, it is the same.
    assert_eq!(bot.deliver(&asked).await, 5);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let runs = ok(bot.harness.get("/v1/runs").send().await).await;
    let runs = runs["data"].as_array().expect("runs");
    assert_eq!((runs.len(), &runs[0]["channel"]), (1, &json!("discord")));
    assert_eq!(runs[0]["thread_id"], format!("discord:{CHANNEL}"));
    assert_eq!(runs[0]["metadata"]["sender"]["id"], ANN);
    let smiths = bot
        .harness
        .get(&format!("/v1/smiths?external_id=discord:{ANN}"));
    let smiths = ok(smiths.send().await).await;
    assert_eq!(smiths["data"][0]["display_name"], "Ann");
    // Who has the token may answer: it is not shown.
    let events = ok(bot
        .harness
        .get("/v1/inbound_events?source=discord")
        .send()
        .await)
    .await;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(1));
    let token = asked["token"].as_str().expect("a token");
    assert!(!events.to_string().contains(token));
    assert_eq!(events["data"][0]["type"], "application_command");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_old_or_foreign_is_refused() {
    let bot = Bot::start().await;
    bot.catch_all("openai-chat/text").await;
    let ping = r#"{"type":1,"id":"1","token":"x","version":1}"#;
    let now = now_s();
    let post = async |path: &str, body: &str, at: u64| {
        bot.post(path, body, &at.to_string(), &bot.pair).await
    };
    assert_eq!(
        post(&bot.hook, ping, now).await,
        (200, json!({ "type": 1 }))
    );
    let asked = bot.ask("hi").to_string();
    for at in [now - 400, now + 400] {
        let (status, error) = post(&bot.hook, &asked, at).await;
        assert_eq!(
            (status, &error["error"]["code"]),
            (401, &json!("bad_signature"))
        );
    }
    let other = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).expect("a pair");
    assert_eq!(
        bot.post(&bot.hook, &asked, &now.to_string(), &other)
            .await
            .0,
        401
    );
    let foreign = "/v1/discord/webhook/proj_111111111111111111111";
    assert_eq!(post(foreign, &asked, now).await.0, 401);
    let bare = bot
        .harness
        .client
        .post(bot.harness.url(&bot.hook))
        .body(asked.clone());
    assert_eq!(bare.send().await.expect("an answer").status(), 401);
    assert_eq!(post(&bot.hook, "{", now).await.0, 400);
    assert_eq!(post(&bot.hook, r#"{"type":99}"#, now).await.0, 400);
    let events = ok(bot.harness.get("/v1/inbound_events").send().await).await;
    assert_eq!(events["data"], json!([]));
    // Completion of what is typed, and forms, are not offered.
    assert_eq!(
        post(&bot.hook, r#"{"type":4,"id":"1"}"#, now).await.1["type"],
        8
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_set_read_and_forgotten() {
    let bot = Bot::start().await;
    let key = bot.platform.verify_key.lock().clone();
    let whole = json!({ "application_id": APPLICATION, "public_key": key, "bot_token": TOKEN });
    for name in ["application_id", "public_key", "bot_token"] {
        let mut body = whole.clone();
        body[name] = Value::Null;
        let (status, error) = refused(bot.put(&body).await).await;
        assert_eq!((status, &error["code"]), (422, &json!("empty_config")));
        assert_eq!(error["param"], name);
    }
    for (name, value) in [
        ("application_id", "../1"),
        ("application_id", "123"),
        ("public_key", "ab"),
        ("public_key", &"ab".repeat(32)),
        ("bot_token", "a b"),
    ] {
        let mut body = whole.clone();
        body[name] = json!(value);
        let (status, error) = refused(bot.put(&body).await).await;
        assert_eq!((status, &error["param"]), (400, &json!(name)), "{value}");
    }
    let mut wrong = whole.clone();
    wrong["bot_token"] = json!("stale");
    let (status, error) = refused(bot.put(&wrong).await).await;
    assert_eq!((status, &error["code"]), (400, &json!("discord_api_error")));
    let gone = bot.harness.request(Method::DELETE, "/v1/tenant/discord");
    assert_eq!(gone.send().await.expect("an answer").status(), 204);
    assert_eq!(*bot.platform.commands.lock(), json!([]));
    let read = ok(bot.harness.get("/v1/tenant/discord").send().await).await;
    assert_eq!(read, json!({ "configured": false }));
    let smith = bot.harness.smith("openai-chat/text").await;
    let made = json!({ "kind": "discord", "target": { "type": "smith", "id": smith } });
    let (status, error) = refused(bot.harness.post("/v1/deployments", &made).send().await).await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("discord_unconfigured"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_binds_a_channel_to_a_smith() {
    let bot = Bot::start().await;
    let smith = bot.harness.smith("openai-chat/text").await;
    let made =
        json!({ "target": { "type": "smith", "id": smith }, "setup": { "mode": "start_token" } });
    let made = bot.deployment(made).await;
    let token = made["start_token"].as_str().expect("a token");
    assert_eq!(made["prefilled_message"], format!("/start token:{token}"));
    assert!(
        made["install_url"]
            .as_str()
            .is_some_and(|url| url.contains(APPLICATION))
    );
    // Nobody waits for what does not come.
    bot.deliver(&bot.ask("hi")).await;
    bot.says("Nobody answers here yet").await;
    let start = |token: &str| {
        let data = json!({ "id": "1", "name": "start", "type": 1,
            "options": [{ "name": "token", "type": 3, "value": token }] });
        bot.interaction(2, ANN, data, 0)
    };
    bot.deliver(&start("wrong")).await;
    bot.says("connects nothing").await;
    bot.deliver(&start(token)).await;
    bot.says("connected").await;
    bot.deliver(&bot.ask("What now?")).await;
    let path = format!("/v1/runs?smith_id={smith}");
    let mut runs = Value::Null;
    for _ in 0..100 {
        runs = ok(bot.harness.get(&path).send().await).await;
        if runs["data"][0]["status"] == "completed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        runs["data"][0]["input"][0]["content"][0]["text"],
        "What now?"
    );
    bot.deliver(&bot.command("new")).await;
    bot.says("new conversation begins").await;
    bot.deliver(&bot.command("help")).await;
    bot.says("Write to me").await;
    bot.deliver(&bot.command("stop")).await;
    bot.says("nothing to stop").await;
    bot.deliver(&bot.command("unknown")).await;
    bot.says("do not know that command").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_a_button_for_who_asked() {
    let bot = Bot::start().await;
    let workshop = Workshop::start().await;
    bot.harness.put_workshop(&workshop).await;
    bot.catch_all("openai-chat/script").await;
    bot.deliver(&bot.ask("melt {\"thing\": \"a\"}")).await;
    let card = bot.says("May I use **melt**?").await;
    assert!(
        card["content"]
            .as_str()
            .is_some_and(|text| text.contains("```json\n")),
        "{card}"
    );
    let yes = &card["components"][0]["components"][0]["custom_id"];
    // Somebody else's press does nothing, and they alone see that.
    assert_eq!(bot.deliver(&bot.press("80351110224678912", yes)).await, 6);
    let told = bot.says("Only the person who asked").await;
    assert_eq!(told["flags"], 64);
    assert!(workshop.ledger().is_empty());
    assert_eq!(bot.deliver(&bot.press(ANN, yes)).await, 6);
    let settled = bot.says("Approved: melt").await;
    assert_eq!(settled["components"], json!([]));
    bot.says("a is molten").await;
    assert_eq!(workshop.ledger().len(), 1);
    let follows = bot
        .calls()
        .into_iter()
        .filter(|(how, _, _)| how == "follow");
    assert_eq!(
        follows.count(),
        2,
        "the card was the answer, and what was said follows it"
    );
    bot.deliver(&bot.press(ANN, yes)).await;
    bot.says("already").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_comes_in_pieces_with_its_code() {
    let bot = Bot::start().await;
    let deployment = bot.catch_all("speaker/words").await;
    let code: String = (0..200).map(|n| format!("let line_{n} = {n};\n")).collect();
    let words = "A **bold** sentence with a [link](https://example.com/a_b). ".repeat(30);
    bot.speaker
        .says(&["# Title\n\n", &words, "\n\n```rust\n", &code, "```\n"]);
    let asked = bot.ask("Tell me");
    bot.deliver(&asked).await;
    bot.latest(&deployment, "sent").await;
    let original = bot.platform.originals.lock()[asked["token"].as_str().expect("a token")].clone();
    let mut all = vec![
        original.expect("an answer")["content"]
            .as_str()
            .expect("a text")
            .to_owned(),
    ];
    let follows = bot
        .calls()
        .into_iter()
        .filter(|(how, _, _)| how == "follow");
    all.extend(follows.map(|(_, _, body)| body["content"].as_str().expect("a text").to_owned()));
    assert!(
        all[0].starts_with(
            "**Title**\n\nA **bold** sentence with a [link](<https://example.com/a_b>)."
        )
    );
    assert!(all.len() >= 3 && all.iter().all(|text| text.matches("```").count() % 2 == 0));
    let all = all.concat();
    assert!(all.contains("```rust\nlet line_0 = 0;") && all.contains("let line_199 = 199;"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_appears_while_it_is_written() {
    let bot = Bot::start().await;
    let deployment = bot.catch_all("speaker/words").await;
    bot.speaker.says(&["One. ", "Two. ", "Three. ", "Four."]);
    *bot.speaker.pause.lock() = Duration::from_millis(600);
    bot.deliver(&bot.ask("Count")).await;
    let first = bot.until(|(how, _, _)| how == "edit").await;
    let first = first["content"].as_str().unwrap_or_default();
    assert!(
        first.starts_with("One.") && first.ends_with(" …"),
        "{first}"
    );
    bot.latest(&deployment, "sent").await;
    let calls = bot.calls();
    let last = &calls.last().expect("calls").2["content"];
    assert_eq!(last, "One. Two. Three. Four.");
    assert!(
        calls.len() <= 4 && calls.iter().all(|(how, _, _)| how == "edit"),
        "{calls:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_an_answer_waits_for_it_no_more() {
    let bot = Bot::start().await;
    bot.catch_all("speaker/words").await;
    bot.speaker.says(&["Late."]);
    *bot.speaker.pause.lock() = Duration::from_millis(1200);
    let asked = bot.ask("Count");
    bot.deliver(&asked).await;
    for _ in 0..100 {
        let runs = ok(bot.harness.get("/v1/runs").send().await).await;
        if runs["data"][0]["status"] == "running" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bot.deliver(&bot.command("stop")).await;
    bot.says("Stopped.").await;
    for _ in 0..100 {
        let token = asked["token"].as_str().expect("a token");
        if bot.platform.originals.lock()[token].is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the question is awaited: {:?}", bot.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_token_is_left_for_the_channel_and_limits_are_waited_out() {
    let bot = Bot::start().await;
    let deployment = bot.catch_all("openai-chat/text").await;
    let data = bot.ask("Hello?")["data"].clone();
    let old = bot.interaction(2, ANN, data, 15 * 60);
    // What broke may be there: under its nonce it is sent again, and shown once.
    bot.platform.answers.lock().push_back((502, json!("?")));
    bot.deliver(&old).await;
    bot.latest(&deployment, "sent").await;
    let calls = bot.calls();
    let sent: Vec<_> = calls
        .iter()
        .filter(|(how, place, _)| how == "send" && place == CHANNEL)
        .collect();
    assert_eq!(sent.len(), 1, "{calls:?}");
    let limited =
        json!({ "message": "You are being rate limited.", "retry_after": 0.3, "global": false });
    bot.platform.answers.lock().push_back((429, limited));
    let asked = bot.ask("Again");
    bot.deliver(&asked).await;
    bot.latest(&deployment, "sent").await;
    for _ in 0..100 {
        let token = asked["token"].as_str().expect("a token");
        if bot.platform.originals.lock()[token].is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("what was put off was not sent: {:?}", bot.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_seen_by_the_model() {
    let bot = Bot::start().await;
    let deployment = bot.catch_all("openai-chat/text").await;
    // The smallest PNG there is.
    *bot.platform.file.lock() = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01".to_vec();
    let ask = |query: &str| {
        let mut asked = bot.ask("What is this?");
        let options = asked["data"]["options"].as_array_mut().expect("options");
        options.push(json!({ "name": "file", "type": 11, "value": "2" }));
        let url = format!("http://{}/attachments/1/2/pixel.png?{query}", bot.address);
        asked["data"]["resolved"] = json!({ "attachments": { "2": { "id": "2", "url": url,
            "filename": "pixel.png", "size": 24, "content_type": "image/png", "ephemeral": true } } });
        asked
    };
    bot.deliver(&ask("ex=1&is=2&hm=3")).await;
    bot.latest(&deployment, "sent").await;
    let asked = bot.harness.mock.last().body.to_string();
    assert!(
        asked.contains("data:image/png;base64,") && asked.contains("What is this?"),
        "{asked}"
    );
    bot.deliver(&ask("old")).await;
    for _ in 0..100 {
        if bot
            .harness
            .mock
            .last()
            .body
            .to_string()
            .contains("is no longer there")
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("what is gone is not told");
}

/// Discord's Gateway, with one session that goes on over connections.
struct Gateway {
    url: String,
    /// Events to send; with an `op`, what is said instead; with `missed`, an event that is sent only
    /// when the session goes on.
    say: tokio::sync::mpsc::UnboundedSender<Value>,
    /// Who greeted, and how.
    greetings: Arc<Mutex<Vec<Value>>>,
}

impl Gateway {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("ws://{}", listener.local_addr().expect("an address"));
        let (say, told) = tokio::sync::mpsc::unbounded_channel();
        let greetings: Arc<Mutex<Vec<Value>>> = Arc::default();
        tokio::spawn(gateway(listener, url.clone(), told, greetings.clone()));
        Self {
            url,
            say,
            greetings,
        }
    }

    fn event(&self, kind: &str, data: Value) {
        self.say
            .send(json!({ "t": kind, "d": data }))
            .expect("said");
    }
}

async fn gateway(
    listener: tokio::net::TcpListener,
    url: String,
    mut told: tokio::sync::mpsc::UnboundedReceiver<Value>,
    greetings: Arc<Mutex<Vec<Value>>>,
) {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    let mut log: Vec<Value> = Vec::new();
    let ready = json!({ "v": 10, "session_id": "session-1", "resume_gateway_url": url,
        "user": { "id": BOT, "bot": true } });
    'connections: loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut socket = tokio_tungstenite::accept_async(stream)
            .await
            .expect("a handshake");
        let hello = json!({ "op": 10, "d": { "heartbeat_interval": 1000 } });
        socket
            .send(Message::text(hello.to_string()))
            .await
            .expect("sent");
        let mut is_greeted = false;
        loop {
            let outgoing = tokio::select! {
                said = socket.next() => {
                    let Some(Ok(Message::Text(text))) = said else {
                        continue 'connections;
                    };
                    let said: Value = serde_json::from_str(text.as_str()).expect("JSON");
                    match said["op"].as_u64() {
                        Some(1) => vec![json!({ "op": 11 })],
                        Some(2) => {
                            is_greeted = true;
                            greetings.lock().push(said);
                            log = vec![json!({ "op": 0, "s": 1, "t": "READY", "d": ready })];
                            log.clone()
                        }
                        Some(6) => {
                            is_greeted = true;
                            let seq = said["d"]["seq"].as_u64().expect("a number");
                            greetings.lock().push(said);
                            let mut missed = log[seq as usize..].to_vec();
                            missed.push(json!({ "op": 0, "s": log.len(), "t": "RESUMED", "d": {} }));
                            missed
                        }
                        _ => panic!("Discord knows no {said}"),
                    }
                }
                event = told.recv(), if is_greeted => {
                    let Some(event) = event else { return };
                    if event["op"].is_number() {
                        vec![event]
                    } else {
                        let is_missed = event["missed"].is_object();
                        let of = if is_missed { &event["missed"] } else { &event };
                        let event = json!({ "op": 0, "s": log.len() + 1, "t": of["t"], "d": of["d"] });
                        log.push(event.clone());
                        if is_missed { Vec::new() } else { vec![event] }
                    }
                }
            };
            for said in outgoing {
                socket
                    .send(Message::text(said.to_string()))
                    .await
                    .expect("sent");
            }
        }
    }
}

fn message(id: &str, more: Value) -> Value {
    let mut message = json!({ "id": id, "channel_id": CHANNEL, "type": 0, "content": "Hello?",
        "mentions": [], "attachments": [], "edited_timestamp": null,
        "author": { "id": ANN, "username": "ann", "global_name": "Ann" } });
    for (name, value) in more.as_object().expect("members") {
        message[name] = value.clone();
    }
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_heard_over_the_gateway() {
    let gateway = Gateway::start().await;
    let bot = Bot::start_with(Some(&gateway.url)).await;
    bot.catch_all("openai-chat/text").await;
    let guild = "290926798626357999";
    // What others say to each other is nobody's business.
    gateway.event("MESSAGE_CREATE", message("1", json!({ "guild_id": guild })));
    let another = json!({ "author": { "id": BOT, "bot": true } });
    gateway.event("MESSAGE_CREATE", message("2", another));
    gateway.event(
        "MESSAGE_CREATE",
        message("3", json!({ "channel_id": "77" })),
    );
    bot.until(|(how, place, _)| how == "send" && place == "77")
        .await;
    let greeting = gateway.greetings.lock()[0].clone();
    assert_eq!(
        (&greeting["op"], &greeting["d"]["token"]),
        (&json!(2), &json!(TOKEN))
    );
    assert_eq!(greeting["d"]["intents"], 4608);
    let mention = json!({ "guild_id": guild, "content": format!("<@{BOT}> And here?"),
        "mentions": [{ "id": BOT }] });
    gateway.event("MESSAGE_CREATE", message("4", mention));
    let reply = bot
        .until(|(how, place, _)| how == "send" && place == CHANNEL)
        .await;
    assert_eq!(reply["message_reference"]["message_id"], "4");
    // Another connection goes on where this one ended: nothing is lost, nothing comes twice.
    let missed = json!({ "t": "MESSAGE_CREATE", "d": message("5", json!({ "channel_id": "78" })) });
    gateway.say.send(json!({ "missed": missed })).expect("said");
    gateway
        .say
        .send(json!({ "op": 7, "d": null }))
        .expect("said");
    bot.until(|(how, place, _)| how == "send" && place == "78")
        .await;
    let greeting = gateway
        .greetings
        .lock()
        .last()
        .cloned()
        .expect("a greeting");
    assert_eq!(
        (&greeting["op"], &greeting["d"]["session_id"]),
        (&json!(6), &json!("session-1"))
    );
    // Where no endpoint is set, interactions come here, too.
    let asked = bot.ask("Hello?");
    gateway.event("INTERACTION_CREATE", asked.clone());
    let answered = bot.until(|(how, _, _)| how == "callback").await;
    assert_eq!(answered, json!({ "type": 5 }));
    bot.until(|(how, place, _)| how == "edit" && place == "@original")
        .await;
    let events = ok(bot
        .harness
        .get("/v1/inbound_events?source=discord")
        .send()
        .await)
    .await;
    let events = events["data"].as_array().expect("arrivals");
    let kinds: Vec<&str> = events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    assert_eq!(
        kinds,
        ["application_command", "message", "message", "message"]
    );
    // Beats go on.
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(gateway.greetings.lock().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_tools_make_are_attached() {
    let bot = Bot::start().await;
    let workshop = Workshop::start().await;
    bot.harness.put_workshop(&workshop).await;
    let deployment = bot.catch_all("openai-chat/script").await;
    bot.deliver(&bot.ask("paint {\"thing\": \"wall\"}")).await;
    let attached = |name: &'static str| {
        bot.until(move |(how, _, body)| how == "follow" && body["files"][0]["name"] == name)
    };
    let picture = attached("image-1.png").await;
    assert_eq!(
        picture["files"],
        json!([{ "name": "image-1.png", "type": "image/png", "size": PICTURE_SIZE }])
    );
    let report = attached("wall.pdf").await;
    assert_eq!(
        report["files"],
        json!([{ "name": "wall.pdf", "type": "application/pdf", "size": REPORT.len() }])
    );
    assert_eq!(bot.latest(&deployment, "sent").await["status"], "sent");
    assert_eq!(bot.says("Results:").await["content"], "Results:");
}
