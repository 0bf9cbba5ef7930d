//! What each provider is sent for a rich request, held by snapshots, and what comes back to it on
//! the next turn.

use serde_json::{Value, json};

use crate::support::{Harness, WIRES, ok, refused, text};

const PIXEL: &str = "data:image/png;base64,iVBORw0KGgo=";
const PAPER: &str = "data:application/pdf;base64,JVBERi0xLjQ=";

fn tools() -> Value {
    json!([
        { "type": "function", "function": { "name": "get_weather", "description": "The weather of a city",
            "parameters": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } } },
        { "type": "function", "function": { "name": "now" } },
    ])
}

fn rich() -> Value {
    json!([
        { "role": "system", "content": "You are terse." },
        { "role": "developer", "content": [{ "type": "text", "text": "Use metric units." }] },
        { "role": "user", "content": [
            { "type": "text", "text": "What is this, and how is the weather?" },
            { "type": "image_url", "image_url": { "url": PIXEL, "detail": "low" } },
            { "type": "image_url", "image_url": { "url": "https://example.com/cat.jpg" } },
            { "type": "file", "file": { "filename": "paper.pdf", "file_data": PAPER } },
        ] },
        { "role": "assistant", "content": "Looking.", "tool_calls": [
            { "id": "call_a", "type": "function", "function": { "name": "get_weather", "arguments": "{\"city\":\"Paris\"}" } },
            { "id": "call_b", "type": "function", "function": { "name": "now", "arguments": "" } },
        ] },
        { "role": "tool", "tool_call_id": "call_a", "content": "mild" },
        { "role": "tool", "tool_call_id": "call_b", "content": [{ "type": "text", "text": "noon" }] },
        { "role": "assistant", "content": "A cat. It is mild." },
        { "role": "user", "content": "Thanks. Now as JSON." },
    ])
}

