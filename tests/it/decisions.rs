//! Decisions on runs that wait, over all wires: with a key they are answered again and taken once, and
//! of several in one call all are taken or none.

use serde_json::{Value, json};

use crate::support::{Harness, ok, refused, text};
use crate::tools::{Workshop, on};

const MELT_BOTH: &str = "melt {\"thing\": \"y\"}\nmelt {\"thing\": \"z\"}";

/// The ids under which a paused run's calls are asked about.
fn asked(run: &Value) -> Vec<String> {
    let calls = run["output"]["tool_calls"].as_array().expect("calls");
    let id = |call: &Value| {
        let (run, call) = (&run["id"], &call["tool_call_id"]);
        format!(
            "{}::{}",
            run.as_str().expect("an id"),
            call.as_str().expect("an id")
        )
    };
    calls.iter().map(id).collect()
}

/// The approval of all that is asked, in a wire's words.
fn approvals(path: &str, ids: &[String], stream: bool) -> Value {
    let call_of = |id: &String| id.split_once("::").expect("a call").1.to_owned();
    match path {
        "/v1/chat/completions" => {
            let mut messages = vec![json!({ "role": "user", "content": "hi" })];
            let call = |id: &String| {
                json!({ "id": id, "type": "function",
                    "function": { "name": "melt", "arguments": "{}" } })
            };
            let calls: Vec<Value> = ids.iter().map(call).collect();
            messages.push(json!({ "role": "assistant", "tool_calls": calls }));
            for id in ids {
                messages.push(json!({ "role": "tool", "tool_call_id": id,
                    "content": "{\"decision\":\"approve\"}" }));
            }
            json!({ "messages": messages, "stream": stream })
        }
        "/v1/messages" => {
            let call =
                |id: &String| json!({ "type": "tool_use", "id": id, "name": "melt", "input": {} });
            let word = |id: &String| json!({ "type": "tool_result", "tool_use_id": id, "content": "approve" });
            let calls: Vec<Value> = ids.iter().map(call).collect();
            let words: Vec<Value> = ids.iter().map(word).collect();
            json!({ "max_tokens": 100, "stream": stream, "messages": [
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": calls },
                { "role": "user", "content": words } ] })
        }
        gemini if gemini.starts_with("/v1beta/") => {
            let call =
                |id: &String| json!({ "functionCall": { "id": id, "name": "melt", "args": {} } });
            let word = |id: &String| {
                json!({ "functionResponse": { "id": id, "name": "melt",
                    "response": { "result": "approve" } } })
            };
            let calls: Vec<Value> = ids.iter().map(call).collect();
            let words: Vec<Value> = ids.iter().map(word).collect();
            json!({ "contents": [
                { "role": "user", "parts": [{ "text": "hi" }] },
                { "role": "model", "parts": calls },
                { "role": "user", "parts": words } ] })
        }
        "/v1/responses" => {
            let word = |id: &String| {
                json!({ "type": "mcp_approval_response", "approval_request_id": id,
                    "approve": true })
            };
            let input: Vec<Value> = ids.iter().map(word).collect();
            json!({ "input": input, "stream": stream })
        }
        _ => {
            let part = |id: &String| {
                json!({ "type": "tool-melt", "toolCallId": call_of(id), "input": {},
                    "state": "approval-responded",
                    "approval": { "id": id, "approved": true } })
            };
            let parts: Vec<Value> = ids.iter().map(part).collect();
            json!({ "id": "chat-1", "trigger": "submit-message", "messages": [
                { "id": "1", "role": "user", "parts": [{ "type": "text", "text": "hi" }] },
                { "id": "2", "role": "assistant", "parts": parts } ] })
        }
    }
}

