//! The AI SDK's UI message stream: its bytes, and what a page that comes back reads.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Harness, WIRES, ok, redact, refused, text};

fn chat(id: &str, model: &str) -> Value {
    json!({ "id": id, "trigger": "submit-message", "model": model, "messages": [
        { "id": "m1", "role": "user", "parts": [{ "type": "text", "text": "hi" }] } ] })
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_become_parts() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/text").await;
    for (name, _) in WIRES {
        let name = name.replace('_', "-");
        let body = chat("c", &format!("{name}/text"));
        let call = harness.post("/v1/ui/chat", &body);
        let call = call.header("Origin", "https://page.example");
        let call = call.header("IC-Smith-Id", &smith);
        let answer = call.send().await.expect("an answer");
        assert_eq!(answer.headers()["x-vercel-ai-ui-message-stream"], "v1");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        insta::assert_snapshot!(format!("ui_{name}"), redact(&text(Ok(answer)).await));
    }
    let body = chat("c", "anthropic/thinking_tools");
    let call = harness
        .post("/v1/ui/chat", &body)
        .header("IC-Smith-Id", &smith);
    insta::assert_snapshot!("ui_thinking_tools", redact(&text(call.send().await).await));
    let runs = ok(harness.get("/v1/runs?limit=1").send().await).await;
    assert_eq!(runs["data"][0]["thread_id"], "c");
    assert_eq!(runs["data"][0]["input"][0]["content"][0]["text"], "hi");
    // A thread keeps the history, and takes the newest words alone.
    for _ in 0..2 {
        let call = harness.post("/v1/ui/chat", &chat("c", "anthropic/text"));
        let call = call
            .header("IC-Smith-Id", &smith)
            .header("IC-Thread-Id", "t");
        text(call.send().await).await;
    }
    let told = harness.mock.last().body["messages"]
        .as_array()
        .map(Vec::len);
    assert_eq!(told, Some(3));
    let (status, error) = refused(harness.post("/v1/ui/chat", &body).send().await).await;
    assert_eq!(
        (status, error["code"].as_str()),
        (400, Some("smith_required"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_comes_back_reads_the_message_from_its_start() {
    let harness = Harness::start().await;
    let smith = harness.smith("anthropic/fault-slow").await;
    let token = harness
        .smith_token(&smith, &["runs:write", "runs:read"])
        .await;
    let ask = |method: reqwest::Method, path: &str| {
        let request = harness.client.request(method, harness.url(path));
        request.bearer_auth(&token).timeout(Duration::from_secs(20))
    };
    let post = ask(reqwest::Method::POST, "/v1/ui/chat").json(&chat("a chat/1", ""));
    let mut first = post.send().await.expect("an answer");
    first.chunk().await.expect("a stream").expect("parts");
    let path = "/v1/ui/chat/a%20chat%2F1/stream";
    let again = ask(reqwest::Method::GET, path).send().await;
    // The page is left before its answer is whole.
    drop(first);
    let again = text(again).await;
    assert!(
        again.starts_with("data: {\"type\":\"start\",\"messageId\":\"msg_"),
        "{again}"
    );
    assert!(again.ends_with("data: [DONE]\n\n"), "{again}");
    assert!(again.contains("\"finishReason\":\"stop\""), "{again}");
    let none = ask(reqwest::Method::GET, path)
        .send()
        .await
        .expect("an answer");
    assert_eq!(none.status(), 204);
    let other = harness.smith("anthropic/text").await;
    let none = harness.get(path).header("IC-Smith-Id", &other);
    assert_eq!(none.send().await.expect("an answer").status(), 204);
}
