//! Telegram against published packages: `telegram-test-api`, a Bot API with people who write and
//! press, and `grammy`, whose types say what a call holds, and whose webhook says what a delivery is.

use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::assets::{clients, program};
use crate::support::{Harness, free_address, ok};
use crate::tools::Workshop;

const TOKEN: &str = "123:abc-DEF";
/// Of a bot that asks for nothing.
const OTHER_TOKEN: &str = "124:abc-DEF";
const SECRET: &str = "hook-secret";

/// A Telegram of `telegram-test-api` with a bot of grammy's beside it, in a process of their own.
struct Telegram {
    url: String,
    /// Where the bot of grammy's takes deliveries.
    hook: String,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Telegram {
    async fn start() -> Self {
        let (address, inner, hook) = (free_address(), free_address(), free_address());
        let mut child = Command::new(program("TEST_NODE"))
            .arg(clients().join("telegram.mjs"))
            .env("PORT", address.port().to_string())
            .env("INNER_PORT", inner.port().to_string())
            .env("HOOK_PORT", hook.port().to_string())
            .env("TOKEN", TOKEN)
            .env("OTHER_TOKEN", OTHER_TOKEN)
            .env("SECRET", SECRET)
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("started");
        let output = child.stdout.take().expect("a pipe");
        let mut telegram = Self {
            url: format!("http://{address}"),
            hook: format!("http://{hook}"),
            input: child.stdin.take().expect("a pipe"),
            output: BufReader::new(output).lines(),
            _child: child,
        };
        assert_eq!(telegram.answer().await, "ready");
        telegram
    }

    async fn answer(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(60), self.output.next_line()).await;
        let line = line.expect("in time").expect("a line");
        serde_json::from_str(&line.expect("the process goes on")).expect("JSON")
    }

    async fn tell(&mut self, command: &str, given: Value) -> Value {
        let line = format!("{}\n", json!({ command: given }));
        let written = self.input.write_all(line.as_bytes()).await;
        written.expect("written");
        self.answer().await
    }

    async fn say(&mut self, user: i64, text: &str) {
        let said = json!({ "user": user, "text": text });
        assert_eq!(self.tell("say", said).await["ok"], true);
    }

