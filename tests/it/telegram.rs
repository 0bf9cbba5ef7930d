//! Telegram, against a Bot API of the test's own that is as strict as theirs.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Harness, PICTURE_SIZE, REPORT, ok, refused, uploaded};
use crate::tools::Workshop;

pub(crate) const TOKEN: &str = "123:abc-DEF";
pub(crate) const SECRET: &str = "hook-secret";

#[derive(Default)]
struct Platform {
    /// Method and body of each call, but for polls.
    calls: Mutex<Vec<(String, Value)>>,
    /// Answers of sendMessage, in turn; then the ordinary one.
    answers: Mutex<VecDeque<(u16, Value)>>,
    /// Whether this Bot API knows drafts.
    has_drafts: AtomicBool,
    /// What is given to the next poll.
    updates: Mutex<Vec<Value>>,
    file: Mutex<Vec<u8>>,
    /// Answers of methods that take files, in turn; then the ordinary one.
    file_answers: Mutex<VecDeque<(u16, Value)>>,
}

/// The platform, and what it was asked for.
pub(crate) struct BotApi {
    pub(crate) address: SocketAddr,
    platform: Arc<Platform>,
}

async fn answer(
    State(platform): State<Arc<Platform>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    let path = uri.path().to_owned();
    if path.starts_with(&format!("/file/bot{TOKEN}/")) {
        return (StatusCode::OK, platform.file.lock().clone());
    }
    let reply = |status: u16, value: Value| {
        let status = StatusCode::from_u16(status).expect("a status");
        (status, value.to_string().into_bytes())
    };
    let fault = |status: u16, why: &str| {
        reply(
            status,
            json!({ "ok": false, "error_code": status, "description": why }),
        )
    };
    let Some(method) = path.strip_prefix(&format!("/bot{TOKEN}/")) else {
        return fault(401, "Unauthorized");
    };
    // A file is told of by what it is; other fields are text.
    let body: Value = match uploaded(&headers, &body).await {
        Some(form) => form
            .iter()
            .map(|field| match field.file {
                Some(_) => (field.name.clone(), field.told()),
                None => (field.name.clone(), json!(field.text())),
            })
            .collect(),
        None => serde_json::from_slice(&body).unwrap_or_default(),
    };
    if method == "getUpdates" {
        let offset = body["offset"].as_i64().unwrap_or(0);
        platform
            .updates
            .lock()
            .retain(|update| update["update_id"].as_i64() >= Some(offset));
        let given = platform.updates.lock().clone();
        if given.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        return reply(200, json!({ "ok": true, "result": given }));
    }
    let count = {
        let mut calls = platform.calls.lock();
        calls.push((method.to_owned(), body.clone()));
        calls.len()
    };
    let result = match method {
        "getMe" => json!({ "id": 777, "is_bot": true, "username": "smith_bot" }),
        "sendMessage" => {
            if let Some((status, value)) = platform.answers.lock().pop_front() {
                return reply(status, value);
            }
            let text = body["text"].as_str().unwrap_or_default();
            if text.is_empty() {
                return fault(400, "Bad Request: message text is empty");
            }
            if text.encode_utf16().count() > 4096 {
                return fault(400, "Bad Request: message is too long");
            }
            json!({ "message_id": 1000 + count, "chat": { "id": body["chat_id"] } })
        }
        "sendPhoto" | "sendDocument" => {
            if let Some((status, value)) = platform.file_answers.lock().pop_front() {
                return reply(status, value);
            }
            let field = method.trim_start_matches("send").to_lowercase();
            if !body[&field]["name"].is_string() || !body["chat_id"].is_string() {
                return fault(400, "Bad Request: there is no file in the request");
            }
            let count = platform.calls.lock().len();
            json!({ "message_id": 1000 + count, "chat": { "id": body["chat_id"] } })
        }
        "getFile" => json!({ "file_id": body["file_id"], "file_path": "photos/file_1.jpg" }),
        "sendMessageDraft" if platform.has_drafts.load(Ordering::SeqCst) => json!(true),
        "setWebhook"
        | "deleteWebhook"
        | "sendChatAction"
        | "answerCallbackQuery"
        | "editMessageText" => json!(true),
        _ => return fault(404, "Not Found: method not found"),
    };
    reply(200, json!({ "ok": true, "result": result }))
}