async fn send(
    harness: &Harness,
    smith: &str,
    path: &str,
    body: &Value,
    key: &str,
) -> reqwest::Result<reqwest::Response> {
    let call = harness.post(path, body).header("IC-Smith-Id", smith);
    call.header("Idempotency-Key", key).send().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_with_a_key_is_answered_again_and_taken_once() {
    let harness = on(None).await;
    let workshop = Workshop::start().await;
    harness.put_workshop(&workshop).await;
    let smith = harness.tool_smith(&[]).await;
    let mut melted = 0;
    for (path, stream) in [
        ("/v1/chat/completions", false),
        ("/v1/chat/completions", true),
        ("/v1/responses", false),
        ("/v1/responses", true),
        ("/v1/messages", false),
        ("/v1/messages", true),
        ("/v1beta/models/smith:generateContent", false),
        ("/v1beta/models/smith:streamGenerateContent", true),
        ("/v1beta/models/smith:streamGenerateContent?alt=sse", true),
        ("/v1/ui/chat", true),
    ] {
        // It waits twice: the first answer ends where it waits again.
        let script = "melt {\"thing\": \"x\"}\n---\nmelt {\"thing\": \"y\"}";
        let run = harness.run(&smith, script).await;
        let first_key = format!("{path} {stream} 1");
        let body = approvals(path, &asked(&run), stream);
        let first = text(send(&harness, &smith, path, &body, &first_key).await).await;
        melted += 1;
        let again = text(send(&harness, &smith, path, &body, &first_key).await).await;
        assert_eq!(again, first, "{path} {stream}");
        assert_eq!(workshop.ledger().len(), melted);
        let id = run["id"].as_str().expect("an id");
        let waits = ok(harness
            .get(&format!("/v1/smiths/{smith}/runs/{id}"))
            .send()
            .await)
        .await;
        assert_eq!(waits["status"], "paused_for_approval", "{waits}");
        let second_body = approvals(path, &asked(&waits), stream);
        let second_key = format!("{path} {stream} 2");
        let second = text(send(&harness, &smith, path, &second_body, &second_key).await).await;
        melted += 1;
        assert!(second.contains("Results: "), "{second}");
        // Both are answered as they were, whatever was said since.
        let again = text(send(&harness, &smith, path, &second_body, &second_key).await).await;
        assert_eq!(again, second, "{path} {stream}");
        let again = text(send(&harness, &smith, path, &body, &first_key).await).await;
        assert_eq!(again, first, "{path} {stream}");
        assert_eq!(workshop.ledger().len(), melted);
        // Another key is another decision, and a key that stands for one is not one for another.
        let other = send(&harness, &smith, path, &body, "another").await;
        let (status, error) = refused(other).await;
        assert_eq!(
            (status, &error["code"]),
            (409, &json!("run_not_paused")),
            "{path}"
        );
        let other = send(&harness, &smith, path, &second_body, &first_key).await;
        let (status, error) = refused(other).await;
        assert_eq!(
            (status, &error["code"]),
            (409, &json!("idempotency_key_reused"))
        );
    }
    // What was refused gave its key back, and a token without the scope gets no answer.
    let token = harness
        .smith_token(&smith, &["runs:write", "runs:read"])
        .await;
    let run = harness.run(&smith, "melt {\"thing\": \"x\"}").await;
    let body = approvals("/v1/responses", &asked(&run), false);
    let call = || {
        let call = harness
            .client
            .post(harness.url("/v1/responses"))
            .json(&body);
        call.bearer_auth(&token)
            .header("Idempotency-Key", "k")
            .send()
    };
    for _ in 0..2 {
        assert_eq!(refused(call().await).await.0, 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_decisions_all_are_taken_or_none() {
    let harness = on(None).await;
    let workshop = Workshop::start().await;
    harness.put_workshop(&workshop).await;
    let smith = harness.tool_smith(&[]).await;
    for path in [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1beta/models/smith:generateContent",
        "/v1/ui/chat",
    ] {
        let before = workshop.ledger().len();
        let run = harness.run(&smith, MELT_BOTH).await;
        let ids = asked(&run);
        assert_eq!(ids.len(), 2, "{run}");
        let wrong = [ids[0].clone(), format!("{}x", ids[1])];
        let body = approvals(path, &wrong, false);
        let (status, error) = refused(send(&harness, &smith, path, &body, "k").await).await;
        assert_eq!(status, 404, "{path}: {error}");
        let pending = ok(harness.get("/v1/approvals?status=pending").send().await).await;
        assert_eq!(
            pending["data"].as_array().map(Vec::len),
            Some(2),
            "{path}: {pending}"
        );
        let body = approvals(path, &ids, false);
        text(send(&harness, &smith, path, &body, path).await).await;
        assert_eq!(workshop.ledger().len(), before + 2, "{path}");
        // One of two: the other is asked for once more, also when the key comes again.
        let run = harness.run(&smith, MELT_BOTH).await;
        let ids = asked(&run);
        let body = approvals(path, &ids[..1], false);
        let key = format!("{path} one");
        let first = text(send(&harness, &smith, path, &body, &key).await).await;
        let again = text(send(&harness, &smith, path, &body, &key).await).await;
        assert_eq!(again, first, "{path}");
        assert!(
            first.contains(&ids[1]) && !first.contains(&ids[0]),
            "{path}: {first}"
        );
        assert_eq!(workshop.ledger().len(), before + 2, "{path}");
        let body = approvals(path, &ids[1..], false);
        text(send(&harness, &smith, path, &body, "rest").await).await;
        assert_eq!(workshop.ledger().len(), before + 4, "{path}");
    }
}