    /// Waits until a chat shows a message of the bot's with these words.
    async fn shows(&mut self, user: i64, words: &str) -> Value {
        let mut shown = Value::Null;
        for _ in 0..200 {
            shown = self.tell("shown", json!({ "user": user })).await;
            let mut all = shown.as_array().expect("messages").iter();
            let says = |one: &&Value| one["text"].as_str().is_some_and(|t| t.contains(words));
            if let Some(found) = all.find(says) {
                return found.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{user} is not shown '{words}': {shown:#}");
    }

    /// What the gateway has called, each method's different bodies; all are what grammy's types know.
    async fn checked_calls(&mut self) -> Vec<(String, Value)> {
        let mut calls: Vec<Value> = Vec::new();
        let all = self.tell("calls", Value::Null).await;
        for call in all.as_array().expect("calls") {
            if !calls.contains(call) {
                calls.push(call.clone());
            }
        }
        let faults = self.tell("check", json!(calls)).await;
        assert_eq!(faults, json!([]), "{calls:#?}");
        let read = |call: &Value| {
            let method = call["method"].as_str().expect("a method");
            (method.to_owned(), call["body"].clone())
        };
        calls.iter().map(read).collect()
    }
}

/// A gateway whose Telegram is the emulated one; with `public_url` it wants deliveries.
async fn gateway(telegram: &Telegram, public_url: Option<&str>) -> Harness {
    let (url, public_url) = (telegram.url.clone(), public_url.map(str::to_owned));
    let harness = Harness::start_with(|config, _| {
        config.channels.telegram_url = url;
        config.server.public_url = public_url;
        config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let put = harness.request(Method::PUT, "/v1/tenant/telegram");
    let body = json!({ "bot_token": TOKEN, "webhook_secret": SECRET });
    let made = ok(put.json(&body).send().await).await;
    assert_eq!(
        (&made["bot_username"], &made["bot_id"]),
        (&json!("TestNameBot"), &json!(666))
    );
    harness
}

async fn bind(harness: &Harness, smith: &str) -> String {
    let body = json!({ "kind": "telegram", "target": { "type": "smith", "id": smith },
        "setup": { "mode": "start_token" } });
    let made = ok(harness.post("/v1/deployments", &body).send().await).await;
    made["start_token"].as_str().expect("a token").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_an_emulated_telegram_are_answered_and_decide() {
    let mut telegram = Telegram::start().await;
    let harness = gateway(&telegram, None).await;
    let workshop = Workshop::start().await;
    harness.put_workshop(&workshop).await;
    let smith = harness.tool_smith(&["suggest_replies"]).await;
    let token = bind(&harness, &smith).await;
    telegram.say(42, &format!("/start {token}")).await;
    telegram.shows(42, "connected").await;
    telegram.say(42, "measure {\"thing\": \"rod <1>\"}").await;
    let shown = telegram.shows(42, "12 cm").await;
    assert_eq!(shown["text"], "Results: rod &lt;1&gt;: 12 cm");
    // What may be answered is a keyboard.
    telegram
        .say(
            42,
            "suggest_replies {\"replies\": [\"Yes\", \"No, thanks\"]}",
        )
        .await;
    let offered = telegram.shows(42, "replies are shown").await;
    assert_eq!(
        offered["reply_markup"]["keyboard"],
        json!([[{ "text": "Yes" }], [{ "text": "No, thanks" }]])
    );
    // The button that is pressed is the one that is shown.
    telegram.say(42, "melt {\"thing\": \"ring\"}").await;
    let asked = telegram.shows(42, "<b>melt</b>").await;
    let approve = &asked["reply_markup"]["inline_keyboard"][0][0]["callback_data"];
    assert!(workshop.ledger().is_empty());
    let press = json!({ "user": 42, "data": approve, "message": asked["id"] });
    assert_eq!(telegram.tell("press", press.clone()).await["ok"], true);
    telegram.shows(42, "ring is molten").await;
    let settled = telegram.shows(42, "Approved: melt").await;
    assert_eq!(settled["id"], asked["id"]);
    // Pressed again, it is said and done no second time.
    telegram.tell("press", press).await;
    // Drafts are not known there, which costs nothing.
    let slow = harness.smith("openai-chat/fault-slower").await;
    let token = bind(&harness, &slow).await;
    telegram.say(43, &format!("/start {token}")).await;
    telegram.shows(43, "connected").await;
    let began = std::time::Instant::now();
    telegram.say(43, "Tell me").await;
    telegram.shows(43, "Hello, &quot;wörld&quot;\n😀").await;
    assert!(began.elapsed() < Duration::from_secs(12), "{began:?}");
    assert_eq!(workshop.ledger().len(), 1);
    let calls = telegram.checked_calls().await;
    for method in [
        "getMe",
        "deleteWebhook",
        "getUpdates",
        "sendChatAction",
        "sendMessage",
        "sendMessageDraft",
        "answerCallbackQuery",
        "editMessageText",
    ] {
        assert!(calls.iter().any(|call| call.0 == method), "{method}");
    }
    // What is wrong would be told.
    let odd = json!([{ "method": "sendMessage", "body": { "chat_id": 1, "text": 1 } },
        { "method": "sendMessage", "body": { "chat_id": 1, "text": "a", "other": 1 } },
        { "method": "sendMessages", "body": {} }]);
    let faults = telegram.tell("check", odd).await;
    assert_eq!(faults.as_array().map(Vec::len), Some(3), "{faults:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_taken_as_grammy_takes_it() {
    let mut telegram = Telegram::start().await;
    let harness = gateway(&telegram, Some("https://gateway.example")).await;
    let path = format!("/v1/telegram/webhook/{}", harness.tenant);
    let kept = telegram.tell("webhook", json!({ "token": TOKEN })).await;
    assert_eq!(
        (&kept["url"], &kept["secret_token"]),
        (
            &json!(format!("https://gateway.example{path}")),
            &json!(SECRET)
        )
    );
    let smith = harness.smith("openai-chat/text").await;
    let token = bind(&harness, &smith).await;
    for said in [format!("/start {token}"), "Hello?".to_owned()] {
        let said = json!({ "user": 42, "text": said, "token": OTHER_TOKEN });
        telegram.tell("say", said).await;
    }
    let press = json!({ "user": 42, "data": "a:apr_1", "message": 1, "token": OTHER_TOKEN });
    telegram.tell("press", press).await;
    let updates = telegram
        .tell("updates", json!({ "token": OTHER_TOKEN }))
        .await;
    let updates = updates.as_array().expect("updates");
    assert_eq!(updates.len(), 3, "{updates:?}");
    for update in updates {
        for (secret, is_taken) in [("wrong", false), ("", false), (SECRET, true)] {
            for hook in [&harness.url(&path), &telegram.hook] {
                let call = harness.client.post(hook).json(update);
                let call = call.header("X-Telegram-Bot-Api-Secret-Token", secret);
                let status = call.send().await.expect("an answer").status();
                assert_eq!(status.is_success(), is_taken, "{hook} {status} '{secret}'");
            }
        }
    }
    let heard = telegram.tell("heard", Value::Null).await;
    let person = |text: &str| json!({ "from": 42, "chat": 42, "text": text, "is_private": true });
    assert_eq!(
        heard,
        json!([
            person(&format!("/start {token}")),
            person("Hello?"),
            { "from": 42, "pressed": "a:apr_1" }
        ])
    );
    telegram.shows(42, "connected").await;
    telegram.shows(42, "Hello, &quot;wörld&quot;").await;
    let path = format!("/v1/runs?smith_id={smith}");
    let runs = ok(harness.get(&path).send().await).await;
    assert_eq!(runs["data"][0]["input"][0]["content"][0]["text"], "Hello?");
    let events = "/v1/inbound_events?source=telegram";
    let events = ok(harness.get(events).send().await).await;
    assert_eq!(events["data"].as_array().map(Vec::len), Some(3));
    let calls = telegram.checked_calls().await;
    assert!(calls.iter().any(|call| call.0 == "setWebhook"));
}
