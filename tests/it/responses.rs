//! The Responses wire: its bytes, what it keeps, and what it sends to a provider.

use std::time::Duration;

use serde_json::{Value, json};

use crate::control::code;
use crate::support::{Harness, WIRES, ok, redact, refused, text};

fn tools() -> Value {
    json!([{ "type": "function", "name": "get_weather", "description": "The weather of a city",
        "parameters": { "type": "object", "properties": { "city": { "type": "string" } } } }])
}

impl Harness {
    fn respond(&self, smith: &str, body: &Value) -> reqwest::RequestBuilder {
        self.post("/v1/responses", body)
            .header("IC-Smith-Id", smith)
    }
}

/// What was said, as a provider of the Anthropic wire was told: `(role, text)`.
fn told(harness: &Harness) -> Vec<(String, String)> {
    let body = harness.mock.last().body;
    let messages = body["messages"].as_array().cloned().unwrap_or_default();
    let said = |message: &Value| match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|p| p["text"].as_str()).collect(),
        _ => String::new(),
    };
    let role = |message: &Value| message["role"].as_str().unwrap_or_default().to_owned();
    messages.iter().map(|m| (role(m), said(m))).collect()
}

fn users(harness: &Harness) -> Vec<String> {
    let told = told(harness).into_iter();
    told.filter(|(role, _)| role == "user")
        .map(|(_, said)| said)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_translated_from_every_provider() {
    let harness = Harness::start().await;
    for (name, _) in WIRES.iter().filter(|(name, _)| *name != "openai_responses") {
        for turn in ["text", "tools", "length"] {
            let model = format!("{}/{turn}", name.replace('_', "-"));
            let body = json!({ "model": model, "stream": true, "input": "hi", "tools": tools() });
            let stream = text(harness.post("/v1/responses", &body).send().await).await;
            insta::assert_snapshot!(format!("responses_{name}_{turn}"), redact(&stream));
        }
    }
    let smith = harness.smith("anthropic/thinking_tools").await;
    let body = json!({ "stream": true, "input": "hi", "tools": tools() });
    let stream = text(harness.respond(&smith, &body).send().await).await;
    insta::assert_snapshot!("responses_smith_thinking", redact(&stream));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_where_the_provider_speaks_the_same_wire() {
    let harness = Harness::start().await;
    let body = json!({ "model": "openai-responses/text", "stream": true, "input": "hi",
        "some_new_member": { "kept": true } });
    let stream = text(harness.post("/v1/responses", &body).send().await).await;
    let fixture = crate::mock::fixture("openai_responses", "text", "sse").expect("a fixture");
    assert_eq!(stream.as_bytes(), fixture);
    let got = harness.mock.last();
    assert_eq!(
        (got.path.as_str(), &got.body["model"]),
        ("/openai_responses/responses", &json!("text"))
    );
    assert_eq!(got.body["some_new_member"]["kept"], true);
    let metrics = harness.metrics_text().await;
    let counted =
        "smithgate_tokens_total{kind=\"input\",model=\"text\",provider=\"openai-responses\"} 21";
    assert!(metrics.contains(counted), "{metrics}");
    // A stream that breaks off is told as this wire tells it.
    let body = json!({ "model": "openai-responses/fault-half", "stream": true, "input": "hi" });
    let stream = text(harness.post("/v1/responses", &body).send().await).await;
    let last = stream.trim_end().rsplit("\n\n").next().unwrap_or_default();
    assert!(last.starts_with("event: error\ndata: {"), "{last}");
    assert!(last.contains("\"code\":\"model_request_failed\""), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_hears_what_came_before_it_and_nothing_else() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/text").await;
    let say = async |input: Value, previous: Option<&str>| {
        let body = json!({ "input": input, "previous_response_id": previous });
        let made = ok(harness.respond(&smith, &body).send().await).await;
        (made["id"].as_str().expect("an id").to_owned(), made)
    };
    let opening = json!([
        { "role": "system", "content": "Speak Latin." },
        { "role": "user", "content": "a" },
        { "role": "assistant", "content": "b" },
        { "role": "user", "content": "c" },
    ]);
    let (first, made) = say(opening, None).await;
    let sent = harness.mock.last().body["system"].to_string();
    assert!(
        sent.contains("Be brief.") && sent.contains("Speak Latin."),
        "{sent}"
    );
    let (left, _) = say(json!("left"), Some(&first)).await;
    let (_, right) = say(json!("right"), Some(&first)).await;
    assert_eq!(users(&harness), ["a", "c", "right"]);
    let (_, _) = say(json!("more"), Some(&left)).await;
    assert_eq!(users(&harness), ["a", "c", "left", "more"]);
    // Items are known by their ids, also those of the input; what is in the history anyway is not
    // said twice.
    let items = format!("/v1/responses/{first}/input_items?order=asc");
    let items = ok(harness.get(&items).send().await).await;
    let asked = items["data"][2]["id"].clone();
    let answer = made["output"][0]["id"].clone();
    let reference = |id: &Value| json!({ "type": "item_reference", "id": id });
    let both = json!([reference(&asked), reference(&answer), { "role": "user", "content": "d" }]);
    say(both.clone(), None).await;
    assert_eq!(users(&harness), ["c", "d"]);
    assert_eq!(told(&harness)[1].0, "assistant");
    say(both, Some(&first)).await;
    assert_eq!(users(&harness), ["a", "c", "d"]);
    let unknown = json!({ "input": [{ "type": "item_reference", "id": "msg_0_000" }] });
    let (status, error) = refused(harness.respond(&smith, &unknown).send().await).await;
    assert_eq!((status, error["param"].as_str()), (404, Some("input")));
    // Another smith continues none of it.
    let stranger = harness.smith("anthropic/text").await;
    for body in [
        json!({ "input": "x", "previous_response_id": first }),
        json!({ "input": [reference(&answer)] }),
    ] {
        let (status, _) = refused(harness.respond(&stranger, &body).send().await).await;
        assert_eq!(status, 404, "{body}");
    }
    assert_eq!(right["previous_response_id"], first);
    let trace = harness.get(&format!("/v1/runs/run_{}/trace", &left[5..]));
    assert_eq!(ok(trace.send().await).await["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_takes_one_response_at_a_time_and_grows() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/text").await;
    let made = harness.post("/v1/conversations", &json!({}));
    let made = ok(made.header("IC-Smith-Id", &smith).send().await).await;
    let conversation = made["id"].as_str().expect("an id");
    let body = |input: &str| json!({ "input": input, "conversation": { "id": conversation } });
    let first = ok(harness
        .respond(&smith, &body("Name three rivers"))
        .send()
        .await)
    .await;
    assert_eq!(first["conversation"]["id"], conversation);
    // The header names the same thing.
    let by_header = harness.respond(&smith, &json!({ "input": "One more" }));
    let second = ok(by_header.header("IC-Thread-Id", conversation).send().await).await;
    assert_eq!(second["conversation"]["id"], conversation);
    assert_eq!(users(&harness), ["Name three rivers", "One more"]);
    // A response of a thread may be continued by its id too.
    let next = json!({ "input": "And?", "previous_response_id": second["id"] });
    ok(harness.respond(&smith, &next).send().await).await;
    assert_eq!(users(&harness).len(), 3);
    let read = harness.get(&format!("/v1/conversations/{conversation}"));
    let read = ok(read.header("IC-Smith-Id", &smith).send().await).await;
    assert_eq!(read["title"], "Name three rivers");
    let stalled = json!({ "model": "anthropic/fault-stall", "input": "x", "background": true,
        "conversation": conversation });
    let stalled = ok(harness.respond(&smith, &stalled).send().await).await;
    let (status, error) = refused(harness.respond(&smith, &body("y")).send().await).await;
    assert_eq!((status, code(&error)), (409, "conversation_locked"));
    let cancel = format!(
        "/v1/responses/{}/cancel",
        stalled["id"].as_str().expect("an id")
    );
    assert_eq!(
        ok(harness.post(&cancel, &json!({})).send().await).await["status"],
        "cancelled"
    );
    let format = json!({ "input": "x", "conversation": conversation,
        "text": { "format": { "type": "json_object" } } });
    let (status, error) = refused(harness.respond(&smith, &format).send().await).await;
    assert_eq!((status, code(&error)), (400, "invalid_response_format"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_after_a_restart_as_they_were() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/thinking_tools").await;
    let body = json!({ "stream": true, "input": "hi", "tools": tools(), "metadata": { "k": "v" },
        "include": ["reasoning.encrypted_content"] });
    let stream = text(harness.respond(&smith, &body).send().await).await;
    let events: Vec<&str> = stream.split_inclusive("\n\n").collect();
    let first: Value = serde_json::from_str(events[0].split("data: ").nth(1).unwrap_or_default())
        .expect("an event");
    let id = first["response"]["id"].as_str().expect("an id").to_owned();
    let resumed = format!("/v1/responses/{id}?stream=true");
    let again = text(harness.get(&resumed).send().await).await;
    assert_eq!(again, stream);
    let harness = harness.restart().await;
    let again = text(harness.get(&resumed).send().await).await;
    assert_eq!(again, stream);
    for after in [0, 3, events.len() - 2, events.len() - 1] {
        let path = format!("{resumed}&starting_after={after}");
        let rest = text(harness.get(&path).send().await).await;
        assert_eq!(rest, events[after + 1..].concat(), "{after}");
    }
    let (status, error) = refused(
        harness
            .get(&format!("{resumed}&starting_after=x"))
            .send()
            .await,
    )
    .await;
    assert_eq!(
        (status, error["param"].as_str()),
        (400, Some("starting_after"))
    );
    // The record is what the last event showed.
    let last = events
        .last()
        .expect("events")
        .split("data: ")
        .nth(1)
        .unwrap_or_default();
    let last: Value = serde_json::from_str(last).expect("an event");
    let record = ok(harness.get(&format!("/v1/responses/{id}")).send().await).await;
    assert_eq!(record, last["response"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_only_what_nobody_else_waits_for() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/fault-stall").await;
    let leave = async |body: Value| {
        let answer = harness
            .respond(&smith, &body)
            .send()
            .await
            .expect("an answer");
        let mut answer = answer;
        let begun = answer.chunk().await.expect("a stream").expect("an event");
        drop(answer);
        let begun = String::from_utf8_lossy(&begun).into_owned();
        let at = begun.find("resp_").expect("an id");
        let id = begun[at..].split('"').next();
        id.expect("its end").to_owned()
    };
    let status = async |id: &str| {
        let read = harness.get(&format!("/v1/responses/{id}"));
        ok(read.send().await).await["status"].clone()
    };
    let plain = leave(json!({ "stream": true, "input": "x" })).await;
    let kept = leave(json!({ "stream": true, "input": "x", "background": true })).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(status(&plain).await, "cancelled");
    assert_eq!(status(&kept).await, "in_progress");
}
