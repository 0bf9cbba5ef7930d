//! Histories that no provider would take as they are, and what goes back to whom.

use serde_json::{Value, json};
use smithgate::config::{Alias, Target};

use crate::support::{Harness, WIRES, ok, text};

const THOUGHT: &str = "I need the weather.";

fn tools() -> Value {
    json!([{ "type": "function", "function": { "name": "get_weather",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } } } } }])
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

/// Calls in a body of any wire, and results.
fn calls_and_results(body: &Value) -> (usize, usize) {
    let text = body.to_string();
    let count = |marks: [&str; 4]| marks.iter().map(|mark| text.matches(mark).count()).sum();
    (
        count([
            r#""type":"tool_use""#,
            r#""functionCall":"#,
            r#""type":"function_call""#,
            r#"{"id":"call_"#,
        ]),
        count([
            r#""type":"tool_result""#,
            r#""functionResponse":"#,
            r#""type":"function_call_output""#,
            r#""role":"tool""#,
        ]),
    )
}

fn alias(models: &[&str]) -> Alias {
    Alias {
        targets: models
            .iter()
            .map(|model| Target {
                model: (*model).to_owned(),
                retries: 0,
                timeout_ms: None,
            })
            .collect(),
        ..Alias::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_with_an_unanswered_call_goes_on_everywhere() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        let wire = name.replace('_', "-");
        let smith = harness.smith(&format!("{wire}/text")).await;
        let model = |script: &str| format!("{wire}/{script}");
        for stream in [false, true] {
            let thread = format!("t-{stream}");
            let chat = |script: &str, say: &str| {
                let body = json!({ "model": model(script), "stream": stream, "tools": tools(),
                    "messages": [user(say)] });
                let call = harness.post("/v1/chat/completions", &body);
                call.header("IC-Smith-Id", &smith)
                    .header("IC-Thread-Id", &thread)
            };
            text(chat("tools", "weather?").send().await).await;
            for say in ["never mind", "thanks"] {
                let said = text(chat("text", say).send().await).await;
                assert!(!said.contains("\"error\""), "{wire}: {said}");
                let sent = harness.mock.last().body;
                let (calls, results) = calls_and_results(&sent);
                assert!(calls > 0 && calls == results, "{wire}: {sent:#}");
                assert!(
                    sent.to_string().contains("not answered"),
                    "{wire}: {sent:#}"
                );
            }
        }
        // Responses, by the response before and by the conversation.
        let conversation = ok(harness
            .post("/v1/conversations", &json!({ "metadata": {} }))
            .header("IC-Smith-Id", &smith)
            .send()
            .await)
        .await;
        let mut before = Value::Null;
        for (script, say, in_conversation) in [
            ("tools", "weather?", false),
            ("text", "never mind", false),
            ("tools", "weather?", true),
            ("text", "never mind", true),
        ] {
            let mut body = json!({ "model": model(script), "input": say, "tools": [{
                "type": "function", "name": "get_weather", "parameters": { "type": "object" } }] });
            match in_conversation {
                true => body["conversation"] = conversation["id"].clone(),
                false => body["previous_response_id"] = before.clone(),
            }
            let call = harness.post("/v1/responses", &body);
            let made = ok(call.header("IC-Smith-Id", &smith).send().await).await;
            before = made["id"].clone();
            let (calls, results) = calls_and_results(&harness.mock.last().body);
            assert_eq!(calls, results, "{wire}, {say}");
            assert_eq!(calls > 0, script == "text", "{wire}, {say}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reasoning_of_chat_providers_goes_back_beside_its_calls() {
    let harness = Harness::start_with(|config, _| {
        let aliases = &mut config.models.aliases;
        let mixed = ["openai-chat/thinking_tools", "anthropic/text"];
        aliases.insert("mixed".into(), alias(&mixed));
        aliases.insert(
            "mixed-text".into(),
            alias(&["openai-chat/text", "anthropic/text"]),
        );
        aliases.insert(
            "claude-first".into(),
            alias(&["anthropic/text", "openai-chat/text"]),
        );
    })
    .await;
    let back = |body: &Value| {
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let called = messages.into_iter().find(|m| m["tool_calls"].is_array());
        called
            .map(|message| message["reasoning"].clone())
            .unwrap_or_default()
    };
    let smith = harness.smith("openai-chat/text").await;
    let answer =
        json!({ "role": "tool", "tool_call_id": "functions.get_weather:0", "content": "mild" });
    // A smith's thread.
    for stream in [true, false] {
        let thread = format!("t-{stream}");
        let turn = |script: &str, message: &Value| {
            let body = json!({ "model": format!("openai-chat/{script}"), "stream": stream,
                "tools": tools(), "messages": [message] });
            let call = harness.post("/v1/chat/completions", &body);
            call.header("IC-Smith-Id", &smith)
                .header("IC-Thread-Id", &thread)
        };
        text(turn("thinking_tools", &user("weather?")).send().await).await;
        text(turn("text", &answer).send().await).await;
        assert_eq!(back(&harness.mock.last().body), THOUGHT, "{stream}");
        text(turn("text", &user("thanks")).send().await).await;
        assert_eq!(back(&harness.mock.last().body), THOUGHT, "{stream}");
    }
    // A Chat client over an alias of two wires, which sends back what it was told, or does not.
    for stream in [false, true] {
        let body = json!({ "model": "mixed", "stream": stream, "tools": tools(),
            "messages": [user("weather?")] });
        let told = text(harness.post("/v1/chat/completions", &body).send().await).await;
        assert!(told.contains("reasoning_content"), "{told}");
        let calls = json!([{ "id": "functions.get_weather:0", "type": "function",
            "function": { "name": "get_weather", "arguments": "{\"city\": \"Paris\"}" } }]);
        for member in ["reasoning_content", "reasoning", "none"] {
            let mut message = json!({ "role": "assistant", "content": null, "tool_calls": calls });
            if member != "none" {
                message[member] = json!(THOUGHT);
            }
            let messages = json!([user("weather?"), message, answer]);
            let body = json!({ "model": "mixed-text", "stream": stream, "tools": tools(), "messages": messages });
            text(harness.post("/v1/chat/completions", &body).send().await).await;
            assert_eq!(
                back(&harness.mock.last().body),
                THOUGHT,
                "{member}, {stream}"
            );
            let body = json!({ "model": "claude-first", "tools": tools(), "messages": messages });
            text(harness.post("/v1/chat/completions", &body).send().await).await;
            let sent = harness.mock.last();
            assert!(sent.path.contains("anthropic"), "{}", sent.path);
            assert!(!sent.body.to_string().contains(THOUGHT), "{:#}", sent.body);
        }
    }
    // A Responses client that sends its items back.
    let tool =
        json!([{ "type": "function", "name": "get_weather", "parameters": { "type": "object" } }]);
    let body = json!({ "model": "openai-chat/thinking_tools", "store": false, "tools": tool,
        "include": ["reasoning.encrypted_content"], "input": "weather?" });
    let told = ok(harness.post("/v1/responses", &body).send().await).await;
    let mut input = vec![user("weather?")];
    input.extend(told["output"].as_array().cloned().unwrap_or_default());
    input.push(json!({ "type": "function_call_output", "call_id": "functions.get_weather:0", "output": "mild" }));
    let body =
        json!({ "model": "openai-chat/text", "store": false, "tools": tool, "input": input });
    ok(harness.post("/v1/responses", &body).send().await).await;
    assert_eq!(back(&harness.mock.last().body), THOUGHT);
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_outlive_the_process() {
    let mut harness = Harness::start().await;
    for (wire, model, signature) in [
        (
            "anthropic",
            "anthropic/thinking_tools",
            "YW50aHJvcGljLXNpZw==",
        ),
        ("gemini", "gemini/thinking_tools", "Z2VtaW5pLXNpZw=="),
        (
            "openai-responses",
            "openai-responses/thinking_tools",
            "b3BlbmFpLXNlYWxlZA==",
        ),
        ("openai-chat", "openai-chat/thinking_tools", THOUGHT),
    ] {
        let smith = harness.smith(&format!("{wire}/text")).await;
        let asked = user("weather?");
        let body =
            json!({ "model": model, "stream": false, "tools": tools(), "messages": [asked] });
        let call = harness.post("/v1/chat/completions", &body);
        let told = ok(call.header("IC-Smith-Id", &smith).send().await).await;
        let calls = &told["choices"][0]["message"]["tool_calls"];
        let plain: Vec<Value> = calls
            .as_array()
            .expect("calls")
            .iter()
            .map(|c| json!({ "id": c["id"], "type": "function", "function": c["function"] }))
            .collect();
        harness = harness.restart().await;
        let mut messages = vec![
            asked,
            json!({ "role": "assistant", "content": null, "tool_calls": plain }),
        ];
        for call in &plain {
            messages.push(json!({ "role": "tool", "tool_call_id": call["id"], "content": "mild" }));
        }
        let body =
            json!({ "model": format!("{wire}/text"), "tools": tools(), "messages": messages });
        let call = harness.post("/v1/chat/completions", &body);
        ok(call.header("IC-Smith-Id", &smith).send().await).await;
        let sent = harness.mock.last().body.to_string();
        assert!(sent.contains(signature), "{wire}: {sent}");
        // Another smith's history is not given these.
        let other = harness.smith(&format!("{wire}/text")).await;
        let call = harness.post("/v1/chat/completions", &body);
        ok(call.header("IC-Smith-Id", &other).send().await).await;
        let sent = harness.mock.last().body.to_string();
        assert!(!sent.contains(signature), "{wire}: {sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_says_what_its_models_take() {
    let harness = Harness::start_with(|config, _| {
        let provider = config.providers.get_mut("openai-chat").expect("a provider");
        provider.auth_header = Some("api-key".to_owned());
        provider.rules = serde_json::from_value(json!([
            { "set": { "limit_name": "max_tokens" } },
            { "models": ["text"], "set": { "sampling": "never", "system_role": "developer" } },
        ]))
        .expect("rules");
    })
    .await;
    let body = json!({ "model": "openai-chat/text", "input": "hi", "max_output_tokens": 50,
        "temperature": 0.5, "instructions": "Be brief." });
    ok(harness.post("/v1/responses", &body).send().await).await;
    let sent = harness.mock.last();
    assert_eq!(sent.header("api-key"), Some("hosted-openai_chat"));
    assert_eq!(sent.header("authorization"), None);
    assert_eq!(sent.body["max_tokens"], 50);
    assert!(sent.body["max_completion_tokens"].is_null() && sent.body["temperature"].is_null());
    assert_eq!(sent.body["messages"][0]["role"], "developer");
    // The client's own bytes too.
    let body = json!({ "model": "openai-chat/text", "max_completion_tokens": 40,
        "messages": [user("hi")] });
    ok(harness.post("/v1/chat/completions", &body).send().await).await;
    let sent = harness.mock.last().body;
    assert!(
        sent["max_tokens"] == 40 && sent["max_completion_tokens"].is_null(),
        "{sent}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_provider_takes_come_back_as_they_were() {
    let harness = Harness::start().await;
    let tools = json!([{ "type": "function", "function": { "name": "get.weather" } }]);
    for stream in [false, true] {
        let body = json!({ "model": "anthropic/text", "stream": stream, "tools": tools,
            "messages": [user("weather?")], "tool_choice": { "type": "function", "function": { "name": "get.weather" } } });
        text(harness.post("/v1/chat/completions", &body).send().await).await;
        let sent = harness.mock.last().body;
        let name = sent["tools"][0]["name"]
            .as_str()
            .expect("a name")
            .to_owned();
        assert!(name.starts_with("get_weather_"), "{name}");
        assert_eq!(sent["tool_choice"]["name"], name.as_str());
    }
}
