//! What is old is deleted, and what is not stays; nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use smithgate::ids;
use smithgate::store::{EventRow, Op, RunEnd, SpanRow, TraceRecord, TraceRow, now_micros};

use crate::storage::run;
use crate::store::postgres_url;
use crate::support::{Harness, ok, refused, text};

const DAY: i64 = 24 * 3600 * 1_000_000;

/// A run that ended `days` ago, with a frame, an event and a trace.
fn past(harness: &Harness, smith: &str, days: i64, n: usize) -> (String, [Op; 2]) {
    let at = now_micros() - days * DAY + n as i64;
    let body = |kind| {
        let floor = ids::floor(kind, at).new;
        let (head, _) = floor.split_at(floor.len() - 6);
        format!("{head}{n:06}")
    };
    let id = body(ids::Kind::Run);
    let mut row = run(&id);
    row.tenant_id.clone_from(&harness.tenant);
    row.smith_id = smith.to_owned();
    row.created_at = at;
    row.updated_at = at;
    row.thread_id = "t".to_owned();
    let mut event = EventRow::new(
        &harness.tenant,
        "run.completed",
        Some(smith),
        &json!({}),
        None,
    );
    event.id = body(ids::Kind::Event);
    event.created_at = at;
    let trace = id.replacen("run_", "trc_", 1);
    let span = SpanRow {
        tenant_id: harness.tenant.clone(),
        trace_id: trace.clone(),
        id: id.replacen("run_", "spn_", 1),
        parent_id: None,
        kind: "run".to_owned(),
        name: "run".to_owned(),
        status: "ok".to_owned(),
        started_at: at,
        ended_at: Some(at),
        model: None,
        input: None,
        output: None,
        cost: None,
        attributes: "{}".to_owned(),
    };
    let trace = TraceRow {
        id: trace,
        tenant_id: harness.tenant.clone(),
        run_id: Some(id.clone()),
        smith_id: Some(smith.to_owned()),
        agent_id: None,
        name: "run".to_owned(),
        status: "ok".to_owned(),
        started_at: at,
        ended_at: Some(at),
        model: None,
        input: 0,
        output: 0,
        cost: None,
        created_at: at,
        root_kind: "run".to_owned(),
        attributes: "{}".to_owned(),
    };
    let mut frames = bytes::BytesMut::new();
    let done = smithgate::frame::Frame::RunCancelled {
        reason: bytes::Bytes::new(),
    };
    smithgate::frame::encode(&done, &mut frames);
    let turns = json!([
        { "role": "user", "parts": [{ "type": "text", "text": format!("{days} days ago") }] },
    ]);
    let end = RunEnd {
        tenant_id: harness.tenant.clone(),
        id: id.clone(),
        node_id: row.node_id.as_str().into(),
        has_state: false,
        status: smithgate::store::RunStatus::Completed,
        transcript: Some(turns.to_string()),
        output: None,
        stop_reason: Some("end_turn"),
        error_code: None,
        error: None,
        warnings: "[]".to_owned(),
        token_usage: None,
        frames: Some((0, frames.to_vec())),
        event: Some(event),
        trace: Some(TraceRecord {
            trace,
            spans: vec![span],
        }),
        ledger: None,
        of_lane: false,
        updated_at: at,
    };
    (
        id,
        [
            Op::CreateRun(Arc::new(row), None),
            Op::EndRun(Box::new(end)),
        ],
    )
}

