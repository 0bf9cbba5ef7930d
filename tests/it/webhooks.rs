//! Webhooks and OAuth connections: what leaves the gateway, against real servers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use smithgate::config::Config;
use smithgate::upstream::Names;

use crate::mock::Mock;
use crate::support::{Harness, ok, refused};

/// A request that arrived.
#[derive(Clone)]
pub struct Arrived {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Default)]
struct Inbox {
    arrived: Mutex<Vec<Arrived>>,
    /// Statuses and bodies to answer with, in turn; then 200.
    answers: Mutex<VecDeque<(u16, String)>>,
    delay: Mutex<Duration>,
    begun: AtomicUsize,
}

/// A server that keeps what it is sent.
pub struct Receiver {
    address: SocketAddr,
    inbox: Arc<Inbox>,
}

async fn receive(
    State(inbox): State<Arc<Inbox>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let delay = *inbox.delay.lock();
    inbox.begun.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(delay).await;
    inbox.arrived.lock().push(Arrived {
        path: uri.to_string(),
        headers,
        body,
    });
    let (status, body) = inbox
        .answers
        .lock()
        .pop_front()
        .unwrap_or((200, String::new()));
    (StatusCode::from_u16(status).expect("a status"), body)
}

impl Receiver {
    pub async fn start() -> Self {
        let inbox = Arc::new(Inbox::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().fallback(receive).with_state(inbox.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, inbox }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn arrived(&self) -> Vec<Arrived> {
        self.inbox.arrived.lock().clone()
    }

    /// Waits until `count` requests have arrived.
    pub async fn wait(&self, count: usize) -> Vec<Arrived> {
        for _ in 0..200 {
            let arrived = self.arrived();
            if arrived.len() >= count {
                return arrived;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} of {count} requests arrived", self.arrived().len());
    }

    /// Requests that arrived, answered or not.
    pub fn begun(&self) -> usize {
        self.inbox.begun.load(Ordering::Relaxed)
    }

    /// Waits until `count` requests have arrived, answered or not.
    pub async fn wait_for_begun(&self, count: usize) {
        for _ in 0..200 {
            if self.begun() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{} of {count} requests arrived", self.begun());
    }

    /// Answers come so late from now on.
    pub fn delay(&self, delay: Duration) {
        *self.inbox.delay.lock() = delay;
    }

    pub fn answer(&self, status: u16, body: &str) {
        self.inbox
            .answers
            .lock()
            .push_back((status, body.to_owned()));
    }
}

pub fn loopback_allowed(config: &mut Config, _mock: &Mock) {
    config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
}

fn secret_of(made: &Value) -> String {
    made["secret"].as_str().expect("a secret").to_owned()
}

async fn webhook(harness: &Harness, url: &str, events: Value) -> (String, String) {
    let body = json!({ "url": url, "events": events });
    let made = ok(harness.post("/v1/tenant/webhooks", &body).send().await).await;
    (
        made["id"].as_str().expect("an id").to_owned(),
        secret_of(&made),
    )
}

async fn turn(harness: &Harness, smith: &str) -> Value {
    let body = json!({ "input": [{ "role": "user", "content": "hi" }] });
    ok(harness
        .post(&format!("/v1/smiths/{smith}/runs"), &body)
        .send()
        .await)
    .await
}

/// The delivery of a webhook that was made first, once `ready` holds for it.
async fn delivery(harness: &Harness, webhook: &str, ready: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/v1/tenant/webhooks/{webhook}/deliveries");
    let mut last = Value::Null;
    for _ in 0..200 {
        let page = ok(harness.get(&path).send().await).await;
        last = page["data"]
            .as_array()
            .and_then(|d| d.last().cloned())
            .unwrap_or_default();
        if ready(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the delivery stays {last}");
}

/// Verifies with the published `standardwebhooks` library.
fn standard_library_accepts(secret: &str, arrived: &Arrived) -> bool {
    let Ok(python) = std::env::var("TEST_PYTHON") else {
        panic!("TEST_PYTHON is not set: run .ci/test");
    };
    let script = "import sys, json\nfrom standardwebhooks.webhooks import Webhook\n\
        request = json.load(sys.stdin)\n\
        Webhook(request['secret']).verify(request['body'], request['headers'])";
    let header = |name: &str| arrived.headers[name].to_str().expect("text").to_owned();
    let input = json!({ "secret": secret, "body": std::str::from_utf8(&arrived.body).expect("text"),
        "headers": { "webhook-id": header("webhook-id"),
            "webhook-timestamp": header("webhook-timestamp"),
            "webhook-signature": header("webhook-signature") } });
    let mut child = Command::new(python)
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("Python");
    let stdin = child.stdin.take().expect("a pipe");
    serde_json::to_writer(stdin, &input).expect("written");
    child.wait().expect("an end").success()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_signed_for_any_standard_library() {
    let harness = Harness::start_with(loopback_allowed).await;
    let all = Receiver::start().await;
    let failures = Receiver::start().await;
    let (id, secret) = webhook(&harness, &all.url("/hooks?key=1"), json!([])).await;
    webhook(&harness, &failures.url("/"), json!(["run.failed", "slack"])).await;
    let listed = ok(harness.get("/v1/tenant/webhooks").send().await).await;
    assert!(!listed.to_string().contains(&secret));
    let smith = harness.smith("openai-chat/text").await;
    let run = turn(&harness, &smith).await;
    let arrived = all.wait(1).await.remove(0);
    assert_eq!(arrived.path, "/hooks?key=1");
    let event: Value = serde_json::from_slice(&arrived.body).expect("JSON");
    assert_eq!(event["type"], "run.completed");
    assert_eq!(event["tenant_id"], json!(harness.tenant));
    assert_eq!(event["data"]["run_id"], run["id"]);
    assert_eq!(
        arrived.headers["x-ic-event-id"],
        event["id"].as_str().expect("an id")
    );
    assert!(standard_library_accepts(&secret, &arrived));
    // Ours: HMAC over `<t>.<body>` with the secret as it is shown.
    let signature = arrived.headers["x-ic-signature"].to_str().expect("text");
    let (at, sum) = signature.split_once(",v1=").expect("two parts");
    let at = at.strip_prefix("t=").expect("a time");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let text = [at.as_bytes(), b".", &arrived.body].concat();
    let sum = hex::decode(sum).expect("hex");
    aws_lc_rs::hmac::verify(&key, &text, &sum).expect("our signature");
    let done = delivery(&harness, &id, |d| d["status"] == "succeeded").await;
    assert_eq!(
        (&done["attempts"], &done["last_status"]),
        (&json!(1), &json!(200))
    );
    assert_eq!(done["event_type"], "run.completed");
    // The one that asked for failures alone was left in peace.
    assert!(failures.arrived().is_empty());
    // While a secret is being replaced, both sign.
    let path = format!("/v1/tenant/webhooks/{id}");
    let rotate = format!("{path}/rotate_secret");
    let rotated = ok(harness
        .post(&rotate, &json!({ "grace_seconds": 60 }))
        .send()
        .await)
    .await;
    assert!(rotated["previous_secret_expires_at"].is_string());
    let test = ok(harness
        .post(&format!("{path}/test"), &json!({}))
        .send()
        .await)
    .await;
    assert_eq!(test["delivered"], true);
    let both = all.wait(2).await.remove(1);
    assert!(standard_library_accepts(&secret, &both));
    assert!(standard_library_accepts(&secret_of(&rotated), &both));
    let now = ok(harness
        .post(&rotate, &json!({ "grace_seconds": 0 }))
        .send()
        .await)
    .await;
    assert_eq!(now["previous_secret_expires_at"], Value::Null);
    ok(harness
        .post(&format!("{path}/test"), &json!({}))
        .send()
        .await)
    .await;
    let one = all.wait(3).await.remove(2);
    assert!(!standard_library_accepts(&secret_of(&rotated), &one));
    assert!(standard_library_accepts(&secret_of(&now), &one));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_repeated_redelivered_and_delay_nobody() {
    let harness = Harness::start_with(loopback_allowed).await;
    let failing = Receiver::start().await;
    let slow = Receiver::start().await;
    let fine = Receiver::start().await;
    *slow.inbox.delay.lock() = Duration::from_secs(30);
    failing.answer(500, "");
    let (id, _) = webhook(&harness, &failing.url("/"), json!(["run"])).await;
    webhook(&harness, &slow.url("/"), json!(["run"])).await;
    webhook(&harness, &fine.url("/"), json!(["run"])).await;
    let smith = harness.smith("openai-chat/text").await;
    turn(&harness, &smith).await;
    failing.wait(1).await;
    for _ in 0..2 {
        turn(&harness, &smith).await;
    }
    let begun = std::time::Instant::now();
    fine.wait(3).await;
    failing.wait(3).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    let failed = delivery(&harness, &id, |d| d["attempts"] == 1).await;
    assert_eq!(failed["status"], "pending");
    assert_eq!(failed["last_status"], 500);
    let due = failed["next_attempt_at"].as_str().expect("a time");
    assert!(due > failed["created_at"].as_str().expect("a time"));
    let again = format!(
        "/v1/tenant/webhooks/{id}/deliveries/{}/redeliver",
        failed["id"].as_str().expect("an id")
    );
    // A redirect is not followed.
    failing.answer(307, "");
    let moved = ok(harness.post(&again, &json!({})).send().await).await;
    assert_eq!(
        (&moved["delivered"], &moved["status"]),
        (&json!(false), &json!(307))
    );
    let redelivered = ok(harness.post(&again, &json!({})).send().await).await;
    assert_eq!(redelivered["delivered"], true);
    let done = delivery(&harness, &id, |d| d["status"] == "succeeded").await;
    assert_eq!(done["attempts"], 3);
    assert_eq!(done["next_attempt_at"], Value::Null);
    // After the last pause a delivery is dead.
    let store = harness.gateway.store.clone();
    let page = ok(harness
        .get(&format!("/v1/tenant/webhooks/{id}/deliveries"))
        .send()
        .await)
    .await;
    let newest = page["data"][0]["id"].as_str().expect("an id").to_owned();
    let mut row = store
        .delivery(&harness.tenant, &id, &newest)
        .await
        .expect("read")
        .expect("it");
    let hook = store
        .webhook(&harness.tenant, &id)
        .await
        .expect("read")
        .expect("it");
    row.attempts = 7;
    failing.answer(503, "");
    harness
        .gateway
        .webhooks
        .work
        .sender
        .attempt(&hook, &row)
        .await
        .expect("recorded");
    let dead = store
        .delivery(&harness.tenant, &id, &newest)
        .await
        .expect("read")
        .expect("it");
    assert_eq!(dead.status, smithgate::store::DeliveryStatus::Dead);
    let gone = harness
        .request(Method::DELETE, &format!("/v1/tenant/webhooks/{id}"))
        .send()
        .await;
    assert_eq!(gone.expect("an answer").status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_survive_a_restart() {
    let harness = Harness::start_with(loopback_allowed).await;
    let receiver = Receiver::start().await;
    receiver.answer(500, "");
    let (id, _) = webhook(&harness, &receiver.url("/"), json!([])).await;
    let smith = harness.smith("openai-chat/text").await;
    turn(&harness, &smith).await;
    delivery(&harness, &id, |d| d["attempts"] == 1).await;
    let harness = harness.restart().await;
    let done = delivery(&harness, &id, |d| d["status"] == "succeeded").await;
    assert_eq!(done["attempts"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_at_registration_and_at_connection() {
    let harness = Harness::start().await;
    for url in [
        "http://127.0.0.1/x",
        "http://10.0.0.1/",
        "http://[::1]:8080/",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost/",
        "ftp://example.com/",
        "nonsense",
    ] {
        let body = json!({ "url": url });
        let (status, error) =
            refused(harness.post("/v1/tenant/webhooks", &body).send().await).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("invalid_url")),
            "{url}"
        );
        assert_eq!(error["param"], "url");
    }
    // DNS rebinding: the name is public when it is registered, and private when it is called.
    let receiver = Receiver::start().await;
    let answers: Arc<Mutex<SocketAddr>> =
        Arc::new(Mutex::new("93.184.215.14:80".parse().expect("an address")));
    let asked = answers.clone();
    let upstream = &harness.gateway.models.upstream;
    upstream.resolve_with(Names(Box::new(move |_, _| {
        let now = *asked.lock();
        Box::pin(async move { Ok(vec![now]) })
    })));
    let url = format!("http://rebind.test:{}/", receiver.address.port());
    let (id, _) = webhook(&harness, &url, json!([])).await;
    *answers.lock() = receiver.address;
    let rebound = answers.clone();
    // A fresh look-up, as after the name's time to live.
    upstream.resolve_with(Names(Box::new(move |_, _| {
        let now = *rebound.lock();
        Box::pin(async move { Ok(vec![now]) })
    })));
    let path = format!("/v1/tenant/webhooks/{id}/test");
    let test = ok(harness.post(&path, &json!({})).send().await).await;
    assert_eq!(test["delivered"], false);
    let failed = delivery(&harness, &id, |d| d["attempts"] == 1).await;
    assert_eq!(failed["last_status"], Value::Null);
    assert!(receiver.arrived().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_granted_kept_and_refreshed() {
    let provider = Receiver::start().await;
    let harness = Harness::start_with(|config, mock| {
        loopback_allowed(config, mock);
        config.server.public_url = Some(format!("http://{}", config.server.listen));
    })
    .await;
    let smith = harness.smith("openai-chat/text").await;
    let connections = format!("/v1/smiths/{smith}/connections");
    let client = json!({ "client_id": "me", "client_secret": "s3cret",
        "token_uri": provider.url("/token"), "authorize_url": "https://login.example.com/authorize",
        "scopes_allowed": ["read", "write"] });
    let put = harness
        .request(Method::PUT, "/v1/tenant/providers/github")
        .json(&client);
    let stored = ok(put.send().await).await;
    assert_eq!(stored["has_client_secret"], true);
    assert!(!stored.to_string().contains("s3cret"));
    // An authorization, as a browser goes through it.
    let body = json!({ "provider": "github", "return_url": "https://app.example.com/done" });
    let begun = harness
        .post(&format!("{connections}/authorize"), &body)
        .send()
        .await;
    let (status, error) = refused(begun).await;
    assert_eq!(
        (status, &error["code"]),
        (400, &json!("invalid_return_url"))
    );
    let origins = json!({ "return_origins": ["https://app.example.com"] });
    let put = harness
        .request(Method::PUT, "/v1/tenant/consent")
        .json(&origins);
    ok(put.send().await).await;
    let begun = harness
        .post(&format!("{connections}/authorize"), &body)
        .send()
        .await;
    let begun = ok(begun).await;
    let page = url::Url::parse(begun["authorize_url"].as_str().expect("a page")).expect("a URL");
    let asked: std::collections::HashMap<String, String> =
        page.query_pairs().into_owned().collect();
    assert_eq!(asked["code_challenge_method"], "S256");
    assert_eq!(asked["scope"], "read write");
    provider.answer(
        200,
        r#"{"access_token":"at-1","refresh_token":"rt-1","expires_in":60}"#,
    );
    let browser = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let back = format!(
        "{}?state={}&code=c0de",
        asked["redirect_uri"], asked["state"]
    );
    let answer = browser.get(&back).send().await.expect("an answer");
    assert_eq!(answer.status(), 303);
    assert_eq!(
        answer.headers()["location"],
        "https://app.example.com/done?provider=github&status=connected"
    );
    let form = String::from_utf8(provider.arrived()[0].body.to_vec()).expect("text");
    for part in [
        "grant_type=authorization_code",
        "code=c0de",
        "client_secret=s3cret",
        "code_verifier=",
    ] {
        assert!(form.contains(part), "{form}");
    }
    // A state serves once.
    let (status, error) = refused(browser.get(&back).send().await).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_state")));
    let listed = ok(harness.get(&connections).send().await).await;
    let connection = &listed["data"][0];
    assert_eq!(connection["status"], "active");
    assert!(!listed.to_string().contains("at-1"));
    let path = format!(
        "{connections}/{}",
        connection["id"].as_str().expect("an id")
    );
    provider.answer(200, r#"{"access_token":"at-2"}"#);
    let fresh = ok(harness
        .post(&format!("{path}/refresh"), &json!({}))
        .send()
        .await)
    .await;
    assert_eq!(fresh["expires_at"], Value::Null);
    let form = String::from_utf8(provider.arrived()[1].body.to_vec()).expect("text");
    assert!(form.contains("refresh_token=rt-1"), "{form}");
    provider.answer(400, r#"{"error":"invalid_grant"}"#);
    let (status, error) = refused(
        harness
            .post(&format!("{path}/refresh"), &json!({}))
            .send()
            .await,
    )
    .await;
    assert_eq!((status, &error["code"]), (502, &json!("refresh_failed")));
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("invalid_grant"))
    );
    // Tokens that the caller brings.
    let bad = json!({ "provider": "x", "credential": {} });
    let (status, error) = refused(harness.post(&connections, &bad).send().await).await;
    assert_eq!((status, &error["code"]), (400, &json!("empty_credentials")));
    let own = json!({ "provider": "x", "scopes": ["a"], "credential": {
        "access_token": "mine", "expires_at": "2020-01-01T00:00:00Z" } });
    let made = ok(harness.post(&connections, &own).send().await).await;
    assert_eq!(made["status"], "expired");
    let mine = format!("{connections}/{}", made["id"].as_str().expect("an id"));
    let patch = json!({ "credential": { "access_token": "newer" }, "metadata": { "a": 1 } });
    let patched = ok(harness
        .request(Method::PATCH, &mine)
        .json(&patch)
        .send()
        .await)
    .await;
    assert_eq!(
        (&patched["status"], &patched["metadata"]["a"]),
        (&json!("active"), &json!(1))
    );
    let filtered = ok(harness
        .get(&format!("{connections}?provider=x"))
        .send()
        .await)
    .await;
    assert_eq!(filtered["data"].as_array().map(Vec::len), Some(1));
    let gone = harness
        .request(Method::DELETE, &mine)
        .send()
        .await
        .expect("an answer");
    assert_eq!(gone.status(), 204);
}
