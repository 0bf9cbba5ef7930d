//! Slack: against `emulate`, and against a strict Slack of the test's own where that lacks something.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use reqwest::Method;
use serde_json::{Value, json};
use smithgate::config::{Provider, ProviderWire};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::assets::{clients, program};
use crate::slack_platform::{APP, BOT, Slack, TEAM, long_answer};
use crate::store::postgres_url;
use crate::support::{Harness, PICTURE_SIZE, REPORT, free_address, ok, refused};
use crate::tools::Workshop;

pub(crate) const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const MEMBER: &str = "U1";

pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a time").as_secs() as i64
}

pub(crate) fn signed(secret: &str, at: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("v0:{at}:{body}").as_bytes());
    format!("v0={}", hex::encode(tag.as_ref()))
}

struct App {
    harness: Harness,
    slack: Slack,
}

/// A gateway whose Slack is at `url`, with a model that writes slowly.
async fn gateway(url: String, model: Option<String>, store: Option<String>) -> Harness {
    Harness::start_with(|config, _| {
        config.store.url = store;
        config.server.public_url = Some(format!("http://{}", config.server.listen));
        config.channels.slack_url = url;
        config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
        if let Some(base_url) = model {
            config.providers.insert(
                "slow".to_owned(),
                Provider {
                    wire: ProviderWire::OpenaiChat,
                    base_url,
                    api_key: Some("k".to_owned()),
                    needs_key: true,
                    models: vec!["writer".to_owned()],
                    stream_usage: false,
                    responses: false,
                    keys_of: None,
                    auth_header: None,
                    rules: Vec::new(),
                },
            );
        }
        config.limits.idle_timeout_ms = 5_000;
    })
    .await
}

async fn catch_all(harness: &Harness, model: &str) -> String {
    let agent = ok(harness
        .post("/v1/agents", &json!({ "name": "A" }))
        .send()
        .await)
    .await;
    let agent = agent["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/agents/{agent}");
    let config = json!({ "model": model, "instructions": "Be brief." });
    let patch = harness.request(Method::PATCH, &path).json(&config);
    ok(patch.send().await).await;
    ok(harness
        .post(&format!("{path}/versions"), &json!({}))
        .send()
        .await)
    .await;
    let body = json!({ "kind": "slack", "target": { "type": "agent", "id": agent } });
    let made = ok(harness.post("/v1/deployments", &body).send().await).await;
    made["id"].as_str().expect("an id").to_owned()
}

async fn put(harness: &Harness, body: &Value) -> Value {
    let put = harness.request(Method::PUT, "/v1/tenant/slack").json(body);
    ok(put.send().await).await
}

impl App {
    async fn start() -> Self {
        Self::start_on(None).await
    }

    async fn start_on(store: Option<String>) -> Self {
        let slack = Slack::start().await;
        let base = format!("http://{}", slack.address);
        let harness = gateway(base.clone(), Some(format!("{base}/llm")), store).await;
        let body = json!({ "bot_token": BOT, "signing_secret": SECRET });
        let made = put(&harness, &body).await;
        assert_eq!(
            (&made["team_id"], &made["bot_user_id"]),
            (&json!(TEAM), &json!("UBOT"))
        );
        assert!(!made.to_string().contains(SECRET) && !made.to_string().contains(BOT));
        Self { harness, slack }
    }

    /// Delivers as Slack does; answers status and body.
    async fn post(
        &self,
        what: &str,
        kind: &str,
        body: String,
        at: i64,
        secret: &str,
    ) -> (u16, String) {
        let path = format!("/v1/slack/{what}/{}", self.harness.tenant);
        let call = self.harness.client.post(self.harness.url(&path));
        let signature = signed(secret, at, &body);
        let call = call
            .header("content-type", kind)
            .header("X-Slack-Request-Timestamp", at.to_string())
            .header("X-Slack-Signature", signature)
            .body(body);
        let answer = call.send().await.expect("an answer");
        (
            answer.status().as_u16(),
            answer.text().await.expect("a body"),
        )
    }