impl BotApi {
    pub(crate) async fn start() -> Self {
        let platform = Arc::new(Platform::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().fallback(answer).with_state(platform.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, platform }
    }

    fn calls(&self, method: &str) -> Vec<Value> {
        let calls = self.platform.calls.lock();
        let found = calls.iter().filter(|(name, _)| name == method);
        found.map(|(_, body)| body.clone()).collect()
    }

    /// Waits until a method was called so often.
    async fn wait(&self, method: &str, count: usize) -> Vec<Value> {
        for _ in 0..200 {
            let calls = self.calls(method);
            if calls.len() >= count {
                return calls;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "{method} was called {} of {count} times",
            self.calls(method).len()
        );
    }
}

struct Bot {
    harness: Harness,
    api: BotApi,
    hook: String,
}

impl Bot {
    async fn start(public_url: Option<&str>) -> Self {
        let api = BotApi::start().await;
        let (address, public_url) = (api.address, public_url.map(str::to_owned));
        let harness = Harness::start_with(|config, _| {
            config.channels.telegram_url = format!("http://{address}");
            config.server.public_url = public_url;
            config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
        })
        .await;
        let hook = harness.url(&format!("/v1/telegram/webhook/{}", harness.tenant));
        let put = harness.request(Method::PUT, "/v1/tenant/telegram");
        let body = json!({ "bot_token": TOKEN, "webhook_secret": SECRET });
        let made = ok(put.json(&body).send().await).await;
        assert_eq!(
            (&made["bot_username"], &made["bot_id"]),
            (&json!("smith_bot"), &json!(777))
        );
        assert!(made.get("bot_token").is_none());
        Self { harness, api, hook }
    }

    async fn hooked() -> Self {
        Self::start(Some("https://gateway.example")).await
    }

    /// Delivers an update as Telegram does; answers the status.
    async fn deliver(&self, update: &Value) -> u16 {
        self.deliver_with(update, SECRET).await
    }

    async fn deliver_with(&self, update: &Value, secret: &str) -> u16 {
        let call = self.harness.client.post(&self.hook).json(update);
        let call = call.header("X-Telegram-Bot-Api-Secret-Token", secret);
        call.send().await.expect("an answer").status().as_u16()
    }

    async fn deployment(&self, body: Value) -> Value {
        ok(self.harness.post("/v1/deployments", &body).send().await).await
    }

    async fn catch_all(&self, model: &str) -> String {
        let harness = &self.harness;
        let agent = ok(harness
            .post("/v1/agents", &json!({ "name": "A" }))
            .send()
            .await)
        .await;
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
        let made = self
            .deployment(json!({ "kind": "telegram", "target": { "type": "agent", "id": agent } }))
            .await;
        made["id"].as_str().expect("an id").to_owned()
    }
}

pub(crate) fn message(update: i64, user: i64, text: &str) -> Value {
    json!({ "update_id": update, "message": { "message_id": update, "date": 1,
        "chat": { "id": user, "type": "private" }, "text": text,
        "from": { "id": user, "is_bot": false, "first_name": "Ann" } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_answered_once_by_a_smith_of_its_sender() {
    let bot = Bot::hooked().await;
    let hooks = bot.api.calls("setWebhook");
    let url = format!(
        "https://gateway.example/v1/telegram/webhook/{}",
        bot.harness.tenant
    );
    assert_eq!(
        (&hooks[0]["url"], &hooks[0]["secret_token"]),
        (&json!(url), &json!(SECRET))
    );
    let deployment = bot.catch_all("openai-chat/text").await;
    let update = message(1, 42, "Hello?");
    assert_eq!(bot.deliver(&update).await, 200);
    let sent = bot.api.wait("sendMessage", 1).await;
    assert_eq!(sent[0]["chat_id"], 42);
    assert!(
        sent[0]["text"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
    // Delivered again, it is the same.
    assert_eq!(bot.deliver(&update).await, 200);
    assert_eq!(bot.deliver(&message(2, 42, "And?")).await, 200);
    bot.api.wait("sendMessage", 2).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(bot.api.calls("sendMessage").len(), 2);
    let smiths = ok(bot
        .harness
        .get("/v1/smiths?external_id=telegram:42")
        .send()
        .await)
    .await;
    let smiths = smiths["data"].as_array().expect("smiths");
    assert_eq!(
        (smiths.len(), &smiths[0]["display_name"]),
        (1, &json!("Ann"))
    );
    let runs = ok(bot.harness.get("/v1/runs").send().await).await;
    let runs = runs["data"].as_array().expect("runs");
    assert_eq!(runs.len(), 2);
    assert!(
        runs.iter()
            .all(|run| run["thread_id"] == "telegram:42" && run["channel"] == "telegram")
    );
    assert_eq!(runs[0]["metadata"]["sender"]["id"], "42");
    assert_eq!(runs[0]["metadata"]["sender"]["verified"], true);
    let asked = bot.harness.mock.last().body;
    assert!(
        asked
            .to_string()
            .contains("Who sent it, as the channel says"),
        "{asked}"
    );
    let path = format!("/v1/deployments/{deployment}/deliveries");
    let deliveries = ok(bot.harness.get(&path).send().await).await;
    assert_eq!(deliveries["data"].as_array().map(Vec::len), Some(2));
    assert!(
        deliveries["data"]
            .as_array()
            .expect("all")
            .iter()
            .all(|one| one["status"] == "sent")
    );
    let events = ok(bot
        .harness
        .get("/v1/inbound_events?source=telegram")
        .send()
        .await)
    .await;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(events["data"][0]["data"]["message"]["text"], "And?");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_or_foreign_is_refused() {
    let bot = Bot::hooked().await;
    bot.catch_all("openai-chat/text").await;
    assert_eq!(bot.deliver_with(&message(1, 42, "hi"), "wrong").await, 403);
    assert_eq!(bot.deliver_with(&message(1, 42, "hi"), "").await, 403);
    // Another tenant's path is nobody's: taken, and nothing comes of it.
    let foreign = bot
        .harness
        .url("/v1/telegram/webhook/proj_111111111111111111111");
    let call = bot.harness.client.post(foreign).json(&message(1, 42, "hi"));
    assert_eq!(call.send().await.expect("an answer").status(), 200);
    let broken = bot.harness.client.post(&bot.hook).body("{");
    let broken = broken.header("X-Telegram-Bot-Api-Secret-Token", SECRET);
    assert_eq!(broken.send().await.expect("an answer").status(), 400);
    let events = ok(bot.harness.get("/v1/inbound_events").send().await).await;
    assert_eq!(events["data"], json!([]));
    let smith = bot.harness.smith("openai-chat/text").await;
    let token = bot.harness.smith_token(&smith, &["deployments:read"]).await;
    let call = bot
        .harness
        .client
        .get(bot.harness.url("/v1/tenant/telegram"));
    let (status, _) = refused(call.bearer_auth(token).send().await).await;
    assert_eq!(status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_binds_a_conversation_to_a_smith() {
    let bot = Bot::hooked().await;
    let smith = bot.harness.smith("openai-chat/text").await;
    let made = bot
        .deployment(
            json!({ "kind": "telegram", "target": { "type": "smith", "id": smith },
            "setup": { "mode": "start_token" } }),
        )
        .await;
    let token = made["start_token"].as_str().expect("a token");
    assert_eq!(
        made["deep_link"],
        format!("https://t.me/smith_bot?start={token}")
    );
    // Nobody is bound yet.
    bot.deliver(&message(1, 42, "hi")).await;
    for _ in 0..100 {
        let events = ok(bot
            .harness
            .get("/v1/events?type=unbound_message")
            .send()
            .await)
        .await;
        if events["data"].as_array().is_some_and(|all| all.len() == 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(bot.api.calls("sendMessage").is_empty());
    bot.deliver(&message(2, 42, &format!("/start {token}")))
        .await;
    let sent = bot.api.wait("sendMessage", 1).await;
    assert!(
        sent[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("connected"))
    );
    bot.deliver(&message(3, 42, "What now?")).await;
    bot.api.wait("sendMessage", 2).await;
    let path = format!("/v1/runs?smith_id={smith}");
    let runs = ok(bot.harness.get(&path).send().await).await;
    assert_eq!(
        runs["data"][0]["input"][0]["content"][0]["text"],
        "What now?"
    );
    // A fresh thread.
    bot.deliver(&message(4, 42, "/new")).await;
    bot.api.wait("sendMessage", 3).await;
    bot.deliver(&message(5, 42, "Again")).await;
    bot.api.wait("sendMessage", 4).await;
    let runs = ok(bot.harness.get(&path).send().await).await;
    assert_ne!(runs["data"][0]["thread_id"], runs["data"][1]["thread_id"]);
    let bound = ok(bot
        .harness
        .get("/v1/events?type=deployment.bound")
        .send()
        .await)
    .await;
    assert_eq!(bound["data"][0]["data"]["deployment_id"], made["id"]);
    // What is deleted answers no more.
    let id = made["id"].as_str().expect("an id");
    let gone = bot
        .harness
        .request(Method::DELETE, &format!("/v1/deployments/{id}"))
        .send()
        .await;
    assert_eq!(gone.expect("an answer").status(), 204);
    bot.deliver(&message(6, 42, "Still there?")).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(bot.api.calls("sendMessage").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn telegrams_no_is_waited_out_and_what_is_unknown_is_said() {
    let bot = Bot::hooked().await;
    let deployment = bot.catch_all("openai-chat/text").await;
    let path = format!("/v1/deployments/{deployment}/deliveries");
    let busy = json!({ "ok": false, "error_code": 429, "description": "Too Many Requests",
        "parameters": { "retry_after": 1 } });
    bot.api.platform.answers.lock().push_back((429, busy));
    bot.deliver(&message(1, 42, "hi")).await;
    bot.api.wait("sendMessage", 2).await;
    // An answer that is none: the message may be there, and is not sent again.
    bot.api.platform.answers.lock().push_back((200, json!("?")));
    bot.deliver(&message(2, 42, "hi")).await;
    let mut first = Value::Null;
    for _ in 0..100 {
        first = ok(bot.harness.get(&path).send().await).await["data"][0].clone();
        if first["status"] == "unknown" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(first["status"], "unknown", "{first}");
    let events = ok(bot
        .harness
        .get("/v1/events?type=telegram.send_failed")
        .send()
        .await)
    .await;
    assert_eq!(events["data"][0]["data"]["message_id"], first["id"]);
    // Its owner may have it sent again.
    let id = first["id"].as_str().expect("an id");
    let again = bot
        .harness
        .post(&format!("{path}/{id}/redeliver"), &json!({}))
        .send()
        .await;
    assert_eq!(again.expect("an answer").status(), 202);
    bot.api.wait("sendMessage", 4).await;
    // Who has blocked the bot is not written to again.
    let blocked =
        json!({ "ok": false, "error_code": 403, "description": "Forbidden: bot was blocked" });
    bot.api.platform.answers.lock().push_back((403, blocked));
    bot.deliver(&message(3, 42, "hi")).await;
    bot.api.wait("sendMessage", 5).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(bot.api.calls("sendMessage").len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_written_is_not_shown_above_what_waits_to_be_sent() {
    let bot = Bot::hooked().await;
    bot.catch_all("openai-chat/fault-slower").await;
    let busy = json!({ "ok": false, "error_code": 429, "description": "Too Many Requests",
        "parameters": { "retry_after": 2 } });
    bot.api.platform.answers.lock().push_back((429, busy));
    bot.deliver(&message(1, 42, "/help")).await;
    bot.api.wait("sendMessage", 1).await;
    bot.deliver(&message(2, 42, "hi")).await;
    let sent = bot.api.wait("sendMessage", 3).await;
    assert_eq!(sent[0]["text"], sent[1]["text"], "{sent:?}");
    assert_ne!(sent[1]["text"], sent[2]["text"], "{sent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_public_address_telegram_is_asked() {
    let bot = Bot::start(None).await;
    assert_eq!(bot.api.calls("deleteWebhook").len(), 1);
    assert!(bot.api.calls("setWebhook").is_empty());
    bot.catch_all("openai-chat/text").await;
    bot.api.platform.updates.lock().push(message(10, 7, "hi"));
    let sent = bot.api.wait("sendMessage", 1).await;
    assert_eq!(sent[0]["chat_id"], 7);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(
        bot.api.platform.updates.lock().is_empty(),
        "what is kept is not told"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_is_seen_by_the_model() {
    let bot = Bot::hooked().await;
    bot.catch_all("openai-chat/text").await;
    // The smallest PNG there is.
    *bot.api.platform.file.lock() = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01".to_vec();
    let mut update = message(1, 42, "");
    update["message"]["caption"] = json!("What is this?");
    update["message"]["photo"] = json!([{ "file_id": "small", "file_unique_id": "s" }, { "file_id": "large", "file_unique_id": "l" }]);
    update["message"]
        .as_object_mut()
        .expect("an object")
        .shift_remove("text");
    bot.deliver(&update).await;
    bot.api.wait("sendMessage", 1).await;
    assert_eq!(bot.api.calls("getFile")[0]["file_id"], "large");
    let asked = bot.harness.mock.last().body.to_string();
    assert!(
        asked.contains("data:image/png;base64,") && asked.contains("What is this?"),
        "{asked}"
    );
}

fn press(update: i64, user: i64, data: &Value) -> Value {
    json!({ "update_id": update, "callback_query": { "id": update.to_string(), "data": data,
        "from": { "id": user, "is_bot": false, "first_name": "Ann" },
        "message": { "message_id": 1001, "chat": { "id": 42, "type": "private" } } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_a_button_for_who_asked() {
    let bot = Bot::hooked().await;
    let workshop = Workshop::start().await;
    bot.harness.put_workshop(&workshop).await;
    bot.catch_all("openai-chat/script").await;
    bot.deliver(&message(1, 42, "melt {\"thing\": \"a\"}"))
        .await;
    let asked = bot.api.wait("sendMessage", 1).await.remove(0);
    let buttons = &asked["reply_markup"]["inline_keyboard"][0];
    assert!(
        asked["text"]
            .as_str()
            .is_some_and(|text| text.contains("<b>melt</b>")),
        "{asked}"
    );
    assert_eq!(buttons.as_array().map(Vec::len), Some(2));
    // Somebody else's press does nothing.
    let yes = &buttons[0]["callback_data"];
    bot.deliver(&press(2, 99, yes)).await;
    let answers = bot.api.wait("answerCallbackQuery", 1).await;
    assert_eq!(answers[0]["show_alert"], true);
    assert!(workshop.ledger().is_empty());
    bot.deliver(&press(3, 42, yes)).await;
    let sent = bot.api.wait("sendMessage", 2).await;
    assert!(
        sent[1]["text"]
            .as_str()
            .is_some_and(|text| text.contains("a is molten")),
        "{sent:?}"
    );
    assert_eq!(workshop.ledger().len(), 1);
    let edits = bot.api.wait("editMessageText", 1).await;
    assert!(
        edits[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("Approved: melt"))
    );
    // A second press says so.
    bot.deliver(&press(4, 42, yes)).await;
    let answers = bot.api.wait("answerCallbackQuery", 3).await;
    assert!(
        answers[2]["text"]
            .as_str()
            .is_some_and(|text| text.contains("already")),
        "{answers:?}"
    );
    let approvals = ok(bot.harness.get("/v1/approvals").send().await).await;
    assert_eq!(approvals["data"][0]["status"], "approved");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_may_be_changed_stopped_or_merged() {
    let bot = Bot::hooked().await;
    let smith = bot.harness.smith("openai-chat/fault-slower").await;
    let made = bot
        .deployment(
            json!({ "kind": "telegram", "target": { "type": "smith", "id": smith },
            "address": "42", "provider_metadata": { "while_running": "merge" } }),
        )
        .await;
    assert_eq!(made["address"], "42");
    bot.deliver(&message(1, 42, "first")).await;
    let path = format!("/v1/runs?smith_id={smith}");
    for _ in 0..100 {
        let runs = ok(bot.harness.get(&path).send().await).await;
        if runs["data"].as_array().is_some_and(|runs| !runs.is_empty()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bot.deliver(&message(2, 42, "second")).await;
    bot.deliver(&message(3, 42, "thrid")).await;
    let mut edit = message(4, 42, "third");
    let mut edited = edit
        .as_object_mut()
        .expect("an object")
        .shift_remove("message")
        .expect("one");
    edited["message_id"] = json!(3);
    edit["edited_message"] = edited;
    bot.deliver(&edit).await;
    bot.api.wait("sendMessage", 2).await;
    let runs = ok(bot.harness.get(&path).send().await).await;
    let runs = runs["data"].as_array().expect("runs");
    assert_eq!(runs.len(), 2, "{runs:?}");
    let input: Vec<&Value> = runs[0]["input"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| &message["content"][0]["text"])
        .collect();
    assert_eq!(input, [&json!("second"), &json!("third")]);
    let (status, error) = refused(
        bot.harness
            .post(
                "/v1/deployments",
                &json!({ "kind": "telegram", "target": { "type": "smith", "id": smith },
                "provider_metadata": { "while_running": "never" } }),
            )
            .send()
            .await,
    )
    .await;
    assert_eq!(
        (status, &error["param"]),
        (400, &json!("provider_metadata.while_running"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_shown_while_it_is_written() {
    let bot = Bot::hooked().await;
    bot.catch_all("openai-chat/fault-slower").await;
    // Without drafts a message is edited, and becomes the answer.
    bot.deliver(&message(1, 42, "Tell me")).await;
    let sent = bot.api.wait("sendMessage", 1).await.remove(0);
    let begun = sent["text"].as_str().expect("a text").to_owned();
    assert!(begun.ends_with(" …"), "{begun}");
    assert!(!bot.api.calls("sendChatAction").is_empty());
    let path = "/v1/runs?limit=1";
    let mut run = Value::Null;
    for _ in 0..200 {
        run = ok(bot.harness.get(path).send().await).await["data"][0].clone();
        if run["status"] == "completed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(run["status"], "completed", "{run}");
    let whole = "Hello, &quot;wörld&quot;\n😀";
    let is_whole = |edit: &Value| edit["text"] == json!(whole) && edit["chat_id"] == 42;
    for _ in 0..100 {
        if bot.api.calls("editMessageText").iter().any(is_whole) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let edits = bot.api.calls("editMessageText");
    assert!(edits.last().is_some_and(is_whole), "{edits:?}");
    assert_eq!(bot.api.calls("sendMessage").len(), 1);
    // With drafts, which are gone by themselves, it is sent when it is whole.
    bot.api.platform.has_drafts.store(true, Ordering::SeqCst);
    bot.deliver(&message(2, 43, "Tell me")).await;
    // The first was tried for the one before.
    let drafts = bot.api.wait("sendMessageDraft", 3).await.split_off(1);
    assert_eq!(drafts[0]["chat_id"], 43);
    assert!(drafts[1]["draft_id"].as_i64().is_some_and(|id| id != 0));
    let sent = bot.api.wait("sendMessage", 2).await;
    assert_eq!(
        (&sent[1]["chat_id"], &sent[1]["text"]),
        (&json!(43), &json!(whole))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_smith_sends_by_itself_and_asks_before_it_writes_to_others() {
    let bot = Bot::hooked().await;
    let smith = bot.harness.smith("openai-chat/script").await;
    // Nobody is bound: there is no such tool.
    let run = bot
        .harness
        .run(&smith, "telegram_send_message {\"text\": \"early\"}")
        .await;
    assert_eq!(run["status"], "completed", "{run}");
    let target = json!({ "type": "smith", "id": smith });
    let made = bot
        .deployment(
            json!({ "kind": "telegram", "target": target, "setup": { "mode": "start_token" } }),
        )
        .await;
    let token = made["start_token"].as_str().expect("a token");
    bot.deliver(&message(1, 42, &format!("/start {token}")))
        .await;
    bot.api.wait("sendMessage", 1).await;
    // What other turns may have remembered is old then.
    tokio::time::sleep(Duration::from_millis(3200)).await;
    let run = bot
        .harness
        .run(
            &smith,
            "telegram_send_message {\"text\": \"**Dinner** is ready\"}",
        )
        .await;
    assert_eq!(run["status"], "completed", "{run}");
    let sent = bot.api.wait("sendMessage", 2).await;
    assert_eq!(
        (&sent[1]["chat_id"], &sent[1]["text"]),
        (&json!(42), &json!("<b>Dinner</b> is ready"))
    );
    let script = "telegram_send_message {\"text\": \"Psst\", \"to\": \"99\"}";
    let run = bot.harness.run(&smith, script).await;
    assert_eq!(run["status"], "paused_for_approval", "{run}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(bot.api.calls("sendMessage").len(), 2);
    let path = format!(
        "/v1/smiths/{smith}/runs/{}/submit",
        run["id"].as_str().expect("an id")
    );
    let word = json!({ "kind": "approval_decision", "decision": "approve", "actor": "Ada",
        "approval_id": run["output"]["tool_calls"][0]["approval_id"] });
    ok(bot.harness.post(&path, &word).send().await).await;
    let sent = bot.api.wait("sendMessage", 3).await;
    assert_eq!(sent[2]["chat_id"], 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_tools_and_models_are_sent_and_those_that_cannot_be_are_told() {
    let bot = Bot::hooked().await;
    let workshop = Workshop::start().await;
    bot.harness.put_workshop(&workshop).await;
    let deployment = bot.catch_all("openai-chat/script").await;
    let path = format!("/v1/deployments/{deployment}/deliveries");
    let latest = async |status: &str| {
        let mut first = Value::Null;
        for _ in 0..200 {
            first = ok(bot.harness.get(&path).send().await).await["data"][0].clone();
            if first["status"] == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not {status}: {first}");
    };
    let paint = |update: i64| message(update, 42, "paint {\"thing\": \"wall\"}");
    bot.deliver(&paint(1)).await;
    let document = bot.api.wait("sendDocument", 1).await.remove(0);
    let report = json!({ "name": "wall.pdf", "type": "application/pdf", "size": REPORT.len() });
    assert_eq!(
        (&document["chat_id"], &document["document"]),
        (&json!("42"), &report)
    );
    let photo = bot.api.calls("sendPhoto").remove(0);
    let picture = json!({ "name": "image-1.png", "type": "image/png", "size": PICTURE_SIZE });
    assert_eq!(
        (&photo["chat_id"], &photo["photo"]),
        (&json!("42"), &picture)
    );
    latest("sent").await;
    assert_eq!(bot.api.calls("sendMessage").len(), 1);
    // A model's own picture stands in its words.
    bot.deliver(&message(2, 42, "sketch {\"thing\": \"a cat\"}"))
        .await;
    let photo = bot.api.wait("sendPhoto", 2).await.remove(1);
    assert_eq!(photo["photo"]["name"], "a cat.png");
    assert_eq!(bot.api.calls("sendMessage")[1]["text"], "Results:");
    latest("sent").await;
    // What is no photo is a document, and what is refused at all is told of.
    let refusal = |status: u16, why: &str| {
        let value = json!({ "ok": false, "error_code": status, "description": why });
        bot.api
            .platform
            .file_answers
            .lock()
            .push_back((status, value));
    };
    refusal(400, "Bad Request: PHOTO_INVALID_DIMENSIONS");
    refusal(413, "Request Entity Too Large");
    refusal(413, "Request Entity Too Large");
    bot.deliver(&paint(3)).await;
    let told = bot.api.wait("sendMessage", 5).await.split_off(3);
    assert_eq!(bot.api.calls("sendPhoto").len(), 3);
    assert_eq!(bot.api.calls("sendDocument").len(), 3);
    for (told, name) in told.iter().zip(["image-1.png", "wall.pdf"]) {
        assert_eq!(
            told["text"],
            format!("[The file <code>{name}</code> could not be sent here.]")
        );
    }
    latest("sent").await;
    // An answer that is none: it may be there, and is not sent again; nor is what comes after it.
    bot.api
        .platform
        .file_answers
        .lock()
        .push_back((200, json!("?")));
    bot.deliver(&paint(4)).await;
    latest("unknown").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(bot.api.calls("sendPhoto").len(), 4);
    assert_eq!(bot.api.calls("sendDocument").len(), 3);
    // What passes is waited out, and nothing that is there is sent twice.
    let busy = json!({ "ok": false, "error_code": 429, "description": "Too Many Requests",
        "parameters": { "retry_after": 1 } });
    bot.api.platform.file_answers.lock().push_back((429, busy));
    bot.deliver(&message(5, 43, "paint {\"thing\": \"door\"}"))
        .await;
    bot.api.wait("sendDocument", 4).await;
    assert_eq!(bot.api.calls("sendPhoto").len(), 6);
    let words = bot.api.calls("sendMessage").into_iter();
    assert_eq!(words.filter(|one| one["chat_id"] == 43).count(), 1);
}
