//! Pages are bounded by their bytes as by their rows, and traces by their spans.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use smithgate::ids;
use smithgate::store::{Op, RunEnd, now_micros};

use crate::store::postgres_url;
use crate::support::{Harness, ok, refused};

const MEGABYTE: usize = 1 << 20;

async fn on(url: Option<String>) -> Harness {
    Harness::start_with(|config, _| config.store.url = url).await
}

/// All rows of a list, and the size of its largest page.
async fn all(harness: &Harness, path: &str, cursor: &str) -> (Vec<Value>, usize) {
    let (mut rows, mut largest, mut next) = (Vec::new(), 0, String::new());
    for _ in 0..100 {
        let path = format!("{path}limit=100{next}");
        let answer = harness.get(&path).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        let text = answer.text().await.expect("a body");
        largest = largest.max(text.len());
        let page: Value = serde_json::from_str(&text).expect("JSON");
        rows.extend(page["data"].as_array().expect("rows").clone());
        if page["has_more"] != true {
            return (rows, largest);
        }
        let at = match cursor {
            "after" => rows.last().expect("a row")["id"].as_str(),
            _ => page["next_cursor"].as_str(),
        };
        next = format!("&{cursor}={}", at.expect("a cursor"));
    }
    panic!("{path} has no end");
}

async fn heavy_rows_come_in_light_pages(url: Option<String>) {
    let harness = on(url).await;
    let smith = harness.smith("openai-chat/text").await;
    let conversation = json!({ "items": [] });
    let made = harness
        .post("/v1/conversations", &conversation)
        .header("IC-Smith-Id", &smith);
    let conversation = ok(made.send().await).await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let heavy = "z".repeat(5 * MEGABYTE);
    for n in 0..5 {
        let run = ids::mint(ids::Kind::Run);
        let mut row = crate::storage::run(&run);
        row.tenant_id.clone_from(&harness.tenant);
        row.smith_id.clone_from(&smith);
        row.thread_id.clone_from(&conversation);
        row.input = json!([{ "role": "user", "content": heavy }]).to_string();
        let turns = json!([
            { "role": "user", "parts": [{ "type": "text", "text": format!("question {n}") }] },
            { "role": "assistant", "parts": [{ "type": "text", "text": heavy }] },
        ]);
        let end = RunEnd {
            tenant_id: row.tenant_id.clone(),
            id: run,
            node_id: row.node_id.as_str().into(),
            has_state: false,
            status: smithgate::store::RunStatus::Completed,
            transcript: Some(turns.to_string()),
            output: Some(json!({ "content": "ok", "content_type": "text/plain" }).to_string()),
            stop_reason: Some("end_turn"),
            error_code: None,
            error: None,
            warnings: "[]".to_owned(),
            token_usage: None,
            frames: None,
            event: None,
            trace: None,
            ledger: None,
            of_lane: false,
            updated_at: now_micros(),
        };
        let ops = [
            Op::CreateRun(Arc::new(row), None),
            Op::EndRun(Box::new(end)),
        ];
        let taken = harness.gateway.store.apply(&ops).await.expect("applied");
        assert_eq!(taken, [true, true]);
    }
    for (path, least) in [
        ("/v1/runs?".to_owned(), 5),
        (format!("/v1/runs?smith_id={smith}&"), 5),
        (format!("/v1/smiths/{smith}/runs?"), 5),
    ] {
        let (rows, largest) = all(&harness, &path, "cursor").await;
        assert!(rows.len() >= least, "{path}: {}", rows.len());
        assert!(largest < 13 * MEGABYTE, "{path}: {largest}");
    }
    // One that is heavy is read whole.
    let runs = ok(harness.get("/v1/runs?limit=1").send().await).await;
    let id = runs["data"][0]["id"].as_str().expect("an id");
    let one = ok(harness
        .get(&format!("/v1/smiths/{smith}/runs/{id}"))
        .send()
        .await)
    .await;
    assert_eq!(
        one["input"][0]["content"].as_str().map(str::len),
        Some(heavy.len())
    );
    // Items of a conversation come in pages of that kind too.
    let items = format!("/v1/conversations/{conversation}/items?");
    let mut seen = 0;
    let mut after = String::new();
    loop {
        let path = format!("{items}order=asc&limit=100{after}");
        let answer = harness
            .get(&path)
            .header("IC-Smith-Id", &smith)
            .send()
            .await;
        let page = ok(answer).await;
        assert!(page.to_string().len() < 13 * MEGABYTE);
        seen += page["data"].as_array().expect("items").len();
        if page["has_more"] != true {
            break;
        }
        after = format!("&after={}", page["last_id"].as_str().expect("an id"));
    }
    assert_eq!(seen, 10);
    // The history that a turn sees is bounded, and the turn is answered.
    let turn = json!({ "model": "", "messages": [{ "role": "user", "content": "hi" }] });
    let turn = harness
        .post("/v1/chat/completions", &turn)
        .header("IC-Smith-Id", &smith)
        .header("IC-Thread-Id", &conversation);
    ok(turn.send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_rows_come_in_light_pages_on_sqlite() {
    heavy_rows_come_in_light_pages(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_rows_come_in_light_pages_on_postgres() {
    heavy_rows_come_in_light_pages(Some(postgres_url().await)).await;
}

async fn long_traces_are_bounded(url: Option<String>) {
    let harness = on(url).await;
    let span = |n: usize| {
        json!({ "trace_id": "trace-1", "id": format!("s{n:05}"),
            "parent_span_id": n.checked_sub(1).map(|n| format!("s{n:05}")) })
    };
    let ingest = |spans: Vec<Value>| {
        harness
            .request(Method::POST, "/v1/traces:ingest")
            .json(&json!({ "spans": spans }))
            .send()
    };
    for step in 0..6 {
        let spans = (step * 1000..(step + 1) * 1000).map(span).collect();
        ok(ingest(spans).await).await;
    }
    let began = Instant::now();
    let trace = ok(harness.get("/v1/traces/trace-1").send().await).await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(trace["spans"].as_array().map(Vec::len), Some(6000));
    fn count(nodes: &Value) -> usize {
        let nodes = nodes.as_array().expect("nodes");
        nodes.iter().map(|node| 1 + count(&node["children"])).sum()
    }
    assert_eq!(count(&trace["span_tree"]), 6000);
    for step in 6..10 {
        let spans = (step * 1000..(step + 1) * 1000).map(span).collect();
        ok(ingest(spans).await).await;
    }
    let (status, error) = refused(ingest(vec![span(10_000)]).await).await;
    assert_eq!((status, &error["param"]), (400, &json!("spans")));
    let large = json!({ "trace_id": "trace-2", "attributes": { "a": "x".repeat(100_000) } });
    let (status, error) = refused(ingest(vec![large]).await).await;
    assert_eq!((status, &error["param"]), (400, &json!("spans[0]")));
}

#[tokio::test(flavor = "multi_thread")]
async fn long_traces_are_bounded_on_sqlite() {
    long_traces_are_bounded(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_traces_are_bounded_on_postgres() {
    long_traces_are_bounded(Some(postgres_url().await)).await;
}
