//! Schedules and the lanes that their turns wait in.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use smithgate::store::now_micros;

use crate::cli::{Running, token_in};
use crate::crash::with_mock;
use crate::mock::Mock;
use crate::store::postgres_url;
use crate::support::{Harness, ok, refused};

const HOUR: i64 = 3600 * 1_000_000;

async fn schedule(harness: &Harness, smith: &str, body: &Value) -> Value {
    let path = format!("/v1/smiths/{smith}/schedules");
    ok(harness.post(&path, body).send().await).await
}

fn id(made: &Value) -> &str {
    made["id"].as_str().expect("an id")
}

/// The runs of a smith, oldest first, once `count` of them have ended.
async fn ended_runs(harness: &Harness, smith: &str, count: usize) -> Vec<Value> {
    let path = format!("/v1/smiths/{smith}/runs?limit=100");
    for _ in 0..200 {
        let runs = ok(harness.get(&path).send().await).await;
        let mut runs = runs["data"].as_array().expect("runs").clone();
        runs.retain(|run| run["status"] != "running");
        if runs.len() >= count {
            runs.reverse();
            return runs;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("fewer than {count} runs have ended");
}

/// Makes a schedule due since `ago`, as if nobody had looked at the clock.
async fn put_back(harness: &Harness, smith: &str, made: &Value, ago: i64) {
    let store = &harness.gateway.store;
    let row = store.schedule(&harness.tenant, smith, id(made)).await;
    let mut row = row.expect("read").expect("there");
    let at = now_micros() - ago;
    (row.next_fire_at, row.due_at) = (Some(at), Some(at));
    assert!(store.update_schedule(&row).await.expect("written"));
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_made_changed_and_deleted() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let made = schedule(
        &harness,
        &smith,
        &json!({ "cron": "0 9 * * MON-FRI", "name": "morning", "timezone": "Europe/Berlin",
            "input": [{ "role": "user", "content": "What is new?" }], "thread_id": null }),
    )
    .await;
    assert_eq!(made["enabled"], true);
    assert_eq!(made["last_fire_at"], Value::Null);
    assert_eq!(made["input"][0]["content"], "What is new?");
    let next = made["next_fire_at"].as_str().expect("a time");
    assert!(
        next.ends_with(":00:00Z") || next.ends_with(":00:00.000000Z"),
        "{next}"
    );
    let path = format!("/v1/smiths/{smith}/schedules/{}", id(&made));
    assert_eq!(ok(harness.get(&path).send().await).await, made);
    let patch = |body: Value| harness.request(Method::PATCH, &path).json(&body);
    let paused = ok(patch(json!({ "enabled": false, "name": null }))
        .send()
        .await)
    .await;
    assert_eq!(
        (&paused["next_fire_at"], &paused["name"]),
        (&Value::Null, &Value::Null)
    );
    let on = ok(patch(json!({ "enabled": true, "timezone": "UTC" }))
        .send()
        .await)
    .await;
    assert!(on["next_fire_at"].is_string());
    let list = ok(harness
        .get(&format!("/v1/smiths/{smith}/schedules"))
        .send()
        .await)
    .await;
    assert_eq!(list["data"], json!([on]));
    for (body, code, param) in [
        (json!({ "cron": "* * * * * *" }), "invalid_cron", "cron"),
        (json!({ "cron": "0 0 31 2 *" }), "invalid_cron", "cron"),
        (
            json!({ "cron": "@daily", "timezone": "Mars/X" }),
            "invalid_timezone",
            "timezone",
        ),
        (
            json!({ "cron": "@daily", "jitter_seconds": 9999 }),
            "invalid_request",
            "jitter_seconds",
        ),
        (
            json!({ "cron": "@daily", "input": [{ "role": "system", "content": "x" }] }),
            "invalid_input",
            "input[0].role",
        ),
        (
            json!({ "cron": "@daily", "thread_id": "" }),
            "invalid_request",
            "thread_id",
        ),
    ] {
        let all = format!("/v1/smiths/{smith}/schedules");
        let (status, error) = refused(harness.post(&all, &body).send().await).await;
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{body}");
        assert_eq!(error["param"], param, "{body}");
    }
    // Another smith's token sees none of it.
    let other = harness.smith("openai-chat/text").await;
    let token = harness
        .smith_token(&other, &["schedules:read", "schedules:write"])
        .await;
    let (status, _) = refused(
        harness
            .client
            .get(harness.url(&path))
            .bearer_auth(&token)
            .send()
            .await,
    )
    .await;
    assert_eq!(status, 403);
    let gone = harness
        .request(Method::DELETE, &path)
        .send()
        .await
        .expect("an answer");
    assert_eq!(gone.status(), 204);
    assert_eq!(refused(harness.get(&path).send().await).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_runs_now() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let made = schedule(
        &harness,
        &smith,
        &json!({ "cron": "@yearly", "name": "new year" }),
    )
    .await;
    let path = format!("/v1/smiths/{smith}/schedules/{}", id(&made));
    let run_now = harness
        .post(&format!("{path}/run_now"), &json!({}))
        .send()
        .await;
    let run_now = run_now.expect("an answer");
    assert_eq!(run_now.status(), 202);
    let queued: Value = run_now.json().await.expect("JSON");
    assert_eq!(queued["schedule_id"], made["id"]);
    assert_eq!(queued["status"], "queued");
    assert!(
        queued["delivery_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("dlv_"))
    );
    let runs = ended_runs(&harness, &smith, 1).await;
    assert_eq!(
        (&runs[0]["status"], &runs[0]["channel"]),
        (&json!("completed"), &json!("schedule"))
    );
    assert_eq!(runs[0]["metadata"]["schedule_id"], made["id"]);
    assert!(
        runs[0]["input"][0]["content"]
            .as_str()
            .is_some_and(|text| text.contains("new year"))
    );
    let fires = ok(harness.get(&format!("{path}/fires")).send().await).await;
    assert_eq!(fires["data"][0]["run_id"], runs[0]["id"]);
    assert_eq!(fires["data"][0]["delivery_id"], queued["delivery_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_fires_once_or_is_said() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let often = schedule(&harness, &smith, &json!({ "cron": "* * * * *" })).await;
    put_back(&harness, &smith, &often, HOUR / 2).await;
    let runs = ended_runs(&harness, &smith, 1).await;
    let path = format!("/v1/smiths/{smith}/schedules/{}", id(&often));
    let fires = ok(harness.get(&format!("{path}/fires")).send().await).await;
    let first = fires["data"]
        .as_array()
        .and_then(|all| all.last())
        .expect("a fire");
    assert_eq!(
        (&first["status"], &first["run_id"]),
        (&json!("queued"), &runs[0]["id"])
    );
    assert!(
        (29..=31).contains(&first["missed"].as_i64().expect("a number")),
        "{first}"
    );
    ok(harness
        .request(Method::PATCH, &path)
        .json(&json!({ "enabled": false }))
        .send()
        .await)
    .await;

    let seldom = schedule(&harness, &smith, &json!({ "cron": "0 0 1 1 *" })).await;
    put_back(&harness, &smith, &seldom, 2 * HOUR).await;
    let path = format!("/v1/smiths/{smith}/schedules/{}", id(&seldom));
    let mut skipped = Value::Null;
    for _ in 0..100 {
        let fires = ok(harness.get(&format!("{path}/fires")).send().await).await;
        skipped = fires["data"][0].clone();
        if skipped.is_object() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        (&skipped["status"], &skipped["run_id"]),
        (&json!("skipped"), &Value::Null)
    );
    assert!(
        skipped["reason"]
            .as_str()
            .is_some_and(|why| why.contains("an hour late"))
    );
    let events = ok(harness.get("/v1/events?type=schedule.skipped").send().await).await;
    assert_eq!(events["data"][0]["data"]["fire_id"], skipped["id"]);
    let now = ok(harness.get(&path).send().await).await;
    assert_eq!(now["last_fire_at"], Value::Null);
    assert!(now["next_fire_at"].is_string());
}

/// That runs of one thread follow one another.
fn check_in_order(runs: &[Value], texts: &[String]) {
    let mut said = Vec::new();
    let mut last = String::new();
    for run in runs {
        assert_eq!(run["status"], "completed", "{run}");
        let begun = run["created_at"].as_str().expect("a time").to_owned();
        assert!(
            last <= begun,
            "a turn began at {begun} before the one ahead ended at {last}"
        );
        last = run["updated_at"].as_str().expect("a time").to_owned();
        said.push(
            run["input"][0]["content"]
                .as_str()
                .expect("text")
                .to_owned(),
        );
    }
    assert_eq!(said, texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_of_one_thread_follow_one_another() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let texts: Vec<String> = (0..5).map(|n| format!("turn {n}")).collect();
    for text in &texts {
        let body = json!({ "cron": "@yearly", "thread_id": "thr_one",
            "input": [{ "role": "user", "content": text }] });
        let made = schedule(&harness, &smith, &body).await;
        let path = format!("/v1/smiths/{smith}/schedules/{}/run_now", id(&made));
        ok(harness.post(&path, &json!({})).send().await).await;
    }
    let runs = ended_runs(&harness, &smith, 5).await;
    check_in_order(&runs, &texts);
    assert!(runs.iter().all(|run| run["thread_id"] == "thr_one"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_cannot_be_a_run_is_told() {
    let harness = Harness::start().await;
    let made = harness
        .post("/v1/smiths", &json!({ "model": "nobody/has-this" }))
        .send()
        .await;
    let smith = id(&ok(made).await).to_owned();
    let made = schedule(&harness, &smith, &json!({ "cron": "@yearly" })).await;
    let path = format!("/v1/smiths/{smith}/schedules/{}/run_now", id(&made));
    let queued = ok(harness.post(&path, &json!({})).send().await).await;
    for _ in 0..100 {
        let events = ok(harness.get("/v1/events?type=turn.failed").send().await).await;
        if let Some(event) = events["data"].get(0) {
            assert_eq!(event["data"]["delivery_id"], queued["delivery_id"]);
            assert!(event["data"]["code"].is_string());
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody said that the turn failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smith_plans_for_itself_when_a_human_agrees() {
    let harness = Harness::start().await;
    let body = json!({ "model": "openai-chat/script", "enabled_hosted_tools": ["schedules"] });
    let smith = id(&ok(harness.post("/v1/smiths", &body).send().await).await).to_owned();
    let script = "create_schedule {\"cron\": \"0 9 * * *\", \"timezone\": \"Europe/Berlin\", \
                  \"name\": \"news\", \"message\": \"What is new?\"}\n---\nlist_schedules {}";
    let run = harness.run(&smith, script).await;
    assert_eq!(run["status"], "paused_for_approval", "{run}");
    let path = format!("/v1/smiths/{smith}/schedules");
    assert_eq!(ok(harness.get(&path).send().await).await["data"], json!([]));
    let call = &run["output"]["tool_calls"][0];
    let word = json!({ "kind": "approval_decision", "approval_id": call["approval_id"],
        "decision": "approve" });
    let submit = format!("/v1/smiths/{smith}/runs/{}/submit", id(&run));
    let done = ok(harness.post(&submit, &word).send().await).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert!(
        done["output"]["content"]
            .as_str()
            .is_some_and(|text| text.contains("news")),
        "{done}"
    );
    let listed = ok(harness.get(&path).send().await).await;
    assert_eq!(
        (&listed["data"][0]["name"], &listed["data"][0]["timezone"]),
        (&json!("news"), &json!("Europe/Berlin"))
    );
}

async fn nothing_is_lost_or_doubled(store: Option<String>) {
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let command = || with_mock(dir.path(), &mock, store.as_deref());
    let (mut running, printed) = Running::start(command(), "listens on").await;
    let token = token_in(&printed).expect("a token").to_owned();
    let texts: Vec<String> = (0..8).map(|n| format!("turn {n}")).collect();
    let call =
        |running: &Running, path: &str| running.client.post(running.url(path)).bearer_auth(&token);
    let made = call(&running, "/v1/smiths")
        .json(&json!({ "model": "mock/text" }))
        .send()
        .await;
    let smith = id(&ok(made).await).to_owned();
    let schedules = format!("/v1/smiths/{smith}/schedules");
    for text in &texts {
        let body = json!({ "cron": "@yearly", "thread_id": "thr_one",
            "input": [{ "role": "user", "content": text }] });
        let made = ok(call(&running, &schedules).json(&body).send().await).await;
        let path = format!("{schedules}/{}/run_now", id(&made));
        ok(call(&running, &path).send().await).await;
    }
    for _ in 0..2 {
        running.child.kill().await.expect("killed");
        (running, _) = Running::start(command(), "listens on").await;
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    let path = format!("/v1/smiths/{smith}/runs?limit=100");
    let mut runs = Vec::new();
    for _ in 0..400 {
        let got = running
            .client
            .get(running.url(&path))
            .bearer_auth(&token)
            .send()
            .await;
        runs = ok(got).await["data"].as_array().expect("runs").clone();
        runs.reverse();
        if runs.len() >= texts.len() && runs.iter().all(|run| run["status"] == "completed") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    check_in_order(&runs, &texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_survive_kills_on_the_embedded_store() {
    nothing_is_lost_or_doubled(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_survive_kills_on_postgres() {
    nothing_is_lost_or_doubled(Some(postgres_url().await)).await;
}
