//! Anthropic Messages as a client wire: its bytes on every provider, what is passed on, its errors,
//! a smith behind it, counts of tokens.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::attachments::upload;
use crate::support::{Harness, WIRES, ok, redact, text};

fn tools() -> Value {
    json!([{ "name": "get_weather", "description": "The weather of a city", "input_schema": {
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } }])
}

fn ask(model: &str) -> Value {
    json!({ "model": model, "max_tokens": 100, "messages": [{ "role": "user", "content": "hi" }] })
}

fn call(harness: &Harness, body: &Value) -> RequestBuilder {
    harness.post("/v1/messages", body)
}

/// The id of an answer that is made here is another each time.
fn shown(answer: &str) -> String {
    let mut out = String::new();
    for piece in redact(answer).split_inclusive("\"msg_") {
        let id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        match out.ends_with("\"msg_") {
            true => out.push_str(&format!("…{}", piece.trim_start_matches(id))),
            false => out.push_str(piece),
        }
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_every_provider() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        for turn in ["text", "tools", "length"] {
            let mut body = ask(&format!("{}/{turn}", name.replace('_', "-")));
            body["stream"] = json!(true);
            body["tools"] = tools();
            body["thinking"] = json!({ "type": "adaptive" });
            let stream = text(call(&harness, &body).send().await).await;
            insta::assert_snapshot!(format!("messages_{name}_{turn}"), shown(&stream));
        }
    }
    for (model, name) in [
        ("openai-chat/refusal", "refusal"),
        ("openai-chat/reasoning", "reasoning"),
        ("openai-chat/quirk-chat-annotations", "citations"),
        ("openai-chat/quirk-chat-tools-interleaved", "interleaved"),
    ] {
        let mut body = ask(model);
        body["stream"] = json!(true);
        body["tools"] = tools();
        body["thinking"] = json!({ "type": "adaptive" });
        let stream = text(call(&harness, &body).send().await).await;
        insta::assert_snapshot!(format!("messages_{name}"), shown(&stream));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_answers_of_every_provider() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        for turn in ["text", "tools"] {
            let mut body = ask(&format!("{}/{turn}", name.replace('_', "-")));
            body["tools"] = tools();
            let answer = ok(call(&harness, &body).send().await).await;
            let pretty = serde_json::to_string_pretty(&answer).expect("JSON");
            insta::assert_snapshot!(format!("messages_whole_{name}_{turn}"), shown(&pretty));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_two_headers_are_passed_on_to_the_same_wire() {
    let harness = Harness::start().await;
    let body = "{ \"stream\" : true, \"model\":\"anthropic/text\",\"x\": 1.50, \"tools\": \
        [{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}], \"messages\":[]}";
    let call = harness
        .request(reqwest::Method::POST, "/v1/messages?beta=true")
        .header("content-type", "application/json")
        .header("anthropic-version", "2024-01-01")
        .header("anthropic-beta", "a-2025-01-01")
        .header("anthropic-beta", "b-2025-01-01")
        .header("x-secret", "mine")
        .body(body);
    let stream = text(call.send().await).await;
    let fixture = crate::mock::fixture("anthropic", "text", "sse").expect("a fixture");
    assert_eq!(stream.as_bytes(), fixture);
    let got = harness.mock.last();
    assert_eq!(got.path, "/anthropic/messages");
    assert_eq!(got.body["model"], "text");
    assert_eq!(got.body["tools"][0]["type"], "web_search_20250305");
    let versions: Vec<&str> = got
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("anthropic-"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(versions, ["2024-01-01", "a-2025-01-01, b-2025-01-01"]);
    assert_eq!(got.header("x-api-key"), Some("hosted-anthropic"));
    assert!(got.header("x-secret").is_none() && got.header("authorization").is_none());
    let metrics = harness.metrics_text().await;
    let counted = "smithgate_tokens_total{kind=\"output\",model=\"text\",provider=\"anthropic\"} 9";
    assert!(metrics.contains(counted), "{metrics}");
    // Without them, ours.
    ok(harness
        .post("/v1/messages", &ask("anthropic/text"))
        .send()
        .await)
    .await;
    let got = harness.mock.last();
    assert_eq!(got.header("anthropic-version"), Some("2023-06-01"));
    assert!(got.header("anthropic-beta").is_none());
}

/// The status, and the error's type and code.
async fn told(call: RequestBuilder) -> (u16, String, String) {
    let answer = call.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let id = answer.headers()["request-id"].clone();
    assert_eq!(answer.headers()["x-request-id"], id);
    let body: Value = answer.json().await.expect("JSON");
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(body["request_id"], id.to_str().expect("text"), "{body}");
    let member = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert_ne!(member(&body["error"]["message"]), "", "{body}");
    let error = &body["error"];
    let code = member(&error["details"]["error_code"]);
    (status, member(&error["type"]), code)
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_anthropics_shape_wherever_they_are_made() {
    let harness = Harness::start().await;
    let url = |path: &str| harness.url(path);
    let with = |path: &str, body: &Value| harness.post(path, body);
    let path = "/v1/messages";
    let no_key = harness.client.post(url(path)).body("{}");
    let wrong_key = harness
        .client
        .post(url("/v1/messages/count_tokens"))
        .header("x-api-key", "tha_live_x");
    let get = harness.get(path);
    let mut no_role = ask("openai-chat/text");
    no_role["messages"] = json!([{ "content": "x" }]);
    let mut searches = ask("openai-chat/text");
    searches["tools"] = json!([{ "type": "web_search_20250305", "name": "web_search" }]);
    for (call, status, kind, code) in [
        (no_key, 401, "authentication_error", "unauthenticated"),
        (wrong_key, 401, "authentication_error", "unauthenticated"),
        (get, 405, "invalid_request_error", "invalid_request"),
        (
            with(path, &json!([])),
            400,
            "invalid_request_error",
            "invalid_request",
        ),
        (
            with(path, &no_role),
            400,
            "invalid_request_error",
            "invalid_request",
        ),
        (
            with(path, &searches),
            400,
            "invalid_request_error",
            "unsupported",
        ),
        (
            with(path, &ask("text")),
            400,
            "invalid_request_error",
            "smith_required",
        ),
        (
            with(path, &ask("anthropic/status-404")),
            404,
            "not_found_error",
            "model_request_failed",
        ),
        (
            with(path, &ask("openai-chat/status-429")),
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
        ),
        (
            with(path, &ask("anthropic/status-529")),
            529,
            "overloaded_error",
            "service_overloaded",
        ),
        (
            with(path, &ask("gemini/status-401")),
            502,
            "api_error",
            "model_request_failed",
        ),
    ] {
        let expected = (status, kind.to_owned(), code.to_owned());
        assert_eq!(told(call).await, expected);
    }
    // The other wires keep their own.
    let plain = harness.client.post(url("/v1/chat/completions")).body("{}");
    let plain = plain.send().await.expect("an answer");
    assert!(!plain.headers().contains_key("request-id"));
    let plain: Value = plain.json().await.expect("JSON");
    assert_eq!(plain["error"]["code"], "unauthenticated");
    let keyed = harness
        .client
        .get(url("/v1/models"))
        .header("x-api-key", &harness.token);
    assert_eq!(keyed.send().await.expect("an answer").status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_mid_stream_is_an_event() {
    let harness = Harness::start().await;
    for model in ["anthropic/fault-reset", "openai-chat/fault-in-stream"] {
        let mut body = ask(model);
        body["stream"] = json!(true);
        let stream = text(call(&harness, &body).send().await).await;
        let (before, error) = stream.split_once("event: error\ndata: ").expect(model);
        assert!(before.contains("message_start"), "{stream}");
        let error: Value = serde_json::from_str(error.trim()).expect("JSON");
        assert_eq!(error["type"], "error");
        assert_eq!(error["error"]["type"], "api_error", "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_is_kept_alive_by_pings() {
    let harness = Harness::start_with(|config, _| config.server.keep_alive_ms = 60).await;
    let mut body = ask("openai-chat/fault-slow");
    body["stream"] = json!(true);
    let stream = text(call(&harness, &body).send().await).await;
    assert!(stream.matches("event: ping\n").count() > 2, "{stream}");
    assert!(!stream.contains(": keep-alive"), "{stream}");
    assert!(
        stream.ends_with("{\"type\":\"message_stop\"}\n\n"),
        "{stream}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smith_answers_and_keeps_its_thread() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let token = harness
        .smith_token(&smith, &["runs:write", "runs:read"])
        .await;
    for stream in [false, true] {
        let mut body = ask("");
        body["system"] = json!("Be brief.");
        body["stream"] = json!(stream);
        let call = harness
            .client
            .post(harness.url("/v1/messages"))
            .header("x-api-key", &token)
            .header("IC-Thread-Id", "thread-1")
            .json(&body);
        let answer = text(call.send().await).await;
        let name = if stream { "stream" } else { "whole" };
        insta::assert_snapshot!(format!("messages_smith_{name}"), shown(&answer));
    }
    let got = harness.mock.last();
    let sent = got.body["messages"].as_array().expect("messages").len();
    assert_eq!(
        sent, 4,
        "system, the first turn, and this one: {}",
        got.body
    );
    // A caller's own tools go to the caller.
    let smith = harness.smith("gemini/loop").await;
    let mut body = ask("");
    body["tools"] = tools();
    let call = |body: &Value| {
        harness
            .post("/v1/messages", body)
            .header("IC-Smith-Id", &smith)
    };
    let first = ok(call(&body).send().await).await;
    assert_eq!(first["stop_reason"], "tool_use", "{first}");
    let messages = body["messages"].as_array_mut().expect("messages");
    messages.push(json!({ "role": "assistant", "content": first["content"] }));
    let calls = first["content"].as_array().expect("blocks").iter();
    let results: Vec<Value> = calls
        .filter(|block| block["type"] == "tool_use")
        .map(|block| {
            json!({ "type": "tool_result", "tool_use_id": block["id"],
            "content": [{ "type": "text", "text": "mild" }] })
        })
        .collect();
    messages.push(json!({ "role": "user", "content": results }));
    let second = ok(call(&body).send().await).await;
    assert_eq!(second["stop_reason"], "end_turn", "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn thinking_goes_back_to_its_maker_and_to_nobody_else() {
    let harness = Harness::start().await;
    for wire in ["openai-responses", "gemini", "anthropic"] {
        let mut body = ask(&format!("{wire}/loop"));
        body["tools"] = tools();
        body["thinking"] = json!({ "type": "adaptive" });
        let first = ok(call(&harness, &body).send().await).await;
        let content = first["content"].clone();
        let kinds: Vec<&str> = content
            .as_array()
            .expect("blocks")
            .iter()
            .map(|block| block["type"].as_str().unwrap_or_default())
            .collect();
        assert!(kinds.contains(&"tool_use"), "{first}");
        let results: Vec<Value> = content
            .as_array()
            .expect("blocks")
            .iter()
            .filter(|block| block["type"] == "tool_use")
            .map(|block| json!({ "type": "tool_result", "tool_use_id": block["id"], "content": "x" }))
            .collect();
        body["messages"] = json!([{ "role": "user", "content": "hi" },
            { "role": "assistant", "content": content },
            { "role": "user", "content": results }]);
        ok(call(&harness, &body).send().await).await;
        assert!(
            !harness.mock.last().body.to_string().contains("smithgate:"),
            "{wire}: {}",
            harness.mock.last().body
        );
        // The same conversation, gone on with by Anthropic.
        body["model"] = json!("anthropic/text");
        ok(call(&harness, &body).send().await).await;
        assert!(!harness.mock.last().body.to_string().contains("smithgate:"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_by_anthropic_or_estimated() {
    let harness = Harness::start().await;
    let count = |model: &str| {
        let mut body = ask(model);
        body["tools"] = tools();
        harness.post("/v1/messages/count_tokens", &body)
    };
    let answer = count("anthropic/text").send().await.expect("an answer");
    assert!(!answer.headers().contains_key("ic-token-count"));
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(answer, json!({ "input_tokens": 42 }));
    let got = harness.mock.last();
    assert_eq!(got.path, "/anthropic/messages/count_tokens");
    assert_eq!(got.body["model"], "text");
    for model in ["openai-chat/text", "anthropic/status-404"] {
        let answer = count(model).send().await.expect("an answer");
        assert_eq!(answer.headers()["ic-token-count"], "estimate");
        let answer: Value = answer.json().await.expect("JSON");
        let tokens = answer["input_tokens"].as_u64().expect("a count");
        assert!((30..100).contains(&tokens), "{model}: {tokens}");
    }
    let refused = told(count("anthropic/status-400")).await;
    assert_eq!((refused.0, &*refused.1), (400, "invalid_request_error"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_kept_here_are_named_in_blocks() {
    let harness = Harness::start().await;
    let note = upload(&harness, &harness.token, "a.txt", "text/plain", b"hello").await;
    let png = b"\x89PNG\r\n\x1a\n";
    let image = upload(&harness, &harness.token, "a.png", "image/png", png).await;
    let block = |kind: &str, file: &str| json!({ "type": kind, "title": "t", "source": { "type": "file", "file_id": file } });
    let mut body = ask("anthropic/text");
    body["messages"] = json!([{ "role": "user", "content": [
        block("document", &note), block("document", &image), block("image", &image)] }]);
    ok(call(&harness, &body).send().await).await;
    let got = harness.mock.last().body["messages"][0]["content"].clone();
    assert_eq!(
        got[0]["source"],
        json!({ "type": "text", "media_type": "text/plain", "data": "hello" })
    );
    for block in [&got[1], &got[2]] {
        assert_eq!(block["type"], "image");
        assert_eq!(block["source"]["media_type"], "image/png");
        assert_eq!(block["source"]["type"], "base64");
    }
    body["model"] = json!("openai-chat/text");
    ok(call(&harness, &body).send().await).await;
    let got = harness.mock.last().body.to_string();
    assert!(got.contains("hello") && got.contains("image/png"), "{got}");
}
