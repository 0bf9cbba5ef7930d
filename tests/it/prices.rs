//! What calls cost, where it is told, and lists of prices from elsewhere.

use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::Response;
use serde_json::{Value, json};
use smithgate::config::{Config, Price};

use crate::control::id;
use crate::support::{Harness, ok, refused};

fn priced(config: &mut Config) {
    let price = Price {
        input: 1_000.0,
        output: 2_000.0,
        ..Price::default()
    };
    config.prices.models.insert("text".to_owned(), price);
}

fn cost(answer: &Response) -> Option<f64> {
    let header = answer.headers().get("x-smithgate-cost")?;
    header.to_str().ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_tells_what_it_cost() {
    let harness = Harness::start_with(|config, _| priced(config)).await;
    let ask = [{ json!({ "role": "user", "content": "hi" }) }];
    for (path, model) in [
        ("/v1/chat/completions", "openai-chat/text"),
        ("/v1/chat/completions", "anthropic/text"),
        ("/v1/messages", "anthropic/text"),
        ("/v1/messages", "gemini/text"),
        ("/v1/responses", "openai-chat/text"),
        ("/v1/embeddings", "openai-chat/text"),
    ] {
        let body = json!({ "model": model, "max_tokens": 9, "messages": ask, "input": "hi" });
        let answer = harness
            .post(path, &body)
            .header("Origin", "https://a.example")
            .send()
            .await;
        let answer = answer.expect("an answer");
        let told = cost(&answer);
        let exposed = answer.headers()["access-control-expose-headers"].to_str();
        assert!(exposed.is_ok_and(|exposed| exposed.contains("X-Smithgate-Cost")));
        let text = answer.text().await.expect("a body");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let usage = &answer["usage"];
        let of = |names: [&str; 2]| names.iter().filter_map(|n| usage[n].as_f64()).sum::<f64>();
        let (input, output) = (
            of(["prompt_tokens", "input_tokens"]),
            of(["completion_tokens", "output_tokens"]),
        );
        let cached: f64 = ["cache_read_input_tokens", "cache_creation_input_tokens"]
            .iter()
            .filter_map(|n| usage[n].as_f64())
            .sum();
        let expected = ((input + cached) * 1_000.0 + output * 2_000.0) / 1e6;
        assert!(expected > 0.0, "{path} {model}: {text}");
        assert!(
            told.is_some_and(|told| (told - expected).abs() < 1e-8),
            "{path} {model}: {told:?}, not {expected}: {text}"
        );
    }
    let streamed = harness
        .chat("openai-chat/text", true)
        .send()
        .await
        .expect("an answer");
    assert_eq!(cost(&streamed), None);
    streamed.text().await.expect("a stream");
    let free = harness
        .chat("openai-chat/loop", false)
        .send()
        .await
        .expect("an answer");
    assert_eq!(cost(&free), None);
    let metrics = harness.metrics_text().await;
    assert!(
        metrics.contains("smithgate_cost_nanos_total{model=\"text\",provider=\"anthropic\"}"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_a_budget() {
    let harness = Harness::start_with(|config, _| priced(config)).await;
    let made = ok(harness.post("/v1/tenant/keys", &json!({})).send().await).await;
    let other = ok(harness.post("/v1/tenant/keys", &json!({})).send().await).await;
    let budget =
        json!({ "scope": "key", "scope_id": id(&made), "limit": 0.001, "action": "block" });
    let budget = ok(harness.post("/v1/budgets", &budget).send().await).await;
    let unknown = json!({ "scope": "key", "scope_id": "key_none", "limit": 1 });
    assert_eq!(
        refused(harness.post("/v1/budgets", &unknown).send().await)
            .await
            .0,
        404
    );
    let ask = async |made: &Value| {
        let body = json!({ "model": "openai-chat/text", "messages": [{ "role": "user", "content": "hi" }] });
        let call = harness
            .client
            .post(harness.url("/v1/chat/completions"))
            .json(&body);
        let token = made["token"].as_str().expect("a secret");
        call.bearer_auth(token)
            .send()
            .await
            .expect("an answer")
            .status()
            .as_u16()
    };
    assert_eq!(ask(&made).await, 200);
    let begun = Instant::now();
    while ask(&made).await != 402 {
        assert!(begun.elapsed() < Duration::from_secs(10), "never spent");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(ask(&other).await, 200);
    assert_eq!(ask(&json!({ "token": harness.token })).await, 200);
    let status = format!("/v1/budgets/{}/status", id(&budget));
    let status = ok(harness.get(&status).send().await).await;
    assert_eq!(status["over"], true);
    let usage = ok(harness.get("/v1/usage?group_by=key").send().await).await;
    assert!(usage["groups"][0]["cost"].as_f64() > Some(0.0), "{usage}");
}

#[test]
fn the_list_in_the_box_counts_where_the_currency_is_its_own() {
    let prices = smithgate::config::Prices {
        currency: "USD".to_owned(),
        ..Default::default()
    };
    let usage = smithgate::frame::Usage {
        input: 1_000_000,
        ..Default::default()
    };
    let list = smithgate::config::PriceList::built_in().expect("a list");
    let book = smithgate::run::PriceBook::new(&prices, Some(&list));
    let cost = book.cost("openai", "gpt-5.5-2026-04-23", &usage);
    assert!(cost.is_some_and(|cost| cost > 1_000_000_000), "{cost:?}");
}

/// Runs the real program.
async fn refresh(dir: &std::path::Path, from: &str) -> std::process::Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_smithgate"))
        .args(["prices", "refresh", "--from", from, "--data-dir"])
        .arg(dir)
        .env("SMITHGATE_PRICES__CURRENCY", "USD")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_list_is_got_from_where_the_operator_says() {
    let list = json!({ "gpt-new": { "litellm_provider": "openai", "mode": "chat",
        "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6 } });
    let router = axum::Router::new()
        .route(
            "/list.json",
            axum::routing::get(move || async move { axum::Json(list) }),
        )
        .route("/page", axum::routing::get(|| async { "<html>" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let served = tokio::spawn(async move { axum::serve(listener, router).await });
    let dir = tempfile::tempdir().expect("a directory");
    let got = refresh(dir.path(), &format!("{url}/list.json")).await;
    let told = String::from_utf8_lossy(&got.stdout).into_owned();
    assert!(got.status.success() && told.contains("1 models"), "{got:?}");
    let file = dir.path().join("prices.json");
    let written = std::fs::read_to_string(&file).expect("a list");
    assert!(written.contains("openai/gpt-new"), "{written}");
    for bad in ["/page", "/none"] {
        let got = refresh(dir.path(), &format!("{url}{bad}")).await;
        assert!(!got.status.success(), "{bad}");
        assert_eq!(std::fs::read_to_string(&file).expect("a list"), written);
    }
    let again = refresh(dir.path(), &file.display().to_string()).await;
    assert!(again.status.success(), "{again:?}");
    served.abort();
}
