//! What of a request has no place at its provider, and headers in both directions.

use reqwest::{Response, Result};
use serde_json::{Value, json};
use smithgate::config::{Alias, Target};

use crate::support::{Harness, ok, refused, said, text};

const UNSUPPORTED: &str = "x-smithgate-unsupported";

fn header(answer: &Result<Response>, name: &str) -> Option<String> {
    let headers = answer.as_ref().expect("an answer").headers();
    let value = headers.get(name)?;
    Some(value.to_str().expect("text").to_owned())
}

fn request(model: &str, more: &Value) -> Value {
    let mut body = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    for (name, value) in more.as_object().expect("members") {
        body[name] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_place_is_named() {
    let harness = Harness::start().await;
    let rare = json!({ "logprobs": true, "seed": 7, "top_k": 5, "temperature": 0.5,
        "logit_bias": { "5": 1 }, "prediction": { "type": "content", "content": "x" },
        "provider_only": { "a": 1 }, "user": "u-1", "stop": ["x"], "store": false });
    for stream in [false, true] {
        for (model, named) in [
            (
                "anthropic/text",
                "logprobs, prediction, provider_only, seed, logit_bias",
            ),
            (
                "gemini/text",
                "logprobs, prediction, provider_only, user, logit_bias",
            ),
            (
                "openai-responses/text",
                "logprobs, prediction, provider_only, top_k, stop, seed, logit_bias",
            ),
        ] {
            let mut body = request(model, &rare);
            body["stream"] = json!(stream);
            let answer = harness.post("/v1/chat/completions", &body).send().await;
            assert_eq!(
                header(&answer, UNSUPPORTED).as_deref(),
                Some(named),
                "{model}"
            );
            let route = header(&answer, "x-smithgate-route");
            assert_eq!(route.as_deref(), Some(model));
            assert!(!text(answer).await.is_empty());
        }
    }
    let sent = harness
        .mock
        .got()
        .iter()
        .find(|got| got.path.starts_with("/anthropic"))
        .cloned();
    let sent = sent.expect("a request").body;
    assert_eq!(
        (&sent["top_k"], &sent["metadata"]["user_id"]),
        (&json!(5), &json!("u-1"))
    );

    // To a provider of the same wire all goes as it is, but for what the gateway alone is told.
    let mut body = request("openai-chat/text", &rare);
    body["on_unsupported"] = json!("error");
    let answer = harness.post("/v1/chat/completions", &body).send().await;
    assert_eq!(header(&answer, UNSUPPORTED), None);
    ok(answer).await;
    body.as_object_mut()
        .expect("an object")
        .shift_remove("on_unsupported");
    body["model"] = json!("text");
    assert_eq!(harness.mock.last().body.to_string(), body.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_what_becomes_of_it() {
    let harness = Harness::start_with(|config, _| {
        let targets = ["anthropic/text", "openai-chat/text"].map(|model| Target {
            model: model.to_owned(),
            retries: 0,
            timeout_ms: None,
        });
        let targets = targets.to_vec();
        config.models.aliases.insert(
            "either".to_owned(),
            Alias {
                targets,
                ..Alias::default()
            },
        );
    })
    .await;
    let post = |path: &str, body: &Value| harness.post(path, body);
    let chat = "/v1/chat/completions";
    let dropped = request(
        "anthropic/text",
        &json!({ "seed": 7, "on_unsupported": "drop" }),
    );
    let answer = post(chat, &dropped).send().await;
    assert_eq!(header(&answer, UNSUPPORTED), None);
    ok(answer).await;
    assert_eq!(harness.mock.last().body.get("on_unsupported"), None);

    // Neither what the model's provider has no place for, nor what no other wire has.
    for (more, param) in [
        (json!({ "seed": 7 }), "seed"),
        (json!({ "logprobs": true }), "logprobs"),
    ] {
        let mut body = request("anthropic/text", &more);
        let refusal = post(chat, &body)
            .header("x-smithgate-on-unsupported", "error")
            .send()
            .await;
        let (status, error) = refused(refusal).await;
        let told = (status, error["code"].as_str(), error["param"].as_str());
        assert_eq!(told, (400, Some("unsupported_parameter"), Some(param)));
        body["on_unsupported"] = json!("error");
        assert_eq!(refused(post(chat, &body).send().await).await.0, 400);
    }
    let unknown = request("anthropic/text", &json!({ "on_unsupported": "maybe" }));
    let (status, error) = refused(post(chat, &unknown).send().await).await;
    assert_eq!(
        (status, error["param"].as_str()),
        (400, Some("on_unsupported"))
    );

    // One target has a place.
    let body = request("either", &json!({ "seed": 7, "on_unsupported": "error" }));
    let answer = post(chat, &body).send().await;
    assert_eq!(
        header(&answer, "x-smithgate-route").as_deref(),
        Some("openai-chat/text")
    );
    assert_eq!(
        header(&answer, "x-smithgate-attempts").as_deref(),
        Some("2")
    );
    assert!(!said(&text(answer).await).is_empty() || harness.mock.last().body["seed"] == 7);

    // The caller's own word.
    let body = json!({ "model": "openai-responses/text", "max_tokens": 9, "stop_sequences": ["x"],
        "messages": [{ "role": "user", "content": "hi" }], "on_unsupported": "error" });
    let answer = post("/v1/messages", &body).send().await.expect("an answer");
    assert_eq!(answer.status(), 400);
    let told = answer.text().await.expect("text");
    assert!(told.contains("does not take stop"), "{told}");
    let answer = post(
        "/v1/messages",
        &json!({ "model": "openai-responses/text", "max_tokens": 9,
        "stop_sequences": ["x"], "container": "c", "messages": [{ "role": "user", "content": "hi" }] }),
    );
    let answer = answer.send().await;
    assert_eq!(
        header(&answer, UNSUPPORTED).as_deref(),
        Some("container, stop_sequences")
    );
    let answer = post(
        "/v1/responses",
        &json!({ "model": "anthropic/text", "input": "hi",
        "max_tool_calls": 3, "service_tier": "flex" }),
    );
    let answer = answer.send().await;
    assert_eq!(
        header(&answer, UNSUPPORTED).as_deref(),
        Some("max_tool_calls, service_tier")
    );

    // A smith's turn has no place for what is no part of the wire.
    let smith = harness.smith("openai-chat/text").await;
    let body = request("", &json!({ "model": null, "logprobs": true }));
    let turn = post(chat, &body).header("IC-Smith-Id", &smith).send().await;
    assert_eq!(header(&turn, UNSUPPORTED).as_deref(), Some("logprobs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_has_its_providers_headers() {
    let harness = Harness::start().await;
    for model in ["openai-chat/status-429", "anthropic/status-429"] {
        for stream in [false, true] {
            let answer = harness.chat(model, stream).send().await;
            let told = |name: &str| header(&answer, name);
            assert_eq!(told("x-ratelimit-remaining-tokens").as_deref(), Some("0"));
            let id = told("x-smithgate-provider-request-id");
            assert_eq!(id.as_deref(), Some("req_of_failure"));
            assert_eq!(refused(answer).await.0, 429);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_go_both_ways() {
    let harness = Harness::start_with(|config, _| {
        config.models.forward_headers = vec!["x-team".to_owned()];
    })
    .await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (model, is_same) in [("openai-chat/text", true), ("anthropic/text", false)] {
        for stream in [false, true] {
            let answer = harness
                .chat(model, stream)
                .header("openai-organization", "org-1")
                .header("traceparent", trace)
                .header("x-team", "red")
                .header("x-other", "blue")
                .header("cookie", "a=b")
                .header("origin", "https://app.example")
                .send()
                .await;
            let told = |name: &str| header(&answer, name);
            assert_eq!(
                told("x-ratelimit-remaining-tokens").as_deref(),
                Some("149984")
            );
            assert_eq!(
                told("x-smithgate-provider-request-id").as_deref(),
                Some("req_of_provider")
            );
            assert_ne!(told("x-request-id").as_deref(), Some("req_of_provider"));
            assert_eq!(told("set-cookie"), None);
            assert_eq!(told("x-smithgate-route").as_deref(), Some(model));
            assert_eq!(told("x-smithgate-attempts").as_deref(), Some("1"));
            let shown = told("access-control-expose-headers").expect("exposed");
            assert!(shown.contains("X-Smithgate-Route"), "{shown}");
            assert!(!text(answer).await.is_empty());
            let got = harness.mock.last();
            assert_eq!(got.header("traceparent"), Some(trace));
            assert_eq!(got.header("openai-organization").is_some(), is_same);
            assert_eq!(got.header("x-other"), None);
            assert_eq!(got.header("cookie"), None);
            assert_eq!(got.header("x-team"), Some("red"), "{model}");
        }
    }
}