async fn old_things_go(url: Option<String>) {
    let harness = Harness::start_with(|config, _| config.store.url = url).await;
    let smith = harness.smith("openai-chat/text").await;
    let store = &harness.gateway.store;
    let mut ids = Vec::new();
    for days in [500, 400, 200, 40, 10, 1] {
        let mut of_day = Vec::new();
        for n in 0..30 {
            let (id, ops) = past(&harness, &smith, days, n);
            store.apply(&ops).await.expect("applied");
            of_day.push(id);
        }
        ids.push((days, of_day));
    }
    let retention = harness.gateway.retention();
    let round = retention.round(now_micros()).await.expect("done");
    let round = round.expect("this node prunes");
    // How much is not told: the node's own first round may have come upon what was just made. Where the machine is free, no batch holds the writer for long.
    println!("{round:?}");
    assert!(round.longest < Duration::from_secs(2), "{round:?}");
    // Another node does not do the same at the same time.
    let other = smithgate::retention::Retention::new(
        store.clone(),
        &harness.config.retention,
        "node_other",
    );
    assert_eq!(other.round(now_micros()).await.expect("looked"), None);
    for (days, of_day) in &ids {
        for id in of_day {
            let path = format!("/v1/smiths/{smith}/runs/{id}");
            let answer = harness.get(&path).send().await.expect("an answer");
            let is_there = answer.status() == 200;
            assert_eq!(is_there, *days < 365, "{days} days");
            if !is_there {
                continue;
            }
            let events = harness
                .get(&format!("{path}/events?follow=false"))
                .send()
                .await;
            match *days > 30 {
                true => {
                    let (status, error) = refused(events).await;
                    assert_eq!(status, 410, "{error}");
                }
                false => assert!(text(events).await.contains("event: run.cancelled")),
            }
            let trace = store
                .trace(&harness.tenant, &id.replacen("run_", "trc_", 1))
                .await
                .expect("read");
            assert_eq!(trace.is_some(), *days < 90, "{days}");
        }
    }
    let mut kept = 0;
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/events?type=run.completed&limit=200&cursor={cursor}");
        let page = ok(harness.get(&path).send().await).await;
        kept += page["data"].as_array().expect("events").len();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(kept, 90);
    // A thread whose beginning was forgotten goes on.
    let turn = json!({ "model": "", "messages": [{ "role": "user", "content": "hi" }] });
    let turn = harness
        .post("/v1/chat/completions", &turn)
        .header("IC-Smith-Id", &smith)
        .header("IC-Thread-Id", "t");
    ok(turn.send().await).await;
    let asked = harness.mock.last().body.to_string();
    assert!(
        asked.contains("1 days ago") && !asked.contains("400 days ago"),
        "{asked}"
    );

    // A tenant keeps less than the operator would, but not more.
    let put = |body: Value| {
        harness
            .request(Method::PUT, "/v1/tenant/retention")
            .json(&body)
    };
    for bad in [
        json!({ "runs_days": 366 }),
        json!({ "runs_days": 0 }),
        json!({ "x_days": 1 }),
    ] {
        assert_eq!(refused(put(bad).send().await).await.0, 400);
    }
    let shown = ok(put(json!({ "runs_days": 20 })).send().await).await;
    assert_eq!(
        (&shown["runs_days"], &shown["frames_days"]),
        (&json!(20), &json!(30))
    );
    assert_eq!(
        ok(harness.get("/v1/tenant/retention").send().await).await,
        shown
    );
    retention.round(now_micros()).await.expect("done");
    let left = ok(harness.get("/v1/runs?limit=200").send().await).await;
    assert_eq!(left["data"].as_array().map(Vec::len), Some(61));
    // Usage stays.
    let usage = ok(harness.get("/v1/usage").send().await).await;
    assert!(usage.is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_things_go_on_sqlite() {
    old_things_go(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_things_go_on_postgres() {
    old_things_go(Some(postgres_url().await)).await;
}

/// A run that waits for a human while all beside it are pruned, and a run of very many parts.
async fn no_frames_are_passed_over(url: Option<String>) {
    let harness = Harness::start_with(|config, _| config.store.url = url).await;
    let smith = harness.smith("openai-chat/text").await;
    let store = &harness.gateway.store;
    let tenant = harness.tenant.as_str();
    let (waits, [created, ended]) = past(&harness, &smith, 40, 1);
    let Op::CreateRun(row, _) = created else {
        panic!("no new run");
    };
    let mut row = Arc::unwrap_or_clone(row);
    row.status = smithgate::store::RunStatus::PausedForApproval;
    let node: Arc<str> = row.node_id.as_str().into();
    let part = |first: i64, bytes: usize| Op::Frames {
        tenant_id: tenant.into(),
        run_id: waits.as_str().into(),
        node_id: node.clone(),
        first,
        frames: vec![0; bytes],
    };
    let mut ops = vec![Op::CreateRun(Arc::new(row), None)];
    // As one that was told much before it waited.
    ops.extend((1..=200).map(|first| part(first, 16 * 1024)));
    store.apply(&ops).await.expect("applied");
    let mut others = Vec::new();
    for n in [0, 2, 3] {
        let (id, ops) = past(&harness, &smith, 40, n);
        store.apply(&ops).await.expect("applied");
        others.push(id);
    }
    let retention = harness.gateway.retention();
    let round = async || {
        let round = retention.round(now_micros()).await.expect("done");
        round.expect("this node prunes")
    };
    let has_frames = async |id: &str| store.has_frames(tenant, id).await.expect("read");
    round().await;
    for id in &others {
        assert!(!has_frames(id).await, "{id}");
    }
    assert!(has_frames(&waits).await, "it goes on some day");
    let lease = smithgate::store::Lease {
        node_id: &node,
        until: now_micros() + DAY,
        now: now_micros(),
    };
    assert!(
        store
            .take_paused_run(tenant, &waits, &lease)
            .await
            .expect("taken")
    );
    store.apply(&[ended]).await.expect("applied");
    let done = round().await;
    println!("{done:?}");
    assert!(!has_frames(&waits).await, "it has ended: {done:?}");
    // Nothing is left to do, nor looked at again.
    assert_eq!(round().await.deleted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_frames_are_passed_over_on_sqlite() {
    no_frames_are_passed_over(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_frames_are_passed_over_on_postgres() {
    no_frames_are_passed_over(Some(postgres_url().await)).await;
}
