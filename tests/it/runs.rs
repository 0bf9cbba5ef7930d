//! Native runs: replay, resuming, threads, locks, cancelling, restarts.

use std::time::Duration;

use bytes::BytesMut;
use serde_json::{Value, json};
use smithgate::frame::{self, Frame};
use smithgate::store::{Lease, Op, RunEnd, now_micros};

use crate::support::{Harness, check_gapless, data_lines, ok, refused, text};

fn input(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

fn run_id(stream: &str) -> String {
    let first: Value = serde_json::from_str(data_lines(stream)[0]).expect("JSON");
    first["run_id"].as_str().expect("an id").to_owned()
}

async fn streamed(harness: &Harness, smith: &str, body: Value) -> String {
    text(
        harness
            .post(&format!("/v1/smiths/{smith}/runs"), &body)
            .send()
            .await,
    )
    .await
}

/// A run that has said so much, and what was seen of it.
async fn under_way(harness: &Harness, smith: &str, deltas: usize) -> (reqwest::Response, String) {
    let body = json!({ "stream": true, "input": input("hi") });
    let call = harness.post(&format!("/v1/smiths/{smith}/runs"), &body);
    let mut answer = call.send().await.expect("an answer");
    let mut seen = String::new();
    while seen.matches("message.delta").count() < deltas {
        seen += &String::from_utf8_lossy(&answer.chunk().await.expect("a chunk").expect("bytes"));
    }
    (answer, seen)
}

/// The texts of the messages that the provider got, without the system's.
fn conversation(body: &Value) -> Vec<String> {
    body["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .filter(|m| m["role"] != "system")
        .map(|m| {
            m["content"].as_str().map_or_else(
                || m["content"][0]["text"].as_str().unwrap_or("").to_owned(),
                str::to_owned,
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_be_replayed_and_resumed_also_after_a_restart() {
    let mut harness = Harness::start().await;
    let smith = harness.smith("anthropic/thinking").await;
    let body = json!({ "stream": true, "input": input("hi"), "stream_options": { "include": ["reasoning"] } });
    let stream = streamed(&harness, &smith, body).await;
    let run = run_id(&stream);
    let events = stream.trim_end().split("\n\n").count();
    assert!(events > 4, "{stream}");
    let path = format!("/v1/smiths/{smith}/runs/{run}/events");
    for again in 0..2 {
        assert_eq!(
            text(harness.get(&format!("{path}?follow=false")).send().await).await,
            stream
        );
        assert_eq!(text(harness.get(&path).send().await).await, stream);
        for (at, _) in stream.match_indices("\n\n").enumerate() {
            let rest: Vec<&str> = stream.split_inclusive("\n\n").skip(at + 1).collect();
            let by_header = harness.get(&path).header("Last-Event-ID", at.to_string());
            assert_eq!(
                text(by_header.send().await).await,
                rest.concat(),
                "after {at}"
            );
            let by_query = harness.get(&format!("{path}?after={at}&follow=false"));
            assert_eq!(
                text(by_query.send().await).await,
                rest.concat(),
                "after {at}"
            );
        }
        if again == 0 {
            harness = harness.restart().await;
        }
    }
    let (status, error) =
        refused(harness.get(&path).header("Last-Event-ID", "x").send().await).await;
    assert_eq!(
        (status, error["param"].as_str()),
        (400, Some("Last-Event-ID"))
    );
    let (status, _) = refused(
        harness
            .get(&format!("/v1/smiths/{smith}/runs/run_none/events"))
            .send()
            .await,
    )
    .await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_way_can_be_joined_from_its_start() {
    let harness = Harness::start_with(|config, _| config.limits.idle_timeout_ms = 20_000).await;
    let smith = harness.smith("openai-chat/fault-endless").await;
    let (first, seen) = under_way(&harness, &smith, 5).await;
    let run = run_id(&seen);
    let path = format!("/v1/smiths/{smith}/runs/{run}");
    let so_far = text(
        harness
            .get(&format!("{path}/events?follow=false"))
            .send()
            .await,
    )
    .await;
    assert!(so_far.starts_with(&seen[..200]), "{so_far}");
    assert!(!so_far.contains("run.completed"));
    let joined = harness
        .get(&format!("{path}/events"))
        .header("Last-Event-ID", "2")
        .send()
        .await
        .expect("an answer");
    // A native run does not end with its client.
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let record = ok(harness.get(&path).send().await).await;
    assert_eq!(record["status"], "running");
    let cancelled = ok(harness
        .post(
            &format!("{path}/submit"),
            &json!({ "kind": "cancel", "reason": "enough" }),
        )
        .send()
        .await)
    .await;
    assert_eq!(cancelled, json!({ "id": run, "status": "cancelled" }));
    assert!(harness.mock.wait_for_hang_up(Duration::from_secs(1)).await);
    let rest = joined.text().await.expect("a body");
    assert!(rest.starts_with("event: message.delta\nid: 3\n"), "{rest}");
    assert!(
        rest.trim_end()
            .rsplit("\n\n")
            .next()
            .is_some_and(|e| e.starts_with("event: run.cancelled"))
    );
    assert!(rest.contains("\"enough\""));
    let record = ok(harness.get(&path).send().await).await;
    assert_eq!(
        (&record["status"], &record["stop_reason"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    for body in [
        json!({ "kind": "approval_decision", "decision": "approve" }),
        json!({ "kind": "tool_result" }),
    ] {
        let (status, error) =
            refused(harness.post(&format!("{path}/submit"), &body).send().await).await;
        assert_eq!(
            (status, error["code"].as_str()),
            (409, Some("run_not_paused"))
        );
    }
    for (body, wanted) in [
        (json!({ "kind": "dance" }), "invalid_kind"),
        (
            json!({ "kind": "approval_decision", "decision": "maybe" }),
            "invalid_decision",
        ),
        (json!({}), "invalid_request"),
    ] {
        let (status, error) =
            refused(harness.post(&format!("{path}/submit"), &body).send().await).await;
        assert_eq!((status, error["code"].as_str()), (400, Some(wanted)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_another_node_took_is_told_as_that_one_wrote_it() {
    let harness = Harness::start_with(|config, _| config.limits.idle_timeout_ms = 20_000).await;
    let smith = harness.smith("openai-chat/fault-endless").await;
    let (_first, seen) = under_way(&harness, &smith, 40).await;
    let run = run_id(&seen);
    // This node was late to renew its leases; it will find out when it next writes of the run.
    let (store, tenant) = (&harness.gateway.store, harness.tenant.as_str());
    let now = now_micros();
    let lease = Lease {
        node_id: "other",
        until: now + 60_000_000,
        now,
    };
    let taken = store.take_lapsed_run(tenant, &run, i64::MAX, &lease).await;
    assert!(taken.expect("the store"));
    let logged = harness.gateway.runs.logged_frames(tenant, &run).await;
    let first_frame = logged.expect("frames").len() as i64;
    let mut frames = BytesMut::new();
    let cancelled = Frame::RunCancelled {
        reason: "enough".into(),
    };
    frame::encode(&cancelled, &mut frames);
    let end = RunEnd {
        tenant_id: tenant.to_owned(),
        id: run.clone(),
        node_id: "other".into(),
        has_state: true,
        status: smithgate::store::RunStatus::Cancelled,
        transcript: None,
        output: None,
        stop_reason: Some("cancelled"),
        error_code: None,
        error: None,
        warnings: "[]".to_owned(),
        token_usage: None,
        frames: Some((first_frame, frames.to_vec())),
        event: None,
        trace: None,
        ledger: None,
        of_lane: false,
        updated_at: now,
    };
    // It is cancelled where it is.
    let submit = format!("/v1/smiths/{smith}/runs/{run}/submit");
    let cancel = harness.post(&submit, &json!({ "kind": "cancel", "reason": "enough" }));
    let other = async {
        while store
            .asked_to_cancel("other")
            .await
            .expect("the store")
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        store.apply(&[Op::EndRun(Box::new(end))]).await
    };
    let (answer, ended) = tokio::join!(cancel.send(), other);
    assert_eq!(ended.expect("the store"), [true]);
    assert_eq!(ok(answer).await["status"], "cancelled");
    for follow in ["false", "true"] {
        let path = format!("/v1/smiths/{smith}/runs/{run}/events?follow={follow}");
        let log = tokio::time::timeout(
            Duration::from_secs(5),
            text(harness.get(&path).send().await),
        );
        let log = log.await.expect("it ends");
        let last = log.trim_end().rsplit("\n\n").next().unwrap_or_default();
        assert!(last.starts_with("event: run.cancelled"), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_remember_on_every_wire() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let native = json!({ "thread_id": "t1", "input": input("one") });
    let first = ok(harness
        .post(&format!("/v1/smiths/{smith}/runs"), &native)
        .send()
        .await)
    .await;
    assert_eq!(first["thread_id"], "t1");
    let answer = first["output"]["content"]
        .as_str()
        .or(first["output"]["text"].as_str())
        .map(str::to_owned);
    let chat = json!({ "messages": [{ "role": "user", "content": "two" }] });
    let call = harness
        .post("/v1/chat/completions", &chat)
        .header("IC-Smith-Id", &smith)
        .header("IC-Thread-Id", "t1");
    ok(call.send().await).await;
    let got = conversation(&harness.mock.last().body);
    assert_eq!(
        (got.len(), got[0].as_str(), got[2].as_str()),
        (3, "one", "two"),
        "{got:?}"
    );
    if let Some(answer) = answer {
        assert_eq!(got[1], answer);
    }
    // Another thread, another smith, no thread: nothing of it.
    let other = harness.smith("openai-chat/text").await;
    for (smith, thread) in [(&smith, Some("t2")), (&other, Some("t1")), (&smith, None)] {
        let mut call = harness
            .post("/v1/chat/completions", &chat)
            .header("IC-Smith-Id", smith);
        if let Some(thread) = thread {
            call = call.header("IC-Thread-Id", thread);
        }
        ok(call.send().await).await;
        assert_eq!(conversation(&harness.mock.last().body), ["two"]);
    }
    let harness = harness.restart().await;
    let native = json!({ "thread_id": "t1", "input": input("three") });
    ok(harness
        .post(&format!("/v1/smiths/{smith}/runs"), &native)
        .send()
        .await)
    .await;
    assert_eq!(conversation(&harness.mock.last().body).len(), 5);
    let system = &harness.mock.last().body["messages"][0];
    assert_eq!(
        (&system["role"], &system["content"]),
        (&json!("system"), &json!("Be brief."))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_tool_loop_works_on_a_thread() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/tools").await;
    let tools = json!([{ "type": "function", "function": { "name": "get_weather",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } } } } }]);
    let turn = |model: &str, messages: Value| {
        let body = json!({ "model": model, "tools": tools, "messages": messages });
        harness
            .post("/v1/chat/completions", &body)
            .header("IC-Smith-Id", &smith)
            .header("IC-Thread-Id", "t")
            .send()
    };
    let first = ok(turn("", json!([{ "role": "user", "content": "weather?" }])).await).await;
    assert_eq!(first["choices"][0]["finish_reason"], "tool_calls");
    let calls = first["choices"][0]["message"]["tool_calls"]
        .as_array()
        .expect("calls")
        .clone();
    assert!(calls.len() >= 2, "{first}");
    let results: Vec<Value> = calls
        .iter()
        .map(|call| json!({ "role": "tool", "tool_call_id": call["id"], "content": "mild" }))
        .collect();
    let second = ok(turn("openai-chat/text", Value::Array(results)).await).await;
    assert_eq!(second["choices"][0]["finish_reason"], "stop");
    let got = harness.mock.last().body;
    let roles: Vec<&str> = got["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .filter_map(|m| m["role"].as_str())
        .collect();
    let mut wanted = vec!["system", "user", "assistant"];
    wanted.extend(calls.iter().map(|_| "tool"));
    assert_eq!(roles, wanted);
    for (at, call) in calls.iter().enumerate() {
        assert_eq!(got["messages"][2]["tool_calls"][at]["id"], call["id"]);
        assert_eq!(got["messages"][3 + at]["tool_call_id"], call["id"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_takes_one_run_at_a_time() {
    let harness = Harness::start_with(|config, _| config.limits.idle_timeout_ms = 20_000).await;
    let smith = harness.smith("openai-chat/fault-endless").await;
    let body = json!({ "stream": true, "thread_id": "t", "input": input("hi") });
    let path = format!("/v1/smiths/{smith}/runs");
    let mut first = harness.post(&path, &body).send().await.expect("an answer");
    let begun = String::from_utf8_lossy(&first.chunk().await.expect("a chunk").expect("bytes"))
        .into_owned();
    let (status, error) = refused(harness.post(&path, &body).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (409, Some("conversation_locked"))
    );
    let call = json!({ "model": "openai-chat/text", "messages": input("hi") });
    let chat = harness
        .post("/v1/chat/completions", &call)
        .header("IC-Smith-Id", &smith)
        .header("IC-Thread-Id", "t");
    assert_eq!(refused(chat.send().await).await.0, 409);
    let cancel = harness.post(
        &format!("{path}/{}/submit", run_id(&begun)),
        &json!({ "kind": "cancel" }),
    );
    ok(cancel.send().await).await;
    let chat = harness
        .post("/v1/chat/completions", &call)
        .header("IC-Smith-Id", &smith)
        .header("IC-Thread-Id", "t");
    ok(chat.send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_replay_of_a_key_is_one_duplicate_frame() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let start = |body: Value| {
        let path = format!("/v1/smiths/{smith}/runs");
        harness
            .post(&path, &body)
            .header("Idempotency-Key", "k")
            .send()
    };
    let body = json!({ "stream": true, "input": input("hi") });
    let first = text(start(body.clone()).await).await;
    let again = text(start(body).await).await;
    let lines = data_lines(&again);
    assert_eq!(lines.len(), 1);
    assert!(again.starts_with("event: run.duplicate\n"), "{again}");
    let frame: Value = serde_json::from_str(lines[0]).expect("JSON");
    assert_eq!(
        (&frame["v"], frame["run_id"].as_str()),
        (&json!(1), Some(run_id(&first).as_str()))
    );
    let (status, error) =
        refused(start(json!({ "stream": true, "input": input("other") })).await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (409, Some("idempotency_key_reused"))
    );
    assert_eq!(harness.mock.got().len(), 1);
    let runs = ok(harness.get("/v1/runs").send().await).await;
    assert_eq!(runs["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_a_dead_node_left_go_on_or_are_failed_with_their_client_gone() {
    let harness = Harness::start_with(|config, _| config.limits.idle_timeout_ms = 20_000).await;
    let smith = harness.smith("openai-chat/fault-endless").await;
    let body = json!({ "stream": true, "thread_id": "t", "input": input("hi") });
    let mut first = harness
        .post(&format!("/v1/smiths/{smith}/runs"), &body)
        .send()
        .await
        .expect("an answer");
    let mut seen = String::new();
    while seen.matches("message.delta").count() < 40 {
        seen += &String::from_utf8_lossy(&first.chunk().await.expect("a chunk").expect("bytes"));
    }
    let run = run_id(&seen);
    // A turn that nobody can ask for again when its client is gone.
    let call = json!({ "model": "openai-chat/fault-endless", "messages": input("hi"),
        "stream": true });
    let chat = harness.post("/v1/chat/completions", &call);
    let mut chat = chat
        .header("IC-Smith-Id", &smith)
        .send()
        .await
        .expect("an answer");
    chat.chunk().await.expect("a chunk");
    // The store as it would be found after a crash: copied while the runs go on.
    let crashed = harness.crash_copy().await;
    let path = format!("/v1/smiths/{smith}/runs/{run}");
    let record = ok(crashed.get(&path).send().await).await;
    assert_eq!(record["status"], "running", "{record}");
    let (status, _) = refused(
        crashed
            .post(&format!("/v1/smiths/{smith}/runs"), &body)
            .send()
            .await,
    )
    .await;
    assert_eq!(status, 409, "its thread is held");
    let cancel = json!({ "kind": "cancel" });
    let cancelled = crashed
        .post(&format!("{path}/submit"), &cancel)
        .send()
        .await;
    assert_eq!(ok(cancelled).await["status"], "cancelled");
    let replay = text(crashed.get(&format!("{path}/events")).send().await).await;
    let last = replay.trim_end().rsplit("\n\n").next().unwrap_or_default();
    assert!(last.starts_with("event: run.cancelled"), "{last}");
    assert_eq!(replay.matches("event: run.started").count(), 1);
    let ids: Vec<&str> = replay
        .lines()
        .filter_map(|l| l.strip_prefix("id: "))
        .collect();
    check_gapless(&ids, "");
    let failed = ok(crashed.get("/v1/runs?status=failed").send().await).await;
    assert_eq!(failed["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(failed["data"][0]["error"]["code"], "run_failed");
    let call = json!({ "model": "openai-chat/text", "messages": input("hi") });
    let chat = crashed
        .post("/v1/chat/completions", &call)
        .header("IC-Smith-Id", &smith)
        .header("IC-Thread-Id", "t");
    ok(chat.send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_names_its_field() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    for (body, code, param) in [
        (json!({}), "invalid_input", Some("input")),
        (json!({ "input": "hi" }), "invalid_request", Some("input")),
        (
            json!({ "input": [{ "role": "user" }] }),
            "invalid_input",
            Some("input[0].content"),
        ),
        (
            json!({ "input": [{ "role": "robot", "content": "x" }] }),
            "invalid_input",
            Some("input[0].role"),
        ),
        (
            json!({ "input": [{ "role": "user", "content": [{ "type": "hologram" }] }] }),
            "invalid_input",
            Some("input[0].content[0].type"),
        ),
        (
            json!({ "input": input("x"), "thread_id": 5 }),
            "invalid_request",
            Some("thread_id"),
        ),
        (
            json!({ "input": input("x"), "stream_options": { "include": ["secrets"] } }),
            "invalid_request",
            Some("stream_options.include[0]"),
        ),
        (
            json!({ "input": input("x"), "response_format": { "type": "jason" } }),
            "invalid_response_format",
            Some("response_format"),
        ),
    ] {
        let (status, error) = refused(
            harness
                .post(&format!("/v1/smiths/{smith}/runs"), &body)
                .send()
                .await,
        )
        .await;
        assert_eq!(
            (status, error["code"].as_str(), error["param"].as_str()),
            (400, Some(code), param),
            "{body}"
        );
    }
    for (body, param) in [
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": 5 }), "messages"),
        (
            json!({ "messages": [{ "role": "user", "content": 5 }] }),
            "messages[0].content",
        ),
        (
            json!({ "messages": [{ "role": "tool", "content": "x" }] }),
            "messages[0].tool_call_id",
        ),
        (
            json!({ "messages": input("x"), "temperature": "hot" }),
            "temperature",
        ),
        (json!({ "messages": input("x"), "n": 2 }), "n"),
        (json!({ "messages": input("x"), "stream": "yes" }), "stream"),
    ] {
        let call = harness
            .post("/v1/chat/completions", &body)
            .header("IC-Smith-Id", &smith);
        let (status, error) = refused(call.send().await).await;
        assert_eq!(
            (status, error["param"].as_str()),
            (400, Some(param)),
            "{body}: {error}"
        );
    }
    let native = format!("/v1/smiths/{smith}/runs");
    for path in [
        native.as_str(),
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/ui/chat",
        "/v1/agents",
    ] {
        let mut call = harness.post(path, &json!(["openai-chat/text", input("x")]));
        if path == "/v1/ui/chat" {
            call = call.header("IC-Smith-Id", &smith);
        }
        let (status, error) = refused(call.send().await).await;
        let told = error["message"].as_str().unwrap_or_default();
        assert!(
            status == 400 && told.contains("must be a JSON object"),
            "{path}: {error}"
        );
    }
    assert!(harness.mock.got().is_empty());
    let broken = harness
        .request(reqwest::Method::POST, "/v1/chat/completions")
        .header("IC-Smith-Id", &smith)
        .body("{\"messages\":[");
    assert_eq!(refused(broken.send().await).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_an_answer_that_was_cut_is_not_made() {
    let harness = Harness::start().await;
    let body = json!({ "model": "openai-chat/quirk-chat-tool-cut-behind-arguments",
        "enabled_hosted_tools": ["calculator"] });
    let made = ok(harness.post("/v1/smiths", &body).send().await).await;
    let smith = made["id"].as_str().expect("an id");
    let run = harness.run(smith, "1+1?").await;
    assert_eq!(
        (&run["status"], &run["stop_reason"]),
        (&json!("completed"), &json!("max_tokens")),
        "{run}"
    );
    assert_eq!(harness.mock.got().len(), 1);
    let id = run["id"].as_str().expect("an id");
    let events = harness.get(&format!("/v1/smiths/{smith}/runs/{id}/events?follow=false"));
    let events = text(events.send().await).await;
    assert!(!events.contains("tool.executing"), "{events}");
    // A client of another wire sees why it ended, and no call of a tool that is not its own.
    for stream in [false, true] {
        let call = harness.chat("", stream).header("ic-smith-id", smith);
        let answer = text(call.send().await).await;
        assert!(answer.contains("\"finish_reason\":\"length\""), "{answer}");
    }
}
