//! Answers that are given again to the very same call.

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use smithgate::config::{Alias, Target};

use crate::support::{Harness, refused, text};

const CACHE: &str = "x-smithgate-cache";

fn call(model: &str, stream: bool, said: &str) -> Value {
    json!({ "model": model, "stream": stream, "messages": [{ "role": "user", "content": said }] })
}

/// Whether it was a hit, and the answer.
async fn told(call: RequestBuilder) -> (Option<String>, String) {
    let answer = call.send().await.expect("an answer");
    let headers = answer.headers();
    let told = headers
        .get(CACHE)
        .map(|told| told.to_str().expect("text").to_owned());
    if told.as_deref() == Some("hit") {
        assert!(headers.contains_key("age"));
    }
    (told, text(Ok(answer)).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_call_has_the_same_answer() {
    let harness = Harness::start_with(|config, _| {
        let targets = vec![Target {
            model: "openai-chat/text".to_owned(),
            retries: 0,
            timeout_ms: None,
        }];
        let alias = Alias {
            targets,
            cache_seconds: 60,
        };
        config.models.aliases.insert("kept".to_owned(), alias);
    })
    .await;
    let path = "/v1/chat/completions";
    let hit = |hit: bool| Some(if hit { "hit" } else { "miss" }.to_owned());
    for model in ["openai-chat/text", "anthropic/text", "gemini/text"] {
        for stream in [false, true] {
            let body = call(model, stream, "hi");
            let post = |body: &Value| harness.post(path, body).header(CACHE, "60");
            let (first, whole) = told(post(&body)).await;
            let asked = harness.mock.got().len();
            let (second, again) = told(post(&body)).await;
            assert_eq!((first, second), (hit(false), hit(true)), "{model} {stream}");
            assert_eq!(whole, again);
            assert_eq!(harness.mock.got().len(), asked);
            // Of another call it is not.
            assert_eq!(told(post(&call(model, stream, "ho"))).await.0, hit(false));
            let beta = post(&body).header("openai-beta", "x");
            let is_told_on = model.starts_with("openai");
            assert!(told(beta).await.0 == hit(false) || !is_told_on);
            // Who does not ask for it is not given it.
            assert_eq!(told(harness.post(path, &body)).await.0, None);
            assert_eq!(
                told(harness.post(path, &body).header(CACHE, "0")).await.0,
                None
            );
        }
    }
    let body = call("kept", true, "hi");
    assert_eq!(told(harness.post(path, &body)).await.0, hit(false));
    assert_eq!(told(harness.post(path, &body)).await.0, hit(true));
    // A new one is asked for.
    assert_eq!(
        told(harness.post(path, &body).header(CACHE, "0")).await.0,
        None
    );

    // What is no whole answer is not kept.
    for model in [
        "openai-chat/fault-reset",
        "anthropic/fault-reset",
        "openai-chat/status-429",
    ] {
        for _ in 0..2 {
            let post = harness
                .post(path, &call(model, true, "hi"))
                .header(CACHE, "60");
            assert_ne!(told(post).await.0, hit(true), "{model}");
        }
    }
    // Nor given to another project.
    let other = Harness::start().await;
    let body = call("openai-chat/text", false, "hi");
    assert_eq!(
        told(other.post(path, &body).header(CACHE, "60")).await.0,
        hit(false)
    );
    for wrong in ["x", "-1", "99999999999"] {
        let answer = harness.post(path, &body).header(CACHE, wrong).send().await;
        assert_eq!(refused(answer).await.0, 400);
    }
}
