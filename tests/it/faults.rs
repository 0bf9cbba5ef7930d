//! Providers that misbehave in every way a TCP peer can, and clients that leave or are slow: the
//! client gets a proper error in its own wire, and the run says why it failed.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Harness, WIRES, data_lines, ok, refused, said, text};

/// Faults that show before the first token: an HTTP error with its status.
const BEFORE: [(&str, u16); 3] = [("early", 502), ("silent", 504), ("malformed", 502)];
/// Faults in mid-stream: an error in the stream.
const AFTER: [&str; 3] = ["reset", "half", "stall"];

fn names() -> impl Iterator<Item = String> {
    WIRES.iter().map(|(name, _)| name.replace('_', "-"))
}

/// The error that ends a Chat Completions stream.
fn stream_error(stream: &str) -> Value {
    let lines = data_lines(stream);
    assert_eq!(lines.last(), Some(&"[DONE]"), "{stream}");
    let error: Value = serde_json::from_str(lines[lines.len() - 2]).expect("JSON");
    assert!(error["error"]["message"].is_string(), "{stream}");
    error["error"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn routed_calls_fail_in_the_clients_wire() {
    let harness = Harness::start().await;
    for wire in names() {
        for (fault, status) in BEFORE {
            let call = harness.chat(&format!("{wire}/fault-{fault}"), true);
            let (got, error) = refused(call.send().await).await;
            assert_eq!(
                (got, error["code"].as_str()),
                (status, Some("model_request_failed")),
                "{wire} {fault}"
            );
        }
        for fault in AFTER {
            let stream = text(
                harness
                    .chat(&format!("{wire}/fault-{fault}"), true)
                    .send()
                    .await,
            )
            .await;
            let error = stream_error(&stream);
            assert_eq!(error["code"], "model_request_failed", "{wire} {fault}");
            for line in data_lines(&stream).iter().filter(|line| **line != "[DONE]") {
                assert!(
                    serde_json::from_str::<Value>(line).is_ok(),
                    "{wire} {fault}: {line}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn smith_turns_fail_in_the_clients_wire_and_their_runs_say_why() {
    let harness = Harness::start().await;
    for wire in names() {
        let smith = harness.smith("openai-chat/text").await;
        let chat = |model: String| {
            let body = json!({ "model": model, "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
            harness
                .post("/v1/chat/completions", &body)
                .header("IC-Smith-Id", &smith)
                .send()
        };
        let mut expected = Vec::new();
        for (fault, status) in BEFORE {
            let (got, error) = refused(chat(format!("{wire}/fault-{fault}")).await).await;
            assert_eq!(
                (got, error["code"].as_str()),
                (status, Some("model_request_failed")),
                "{wire} {fault}"
            );
            expected.push(error["message"].clone());
        }
        for fault in AFTER {
            let stream = text(chat(format!("{wire}/fault-{fault}")).await).await;
            expected.push(stream_error(&stream)["message"].clone());
        }
        let runs = ok(harness
            .get(&format!("/v1/smiths/{smith}/runs"))
            .send()
            .await)
        .await;
        let mut reasons = Vec::new();
        for run in runs["data"].as_array().expect("runs") {
            assert_eq!(
                (run["status"].as_str(), run["stop_reason"].as_str()),
                (Some("failed"), Some("error"))
            );
            assert_eq!(run["error"]["code"], "model_request_failed");
            reasons.push(run["error"]["message"].clone());
        }
        reasons.reverse();
        assert_eq!(reasons, expected, "{wire}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn native_runs_end_with_run_failed() {
    let harness = Harness::start().await;
    for wire in names() {
        for fault in BEFORE.iter().map(|(fault, _)| *fault).chain(AFTER) {
            let smith = harness.smith(&format!("{wire}/fault-{fault}")).await;
            let body = json!({ "stream": true, "input": [{ "role": "user", "content": "hi" }] });
            let stream = text(
                harness
                    .post(&format!("/v1/smiths/{smith}/runs"), &body)
                    .send()
                    .await,
            )
            .await;
            let events: Vec<Value> = data_lines(&stream)
                .iter()
                .map(|l| serde_json::from_str(l).expect("JSON"))
                .collect();
            assert!(stream.starts_with("event: run.started\n"), "{stream}");
            let last = stream.trim_end().rsplit("\n\n").next().expect("an event");
            assert!(
                last.starts_with("event: run.failed\n"),
                "{wire} {fault}: {last}"
            );
            let failed = events.last().expect("an event");
            assert!(
                failed["error"].as_str().is_some_and(|e| !e.is_empty()),
                "{failed}"
            );
            let run_id = failed["run_id"].as_str().expect("an id");
            let run = ok(harness
                .get(&format!("/v1/smiths/{smith}/runs/{run_id}"))
                .send()
                .await)
            .await;
            assert_eq!(run["status"], "failed");
            assert!(
                failed["error"]
                    .as_str()
                    .is_some_and(|e| e.contains(run["error"]["message"].as_str().unwrap()))
            );
            // What had been said is kept with the run, and the replay tells the same story.
            if AFTER.contains(&fault) && events.len() > 2 {
                assert!(run["output"].is_object(), "{wire} {fault}: {run}");
            }
            let path = format!("/v1/smiths/{smith}/runs/{run_id}/events?follow=false");
            assert_eq!(text(harness.get(&path).send().await).await, stream);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_64_mib_is_refused_in_bounded_memory() {
    let harness = Harness::start().await;
    for wire in names() {
        let before = resident_bytes();
        let answer = harness
            .chat(&format!("{wire}/fault-flood"), true)
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let body = answer.text().await.expect("a body");
        // A forwarded stream has begun by then; a translated one has not.
        if status.is_success() {
            assert_eq!(stream_error(&body)["code"], "model_request_failed");
        } else {
            assert_eq!(status, 502, "{body}");
        }
        assert!(body.contains("1048576"), "{body}");
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 24 << 20, "{wire}: grew by {grown} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn error_statuses_are_mapped() {
    let harness = Harness::start().await;
    for wire in names() {
        let smith = harness.smith("openai-chat/text").await;
        for (status, wanted, code, retry) in [
            (400, 400, "model_request_failed", false),
            (401, 502, "model_request_failed", false),
            (403, 502, "model_request_failed", false),
            (404, 404, "model_request_failed", false),
            (429, 429, "rate_limit_exceeded", true),
            (500, 502, "model_request_failed", false),
            (503, 503, "service_overloaded", true),
            (529, 503, "service_overloaded", true),
        ] {
            let model = format!("{wire}/status-{status}");
            let body = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
            for call in [
                harness.chat(&model, true),
                harness.chat(&model, false),
                harness
                    .post("/v1/chat/completions", &body)
                    .header("IC-Smith-Id", &smith),
            ] {
                let answer = call.send().await.expect("an answer");
                let after = answer.headers().get("retry-after").cloned();
                let (got, error) = refused(Ok(answer)).await;
                assert_eq!(
                    (got, error["code"].as_str()),
                    (wanted, Some(code)),
                    "{model}"
                );
                assert_eq!(after.is_some_and(|v| v == "1"), retry, "{model}");
                let message = error["message"].as_str().expect("a message");
                assert!(
                    message.contains(&format!("the provider says {status}")),
                    "{message}"
                );
                assert_eq!(
                    message.contains("refused the configured key"),
                    matches!(status, 401 | 403)
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_event_inside_a_200_stream_ends_it() {
    let harness = Harness::start().await;
    let stream = text(
        harness
            .chat("openai-chat/fault-in-stream", true)
            .send()
            .await,
    )
    .await;
    assert!(stream.contains("the engine is on fire"), "{stream}");
    let smith = harness.smith("openai-chat/fault-in-stream").await;
    let body = json!({ "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let call = harness
        .post("/v1/chat/completions", &body)
        .header("IC-Smith-Id", &smith);
    let stream = text(call.send().await).await;
    assert_eq!(said(&stream), "Hel");
    assert!(
        stream_error(&stream)["message"]
            .as_str()
            .is_some_and(|m| m.contains("the engine is on fire"))
    );
    for model in ["anthropic/error", "openai-responses/error"] {
        let call = harness.chat(model, true).send().await.expect("an answer");
        let body = call.text().await.expect("a body");
        assert!(body.contains("\"error\""), "{model}: {body}");
        assert!(!body.contains("finish_reason\":\"stop"), "{model}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_cancels_the_providers_call() {
    for (name, _) in WIRES {
        let wire = name.replace('_', "-");
        for (kind, fault) in [
            ("routed", "stall"),
            ("smith", "stall"),
            ("routed", "silent"),
            ("smith", "silent"),
        ] {
            let harness = Harness::start_with(|config, _| {
                config.limits.idle_timeout_ms = 20_000;
                config.limits.first_byte_timeout_ms = 20_000;
            })
            .await;
            let model = format!("{wire}/fault-{fault}");
            let mut request = json!({ "model": model, "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
            let mut head = format!("authorization: Bearer {}\r\n", harness.token);
            if kind == "smith" {
                let smith = harness.smith(&model).await;
                head += &format!("ic-smith-id: {smith}\r\n");
                request["model"] = json!("");
            }
            let body = request.to_string();
            let mut client = tokio::net::TcpStream::connect(harness.address)
                .await
                .expect("connected");
            let message = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{head}content-length: {}\r\n\r\n{body}",
                body.len()
            );
            client.write_all(message.as_bytes()).await.expect("sent");
            harness.mock.wait_for_request().await;
            if fault == "stall" {
                let mut first = [0u8; 16];
                client
                    .read_exact(&mut first)
                    .await
                    .expect("the stream began");
            }
            drop(client);
            let left = Instant::now();
            assert!(
                harness.mock.wait_for_hang_up(Duration::from_secs(1)).await,
                "{kind} {model}"
            );
            eprintln!("{kind} {model}: cancelled after {:?}", left.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_client_left_is_cancelled_and_says_so() {
    let harness = Harness::start_with(|config, _| config.limits.idle_timeout_ms = 20_000).await;
    let smith = harness.smith("openai-chat/fault-endless").await;
    let body = json!({ "stream": true, "messages": [{ "role": "user", "content": "hi" }] });
    let call = harness
        .post("/v1/chat/completions", &body)
        .header("IC-Smith-Id", &smith);
    let mut answer = call.send().await.expect("an answer");
    for _ in 0..3 {
        answer.chunk().await.expect("a chunk");
    }
    drop(answer);
    assert!(harness.mock.wait_for_hang_up(Duration::from_secs(1)).await);
    for _ in 0..100 {
        let runs = ok(harness
            .get(&format!("/v1/smiths/{smith}/runs"))
            .send()
            .await)
        .await;
        if runs["data"][0]["status"] == "cancelled" {
            assert_eq!(runs["data"][0]["stop_reason"], "cancelled");
            assert!(runs["data"][0]["output"].to_string().contains("word"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the run was not cancelled");
}

/// A client that reads nothing for a while: the provider is held back, and memory stays bounded.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_back_pressured_in_bounded_memory() {
    for kind in ["forwarded", "smith"] {
        let harness = Harness::start_with(|config, _| {
            config.limits.idle_timeout_ms = 20_000;
            config.limits.max_answer_bytes = 128 << 20;
        })
        .await;
        let mut head = format!("authorization: Bearer {}\r\n", harness.token);
        let mut request = json!({ "model": "openai-chat/fault-torrent", "stream": true,
            "messages": [{ "role": "user", "content": "hi" }] });
        if kind == "smith" {
            let smith = harness.smith("openai-chat/fault-torrent").await;
            head += &format!("ic-smith-id: {smith}\r\n");
            request["model"] = json!("");
        }
        let body = request.to_string();
        let mut client = tokio::net::TcpStream::connect(harness.address)
            .await
            .expect("connected");
        let message = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{head}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write_all(message.as_bytes()).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let sent = harness.mock.bytes_sent();
        assert!(
            sent < 24 << 20,
            "{kind}: the provider could send {sent} bytes to a client that reads none"
        );
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.expect("the rest");
        let head_end = memchr::memmem::find(&all, b"\r\n\r\n").expect("a header");
        let got = all[head_end..].iter().filter(|b| **b == b'~').count();
        assert_eq!(got, 2048 * 16 * 1024, "{kind}");
        assert!(memchr::memmem::find(&all, b"data: [DONE]\n\n").is_some());
    }
}

/// Resident memory of this process, in bytes.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: usize = status
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("a number");
    pages * 4096
}
