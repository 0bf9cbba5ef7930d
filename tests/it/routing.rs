//! Names to targets: aliases, retries, fallbacks, whose key a call uses, refused addresses.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use smithgate::config::{Alias, Target};

use crate::support::{Harness, ok, refused, said, text};

fn target(model: &str, retries: u32) -> Target {
    Target {
        model: model.to_owned(),
        retries,
        timeout_ms: None,
    }
}

async fn with_aliases(aliases: &[(&str, Vec<Target>)]) -> Harness {
    Harness::start_with(|config, _| {
        for (name, targets) in aliases {
            config.models.aliases.insert(
                (*name).to_owned(),
                Alias {
                    targets: targets.clone(),
                    ..Alias::default()
                },
            );
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_fall_back_before_the_first_token_and_not_after_it() {
    let harness = with_aliases(&[
        (
            "best",
            vec![
                target("anthropic/status-500", 0),
                target("gemini/fault-early", 0),
                target("openai-chat/text", 0),
            ],
        ),
        (
            "keyless",
            vec![
                target("openai-chat/status-401", 0),
                target("anthropic/text", 0),
            ],
        ),
        (
            "late",
            vec![
                target("anthropic/fault-reset", 0),
                target("openai-chat/text", 0),
            ],
        ),
        (
            "wrong",
            vec![
                target("anthropic/status-400", 0),
                target("openai-chat/text", 0),
            ],
        ),
    ])
    .await;
    for stream in [true, false] {
        let answer = text(harness.chat("best", stream).send().await).await;
        assert!(
            answer.contains("Hello") || said(&answer).starts_with("Hello"),
            "{answer}"
        );
        let models: Vec<String> = harness.mock.got().iter().map(|g| g.path.clone()).collect();
        assert!(
            models[0].starts_with("/anthropic") && models[1].starts_with("/gemini"),
            "{models:?}"
        );
    }
    assert!(!said(&text(harness.chat("keyless", true).send().await).await).is_empty());
    let late = text(harness.chat("late", true).send().await).await;
    assert!(late.contains("\"error\""), "{late}");
    let (status, _) = refused(harness.chat("wrong", false).send().await).await;
    assert_eq!(status, 400);
    let listed = ok(harness.get("/v1/models").send().await).await;
    assert_eq!(
        (&listed["data"][0]["id"], &listed["data"][0]["owned_by"]),
        (&json!("best"), &json!("smithgate"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_wait_as_long_as_the_provider_asks() {
    let harness = with_aliases(&[("patient", vec![target("openai-chat/flaky-1", 2)])]).await;
    let began = Instant::now();
    let stream = text(harness.chat("patient", true).send().await).await;
    assert!(!said(&stream).is_empty(), "{stream}");
    assert!(
        began.elapsed() >= Duration::from_millis(950),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(harness.mock.got().len(), 2);
    let harness = with_aliases(&[("hasty", vec![target("openai-chat/flaky-1", 0)])]).await;
    let (status, error) = refused(harness.chat("hasty", true).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (429, Some("rate_limit_exceeded"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_key_is_used() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/text").await;
    let said = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let used = async || {
        ok(harness
            .post("/v1/chat/completions", &said)
            .header("IC-Smith-Id", &smith)
            .send()
            .await)
        .await;
        harness.mock.last().header("x-api-key").map(str::to_owned)
    };
    let put = async |path: String, key: &str| {
        ok(harness
            .request(Method::PUT, &path)
            .json(&json!({ "api_key": key }))
            .send()
            .await)
        .await;
    };
    assert_eq!(used().await.as_deref(), Some("hosted-anthropic"));
    put("/v1/tenant/model_keys/anthropic".into(), "tenant-key").await;
    assert_eq!(used().await.as_deref(), Some("tenant-key"));
    put(
        format!("/v1/smiths/{smith}/model_keys/anthropic"),
        "smith-key",
    )
    .await;
    assert_eq!(used().await.as_deref(), Some("smith-key"));
    // Another smith's turn, and a call without a smith, do not use it.
    let other = harness.smith("anthropic/text").await;
    ok(harness
        .post("/v1/chat/completions", &said)
        .header("IC-Smith-Id", &other)
        .send()
        .await)
    .await;
    assert_eq!(harness.mock.last().header("x-api-key"), Some("tenant-key"));
    text(harness.chat("anthropic/text", true).send().await).await;
    assert_eq!(harness.mock.last().header("x-api-key"), Some("tenant-key"));
    let path = format!("/v1/smiths/{smith}/model_keys/anthropic");
    assert_eq!(
        harness
            .request(Method::DELETE, &path)
            .send()
            .await
            .expect("an answer")
            .status(),
        204
    );
    assert_eq!(used().await.as_deref(), Some("tenant-key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_provider_needs_an_allowed_address() {
    let allowed = Harness::start_with(|config, _| {
        config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let closed = Harness::start().await;
    for (harness, is_open) in [(&allowed, true), (&closed, false)] {
        let url = harness.mock.url("openai_chat");
        let put = |url: &str| {
            let body = json!({ "api_key": "own-key", "base_url": url });
            harness
                .request(Method::PUT, "/v1/tenant/model_keys/local")
                .json(&body)
                .send()
        };
        if is_open {
            ok(put(&url).await).await;
            let answer = text(harness.chat("local/text", true).send().await).await;
            assert!(!said(&answer).is_empty(), "{answer}");
            assert_eq!(
                harness.mock.last().header("authorization"),
                Some("Bearer own-key")
            );
        } else {
            let (status, error) = refused(put(&url).await).await;
            assert_eq!((status, error["code"].as_str()), (400, Some("invalid_url")));
            // A name is judged by the address that it has when it is connected to.
            ok(put(&url.replace("127.0.0.1", "localhost")).await).await;
            for stream in [true, false] {
                let (status, error) =
                    refused(harness.chat("local/text", stream).send().await).await;
                assert_eq!(
                    (status, error["code"].as_str()),
                    (403, Some("forbidden_target"))
                );
            }
            assert!(harness.mock.got().is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_keys_and_unknown_models_are_told_apart() {
    let harness = Harness::start().await;
    let smith = harness.smith("").await;
    let ask = |model: &str| {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
        harness
            .post("/v1/chat/completions", &body)
            .header("IC-Smith-Id", &smith)
            .send()
    };
    for (model, status, code) in [
        ("openai/gpt-5.5", 422, "model_key_missing"),
        ("gpt-5.5", 422, "model_key_missing"),
        ("nobody/some-model", 422, "model_key_missing"),
        ("some-model", 400, "invalid_request"),
        ("", 400, "invalid_request"),
    ] {
        let (got, error) = refused(ask(model).await).await;
        assert_eq!(
            (got, error["code"].as_str()),
            (status, Some(code)),
            "{model}: {error}"
        );
    }
    let (status, error) = refused(harness.chat("openai/gpt-5.5", true).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (422, Some("model_key_missing"))
    );
    let message = error["message"].as_str().expect("a message");
    assert!(
        message.contains("/v1/tenant/model_keys/openai"),
        "{message}"
    );
    let runs = ok(harness.get("/v1/runs").send().await).await;
    assert_eq!(
        runs["data"].as_array().map(Vec::len),
        Some(0),
        "what never began leaves no run"
    );
    let _: Value = runs;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_overrides_the_model_for_itself_only() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/text").await;
    for (model, path) in [
        ("gemini/text", "/gemini"),
        ("", "/anthropic"),
        ("openai-responses/text", "/openai_responses"),
    ] {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
        ok(harness
            .post("/v1/chat/completions", &body)
            .header("IC-Smith-Id", &smith)
            .send()
            .await)
        .await;
        assert!(harness.mock.last().path.starts_with(path));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_id_is_its_providers() {
    let harness = Harness::start_with(|config, mock| {
        let mut own = config.providers["openai-chat"].clone();
        own.models = vec!["structured".to_owned(), "text@own".to_owned()];
        config.providers.insert("own".to_owned(), own.clone());
        let keyless = mock.url("openai_chat");
        own.models = vec!["structured".to_owned()];
        (own.api_key, own.base_url) = (None, keyless);
        config.providers.insert("nobodys".to_owned(), own);
    })
    .await;
    // Listed by two, of which one has a key; listed by one.
    for model in ["structured", "text@own"] {
        for stream in [true, false] {
            text(harness.chat(model, stream).send().await).await;
            assert_eq!(harness.mock.last().body["model"], model);
        }
        let call = json!({ "model": model, "input": "hi" });
        ok(harness.post("/v1/responses", &call).send().await).await;
        assert_eq!(harness.mock.last().body["model"], model);
    }
    let (status, error) = refused(harness.chat("text", false).send().await).await;
    let why = error["message"].as_str().unwrap_or_default();
    assert_eq!((status, &error["code"]), (400, &json!("smith_required")));
    assert!(why.contains("anthropic/text or "), "{why}");
    let (status, error) = refused(harness.chat("unheard-of", false).send().await).await;
    assert_eq!((status, &error["param"]), (400, &json!("model")));
    // A provider's by its prefix, and nobody has a key.
    let (_, error) = refused(harness.chat("gpt-5.5", false).send().await).await;
    assert_eq!(error["code"], "model_key_missing");

    let harness = Harness::start_with(|config, _| {
        config.models.bare_ids = false;
        let own = config.providers["openai-chat"].clone();
        config.providers.insert("openai".to_owned(), own);
    })
    .await;
    let (status, error) = refused(harness.chat("gpt-5.5", false).send().await).await;
    assert_eq!((status, &error["code"]), (400, &json!("smith_required")));
    text(harness.chat("openai/text", false).send().await).await;
}
