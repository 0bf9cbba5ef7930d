//! Every documented filter filters, alone and with others, page by page; what it cannot be is
//! refused by name.

use reqwest::Method;
use serde_json::{Value, json};

use crate::control::{code, on_both_stores, start_on};
use crate::support::{Harness, ok, refused};

on_both_stores!(filters_filter);

/// The ids of a list, over pages of two.
async fn ids(harness: &Harness, path: &str, smith: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut next = String::new();
    loop {
        let sign = if path.contains('?') { '&' } else { '?' };
        let page = format!("{path}{sign}limit=2{next}");
        let page = ok(harness.get(&page).header("IC-Smith-Id", smith).send().await).await;
        let rows = page["data"].as_array().expect("a list");
        all.extend(
            rows.iter()
                .map(|row| row["id"].as_str().expect("an id").to_owned()),
        );
        if page["has_more"] != json!(true) {
            return all;
        }
        next = match page["next_cursor"].as_str() {
            Some(cursor) => format!("&cursor={cursor}"),
            None => format!("&after={}", all.last().expect("a row")),
        };
        assert!(all.len() < 100, "{path} has no end");
    }
}

async fn made(harness: &Harness, path: &str, body: Value) -> String {
    let made = ok(harness.post(path, &body).send().await).await;
    made["id"].as_str().expect("an id").to_owned()
}

async fn run(harness: &Harness, smith: &str) -> String {
    let input = json!({ "input": [{ "role": "user", "content": "hi" }] });
    made(harness, &format!("/v1/smiths/{smith}/runs"), input).await
}

