//! kill -9 in the middle of writes: what was acknowledged is there after the restart.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cli::{Running, smithgate, token_in};
use crate::mock::Mock;
use crate::store::postgres_url;
use crate::support::ok;

const ROUNDS: u64 = 4;
const WRITERS: usize = 6;

/// What was acknowledged: paths to read again.
type Acknowledged = Arc<Mutex<Vec<String>>>;

async fn write(url: String, token: String, smith: String, writer: usize, kept: Acknowledged) {
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    for n in 0.. {
        let (path, body) = match n % 3 {
            0 => (
                "/v1/customers".to_owned(),
                json!({ "name": format!("c{writer}-{n}") }),
            ),
            1 => (
                format!("/v1/smiths/{smith}/runs"),
                json!({ "input": [{ "role": "user", "content": "hi" }] }),
            ),
            _ => (
                "/v1/smiths".to_owned(),
                json!({ "external_id": format!("{writer}-{n}-{url}") }),
            ),
        };
        let call = client
            .post(format!("{url}{path}"))
            .bearer_auth(&token)
            .json(&body);
        let Ok(answer) = call.send().await else {
            return;
        };
        let status = answer.status();
        if !status.is_success() {
            panic!("{path}: {status} {:?}", answer.text().await);
        }
        // An answer that was cut is none.
        let Ok(made) = answer.json::<Value>().await else {
            return;
        };
        let id = made["id"].as_str().expect("an id");
        kept.lock().push(format!("{path}/{id}"));
    }
}

/// The binary with the scripted provider as `mock`.
pub fn with_mock(
    dir: &std::path::Path,
    mock: &Mock,
    store: Option<&str>,
) -> tokio::process::Command {
    let mut command = smithgate(dir);
    command.env("SMITHGATE_PROVIDERS__MOCK__WIRE", "openai_chat");
    command.env(
        "SMITHGATE_PROVIDERS__MOCK__BASE_URL",
        mock.url("openai_chat"),
    );
    command.env("SMITHGATE_PROVIDERS__MOCK__API_KEY", "key");
    if let Some(url) = store {
        command.env("SMITHGATE_STORE__URL", url);
    }
    command
}

async fn nothing_acknowledged_is_lost(store: Option<String>) {
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let command = || with_mock(dir.path(), &mock, store.as_deref());
    let kept = Acknowledged::default();
    let mut token = String::new();
    let mut smith = String::new();
    for round in 0..ROUNDS {
        let (mut running, printed) = Running::start(command(), "listens on").await;
        if let Some(found) = token_in(&printed) {
            token = found.to_owned();
        }
        if smith.is_empty() {
            let body = json!({ "model": "mock/text" });
            let call = running.client.post(running.url("/v1/smiths"));
            let made = ok(call.bearer_auth(&token).json(&body).send().await).await;
            smith = made["id"].as_str().expect("an id").to_owned();
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let task = write(
                    running.url(""),
                    token.clone(),
                    smith.clone(),
                    writer,
                    kept.clone(),
                );
                tokio::spawn(task)
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(300 + 130 * round)).await;
        // On a machine that is busy, enough must have been written all the same.
        let enough = 25 * (round as usize + 1);
        for _ in 0..500 {
            if kept.lock().len() >= enough {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running.child.kill().await.expect("killed");
        for writer in writers {
            writer.await.expect("ended");
        }
    }
    let (running, _) = Running::start(command(), "listens on").await;
    let paths = kept.lock().clone();
    assert!(paths.len() >= 100, "only {} were acknowledged", paths.len());
    let read = |path: &str| {
        let call = running.client.get(running.url(path)).bearer_auth(&token);
        async move { ok(call.send().await).await }
    };
    let mut runs = 0;
    for path in &paths {
        let found = read(path).await;
        if path.contains("/runs/") {
            runs += 1;
            assert_eq!(found["status"], "completed", "{path}");
            // Its trace was written with its end.
            let id = found["id"].as_str().expect("an id");
            let trace = read(&format!("/v1/runs/{id}/trace")).await;
            assert_eq!(trace["status"], "ok", "{path}");
        }
    }
    // So was its event: no completed run without one, no event twice.
    let mut events = std::collections::HashSet::new();
    let mut cursor = String::new();
    loop {
        let page = read(&format!(
            "/v1/events?type=run.completed&limit=200&cursor={cursor}"
        ))
        .await;
        for event in page["data"].as_array().expect("events") {
            let run = event["data"]["run_id"].as_str().expect("a run").to_owned();
            assert!(events.insert(run), "{event}");
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert!(events.len() >= runs && runs > 20, "{} {runs}", events.len());
    println!("{} acknowledged, {runs} of them runs", paths.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_sqlite() {
    nothing_acknowledged_is_lost(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_on_postgres() {
    nothing_acknowledged_is_lost(Some(postgres_url().await)).await;
}
