//! Work that nodes share, when they die, and when they only seem to.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use smithgate::store::{
    DeliveryOutcome, DeliveryStatus, EventRow, FileRow, HeldDelivery, Store, VectorFileRow,
    VectorFileStatus, VectorOutcome, VectorStoreRow, WebhookRow,
};

use crate::cli::{Running, token_in};
use crate::crash::with_mock;
use crate::mock::Mock;
use crate::secrets::signal;
use crate::store::{HERE, THERE, on_both_engines, postgres, postgres_url, sqlite, two_tenants};
use crate::support::ok;
use crate::webhooks::Receiver;

on_both_engines!(
    deliveries_are_written_by_their_holder_alone,
    files_are_written_by_their_holder_alone,
    due_lanes_are_fair_between_tenants,
);

async fn webhook(store: &Arc<dyn Store>, tenant: &str, id: &str) {
    let row = WebhookRow {
        id: id.to_owned(),
        tenant_id: tenant.to_owned(),
        url: "https://example.com".to_owned(),
        events: "[]".to_owned(),
        active: true,
        sealed: vec![1],
        previous_sealed: None,
        previous_until: None,
        created_at: 1,
    };
    store.insert_webhook(&row, &[]).await.expect("made");
}

async fn due(store: &Arc<dyn Store>, tenant: &str, webhook: &str) -> String {
    let event = EventRow::new(tenant, "webhook.test", None, &json!({}), None);
    let appended = store.append_event_for(&event, webhook, 10).await;
    appended.expect("appended").id
}

fn outcome(status: DeliveryStatus, at: i64) -> DeliveryOutcome {
    DeliveryOutcome {
        status,
        last_status: None,
        last_error: None,
        next_attempt_at: at,
        delivered_at: None,
    }
}

async fn deliveries_are_written_by_their_holder_alone(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    webhook(&store, HERE, "wh_1").await;
    let id = due(&store, HERE, "wh_1").await;
    let held = |until: i64| HeldDelivery {
        tenant_id: HERE,
        id: &id,
        until,
    };
    let claim = async |now: i64, until: i64| {
        let claimed = store.claim_deliveries(HERE, "wh_1", now, until, 8).await;
        claimed.expect("claimed").first().map(|row| row.takings)
    };
    let settle = async |until: i64, status: DeliveryStatus| {
        let outcome = outcome(status, 500);
        let settled = store.settle_delivery(held(until), &outcome);
        settled.await.expect("tried")
    };
    let renew = async |from: i64, until: i64| {
        let renewed = store.renew_deliveries(&[held(from)], until).await;
        renewed.expect("tried")
    };
    assert_eq!(claim(5, 100).await, None, "not due");
    assert_eq!(claim(10, 100).await, Some(1));
    assert_eq!(claim(50, 150).await, None, "held");
    assert_eq!(renew(100, 120).await, [true]);
    assert_eq!(renew(100, 130).await, [false], "it is held until 120");
    assert_eq!(claim(110, 210).await, None, "prolonged");
    // Its node sleeps, another takes it, and the first one wakes.
    assert_eq!(claim(120, 220).await, Some(2));
    assert_eq!(renew(120, 300).await, [false]);
    assert!(!settle(120, DeliveryStatus::Succeeded).await);
    let released = store.release_delivery(held(120), 0).await;
    assert!(!released.expect("tried"));
    store.uncount_delivery(HERE, &id).await.expect("written");
    // What it says of another tenant's is nothing.
    let foreign = HeldDelivery {
        tenant_id: THERE,
        ..held(220)
    };
    let settled = store
        .settle_delivery(foreign, &outcome(DeliveryStatus::Succeeded, 1))
        .await;
    assert!(!settled.expect("tried"));
    let row = store.delivery(HERE, "wh_1", &id).await.expect("read");
    let row = row.expect("a row");
    assert_eq!(
        (row.status, row.attempts, row.takings),
        (DeliveryStatus::Pending, 0, 1)
    );
    // Given back, it is anybody's, and counted anew.
    let released = store.release_delivery(held(220), 130).await;
    assert!(released.expect("tried"));
    assert_eq!(claim(130, 230).await, Some(1));
    assert!(settle(230, DeliveryStatus::Succeeded).await);
    assert!(!settle(230, DeliveryStatus::Dead).await, "it is over");
    let row = store.delivery(HERE, "wh_1", &id).await.expect("read");
    let row = row.expect("a row");
    assert_eq!(
        (row.status, row.attempts, row.takings),
        (DeliveryStatus::Succeeded, 1, 0)
    );
}