async fn filters_filter(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let h = &harness;
    let customer = made(h, "/v1/customers", json!({ "name": "C" })).await;
    let agent = made(
        h,
        "/v1/agents",
        json!({ "name": "A", "model": "openai-chat/text" }),
    )
    .await;
    ok(h.post(&format!("/v1/agents/{agent}/versions"), &json!({}))
        .send()
        .await)
    .await;
    let one = json!({ "agent_id": agent, "external_id": "anon:1", "customer_id": customer });
    let one = made(h, "/v1/smiths", one).await;
    let two = json!({ "agent_id": agent, "external_id": "anon:2" });
    let two = made(h, "/v1/smiths", two).await;
    let three = json!({ "model": "openai-chat/text", "external_id": "ann" });
    let three = made(h, "/v1/smiths", three).await;
    let mut runs = Vec::new();
    for smith in [&one, &one, &one, &two, &three] {
        runs.push(run(h, smith).await);
    }
    // A run that fails.
    let broken = made(h, "/v1/smiths", json!({ "model": "openai-chat/missing" })).await;
    let input = json!({ "input": [{ "role": "user", "content": "hi" }] });
    h.post(&format!("/v1/smiths/{broken}/runs"), &input)
        .send()
        .await
        .expect("an answer");
    for (quantity, meter, smith) in [(1, "seats", &one), (2, "seats", &two), (3, "calls", &one)] {
        let count = json!({ "meter": meter, "quantity": quantity, "smith_id": smith });
        made(h, "/v1/usage/events", count).await;
    }
    let trace = |run: &str| run.replace("run_", "trc_");
    let today = &smithgate::store::rfc3339(smithgate::store::now_micros())[..10];
    let far = "2031-01-01";
    let newest_first = |runs: &[String]| -> Vec<String> { runs.iter().rev().cloned().collect() };
    let traces =
        |runs: &[String]| -> Vec<String> { runs.iter().rev().map(|run| trace(run)).collect() };
    for (path, wanted) in [
        (
            "/v1/smiths?external_id=anon:1".to_owned(),
            vec![one.clone()],
        ),
        (
            "/v1/smiths?external_id_prefix=anon:".to_owned(),
            vec![two.clone(), one.clone()],
        ),
        (
            format!("/v1/smiths?agent_id={agent}"),
            vec![two.clone(), one.clone()],
        ),
        (
            format!("/v1/smiths?customer_id={customer}"),
            vec![one.clone()],
        ),
        (
            format!("/v1/smiths?agent_id={agent}&external_id_prefix=anon:2"),
            vec![two.clone()],
        ),
        (
            format!("/v1/smiths?customer_id={customer}&external_id=anon:2"),
            vec![],
        ),
        (
            "/v1/smiths?unknown=1&external_id=ann".to_owned(),
            vec![three.clone()],
        ),
        (format!("/v1/runs?smith_id={one}"), newest_first(&runs[..3])),
        (
            format!("/v1/runs?agent_id={agent}"),
            newest_first(&runs[..4]),
        ),
        (
            "/v1/runs?external_id_prefix=anon:&status=completed".to_owned(),
            newest_first(&runs[..4]),
        ),
        (
            format!("/v1/runs?agent_id={agent}&smith_id={two}"),
            newest_first(&runs[3..4]),
        ),
        (format!("/v1/runs?smith_id={one}&status=failed"), vec![]),
        (
            format!("/v1/smiths/{one}/runs?status=completed"),
            newest_first(&runs[..3]),
        ),
        (
            format!("/v1/traces?run_id={}", runs[1]),
            vec![trace(&runs[1])],
        ),
        (
            format!("/v1/traces?run_id={}&smith_id={one}", runs[1]),
            vec![trace(&runs[1])],
        ),
        (
            format!("/v1/traces?run_id={}&smith_id={two}", runs[1]),
            vec![],
        ),
        ("/v1/traces?run_id=run_none".to_owned(), vec![]),
        (format!("/v1/traces?smith_id={one}"), traces(&runs[..3])),
        (
            format!("/v1/traces?app_id={agent}&status=ok"),
            traces(&runs[..4]),
        ),
        (
            format!("/v1/traces?smith_id={one}&since={today}T00:00:00Z"),
            traces(&runs[..3]),
        ),
        (format!("/v1/traces?since={far}T00:00:00Z"), vec![]),
    ] {
        assert_eq!(ids(h, &path, &one).await, wanted, "{path}");
    }
    for (path, count) in [
        ("/v1/usage/events".to_owned(), 8),
        (format!("/v1/usage/events?smith_id={one}"), 5),
        (format!("/v1/usage/events?customer_id={customer}"), 5),
        ("/v1/usage/events?meter=seats".to_owned(), 2),
        ("/v1/usage/events?meter=tokens".to_owned(), 5),
        (format!("/v1/usage/events?meter=seats&smith_id={two}"), 1),
        ("/v1/usage/events?meter=none".to_owned(), 0),
        (format!("/v1/usage/events?from={today}&to={today}"), 8),
        (format!("/v1/usage/events?from={far}"), 0),
        ("/v1/usage/events?to=2020-01-01".to_owned(), 0),
        (
            format!("/v1/usage/events?from={today}T00:00:00Z&meter=calls"),
            1,
        ),
        (format!("/v1/usage/events?period={}", &today[..7]), 8),
        ("/v1/usage/events?period=2020-01".to_owned(), 0),
        ("/v1/events?type=run.completed".to_owned(), 5),
        ("/v1/events?type=run".to_owned(), 6),
        (format!("/v1/events?type=run&smith_id={one}"), 3),
        (format!("/v1/events?type=run&since={far}T00:00:00Z"), 0),
        (
            format!("/v1/events?type=run.completed&since={today}T00:00:00Z"),
            5,
        ),
    ] {
        assert_eq!(ids(h, &path, &one).await.len(), count, "{path}");
    }
    let usage = format!("/v1/usage?group_by=customer&smith_id={one}");
    // What was used is written a little behind the runs.
    let mut used = ok(h.get(&usage).send().await).await;
    for _ in 0..100 {
        if used["totals"]["run_count"] == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        used = ok(h.get(&usage).send().await).await;
    }
    let usage = used;
    assert_eq!(usage["totals"]["run_count"], 3, "{usage}");
    assert_eq!(usage["meters"].as_array().map(Vec::len), Some(2), "{usage}");
    for meter in usage["meters"].as_array().expect("meters") {
        assert_eq!(meter["customer"], json!(customer), "{usage}");
    }
    shapes_of_other_lists(h, &one).await;
    for (path, param, name) in [
        ("/v1/smiths?limit=0", "limit", "invalid_limit"),
        ("/v1/smiths?cursor=%21", "cursor", "invalid_cursor"),
        ("/v1/runs?status=done", "status", "invalid_request"),
        ("/v1/traces?since=yesterday", "since", "invalid_request"),
        ("/v1/events?since=1", "since", "invalid_request"),
        ("/v1/usage?group_by=day", "group_by", "invalid_group_by"),
        ("/v1/usage?period=2026", "period", "invalid_period"),
        ("/v1/usage?from=x", "from", "invalid_period"),
        ("/v1/usage?format=xml", "format", "invalid_request"),
        ("/v1/usage/events?from=x", "from", "invalid_period"),
        ("/v1/usage/events?to=2026-02-30", "to", "invalid_period"),
        ("/v1/usage/events?period=x", "period", "invalid_period"),
        ("/v1/approvals?status=maybe", "status", "invalid_request"),
        (
            "/v1/deployments?target_type=tenant",
            "target_type",
            "invalid_request",
        ),
        ("/v1/files?purpose=fun", "purpose", "invalid_request"),
        ("/v1/files?order=up", "order", "invalid_request"),
        ("/v1/vector_stores?order=up", "order", "invalid_request"),
        ("/v1/conversations?limit=101", "limit", "invalid_limit"),
    ] {
        let answer = h.get(path).header("IC-Smith-Id", &one).send().await;
        let (status, error) = refused(answer).await;
        assert_eq!((status, code(&error)), (400, name), "{path}");
        assert_eq!(error["param"], json!(param), "{path}");
    }
}