fn shown(harness: &Harness) -> String {
    let got = harness.mock.last();
    let kept = [
        "authorization",
        "x-api-key",
        "x-goog-api-key",
        "anthropic-version",
        "content-type",
        "accept",
    ];
    let headers: Vec<&(String, String)> = got
        .headers
        .iter()
        .filter(|(n, _)| kept.contains(&n.as_str()))
        .collect();
    format!(
        "{}\n{headers:?}\n{}",
        got.path,
        serde_json::to_string_pretty(&got.body).expect("JSON")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn rich_requests_reach_each_provider_in_its_own_wire() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    for (name, _) in WIRES {
        let wire = name.replace('_', "-");
        let body = json!({
            "model": format!("{wire}/text"), "stream": true, "messages": rich(), "tools": tools(),
            "tool_choice": "auto", "parallel_tool_calls": false, "max_completion_tokens": 500,
            "temperature": 0.5, "top_p": 0.9, "stop": ["END"], "user": "u-1",
        });
        // A smith's turn is translated on every wire, also on the client's own.
        let call = harness
            .post("/v1/chat/completions", &body)
            .header("IC-Smith-Id", &smith);
        text(call.send().await).await;
        insta::assert_snapshot!(format!("request_rich_{name}"), shown(&harness));
        let body = json!({
            "model": format!("{wire}/structured"), "messages": [{ "role": "user", "content": "who?" }],
            "reasoning_effort": "high",
            "response_format": { "type": "json_schema", "json_schema": { "name": "person", "strict": true, "schema": {
                "type": "object", "properties": { "name": { "type": "string" }, "age": { "type": "integer" } },
                "required": ["name", "age"], "additionalProperties": false } } },
        });
        let call = harness
            .post("/v1/chat/completions", &body)
            .header("IC-Smith-Id", &smith);
        ok(call.send().await).await;
        insta::assert_snapshot!(format!("request_structured_{name}"), shown(&harness));
        for (choice, kind) in [
            (json!("required"), "required"),
            (json!("none"), "none"),
            (
                json!({ "type": "function", "function": { "name": "now" } }),
                "named",
            ),
        ] {
            let body = json!({ "model": format!("{wire}/text"), "tools": tools(), "tool_choice": choice,
                "messages": [{ "role": "user", "content": "x" }] });
            let call = harness
                .post("/v1/chat/completions", &body)
                .header("IC-Smith-Id", &smith);
            ok(call.send().await).await;
            insta::assert_snapshot!(format!("request_choice_{kind}_{name}"), shown(&harness));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_come_back_to_the_provider_on_the_next_turn() {
    let harness = Harness::start().await;
    for (wire, signature) in [
        ("anthropic", "YW50aHJvcGljLXNpZw=="),
        ("gemini", "Z2VtaW5pLXNpZw=="),
        ("openai-responses", "b3BlbmFpLXNlYWxlZA=="),
    ] {
        for kind in ["routed, streamed", "smith, whole", "smith with a thread"] {
            let smith = harness.smith(&format!("{wire}/thinking_tools")).await;
            let call = |model: String, messages: &Value, stream: bool| {
                let body = json!({ "model": model, "stream": stream, "tools": tools(), "messages": messages });
                let call = harness.post("/v1/chat/completions", &body);
                match kind {
                    "routed, streamed" => call,
                    "smith, whole" => call.header("IC-Smith-Id", &smith),
                    _ => call
                        .header("IC-Smith-Id", &smith)
                        .header("IC-Thread-Id", "t"),
                }
            };
            let asked = json!([{ "role": "user", "content": "weather?" }]);
            let model = format!("{wire}/thinking_tools");
            let calls: Vec<Value> = if kind == "routed, streamed" {
                let stream = text(call(model, &asked, true).send().await).await;
                crate::support::data_lines(&stream)
                    .iter()
                    .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                    .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].as_object().cloned())
                    .filter(|call| call.contains_key("id"))
                    .map(|call| json!({ "id": call["id"], "type": "function",
                        "function": { "name": call["function"]["name"], "arguments": "{\"city\":\"Paris\"}" } }))
                    .collect()
            } else {
                let first = ok(call(model, &asked, false).send().await).await;
                first["choices"][0]["message"]["tool_calls"]
                    .as_array()
                    .expect("calls")
                    .clone()
            };
            assert!(!calls.is_empty());
            // The client sends back what the wire has a place for, and nothing else.
            let plain: Vec<Value> = calls
                .iter()
                .map(|c| json!({ "id": c["id"], "type": "function", "function": c["function"] }))
                .collect();
            let mut messages: Vec<Value> = match kind {
                "smith with a thread" => Vec::new(),
                _ => vec![
                    asked[0].clone(),
                    json!({ "role": "assistant", "content": null, "tool_calls": plain }),
                ],
            };
            for call in &calls {
                messages
                    .push(json!({ "role": "tool", "tool_call_id": call["id"], "content": "mild" }));
            }
            let model = format!("{wire}/text");
            text(
                call(model, &Value::Array(messages), kind == "routed, streamed")
                    .send()
                    .await,
            )
            .await;
            let sent = harness.mock.last().body.to_string();
            assert!(sent.contains(signature), "{wire}, {kind}: {sent}");
            let thought = "I need the weather.";
            assert_eq!(
                sent.contains(thought),
                wire == "anthropic",
                "{wire}, {kind}: {sent}"
            );
            // Another tenant's or another provider's turn is not given these.
            text(
                call(
                    "openai-chat/text".into(),
                    &json!([{ "role": "user", "content": "x" }]),
                    false,
                )
                .send()
                .await,
            )
            .await;
            let sent = harness.mock.last().body.to_string();
            assert!(!sent.contains(signature), "{wire}, {kind}: {sent}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_wire_cannot_carry_is_refused_by_name() {
    let harness = Harness::start().await;
    let ask = |part: Value| {
        let body = json!({ "model": "anthropic/text", "messages": [{ "role": "user", "content": [part] }] });
        harness.post("/v1/chat/completions", &body).send()
    };
    for part in [
        json!({ "type": "input_audio", "input_audio": { "data": "AAAA", "format": "wav" } }),
        json!({ "type": "hologram" }),
    ] {
        let (status, error) = refused(ask(part.clone()).await).await;
        assert_eq!(status, 400, "{part}: {error}");
    }
    let body = json!({ "model": "gemini/text", "reasoning_effort": "galactic", "messages": [{ "role": "user", "content": "x" }] });
    let (status, error) = refused(harness.post("/v1/chat/completions", &body).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (400, Some("invalid_reasoning_effort"))
    );
    let body = json!({ "model": "gemini/text", "tool_choice": { "type": "function", "function": { "name": "none" } },
        "messages": [{ "role": "user", "content": "x" }] });
    let (status, error) = refused(harness.post("/v1/chat/completions", &body).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (400, Some("invalid_tool_choice"))
    );
}

/// The names in each object of properties that has one of them.
fn orders(value: &Value, name: &str, found: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(members) => {
            if members.contains_key(name) {
                found.push(members.keys().cloned().collect());
            }
            members.values().for_each(|one| orders(one, name, found));
        }
        Value::Array(all) => all.iter().for_each(|one| orders(one, name, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_keep_the_order_of_their_author() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let inner = json!({ "type": "object", "properties": {
        "y": { "type": "string" }, "c": { "$ref": "#/$defs/n" }, "m": { "type": "integer" } },
        "required": ["y", "c", "m"], "additionalProperties": false });
    let schema = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "title": "A form", "properties": {
            "zeta": { "title": "Z", "type": "string", "description": "first" },
            "alpha": inner,
            "mid": { "type": "array", "items": { "type": "number" } },
            "beta": { "type": "boolean" } },
        "required": ["zeta", "alpha", "mid", "beta"], "additionalProperties": false,
        "$defs": { "n": { "type": "number" } } });
    let (outer, inner) = (["zeta", "alpha", "mid", "beta"], ["y", "c", "m"]);
    let check = |about: &str, body: &Value| {
        for (name, wanted) in [("zeta", &outer[..]), ("y", &inner[..])] {
            let mut found = Vec::new();
            orders(body, name, &mut found);
            assert!(!found.is_empty(), "{about}: {body}");
            for names in found {
                assert_eq!(names, wanted, "{about}");
            }
        }
    };
    for strict in [true, false] {
        for (name, _) in WIRES {
            let wire = name.replace('_', "-");
            let chat = json!({ "model": format!("{wire}/tools"), "messages": [{ "role": "user", "content": "x" }],
                "tools": [{ "type": "function", "function": {
                    "name": "get_weather", "strict": strict, "parameters": schema } }] });
            let responses = json!({ "model": format!("{wire}/tools"), "input": "x", "tools": [
                { "type": "function", "name": "get_weather", "strict": strict, "parameters": schema }] });
            for with_smith in [true, false] {
                for (path, body) in [
                    ("/v1/chat/completions", &chat),
                    ("/v1/responses", &responses),
                ] {
                    let mut call = harness.post(path, body);
                    if with_smith {
                        call = call.header("IC-Smith-Id", &smith);
                    }
                    let about = format!("{wire} {path} strict {strict} smith {with_smith}");
                    let answer = ok(call.send().await).await;
                    check(&about, &harness.mock.last().body);
                    let is_passed_on = wire == "openai-responses" && !with_smith;
                    if path == "/v1/responses" && !is_passed_on {
                        check(&format!("{about}, given back"), &answer["tools"]);
                    }
                }
            }
            let format = json!({ "type": "json_schema", "json_schema": {
                "name": "form", "strict": strict, "schema": schema } });
            let body = json!({ "model": format!("{wire}/text"), "response_format": format,
                "messages": [{ "role": "user", "content": "x" }] });
            let call = harness.post("/v1/chat/completions", &body);
            // What the mock answers is not of this form, and no matter here.
            text(call.header("IC-Smith-Id", &smith).send().await).await;
            check(
                &format!("{wire} format, strict {strict}"),
                &harness.mock.last().body,
            );
        }
    }
}