async fn file(store: &Arc<dyn Store>, tenant: &str, name: &str) {
    let file = FileRow {
        id: format!("file-{name}"),
        tenant_id: tenant.to_owned(),
        smith_id: None,
        filename: name.to_owned(),
        purpose: "assistants".to_owned(),
        media_type: None,
        bytes: 1,
        complete: false,
        created_at: 1,
    };
    store.begin_file(&file).await.expect("begun");
    store.complete_file(&file).await.expect("complete");
    let row = VectorStoreRow {
        id: format!("vs_{name}"),
        tenant_id: tenant.to_owned(),
        smith_id: None,
        name: name.to_owned(),
        description: None,
        metadata: "{}".to_owned(),
        embedding_model: None,
        revision: 1,
        last_active_at: 1,
        created_at: 1,
    };
    let attached = VectorFileRow {
        id: file.id.clone(),
        tenant_id: tenant.to_owned(),
        vector_store_id: row.id.clone(),
        batch_id: None,
        status: VectorFileStatus::InProgress,
        error_code: None,
        error: None,
        usage_bytes: 0,
        attributes: "{}".to_owned(),
        chunk_tokens: 800,
        overlap_tokens: 400,
        attempts: 0,
        due_at: 10,
        created_at: 1,
        takings: 0,
    };
    let made = store.insert_vector_store(&row, &[attached]).await;
    made.expect("made");
}

async fn files_are_written_by_their_holder_alone(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    file(&store, HERE, "one").await;
    let claim = async |now: i64, until: i64| {
        let claimed = store.claim_vector_files(HERE, now, until, 8).await;
        claimed.expect("claimed").pop()
    };
    let next = store.due_vector_files(5, 8).await.expect("read");
    assert_eq!(next, (Vec::new(), Some(10)), "it is known when to look");
    let none = store.claim_vector_files(THERE, 10, 100, 8).await;
    assert!(none.expect("claimed").is_empty());
    let row = claim(10, 100).await.expect("due");
    assert_eq!((row.takings, row.attempts), (1, 1));
    let renew = async |from: i64, until: i64| {
        let renewed = store.renew_vector_files(&[(&row, from)], until).await;
        renewed.expect("tried")
    };
    let finish = async |until: i64, outcome: VectorOutcome<'_>| {
        let finished = store.finish_vector_file(&row, until, outcome).await;
        finished.expect("tried")
    };
    assert_eq!(renew(100, 120).await, [true]);
    assert_eq!(claim(110, 210).await, None, "prolonged");
    let again = claim(120, 220).await.expect("lapsed");
    assert_eq!(again.takings, 2);
    assert_eq!(renew(120, 300).await, [false]);
    let failed = VectorOutcome::Failed {
        code: "server_error",
        message: "stale",
    };
    assert!(!finish(120, failed.clone()).await);
    let released = store.release_vector_file(&row, 120, 0).await;
    assert!(!released.expect("tried"));
    store.uncount_vector_file(&row).await.expect("written");
    let released = store.release_vector_file(&row, 220, 130).await;
    assert!(released.expect("tried"));
    let row = claim(130, 230).await.expect("given back");
    assert_eq!((row.takings, row.attempts), (1, 2), "nothing was tried");
    assert!(finish(230, VectorOutcome::Later(240)).await);
    assert!(!finish(230, failed.clone()).await);
    claim(240, 340).await.expect("due again");
    assert!(finish(340, failed).await);
    assert_eq!(claim(400, 500).await, None, "it is over");
}

async fn due_lanes_are_fair_between_tenants(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    for n in 0..5 {
        let id = format!("wh_{n}");
        webhook(&store, HERE, &id).await;
        due(&store, HERE, &id).await;
        file(&store, HERE, &n.to_string()).await;
    }
    webhook(&store, THERE, "wh_there").await;
    due(&store, THERE, "wh_there").await;
    file(&store, THERE, "there").await;
    assert!(store.due_webhooks(9, 10).await.expect("read").is_empty());
    let found = store.due_webhooks(10, 2).await.expect("read");
    let mut tenants: Vec<_> = found.iter().map(|(tenant, _)| tenant.as_str()).collect();
    tenants.sort_unstable();
    assert_eq!(tenants, [HERE, THERE]);
    assert_eq!(store.due_webhooks(10, 10).await.expect("read").len(), 6);
    let (mut tenants, _) = store.due_vector_files(10, 2).await.expect("read");
    tenants.sort_unstable();
    assert_eq!(tenants, [HERE, THERE]);
}

/// Nodes of one PostgreSQL that lose their work after a second and a half.
struct Site {
    url: String,
    dir: tempfile::TempDir,
    mock: Mock,
    receiver: Receiver,
    token: String,
    webhook: String,
}

