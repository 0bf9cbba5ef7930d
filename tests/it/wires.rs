//! The same scripted turns on every client wire, held by snapshots of the bytes.

use serde_json::{Value, json};

use crate::support::{Harness, WIRES, ok, redact, said, text};

const TURNS: [&str; 3] = ["text", "tools", "length"];

fn tools() -> Value {
    json!([{ "type": "function", "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] },
    }}])
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_streams_without_a_smith() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        for turn in TURNS {
            let model = format!("{}/{turn}", name.replace('_', "-"));
            let body = json!({
                "model": model, "stream": true, "stream_options": { "include_usage": true },
                "tools": tools(), "messages": [{ "role": "user", "content": "hi" }],
            });
            let stream = text(harness.post("/v1/chat/completions", &body).send().await).await;
            insta::assert_snapshot!(format!("chat_{name}_{turn}"), redact(&stream));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_answers_whole_without_a_smith() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        for turn in ["text", "tools"] {
            let model = format!("{}/{turn}", name.replace('_', "-"));
            let answer = text(harness.chat(&model, false).send().await).await;
            let value: Value = serde_json::from_str(&answer).expect("JSON");
            let shown = serde_json::to_string_pretty(&value).expect("JSON");
            insta::assert_snapshot!(
                format!("chat_whole_{name}_{turn}"),
                redact(&shown.replace("\"created\": ", "\"created\":"))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smith_answers_on_chat_and_natively() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        let smith = harness
            .smith(&format!("{}/text", name.replace('_', "-")))
            .await;
        let body = json!({ "stream": true, "stream_options": { "include_usage": true },
            "messages": [{ "role": "user", "content": "hi" }] });
        let call = harness
            .post("/v1/chat/completions", &body)
            .header("IC-Smith-Id", &smith);
        insta::assert_snapshot!(
            format!("smith_chat_{name}"),
            redact(&text(call.send().await).await)
        );
        let body = json!({ "stream": true, "input": [{ "role": "user", "content": "hi" }] });
        let call = harness.post(&format!("/v1/smiths/{smith}/runs"), &body);
        insta::assert_snapshot!(
            format!("native_{name}"),
            redact(&text(call.send().await).await)
        );
    }
    let smith = harness.smith("anthropic/thinking").await;
    let body = json!({ "stream": true, "input": [{ "role": "user", "content": "hi" }],
        "stream_options": { "include": ["reasoning"] } });
    let call = harness.post(&format!("/v1/smiths/{smith}/runs"), &body);
    insta::assert_snapshot!("native_reasoning", redact(&text(call.send().await).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_forwarded_as_they_are_on_the_same_wire() {
    let harness = Harness::start().await;
    let asked = json!({ "model": "openai-chat/text", "stream": true,
        "stream_options": { "include_usage": true },
        "messages": [{ "role": "user", "content": "hi" }] });
    let stream = text(harness.post("/v1/chat/completions", &asked).send().await).await;
    let fixture = crate::mock::fixture("openai_chat", "text", "sse").expect("a fixture");
    assert_eq!(stream.as_bytes(), fixture);
    // Usage that only the gateway asked for stays here, and is counted all the same.
    let quiet = text(harness.chat("openai-chat/text", true).send().await).await;
    assert!(!quiet.contains("prompt_tokens"), "{quiet}");
    assert_eq!(said(&quiet), said(&stream));
    let got = harness.mock.last();
    assert_eq!(got.body["stream_options"]["include_usage"], true);
    assert_eq!(got.body["model"], "text");
    assert_eq!(
        got.header("authorization"),
        Some("Bearer hosted-openai_chat")
    );
    let metrics = harness.metrics_text().await;
    let counted =
        "smithgate_tokens_total{kind=\"input\",model=\"text\",provider=\"openai-chat\"} 42";
    assert!(metrics.contains(counted), "{metrics}");
    tokio::time::sleep(std::time::Duration::from_millis(1300)).await;
    let usage = ok(harness.get("/v1/tenant/usage").send().await).await;
    assert_eq!(usage["totals"]["input_tokens"], 42);
    assert_eq!(usage["totals"]["output_tokens"], 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drip_of_bytes_reads_like_a_whole() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        let name = name.replace('_', "-");
        let whole = text(harness.chat(&format!("{name}/text"), true).send().await).await;
        let drip = text(
            harness
                .chat(&format!("{name}/fault-drip"), true)
                .send()
                .await,
        )
        .await;
        assert_eq!(said(&drip), said(&whole), "{name}");
        assert!(drip.ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn structured_answers_conform_or_fail() {
    let harness = Harness::start().await;
    let format = json!({ "type": "json_schema", "json_schema": { "name": "person", "strict": true, "schema": {
        "type": "object", "properties": { "name": { "type": "string" }, "age": { "type": "integer" } },
        "required": ["name", "age"], "additionalProperties": false } } });
    for (name, _) in WIRES {
        let wire = name.replace('_', "-");
        let smith = harness.smith(&format!("{wire}/structured")).await;
        let ask = |model: &str| {
            json!({ "model": model, "response_format": format,
            "messages": [{ "role": "user", "content": "who?" }] })
        };
        let call = harness
            .post("/v1/chat/completions", &ask(""))
            .header("IC-Smith-Id", &smith);
        let answer = ok(call.send().await).await;
        let content = answer["choices"][0]["message"]["content"]
            .as_str()
            .expect("text");
        assert_eq!(
            serde_json::from_str::<Value>(content).expect("JSON")["age"],
            36
        );
        let call = harness
            .post("/v1/chat/completions", &ask(&format!("{wire}/text")))
            .header("IC-Smith-Id", &smith);
        let (status, error) = crate::support::refused(call.send().await).await;
        assert_eq!(
            (status, error["code"].as_str()),
            (502, Some("structured_output_failed"))
        );
        let call = harness
            .post("/v1/chat/completions", &ask(""))
            .header("IC-Smith-Id", &smith)
            .header("IC-Thread-Id", "t");
        let (status, error) = crate::support::refused(call.send().await).await;
        assert_eq!(
            (status, error["code"].as_str()),
            (400, Some("invalid_response_format"))
        );
    }
}

/// What a Chat client without a smith sees of a structured answer: its text, and the code of what it
/// is told instead.
async fn routed(harness: &Harness, model: &str, format: &Value, stream: bool) -> (String, Value) {
    let body = json!({ "model": model, "response_format": format, "stream": stream,
        "messages": [{ "role": "user", "content": "who?" }] });
    let call = harness.post("/v1/chat/completions", &body);
    let answer = call.send().await.expect("an answer").text().await;
    let answer = answer.expect("a body");
    let mut text = String::new();
    let mut code = Value::Null;
    let events = answer.lines().map(|line| line.trim_start_matches("data: "));
    for event in events.filter_map(|data| serde_json::from_str::<Value>(data).ok()) {
        let choice = &event["choices"][0];
        for said in [&choice["message"]["content"], &choice["delta"]["content"]] {
            text += said.as_str().unwrap_or_default();
        }
        if event["error"].is_object() {
            code = event["error"]["code"].clone();
        }
    }
    (text, code)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_target_is_not_held_to_is_checked_here() {
    let harness = Harness::start().await;
    let format = |least: u32| {
        json!({ "type": "json_schema", "json_schema": { "name": "person", "strict": true, "schema": {
            "type": "object", "properties": { "name": { "type": "string" },
                "age": { "type": "integer", "minimum": least } },
            "required": ["name", "age"], "additionalProperties": false } } })
    };
    for stream in [false, true] {
        let (text, code) = routed(&harness, "anthropic/structured", &format(30), stream).await;
        assert_eq!(code, Value::Null);
        let person: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(person["age"], 36);
        let (_, code) = routed(&harness, "anthropic/structured", &format(40), stream).await;
        assert_eq!(code, "structured_output_failed", "streamed: {stream}");
        // One that takes the schema as it is answers for it.
        let (_, code) = routed(&harness, "openai-chat/structured", &format(40), stream).await;
        assert_eq!(code, Value::Null);
        let json = json!({ "type": "json_object" });
        let fenced = routed(&harness, "anthropic/quirk-json-in-a-fence", &json, stream).await;
        assert_eq!(fenced, ("{\"name\": \"Ada\"}".to_owned(), Value::Null));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_kept_with_what_they_are_for() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/quirk-chat-annotations").await;
    let call = harness.post("/v1/responses", &json!({ "input": "hi" }));
    let answer = ok(call.header("IC-Smith-Id", &smith).send().await).await;
    let id = answer["id"].as_str().expect("an id");
    let call = harness.get(&format!("/v1/responses/{id}"));
    let kept = ok(call.header("IC-Smith-Id", &smith).send().await).await;
    let annotations = &kept["output"][0]["content"][0]["annotations"];
    assert_eq!(annotations[0]["url"], "https://x.example/a", "{kept:#}");
    assert_eq!(annotations[1]["end_index"], 10);
}
