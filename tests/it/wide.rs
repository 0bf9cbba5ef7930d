//! Requests that are small, or of usual size, and would become very much: by repetition, by reference,
//! or because every part of them is held against every other.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use smithgate::config::Config;

use crate::mock::Mock;
use crate::support::{Harness, ok, refused, text};

/// A machine that is busy with other tests is slow; work that grows by the square takes minutes.
const SOON: Duration = Duration::from_secs(30);

fn call(id: &str) -> Value {
    json!({ "id": id, "type": "function", "function": { "name": "f", "arguments": "{}" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_of_many_calls_take_time_by_their_length() {
    const MANY: usize = 20_000;
    // The scripted provider reads as much, on the same cores.
    let patient = 2 * SOON.as_millis() as u64;
    let change = |config: &mut Config, _: &Mock| config.limits.whole_answer_timeout_ms = patient;
    let harness = Harness::start_with(change).await;
    let ids = |n: usize| format!("call_{n}");
    let user = json!({ "role": "user", "content": "go on" });
    let result = |id: Option<&str>| json!({ "role": "tool", "content": "r", "tool_call_id": id });
    let called = |ids: Vec<String>| {
        let calls: Vec<Value> = ids.iter().map(|id| call(id)).collect();
        json!({ "role": "assistant", "tool_calls": calls })
    };
    let mut cases = Vec::new();
    // One id for all, with a result for each.
    let mut one = vec![user.clone(), called(vec!["x".to_owned(); MANY])];
    one.extend(std::iter::repeat_n(result(Some("x")), MANY));
    cases.push(one);
    // Ids of their own, and results in turn.
    let mut own = vec![user.clone()];
    for n in 0..MANY {
        own.extend([called(vec![ids(n)]), result(Some(&ids(n)))]);
    }
    cases.push(own);
    // Results that name no call.
    let mut nameless = vec![user.clone(), called((0..MANY).map(ids).collect())];
    nameless.extend(std::iter::repeat_n(result(None), MANY));
    cases.push(nameless);
    for messages in &mut cases {
        messages.push(user.clone());
        for model in ["anthropic/text", "gemini/text"] {
            let begun = Instant::now();
            let body = json!({ "model": model, "messages": messages });
            let call = harness.post("/v1/chat/completions", &body);
            let answer = call.timeout(4 * SOON).send().await;
            let answer = ok(answer).await;
            assert!(answer["choices"][0]["message"]["content"].is_string());
            assert!(begun.elapsed() < SOON, "{model}: {:?}", begun.elapsed());
        }
    }
    // What names no call goes to the last one that has no result.
    let nameless = json!({ "model": "openai-chat/text", "functions": [], "messages": [
        called(vec!["a".to_owned(), "b".to_owned()]), result(None), result(None) ] });
    ok(harness.post("/v1/chat/completions", &nameless).send().await).await;
    let too_many = json!({ "model": "anthropic/text", "messages": [
        called(vec!["a".to_owned()]), result(None), result(None) ] });
    let call = harness.post("/v1/chat/completions", &too_many);
    let (status, error) = refused(call.send().await).await;
    assert_eq!(
        (status, &error["param"]),
        (400, &json!("messages[2].tool_call_id"))
    );
    // Marks of the cache are found by the tools' names.
    let tools: Vec<Value> = (0..MANY)
        .map(|n| {
            json!({ "type": "function", "function": { "name": format!("t{n}") },
                "cache_control": { "type": "ephemeral" } })
        })
        .collect();
    let begun = Instant::now();
    let body = json!({ "model": "anthropic/text", "tools": tools, "messages": [user] });
    let call = harness.post("/v1/chat/completions", &body);
    ok(call.timeout(4 * SOON).send().await).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn values_without_end_are_refused_before_they_are_parsed() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    for (one, times) in [("{},", 4_000_000), ("0,", 12_000_000)] {
        let list = format!("[{}0]", one.repeat(times));
        for (path, body) in [
            ("/v1/chat/completions", format!(r#"{{"messages":{list}}}"#)),
            (
                "/v1/chat/completions",
                format!(r#"{{"messages":[{{"role":"user","content":"a"}}],"tools":{list}}}"#),
            ),
            ("/v1/responses", format!(r#"{{"input":{list}}}"#)),
            ("/v1/ui/chat", format!(r#"{{"id":"a","messages":{list}}}"#)),
            ("/v1/customers", format!(r#"{{"metadata":{{"a":{list}}}}}"#)),
        ] {
            let call = harness.request(reqwest::Method::POST, path);
            let call = call.header("content-type", "application/json");
            let call = call.header("IC-Smith-Id", &smith).body(body);
            let (status, error) = refused(call.send().await).await;
            let message = error["message"].as_str().unwrap_or_default();
            assert_eq!(status, 400, "{path}: {error}");
            assert!(message.contains("more values"), "{path}: {message}");
        }
    }
    // Many words are no such thing.
    let said = "{},".repeat(3_000_000);
    let body = json!({ "messages": [{ "role": "user", "content": said }] });
    let call = harness.post("/v1/chat/completions", &body);
    ok(call.header("IC-Smith-Id", &smith).send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_referred_to_again_is_not_sent_again() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/text").await;
    let respond = |body: Value| {
        let call = harness.post("/v1/responses", &body);
        call.header("IC-Smith-Id", &smith)
    };
    let input = json!([{ "role": "user", "content": "The keel is of oak." },
        { "role": "assistant", "content": "So it is." },
        { "role": "user", "content": "And the mast?" }]);
    let made = ok(respond(json!({ "input": input })).send().await).await;
    let id = made["id"].as_str().expect("an id");
    let items = format!("/v1/responses/{id}/input_items?order=asc");
    let items = ok(harness.get(&items).send().await).await;
    let reference = json!({ "type": "item_reference", "id": items["data"][0]["id"] });
    let other = json!({ "type": "item_reference", "id": items["data"][1]["id"] });
    let mut input = vec![reference; 500];
    input.push(other);
    input.push(json!({ "role": "user", "content": "Tell me." }));
    ok(respond(json!({ "input": input })).send().await).await;
    let sent = harness.mock.last().body.to_string();
    assert_eq!(sent.matches("The keel is of oak.").count(), 1, "{sent}");
    assert_eq!(sent.matches("So it is.").count(), 1, "{sent}");
    assert!(sent.contains("Tell me."));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_counts_each_time_that_it_is_named() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n\
         --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n\
         {}\r\n--b--\r\n",
        "keel ".repeat(1 << 20)
    );
    let call = harness.request(reqwest::Method::POST, "/v1/files");
    let call = call.header("content-type", "multipart/form-data; boundary=b");
    let file = ok(call.body(form).send().await).await;
    let body = |times: usize, model: Option<&str>| {
        let part = json!({ "type": "file", "file": { "file_id": file["id"] } });
        json!({ "model": model, "messages": [{ "role": "user", "content": vec![part; times] }] })
    };
    let send = |body: Value, thread: &str| {
        let call = harness.post("/v1/chat/completions", &body);
        let call = match body["model"].is_null() {
            true => call
                .header("IC-Smith-Id", &smith)
                .header("IC-Thread-Id", thread),
            false => call,
        };
        call.timeout(4 * SOON)
    };
    // 5 MiB each: twelve fit into a request.
    for model in [None, Some("openai-chat/text"), Some("anthropic/text")] {
        let (status, error) = refused(send(body(14, model), "a").send().await).await;
        assert_eq!(status, 413, "{model:?}: {error}");
    }
    // Turn by turn they fit; what is in the history then is bounded as well, the oldest first.
    for _ in 0..3 {
        let answer = text(send(body(6, None), "b").send().await).await;
        assert!(answer.contains("choices"), "{answer}");
    }
    let sent = harness.mock.last().body.to_string();
    assert_eq!(sent.matches("too large together").count(), 6);
    let (first, last) = (sent.find("too large together"), sent.rfind("keel keel"));
    assert!(first < last);
    assert!(sent.len() < 70 << 20, "{}", sent.len());
}