impl Site {
    /// With a first node, and a webhook whose server thinks for `delay`.
    async fn start(delay: Duration) -> (Self, Running) {
        let url = postgres_url().await;
        let dir = tempfile::tempdir().expect("a directory");
        let mock = Mock::start().await;
        let receiver = Receiver::start().await;
        receiver.delay(delay);
        let mut site = Self {
            url,
            dir,
            mock,
            receiver,
            token: String::new(),
            webhook: String::new(),
        };
        let (first, printed) = Running::start(site.command(), "listens on").await;
        site.token = token_in(&printed).expect("a token").to_owned();
        let body = json!({ "url": site.receiver.url("/"), "events": ["run.completed"] });
        let made = site.call(&first, Method::POST, "/v1/tenant/webhooks");
        let made = ok(made.json(&body).send().await).await;
        site.webhook = made["id"].as_str().expect("an id").to_owned();
        (site, first)
    }

    fn command(&self) -> tokio::process::Command {
        let mut command = with_mock(self.dir.path(), &self.mock, Some(&self.url));
        command.env("SMITHGATE_EGRESS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]");
        command.env("SMITHGATE_LIMITS__LEASE_MS", "1500");
        command
    }

    async fn node(&self) -> Running {
        Running::start(self.command(), "listens on").await.0
    }

    fn call(&self, node: &Running, method: Method, path: &str) -> reqwest::RequestBuilder {
        let call = node.client.request(method, node.url(path));
        call.bearer_auth(&self.token)
    }

    async fn event(&self, node: &Running) {
        let made = self.call(node, Method::POST, "/v1/smiths");
        let made = ok(made.json(&json!({ "model": "mock/text" })).send().await).await;
        let path = format!("/v1/smiths/{}/runs", made["id"].as_str().expect("an id"));
        let body = json!({ "input": [{ "role": "user", "content": "hi" }] });
        ok(self
            .call(node, Method::POST, &path)
            .json(&body)
            .send()
            .await)
        .await;
    }

    async fn delivery(&self, node: &Running) -> Value {
        let path = format!("/v1/tenant/webhooks/{}/deliveries", self.webhook);
        let page = ok(self.call(node, Method::GET, &path).send().await).await;
        page["data"][0].clone()
    }

    async fn delivered(&self, node: &Running, ready: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..200 {
            last = self.delivery(node).await;
            if ready(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the delivery stays {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_node_held_is_done_by_another_and_given_up_when_it_kills_all() {
    let (site, mut node) = Site::start(Duration::from_secs(3600)).await;
    site.event(&node).await;
    for arrivals in 1..=2 {
        site.receiver.wait_for_begun(arrivals).await;
        node.child.kill().await.expect("killed");
        node = site.node().await;
    }
    let dead = site.delivered(&node, |row| row["status"] == "dead").await;
    assert_eq!(dead["last_error"], "its node ended 2 times with an attempt");
    assert_eq!(site.receiver.begun(), 2, "it is not tried a third time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_stopped_for_longer_than_its_hold_writes_nothing() {
    let (site, first) = Site::start(Duration::from_secs(1)).await;
    site.receiver.answer(200, "");
    site.receiver.answer(500, "");
    site.event(&first).await;
    site.receiver.wait_for_begun(1).await;
    let stopped = first.child.id().expect("running");
    signal(stopped, "-STOP");
    let second = site.node().await;
    // The first one was answered 200 meanwhile, and does not know it yet.
    let failed = site.delivered(&second, |row| row["attempts"] == 1).await;
    assert_eq!(failed["last_status"], 500, "{failed}");
    signal(stopped, "-CONT");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let still = site.delivery(&first).await;
    assert_eq!(still, failed, "what the first one learnt is not written");
    let done = site
        .delivered(&first, |row| row["status"] == "succeeded")
        .await;
    assert_eq!(done["attempts"], 2, "{done}");
    assert_eq!(site.receiver.begun(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_down_waits_for_an_attempt_and_leaves_the_rest() {
    let (site, first) = Site::start(Duration::from_secs(1)).await;
    site.event(&first).await;
    site.receiver.wait_for_begun(1).await;
    let second = site.node().await;
    first.terminate();
    let (success, _) = first.end().await;
    assert!(success);
    let done = site.delivery(&second).await;
    assert_eq!(
        (&done["status"], &done["attempts"]),
        (&json!("succeeded"), &json!(1))
    );
    site.event(&second).await;
    site.receiver.wait(2).await;
    assert_eq!(site.receiver.begun(), 2);
}