    async fn event(&self, id: &str, event: Value) {
        let body = envelope(id, event).to_string();
        let (status, body) = self
            .post("events", "application/json", body, now_s(), SECRET)
            .await;
        assert_eq!((status, body.as_str()), (200, r#"{"ok":true}"#));
    }

    async fn press(&self, payload: &Value) {
        let body = form(&[("payload", &payload.to_string())]);
        let kind = "application/x-www-form-urlencoded";
        let (status, body) = self
            .post("interactivity", kind, body, now_s(), SECRET)
            .await;
        assert_eq!((status, body.as_str()), (200, ""));
    }

    async fn runs(&self) -> Vec<Value> {
        let runs = ok(self.harness.get("/v1/runs").send().await).await;
        runs["data"].as_array().expect("runs").clone()
    }

    /// Waits until an event of the feed is there so often.
    async fn told(&self, kind: &str, count: usize) -> Vec<Value> {
        for _ in 0..200 {
            let path = format!("/v1/events?type={kind}");
            let events = ok(self.harness.get(&path).send().await).await;
            let events = events["data"].as_array().expect("events").clone();
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{kind} is not told {count} times");
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    form.finish()
}

pub(crate) fn envelope(id: &str, event: Value) -> Value {
    json!({ "type": "event_callback", "token": "legacy", "team_id": TEAM, "api_app_id": "A1",
        "event_id": id, "event_time": now_s(), "event": event })
}

pub(crate) fn direct(ts: &str, text: &str) -> Value {
    json!({ "type": "message", "channel": "D1", "channel_type": "im", "user": MEMBER,
        "team": TEAM, "text": text, "ts": ts })
}

fn mention(ts: &str, text: &str) -> Value {
    json!({ "type": "app_mention", "channel": "C1", "user": MEMBER, "team": TEAM,
        "text": format!("<@UBOT> {text}"), "ts": ts })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mention_is_answered_once_in_its_thread() {
    tokio::join!(a_mention(None), a_mention(Some(postgres_url().await)));
}

async fn a_mention(store: Option<String>) {
    let app = App::start_on(store).await;
    let deployment = catch_all(&app.harness, "slow/writer").await;
    app.event("Ev1", mention("17.0001", "hello & <!channel>"))
        .await;
    // The same message as another event, and the same event again.
    let mut twin = mention("17.0001", "hello");
    (twin["type"], twin["channel_type"]) = (json!("message"), json!("channel"));
    app.event("Ev2", twin).await;
    app.event("Ev1", mention("17.0001", "hello & <!channel>"))
        .await;
    let sent = app.slack.wait("chat.postMessage", 1).await;
    assert_eq!(
        (&sent[0]["channel"], &sent[0]["thread_ts"]),
        (&json!("C1"), &json!("17.0001"))
    );
    // In a thread that it takes part in no mention is needed; elsewhere there is.
    let mut reply = direct("18.0001", "and now?");
    (reply["channel"], reply["channel_type"]) = (json!("C1"), json!("channel"));
    app.event("Ev3", reply.clone()).await;
    let mut other = reply.clone();
    (other["thread_ts"], other["ts"]) = (json!("16.0001"), json!("18.0002"));
    app.event("Ev4", other).await;
    (reply["thread_ts"], reply["ts"]) = (json!("17.0001"), json!("18.0003"));
    app.event("Ev5", reply).await;
    app.slack.wait("chat.postMessage", 2).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(app.slack.calls("chat.postMessage").len(), 2);
    let runs = app.runs().await;
    assert_eq!(runs.len(), 2);
    assert!(
        runs.iter()
            .all(|run| run["thread_id"] == "slack:T1:C1:17.0001")
    );
    assert_eq!(runs[0]["metadata"]["sender"]["id"], "T1:U1");
    assert_eq!(runs[0]["metadata"]["sender"]["name"], "Ann");
    let posted = app.slack.platform.messages.lock().clone();
    let texts: Vec<&str> = posted.values().map(|posted| posted.text.as_str()).collect();
    // Nobody is called by an answer.
    assert_eq!(
        texts,
        ["You said _hello &amp; @channel_", "You said _and now?_"]
    );
    let smiths = ok(app
        .harness
        .get("/v1/smiths?external_id=slack:T1:U1")
        .send()
        .await)
    .await;
    assert_eq!(smiths["data"].as_array().map(Vec::len), Some(1));
    let path = format!("/v1/deployments/{deployment}/deliveries");
    let deliveries = ok(app.harness.get(&path).send().await).await;
    let deliveries = deliveries["data"].as_array().expect("all");
    assert!(deliveries.len() == 2 && deliveries.iter().all(|one| one["status"] == "sent"));
    let events = ok(app
        .harness
        .get("/v1/inbound_events?source=slack")
        .send()
        .await)
    .await;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(5));
    assert!(!events.to_string().contains("legacy"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forged_old_or_foreign_is_refused() {
    let app = App::start().await;
    catch_all(&app.harness, "slow/writer").await;
    let body = envelope("Ev1", direct("17.0001", "hi")).to_string();
    let json = "application/json";
    for (at, secret) in [
        (now_s(), "wrong"),
        (now_s() - 301, SECRET),
        (now_s() + 400, SECRET),
    ] {
        let (status, told) = app.post("events", json, body.clone(), at, secret).await;
        assert!(
            status == 401 && told.contains("bad_signature"),
            "{status} {told}"
        );
    }
    for what in ["interactivity", "commands"] {
        let (status, _) = app.post(what, json, body.clone(), now_s(), "wrong").await;
        assert_eq!(status, 401);
    }
    let unsigned = app
        .harness
        .url(&format!("/v1/slack/events/{}", app.harness.tenant));
    let unsigned = app
        .harness
        .client
        .post(unsigned)
        .body(body.clone())
        .send()
        .await;
    let (status, error) = refused(unsigned).await;
    assert_eq!((status, &error["code"]), (401, &json!("missing_signature")));
    // Another tenant's path is as a wrong secret: nobody is told which there are.
    let foreign = app
        .harness
        .url("/v1/slack/events/proj_111111111111111111111");
    let call = app.harness.client.post(foreign).body(body.clone());
    let at = now_s();
    let call = call
        .header("X-Slack-Request-Timestamp", at.to_string())
        .header("X-Slack-Signature", signed(SECRET, at, &body));
    let (status, error) = refused(call.send().await).await;
    assert_eq!((status, &error["code"]), (401, &json!("bad_signature")));
    let events = ok(app.harness.get("/v1/inbound_events").send().await).await;
    assert_eq!(events["data"], json!([]));
    // The handshake of the URL comes before the secret is known here.
    let handshake = json!({ "type": "url_verification", "challenge": "abc", "token": "t" });
    let path = app
        .harness
        .url(&format!("/v1/slack/events/{}", app.harness.tenant));
    let answer = app.harness.client.post(path).json(&handshake).send().await;
    assert_eq!(ok(answer).await, json!({ "challenge": "abc" }));
    // A retry that is the first to come is kept with what Slack says of it.
    let path = app
        .harness
        .url(&format!("/v1/slack/events/{}", app.harness.tenant));
    let call = app.harness.client.post(path).body(body.clone());
    let call = call
        .header("X-Slack-Request-Timestamp", at.to_string())
        .header("X-Slack-Signature", signed(SECRET, at, &body))
        .header("X-Slack-Retry-Num", "2")
        .header("X-Slack-Retry-Reason", "http_timeout");
    ok(call.send().await).await;
    let events = ok(app.harness.get("/v1/inbound_events").send().await).await;
    let retry = &events["data"][0]["data"]["retry"];
    assert_eq!(retry, &json!({ "num": 2, "reason": "http_timeout" }));
    app.slack.wait("chat.postMessage", 1).await;
    // Slack's own package signs the same.
    let at = now_s().to_string();
    let mut python = Command::new(program("TEST_PYTHON"))
        .arg(clients().join("slack_sign.py"))
        .args([
            SECRET,
            &at,
            &signed(SECRET, at.parse().expect("a time"), &body),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("started");
    let mut input = python.stdin.take().expect("a pipe");
    input.write_all(body.as_bytes()).await.expect("written");
    drop(input);
    let output = python.wait_with_output().await.expect("an end");
    assert!(output.status.success());
    let theirs = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let path = app
        .harness
        .url(&format!("/v1/slack/events/{}", app.harness.tenant));
    let call = app.harness.client.post(path).body(body);
    let call = call.header("X-Slack-Request-Timestamp", at);
    ok(call.header("X-Slack-Signature", theirs).send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_is_checked_and_never_shown() {
    let app = App::start().await;
    let call = |body: Value| {
        app.harness
            .request(Method::PUT, "/v1/tenant/slack")
            .json(&body)
            .send()
    };
    let path = "/v1/tenant/slack";
    let (status, error) = refused(call(json!({ "bot_token": "xoxb-wrong" })).await).await;
    assert_eq!(
        (status, &error["code"], &error["param"]),
        (400, &json!("slack_api_error"), &json!("bot_token"))
    );
    let (status, error) = refused(call(json!({ "return_url": "javascript:alert(1)" })).await).await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("invalid_return_url"))
    );
    let (status, error) = refused(call(json!({ "signing_secret": "" })).await).await;
    assert_eq!((status, &error["code"]), (422, &json!("empty_config")));
    let (status, error) = refused(call(json!({ "app_token": "xapp-wrong" })).await).await;
    assert_eq!((status, &error["param"]), (400, &json!("app_token")));
    // What is left out is kept.
    let made = put(
        &app.harness,
        &json!({ "client_id": "1.2", "client_secret": "cs" }),
    )
    .await;
    assert_eq!(
        (&made["oauth_ready"], &made["bot_user_id"]),
        (&json!(true), &json!("UBOT"))
    );
    let read = ok(app.harness.get(path).send().await).await;
    assert_eq!(read, made);
    assert_eq!(
        read["events_url"],
        app.harness
            .url(&format!("/v1/slack/events/{}", app.harness.tenant))
    );
    let smith = app.harness.smith("openai-chat/text").await;
    let token = app.harness.smith_token(&smith, &["deployments:read"]).await;
    let call = app
        .harness
        .client
        .get(app.harness.url(path))
        .bearer_auth(token);
    assert_eq!(refused(call.send().await).await.0, 403);
    let gone = app.harness.request(Method::DELETE, path).send().await;
    assert_eq!(gone.expect("an answer").status(), 204);
    let read = ok(app.harness.get(path).send().await).await;
    assert_eq!(
        read,
        json!({ "configured": false, "factory": { "configured": false } })
    );
}

fn button(action: &str, asked: &Value, user: &str, trigger: &str) -> Value {
    let elements = asked["blocks"][1]["elements"].as_array().expect("buttons");
    let found = elements.iter().find(|one| one["action_id"] == action);
    let value = found.expect("the button")["value"].clone();
    json!({ "type": "block_actions", "trigger_id": trigger, "user": { "id": user, "team_id": TEAM },
        "team": { "id": TEAM }, "channel": { "id": "D1" },
        "container": { "type": "message", "channel_id": "D1", "message_ts": "1800000000.000000" },
        "actions": [{ "type": "button", "action_id": action, "value": value }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_are_buttons_and_questions_are_forms() {
    let app = App::start().await;
    let workshop = Workshop::start().await;
    app.harness.put_workshop(&workshop).await;
    catch_all(&app.harness, "openai-chat/script").await;
    app.event("Ev1", direct("17.0001", "melt {\"thing\": \"a\"}"))
        .await;
    let asked = app.slack.wait("chat.postMessage", 1).await.remove(0);
    let section = asked["blocks"][0]["text"]["text"].as_str().expect("text");
    assert!(section.contains("`melt`"), "{asked}");
    // Somebody else's press does nothing.
    app.press(&button("smith_approve", &asked, "U9", "1.1"))
        .await;
    let told = app.slack.wait("chat.postEphemeral", 1).await;
    assert_eq!(
        (&told[0]["user"], &told[0]["channel"]),
        (&json!("U9"), &json!("D1"))
    );
    assert!(workshop.ledger().is_empty());
    app.press(&button("smith_approve", &asked, MEMBER, "1.2"))
        .await;
    let sent = app.slack.wait("chat.postMessage", 2).await;
    assert!(
        sent[1]["text"]
            .as_str()
            .is_some_and(|text| text.contains("a is molten"))
    );
    assert_eq!(workshop.ledger().len(), 1);
    let edits = app.slack.wait("chat.update", 1).await;
    assert!(
        edits[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("Approved: melt"))
    );
    assert_eq!(
        (&edits[0]["blocks"], &edits[0]["ts"]),
        (&json!([]), &json!("1800000000.000000"))
    );
    // The same press again is the same; another one says so.
    app.press(&button("smith_approve", &asked, MEMBER, "1.2"))
        .await;
    app.press(&button("smith_reject", &asked, MEMBER, "1.3"))
        .await;
    let edits = app.slack.wait("chat.update", 2).await;
    assert!(
        edits[1]["text"]
            .as_str()
            .is_some_and(|text| text.contains("already"))
    );

    // A tool asks for more than yes or no.
    app.event("Ev2", direct("18.0001", "cut {\"thing\": \"bar\"}"))
        .await;
    let asked = app.slack.wait("chat.postMessage", 3).await.remove(2);
    assert_eq!(asked["blocks"][0]["text"]["text"], "How wide shall bar be?");
    app.press(&button("smith_answer", &asked, MEMBER, "1.4"))
        .await;
    let view = app.slack.wait("views.open", 1).await.remove(0)["view"].clone();
    let field = &view["blocks"][1];
    assert_eq!(field["element"]["type"], "number_input");
    let mut odd = json!({ "type": "view_submission", "trigger_id": "1.41",
        "user": { "id": MEMBER, "team_id": TEAM }, "team": { "id": TEAM },
        "view": { "callback_id": view["callback_id"], "private_metadata": view["private_metadata"] } });
    odd["view"]["state"] = json!({ "values": {} });
    app.press(&odd).await;
    let told = app.slack.wait("chat.postEphemeral", 2).await;
    assert!(
        told[1]["text"]
            .as_str()
            .is_some_and(|text| text.contains("width")),
        "{told:?}"
    );
    let block = field["block_id"].as_str().expect("an id");
    let submitted = json!({ "type": "view_submission", "trigger_id": "1.5",
        "user": { "id": MEMBER, "team_id": TEAM }, "team": { "id": TEAM },
        "view": { "callback_id": view["callback_id"], "private_metadata": view["private_metadata"],
            "state": { "values": { block: { "value": { "type": "number_input", "value": "7" } } } } } });
    app.press(&submitted).await;
    let sent = app.slack.wait("chat.postMessage", 4).await;
    assert!(
        sent[3]["text"]
            .as_str()
            .is_some_and(|text| text.contains("bar is 7 wide"))
    );
    let edits = app.slack.wait("chat.update", 3).await;
    assert!(
        edits[2]["text"]
            .as_str()
            .is_some_and(|text| text.contains("Approved"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_appears_while_it_is_written() {
    let app = App::start().await;
    catch_all(&app.harness, "slow/writer").await;
    *app.slack.platform.has_streams.lock() = true;
    app.event("Ev1", mention("17.0001", "a long and slow one"))
        .await;
    app.slack.wait("chat.startStream", 1).await;
    app.slack.wait("chat.update", 1).await;
    // What is beyond the first message comes as any other.
    app.slack.wait("chat.postMessage", 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!app.slack.calls("chat.appendStream").is_empty());
    assert_eq!(app.slack.calls("chat.stopStream").len(), 1);
    let posted: Vec<_> = app
        .slack
        .platform
        .messages
        .lock()
        .values()
        .cloned()
        .collect();
    assert!(posted[0].was_stream && !posted[0].is_streaming);
    assert!(
        posted
            .iter()
            .all(|one| one.thread.as_deref() == Some("17.0001"))
    );
    let all: String = posted.iter().map(|one| one.text.as_str()).collect();
    assert!(all.starts_with("*Begin*") && all.ends_with("The end."));
    assert_eq!(all.matches("<https://example.com/a|link>").count(), 40);
    for line in ["let line_0 = 0 &lt; 9;", "let line_149 = 149 &lt; 9;"] {
        assert_eq!(all.matches(line).count(), 1);
    }
    assert!(
        posted
            .iter()
            .all(|one| one.text.matches("```").count() % 2 == 0)
    );
    assert!(long_answer().len() > 5000);
    // Where there are no streams, a message is edited, and seldom.
    *app.slack.platform.has_streams.lock() = false;
    app.event("Ev2", mention("18.0001", "a slow one")).await;
    for _ in 0..200 {
        let last = app.slack.platform.messages.lock().values().last().cloned();
        if last.is_some_and(|last| last.text == "You said _a slow one_") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let posted = app.slack.platform.messages.lock().values().last().cloned();
    let last = posted.expect("a message");
    assert_eq!(
        (last.text.as_str(), last.was_stream),
        ("You said _a slow one_", false)
    );
    assert_eq!(app.slack.calls("chat.startStream").len(), 2);
    assert!(app.slack.calls("chat.update").len() <= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn slacks_no_is_waited_out_and_what_is_unknown_is_said() {
    let app = App::start().await;
    let deployment = catch_all(&app.harness, "openai-chat/script").await;
    app.slack.answer(
        "chat.postMessage",
        429,
        json!({ "ok": false, "error": "ratelimited" }),
    );
    app.event("Ev1", direct("17.0001", "/help")).await;
    app.event("Ev2", direct("17.0002", " /help")).await;
    let sent = app.slack.wait("chat.postMessage", 3).await;
    // The same message has the same name.
    assert_eq!(sent[0]["client_msg_id"], sent[1]["client_msg_id"]);
    app.slack.answer(
        "chat.postMessage",
        200,
        json!({ "ok": false, "error": "fatal_error" }),
    );
    app.event("Ev3", direct("17.0003", "/help")).await;
    let failed = app.told("slack.send_failed", 1).await;
    assert_eq!(failed[0]["data"]["status"], "unknown");
    app.slack.answer(
        "chat.postMessage",
        200,
        json!({ "ok": false, "error": "is_archived" }),
    );
    app.event("Ev4", direct("17.0004", "/help")).await;
    let failed = app.told("slack.send_failed", 2).await;
    assert_eq!(failed[0]["data"]["status"], "failed");
    let error = failed[0]["data"]["error"].as_str().expect("words");
    assert!(error.contains("is_archived") && !error.contains(BOT));
    let path = format!("/v1/deployments/{deployment}/deliveries");
    let deliveries = ok(app.harness.get(&path).send().await).await;
    assert_eq!(deliveries["data"].as_array().map(Vec::len), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_may_be_changed_and_taken_back() {
    tokio::join!(what_waits(None), what_waits(Some(postgres_url().await)));
}

async fn what_waits(store: Option<String>) {
    let app = App::start_on(store).await;
    catch_all(&app.harness, "slow/writer").await;
    app.event("Ev1", direct("17.0001", "a slow one")).await;
    for _ in 0..100 {
        if !app.runs().await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    app.event("Ev2", direct("17.0002", "secnd")).await;
    app.event("Ev3", direct("17.0003", "never mind")).await;
    let changed = json!({ "type": "message", "subtype": "message_changed", "channel": "D1",
        "channel_type": "im", "ts": "17.0004", "message": direct("17.0002", "second"),
        "previous_message": direct("17.0002", "secnd") });
    app.event("Ev4", changed).await;
    let deleted = json!({ "type": "message", "subtype": "message_deleted", "channel": "D1",
        "channel_type": "im", "ts": "17.0005", "deleted_ts": "17.0003",
        "previous_message": direct("17.0003", "never mind") });
    app.event("Ev5", deleted).await;
    for _ in 0..200 {
        if app.slack.platform.messages.lock().len() >= 2 && app.runs().await.len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    let runs = app.runs().await;
    let said: Vec<&Value> = runs
        .iter()
        .map(|run| &run["input"][0]["content"][0]["text"])
        .collect();
    assert_eq!(said, [&json!("second"), &json!("a slow one")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slash_commands_are_answered_where_they_are_given() {
    let app = App::start().await;
    let smith = app.harness.smith("slow/writer").await;
    let body = json!({ "kind": "slack", "target": { "type": "smith", "id": smith },
        "setup": { "mode": "start_token" } });
    let made = ok(app.harness.post("/v1/deployments", &body).send().await).await;
    let token = made["start_token"].as_str().expect("a token");
    assert_eq!(made["prefilled_message"], format!("start {token}"));
    let response = format!("http://{}/response", app.slack.address);
    let command = async |text: &str, trigger: &str| {
        let body = form(&[
            ("command", "/smith"),
            ("text", text),
            ("team_id", TEAM),
            ("channel_id", "C1"),
            ("user_id", MEMBER),
            ("user_name", "ann"),
            ("token", "legacy"),
            ("trigger_id", trigger),
            ("response_url", &response),
        ]);
        let kind = "application/x-www-form-urlencoded";
        let (status, told) = app.post("commands", kind, body, now_s(), SECRET).await;
        assert_eq!(
            (status, told.as_str()),
            (200, r#"{"response_type":"in_channel"}"#)
        );
    };
    command(&format!("start {token}"), "1.1").await;
    let sent = app.slack.wait("chat.postMessage", 1).await;
    assert!(
        sent[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("connected"))
    );
    // The channel is bound, so its threads are.
    app.event("Ev1", mention("17.0001", "hi")).await;
    app.slack.wait("chat.postMessage", 2).await;
    // Where the bot is no member, the command's own URL takes the answer; it is not shown before.
    let no = json!({ "ok": false, "error": "not_in_channel" });
    app.slack.answer("chat.postMessage", 200, no.clone());
    app.slack.answer("chat.postMessage", 200, no);
    command("what now?", "1.2").await;
    let answers = app.slack.wait("response", 1).await;
    assert_eq!(
        (&answers[0]["text"], &answers[0]["response_type"]),
        (&json!("You said _what now?_"), &json!("in_channel"))
    );
    assert!(
        app.runs()
            .await
            .iter()
            .all(|run| run["smith_id"] == json!(smith))
    );
    // Who reads what arrived cannot answer in the app's name.
    let events = ok(app.harness.get("/v1/inbound_events").send().await).await;
    assert!(!events.to_string().contains("/response") && !events.to_string().contains("legacy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_workspace_installs_the_app_and_takes_it_away() {
    tokio::join!(
        an_installation(None),
        an_installation(Some(postgres_url().await))
    );
}

async fn an_installation(store: Option<String>) {
    let app = App::start_on(store).await;
    let back = "https://product.example/slack?x=1";
    let own = json!({ "client_id": "1.2", "client_secret": "cs", "return_url": back,
        "oauth_scopes": ["chat:write", "im:history"] });
    put(&app.harness, &own).await;
    let smith = app.harness.smith("slow/writer").await;
    let body = json!({ "kind": "slack", "target": { "type": "smith", "id": smith },
        "setup": { "mode": "oauth_install" } });
    let made = ok(app.harness.post("/v1/deployments", &body).send().await).await;
    let url = url::Url::parse(made["install_url"].as_str().expect("a URL")).expect("a URL");
    let query: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
    assert_eq!(
        (query["client_id"].as_str(), &query["state"]),
        ("1.2", &made["state"].as_str().expect("a state").to_owned())
    );
    assert_eq!(query["scope"], "chat:write,im:history");
    let browser = reqwest::Client::builder().no_proxy();
    let browser = browser
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("one");
    let visit = async |tenant: &str, more: &str| {
        let path = format!("/v1/slack/oauth/{tenant}?state={}&{more}", query["state"]);
        let answer = browser
            .get(app.harness.url(&path))
            .send()
            .await
            .expect("an answer");
        let to = answer
            .headers()
            .get("location")
            .map(|to| to.to_str().expect("text").to_owned());
        (answer.status().as_u16(), to)
    };
    let (status, to) = visit(
        &app.harness.tenant,
        "code=good&return_url=https://evil.example",
    )
    .await;
    assert_eq!((status, to), (303, Some(format!("{back}&slack=installed"))));
    // The state counts once.
    assert_eq!(visit(&app.harness.tenant, "code=good").await, (400, None));
    let told = app.told("slack.install", 1).await;
    assert_eq!(told[0]["data"]["team_id"], "T2");
    assert!(!told[0].to_string().contains("xoxb"));
    // The smith answers in all of that workspace, with its token.
    let event = |id: &str, event: Value| {
        let mut envelope = envelope(id, event);
        envelope["team_id"] = json!("T2");
        envelope.to_string()
    };
    let hello = event(
        "Ev1",
        json!({ "type": "app_mention", "channel": "C2", "user": "U5",
        "text": "<@UBOT2> hi", "ts": "17.0001" }),
    );
    app.post("events", "application/json", hello, now_s(), SECRET)
        .await;
    app.slack.wait("chat.postMessage", 1).await;
    let calls = app.slack.platform.calls.lock().clone();
    let sent = calls
        .iter()
        .find(|(method, ..)| method == "chat.postMessage");
    // Its first token was about to run out, and was replaced.
    assert_eq!(sent.map(|(_, token, _)| token.as_str()), Some("xoxb-other"));
    assert!(
        app.runs()
            .await
            .iter()
            .all(|run| run["smith_id"] == json!(smith))
    );
    // What was said before the installation says nothing of it.
    let mut late: Value =
        serde_json::from_str(&event("Ev2", json!({ "type": "app_uninstalled" }))).expect("JSON");
    late["event_time"] = json!(now_s() - 600);
    app.post(
        "events",
        "application/json",
        late.to_string(),
        now_s(),
        SECRET,
    )
    .await;
    let gone = event(
        "Ev3",
        json!({ "type": "tokens_revoked", "tokens": { "bot": ["UBOT2"] } }),
    );
    app.post("events", "application/json", gone, now_s(), SECRET)
        .await;
    let told = app.told("slack.uninstalled", 1).await;
    assert_eq!((told.len(), &told[0]["data"]["team_id"]), (1, &json!("T2")));
    let hello = event(
        "Ev4",
        json!({ "type": "app_mention", "channel": "C2", "user": "U5",
        "text": "<@UBOT2> hi", "ts": "18.0001" }),
    );
    app.post("events", "application/json", hello, now_s(), SECRET)
        .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(app.slack.calls("chat.postMessage").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_public_address_slack_is_listened_to() {
    let app = App::start().await;
    // The signing secret is not needed then.
    let own = json!({ "signing_secret": "", "app_token": APP });
    let made = put(&app.harness, &own).await;
    assert_eq!(
        (&made["socket_mode"], &made["events_url"]),
        (&json!(true), &Value::Null)
    );
    catch_all(&app.harness, "slow/writer").await;
    let linked = async |count: usize| {
        for _ in 0..200 {
            if *app.slack.platform.sockets.lock() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody listens");
    };
    linked(1).await;
    let push = |envelope_id: &str, payload: Value, retry: u64| {
        app.slack
            .push(&json!({ "type": "events_api", "envelope_id": envelope_id,
            "payload": payload, "accepts_response_payload": false, "retry_attempt": retry,
            "retry_reason": "timeout" }));
    };
    push("e1", envelope("Ev1", direct("17.0001", "hi")), 0);
    // The same event in another envelope.
    push("e2", envelope("Ev1", direct("17.0001", "hi")), 1);
    app.slack
        .push(&json!({ "type": "slash_commands", "envelope_id": "e3",
        "accepts_response_payload": true, "payload": { "command": "/smith", "text": "help",
        "team_id": TEAM, "channel_id": "C1", "user_id": MEMBER, "trigger_id": "1.1" } }));
    app.slack.wait("chat.postMessage", 2).await;
    app.slack.shows("You said _hi_").await;
    // Slack wants another connection.
    app.slack
        .push(&json!({ "type": "disconnect", "reason": "refresh_requested" }));
    linked(2).await;
    push("e4", envelope("Ev2", direct("17.0002", "again")), 0);
    app.slack.shows("You said _again_").await;
    let acknowledged = app.slack.platform.acknowledged.lock().clone();
    let ids: Vec<&Value> = acknowledged.iter().map(|one| &one["envelope_id"]).collect();
    assert_eq!(
        ids,
        [&json!("e1"), &json!("e2"), &json!("e3"), &json!("e4")]
    );
    assert_eq!(
        acknowledged[2]["payload"],
        json!({ "response_type": "in_channel" })
    );
    assert_eq!(app.slack.calls("chat.postMessage").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_from_slack_alone() {
    let app = App::start().await;
    catch_all(&app.harness, "openai-chat/text").await;
    // The smallest PNG there is.
    *app.slack.platform.file.lock() = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01".to_vec();
    let mut message = direct("17.0001", "What is this?");
    message["subtype"] = json!("file_share");
    let url = format!("http://{}/files-pri/T1-F1/a.png", app.slack.address);
    message["files"] = json!([
        { "id": "F1", "name": "a.png", "mimetype": "image/png", "size": 24, "url_private": url },
        { "id": "F2", "name": "b.png", "mimetype": "image/png", "url_private": "http://127.0.0.1:1/b" },
        { "id": "F3", "name": "c.bin", "size": 1_000_000_000, "url_private": url },
    ]);
    app.event("Ev1", message).await;
    app.slack.wait("chat.postMessage", 1).await;
    let asked = app.harness.mock.last().body.to_string();
    assert!(asked.contains("data:image/png;base64,") && asked.contains("What is this?"));
    assert!(asked.contains("b.png, is not there to read"), "{asked}");
    assert!(asked.contains("c.bin, is too large"), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_of_an_assistant_is_a_conversation() {
    let app = App::start().await;
    *app.slack.platform.has_streams.lock() = true;
    let smith = app.harness.smith("slow/writer").await;
    // Whom it answers by name, and so may write to.
    let body = json!({ "kind": "slack", "target": { "type": "smith", "id": smith },
        "address": "T1:U1" });
    ok(app.harness.post("/v1/deployments", &body).send().await).await;
    let thread = json!({ "type": "assistant_thread_started", "assistant_thread": {
        "user_id": MEMBER, "channel_id": "D1", "thread_ts": "16.0001", "context": {} } });
    app.event("Ev1", thread).await;
    let mut message = direct("17.0001", "a slow one");
    message["thread_ts"] = json!("16.0001");
    app.event("Ev2", message).await;
    let told = app.slack.wait("assistant.threads.setStatus", 1).await;
    assert_eq!(
        (&told[0]["channel_id"], &told[0]["thread_ts"]),
        (&json!("D1"), &json!("16.0001"))
    );
    app.slack.wait("chat.stopStream", 1).await;
    app.slack.wait("chat.update", 1).await;
    let runs = app.runs().await;
    assert_eq!(runs[0]["thread_id"], "slack:T1:D1:16.0001");
    let posted: Vec<_> = app
        .slack
        .platform
        .messages
        .lock()
        .values()
        .cloned()
        .collect();
    assert_eq!(
        (posted.len(), posted[0].text.as_str()),
        (1, "You said _a slow one_")
    );
    let events = ok(app.harness.get("/v1/inbound_events").send().await).await;
    assert_eq!(events["data"][1]["type"], "assistant_thread_started");
    // It speaks by itself, too.
    let patch = json!({ "model": "openai-chat/script" });
    let path = format!("/v1/smiths/{smith}");
    ok(app
        .harness
        .request(Method::PATCH, &path)
        .json(&patch)
        .send()
        .await)
    .await;
    let script = "slack_send_message {\"text\": \"**Done**\", \"to\": \"T1:U1\"}";
    let run = app.harness.run(&smith, script).await;
    assert_eq!(run["status"], "completed", "{run}");
    let sent = app.slack.wait("chat.postMessage", 1).await;
    assert_eq!(
        (&sent[0]["channel"], &sent[0]["text"]),
        (&json!("U1"), &json!("*Done*"))
    );
    let script = "slack_send_message {\"text\": \"hi\", \"to\": \"T1:C9\"}";
    let run = app.harness.run(&smith, script).await;
    assert_eq!(run["status"], "paused_for_approval", "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_tools_make_are_shared_in_the_thread() {
    let app = App::start().await;
    let workshop = Workshop::start().await;
    app.harness.put_workshop(&workshop).await;
    catch_all(&app.harness, "openai-chat/script").await;
    app.event("Ev1", mention("17.0001", "paint {\"thing\": \"wall\"}"))
        .await;
    let shared = app.slack.wait("files.completeUploadExternal", 2).await;
    for (at, name) in ["image-1.png", "wall.pdf"].into_iter().enumerate() {
        assert_eq!(
            shared[at],
            json!({ "files": [{ "id": format!("F{at}"), "title": name }], "channel_id": "C1",
                "thread_ts": "17.0001" })
        );
    }
    let uploads = app.slack.platform.uploads.lock().clone();
    assert_eq!(
        (uploads[0].2.len(), &uploads[1].2[..]),
        (PICTURE_SIZE, REPORT)
    );
    assert_eq!(app.slack.calls("chat.postMessage").len(), 1);
    // Without the scope, which Slack says, the files are told of.
    let missing = json!({ "ok": false, "error": "missing_scope", "needed": "files:write" });
    for _ in 0..2 {
        app.slack
            .answer("files.getUploadURLExternal", 200, missing.clone());
    }
    app.event("Ev2", mention("18.0001", "paint {\"thing\": \"door\"}"))
        .await;
    let sent = app.slack.wait("chat.postMessage", 4).await;
    assert_eq!(
        sent[3]["text"],
        "[The file `door.pdf` could not be sent here.]"
    );
    assert_eq!(app.slack.calls("files.completeUploadExternal").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_of_a_model_is_no_words_while_it_is_written() {
    let app = App::start().await;
    *app.slack.platform.has_streams.lock() = true;
    catch_all(&app.harness, "slow/writer").await;
    app.event("Ev1", mention("17.0001", "slow picture")).await;
    let shared = app.slack.wait("files.completeUploadExternal", 1).await;
    assert_eq!(shared[0]["files"][0]["title"], "a cat.png");
    let posted = app.slack.platform.messages.lock().clone();
    let posted: Vec<_> = posted.into_values().collect();
    assert_eq!(posted.len(), 1, "{posted:?}");
    assert!(posted[0].was_stream && !posted[0].is_streaming);
    assert!(posted[0].text.ends_with("Do you like it?"), "{posted:?}");
    let calls = app.slack.platform.calls.lock().clone();
    for (method, _, body) in calls {
        assert!(!body.to_string().contains("base64"), "{method}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slacks_own_receiver_takes_and_refuses_the_same() {
    let app = App::start().await;
    catch_all(&app.harness, "slow/writer").await;
    let address = free_address();
    let mut bolt = Command::new(program("TEST_NODE"))
        .arg(clients().join("slack_bolt.mjs"))
        .env("PORT", address.port().to_string())
        .env("SECRET", SECRET)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("started");
    let mut heard = BufReader::new(bolt.stdout.take().expect("a pipe")).lines();
    let mut line = async || {
        let line = tokio::time::timeout(Duration::from_secs(30), heard.next_line()).await;
        line.expect("in time").expect("a line").expect("it goes on")
    };
    assert_eq!(line().await, "ready");
    let event = envelope("Ev1", direct("17.0001", "hi & ünd so")).to_string();
    let command = form(&[
        ("command", "/smith"),
        ("text", "how much = 1 & 2?"),
        ("team_id", TEAM),
        ("channel_id", "C1"),
        ("user_id", MEMBER),
        ("trigger_id", "1.1"),
    ]);
    let path = |what: &str| {
        let path = format!("/v1/slack/{what}/{}", app.harness.tenant);
        app.harness.url(&path)
    };
    let bolts = format!("http://{address}/slack/events");
    let encoded = "application/x-www-form-urlencoded";
    let sent = [
        (path("events"), "application/json", event),
        (path("commands"), encoded, command),
    ];
    for (own, kind, body) in sent {
        let other = body.replace("17.0001", "17.0002").replace("much", "many");
        let now = now_s();
        let (good, old) = (signed(SECRET, now, &body), now - 301);
        let deliveries = [
            (now, good.clone(), &body, true),
            // Of another body, of another secret, of another time, and no longer.
            (now, good.clone(), &other, false),
            (now, signed("wrong", now, &body), &body, false),
            (now - 9, good.clone(), &body, false),
            (old, signed(SECRET, old, &body), &body, false),
            (now, good.replacen("v0=", "v1=", 1), &body, false),
            (now, String::new(), &body, false),
        ];
        for (at, signature, body, is_taken) in deliveries {
            for url in [&own, &bolts] {
                let call = app.harness.client.post(url).body(body.clone());
                let call = call
                    .header("content-type", kind)
                    .header("X-Slack-Request-Timestamp", at.to_string())
                    .header("X-Slack-Signature", &signature);
                let status = call.send().await.expect("an answer").status();
                assert_eq!(
                    status.is_success(),
                    is_taken,
                    "{url} {at} {signature} {status}"
                );
            }
        }
    }
    assert_eq!(
        (line().await, line().await),
        ("Ev1".into(), "/smith".into())
    );
    let events = ok(app.harness.get("/v1/inbound_events").send().await).await;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(2));
}

/// A Slack of `emulate`, in a process of its own.
struct Emulated {
    url: String,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Emulated {
    async fn start() -> Self {
        let address = free_address();
        let mut child = Command::new(program("TEST_NODE"))
            .arg(clients().join("slack.mjs"))
            .env("PORT", address.port().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("started");
        let output = child.stdout.take().expect("a pipe");
        Self {
            // As it names its own files.
            url: format!("http://localhost:{}", address.port()),
            input: child.stdin.take().expect("a pipe"),
            output: BufReader::new(output).lines(),
            _child: child,
        }
    }

    async fn tell(&mut self, word: &Value) {
        let line = format!("{word}\n");
        self.input
            .write_all(line.as_bytes())
            .await
            .expect("written");
        let done = tokio::time::timeout(Duration::from_secs(20), self.output.next_line()).await;
        assert_eq!(
            done.expect("in time").expect("a line").as_deref(),
            Some("done")
        );
    }

    async fn call(&self, token: &str, method: &str, body: &Value) -> Value {
        let client = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client");
        let call = client.post(format!("{}/api/{method}", self.url));
        let answer = ok(call.bearer_auth(token).json(body).send().await).await;
        assert_eq!(answer["ok"], true, "{method}: {answer}");
        answer
    }

    /// Waits until somebody has said something in a channel or a thread.
    async fn said(&self, channel: &Value, thread: Option<&Value>, text: &str) -> Value {
        let (method, body) = match thread {
            Some(ts) => (
                "conversations.replies",
                json!({ "channel": channel, "ts": ts }),
            ),
            None => ("conversations.history", json!({ "channel": channel })),
        };
        let mut found = Value::Null;
        for _ in 0..200 {
            found = self.call("xoxp-ann", method, &body).await["messages"].take();
            let mut all = found.as_array().expect("messages").iter();
            if let Some(said) = all.find(|one| one["text"] == text) {
                return said.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody said {text}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulated_slack_is_answered() {
    let mut slack = Emulated::start().await;
    slack
        .tell(
            &json!({ "seed": { "signing_secret": SECRET, "users": [{ "name": "ann" }],
            "channels": [{ "name": "lab" }],
            "tokens": [{ "token": "xoxp-ann", "user": "ann", "type": "user" }] } }),
        )
        .await;
    let model = Slack::start().await;
    let harness = gateway(
        slack.url.clone(),
        Some(format!("http://{}/llm", model.address)),
        None,
    )
    .await;
    let redirect = harness.url(&format!("/v1/slack/oauth/{}", harness.tenant));
    slack
        .tell(&json!({ "seed": { "oauth_apps": [{ "client_id": "1.2", "client_secret": "cs",
            "app_id": "A1", "name": "Smith", "bot_name": "smith", "redirect_uris": [redirect] }] } }))
        .await;
    let own = json!({ "signing_secret": SECRET, "client_id": "1.2", "client_secret": "cs" });
    let made = put(&harness, &own).await;
    assert_eq!(made["oauth_redirect_url"], redirect);
    slack
        .tell(&json!({ "subscribe": made["events_url"] }))
        .await;
    // Ann installs the app in her workspace.
    let smith = harness.smith("slow/writer").await;
    let body = json!({ "kind": "slack", "target": { "type": "smith", "id": smith } });
    let made = ok(harness.post("/v1/deployments", &body).send().await).await;
    let install = made["install_url"].as_str().expect("a URL");
    let page = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let shown = page
        .get(install)
        .send()
        .await
        .expect("a page")
        .text()
        .await
        .expect("text");
    assert!(shown.contains("Smith"), "{shown}");
    let asked = url::Url::parse(install).expect("a URL");
    let mut fields: Vec<(String, String)> = asked.query_pairs().into_owned().collect();
    let ann = slack.call("xoxp-ann", "auth.test", &json!({})).await["user_id"].clone();
    fields.push((
        "user_id".to_owned(),
        ann.as_str().expect("an id").to_owned(),
    ));
    let fields: Vec<(&str, &str)> = fields
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    let agreed = page.post(format!("{}/oauth/v2/authorize/callback", slack.url));
    let agreed = agreed
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(&fields));
    let told = agreed
        .send()
        .await
        .expect("a page")
        .text()
        .await
        .expect("text");
    assert!(told.contains("is installed"), "{told}");
    let installed = ok(harness.get("/v1/events?type=slack.install").send().await).await;
    let installed = installed["data"][0]["data"].clone();
    let bot = &installed["bot_user_id"];
    // She writes to it, and it answers.
    let opened = slack
        .call("xoxp-ann", "conversations.open", &json!({ "users": bot }))
        .await;
    let direct = &opened["channel"]["id"];
    slack
        .call(
            "xoxp-ann",
            "chat.postMessage",
            &json!({ "channel": direct, "text": "a < b?" }),
        )
        .await;
    let said = slack.said(direct, None, "You said _a &lt; b?_").await;
    assert_eq!(said["user"], *bot);
    // In a channel, in the thread of what she said.
    let channels = slack
        .call("xoxp-ann", "conversations.list", &json!({}))
        .await;
    let channels = channels["channels"].as_array().expect("channels").clone();
    let lab = channels
        .iter()
        .find(|one| one["name"] == "lab")
        .expect("the lab");
    let body =
        json!({ "channel": lab["id"], "text": format!("<@{}> hi", bot.as_str().expect("one")) });
    let first = slack.call("xoxp-ann", "chat.postMessage", &body).await["ts"].clone();
    // The emulator tells of messages alone; Slack of a mention as well.
    let event = json!({ "type": "event_callback", "team_id": installed["team_id"],
        "event_id": "EvMention", "event_time": now_s(), "event": { "type": "app_mention",
        "channel": lab["id"], "user": ann, "text": body["text"], "ts": first } })
    .to_string();
    let at = now_s();
    let call = harness
        .client
        .post(harness.url(&format!("/v1/slack/events/{}", harness.tenant)));
    let call = call
        .header("X-Slack-Request-Timestamp", at.to_string())
        .header("X-Slack-Signature", signed(SECRET, at, &event))
        .body(event);
    ok(call.send().await).await;
    slack.said(&lab["id"], Some(&first), "You said _hi_").await;
    let body = json!({ "channel": lab["id"], "text": "go on", "thread_ts": first });
    slack.call("xoxp-ann", "chat.postMessage", &body).await;
    let last = slack
        .said(&lab["id"], Some(&first), "You said _go on_")
        .await;
    assert_eq!(last["thread_ts"], first);
    // A picture that the model made is there as a file, which the scopes of the installation allow.
    let body = json!({ "channel": direct, "text": "a picture" });
    slack.call("xoxp-ann", "chat.postMessage", &body).await;
    let words = "Here it is.\n\nDo you like it?";
    slack.said(direct, None, words).await;
    let mut shared = Value::Null;
    for _ in 0..200 {
        let body = json!({ "channel": direct });
        let said = slack.call("xoxp-ann", "conversations.history", &body).await;
        let mut said = said["messages"].as_array().expect("messages").iter();
        if let Some(found) = said.find(|one| one["files"].is_array()) {
            shared = found["files"][0].clone();
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        (&shared["name"], &shared["size"], &shared["user"]),
        (&json!("a cat.png"), &json!(PICTURE_SIZE), bot)
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    let runs = ok(harness.get("/v1/runs").send().await).await;
    assert_eq!(runs["data"].as_array().map(Vec::len), Some(4));
    // What the app itself says arrives as well, and is nobody's.
    let arrived = ok(harness.get("/v1/inbound_events").send().await).await;
    let own = arrived["data"].as_array().expect("arrivals").iter();
    assert!(
        own.filter(|one| one["reason"] == "no person wrote it")
            .count()
            >= 3
    );
}