/// Lists of connections, deployments, approvals, projects, files.
async fn shapes_of_other_lists(h: &Harness, smith: &str) {
    for provider in ["github", "github", "linear"] {
        let body = json!({ "provider": provider, "credential": { "access_token": "t" } });
        made(h, &format!("/v1/smiths/{smith}/connections"), body).await;
    }
    let other = h.smith("openai-chat/text").await;
    for target in [smith, &other] {
        let body = json!({ "kind": "mcp", "target": { "type": "smith", "id": target } });
        made(h, "/v1/deployments", body).await;
    }
    for purpose in ["vision", "assistants", "assistants"] {
        let form = format!(
            "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--b\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nx\r\n--b--\r\n"
        );
        let file = h
            .request(Method::POST, "/v1/files")
            .header("content-type", "multipart/form-data; boundary=b");
        ok(file.body(form).send().await).await;
    }
    for (path, count) in [
        (format!("/v1/smiths/{smith}/connections"), 3),
        (format!("/v1/smiths/{smith}/connections?provider=github"), 2),
        (format!("/v1/smiths/{smith}/connections?provider=none"), 0),
        ("/v1/deployments?target_type=smith".to_owned(), 2),
        (
            format!("/v1/deployments?target_type=smith&target_id={smith}"),
            1,
        ),
        (
            format!("/v1/deployments?target_type=agent&target_id={smith}"),
            0,
        ),
        (format!("/v1/approvals?smith_id={smith}&status=pending"), 0),
        ("/v1/files?purpose=assistants".to_owned(), 2),
        ("/v1/files?purpose=assistants&order=asc".to_owned(), 2),
        ("/v1/files?purpose=batch".to_owned(), 0),
    ] {
        assert_eq!(ids(h, &path, smith).await.len(), count, "{path}");
    }
}
