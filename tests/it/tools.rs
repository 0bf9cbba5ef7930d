//! Tools of smiths: hosted ones and those of real MCP servers, approvals, questions, and runs that
//! go on after a crash.

use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::assets::{McpServer, clients, program, run_python, run_script};
use crate::cli::{Running, token_in};
use crate::control::on_both_stores;
use crate::crash::with_mock;
use crate::mock::Mock;
use crate::nodes::Redis;
use crate::store::postgres_url;
use crate::support::{Harness, check_gapless, data_lines, ok, refused, text};

/// A server with side effects, and the file that they leave traces in.
pub struct Workshop {
    server: McpServer,
    dir: tempfile::TempDir,
}

impl Workshop {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = tokio::process::Command::new(program("TEST_PYTHON"));
        command
            .arg(clients().join("mcp_workshop.py"))
            .env("LEDGER", dir.path().join("ledger"))
            .stdout(Stdio::null());
        let server = McpServer::start(command, "/mcp").await;
        Self { server, dir }
    }

    pub fn ledger(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join("ledger")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn settings(&self) -> Value {
        json!({ "url": self.server.url, "auth": { "kind": "none" } })
    }
}

pub async fn on(store: Option<String>) -> Harness {
    Harness::start_with(|config, _| {
        config.store.url = store;
        config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await
}

impl Harness {
    pub async fn put_workshop(&self, workshop: &Workshop) {
        let call = self.request(Method::PUT, "/v1/tenant/mcp/workshop");
        let put = ok(call.json(&workshop.settings()).send().await).await;
        assert_eq!(put["status"], "active", "{put}");
    }

    pub async fn tool_smith(&self, hosted: &[&str]) -> String {
        let body = json!({ "model": "openai-chat/script", "enabled_hosted_tools": hosted });
        let made = ok(self.post("/v1/smiths", &body).send().await).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    pub async fn run(&self, smith: &str, script: &str) -> Value {
        let body = json!({ "input": [{ "role": "user", "content": script }] });
        let path = format!("/v1/smiths/{smith}/runs");
        ok(self.post(&path, &body).send().await).await
    }

    async fn submit(&self, run: &Value, body: Value) -> Value {
        ok(self.submission(run, body).send().await).await
    }

    fn submission(&self, run: &Value, body: Value) -> reqwest::RequestBuilder {
        let (smith, id) = (text_in(run, "smith_id"), text_in(run, "id"));
        self.post(&format!("/v1/smiths/{smith}/runs/{id}/submit"), &body)
    }

    async fn run_events(&self, run: &Value) -> String {
        let (smith, id) = (text_in(run, "smith_id"), text_in(run, "id"));
        let path = format!("/v1/smiths/{smith}/runs/{id}/events?follow=false");
        text(self.get(&path).send().await).await
    }
}

fn text_in<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn kinds(stream: &str) -> Vec<&str> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn hosted_tools_run_and_failures_are_told() {
    let gateway = Harness::start().await;
    let smith = gateway
        .tool_smith(&[
            "calculator",
            "current_time",
            "reasoning",
            "suggest_replies",
            "recall",
        ])
        .await;
    let script = "multiply {\"a\": 6, \"b\": 7}\ndivide {\"a\": 1, \"b\": 0}\n---\n\
                  evaluate {\"expression\": \"2^10\"}\nsqrt {\"x\": 1}\nno_such_tool {}\n---\n\
                  suggest_replies {\"replies\": [\"Yes\", \"No\"]}\n\
                  recall {\"query\": \"iron\"}";
    let run = gateway.run(&smith, script).await;
    assert_eq!(run["status"], "completed", "{run}");
    let said = text_in(&run["output"], "content");
    for part in [
        "42",
        "division by zero",
        "1024",
        "invalid arguments",
        "no tool 'no_such_tool'",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(run["output"]["suggested_replies"], json!(["Yes", "No"]));
    assert_eq!(run["usage"]["total_tokens"], 60);
    let events = gateway.run_events(&run).await;
    let executing = kinds(&events)
        .iter()
        .filter(|k| **k == "tool.executing")
        .count();
    assert_eq!(executing, 7);
    let trace = format!("/v1/runs/{}/trace", text_in(&run, "id"));
    let trace = ok(gateway.get(&trace).send().await).await;
    let spans = trace["spans"].as_array().expect("spans");
    let of = |kind: &str| spans.iter().filter(|s| s["kind"] == kind).count();
    assert_eq!((of("model_call"), of("tool_call")), (4, 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_ends_at_its_limit() {
    let gateway = Harness::start().await;
    let smith = gateway.tool_smith(&["calculator"]).await;
    let script = vec!["add {\"a\": 1, \"b\": 1}"; 40].join("\n---\n");
    let run = gateway.run(&smith, &script).await;
    assert_eq!(run["status"], "failed");
    assert_eq!(run["error"]["code"], "tool_loop_failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_tools_come_with_auto_memory() {
    let gateway = Harness::start().await;
    let body = json!({ "model": "openai-chat/script", "auto_memory": true });
    let made = ok(gateway.post("/v1/smiths", &body).send().await).await;
    let smith = text_in(&made, "id").to_owned();
    let script = "update_memory {\"content\": \"likes iron\"}\n---\nread_memory {}";
    let run = gateway.run(&smith, script).await;
    assert!(
        text_in(&run["output"], "content").contains("likes iron"),
        "{run}"
    );
    let memory = gateway.get(&format!("/v1/smiths/{smith}/memory"));
    assert_eq!(ok(memory.send().await).await["content"], "likes iron");
}

async fn approvals_pause_and_go_on(store: Option<String>) {
    let gateway = on(store).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let smith = gateway.tool_smith(&[]).await;
    let script = "melt {\"thing\": \"a\"}\nmeasure {\"thing\": \"b\"}\nmelt {\"thing\": \"c\"}";
    let run = gateway.run(&smith, script).await;
    assert_eq!(run["status"], "paused_for_approval", "{run}");
    let calls = run["output"]["tool_calls"]
        .as_array()
        .expect("calls")
        .clone();
    assert_eq!(calls.len(), 2);
    assert_eq!(
        (&calls[0]["tool"], &calls[0]["args"]),
        (&json!("melt"), &json!({ "thing": "a" }))
    );
    assert_eq!(workshop.ledger().len(), 0);
    // The thread is held while it waits.
    let again = json!({ "input": [{ "role": "user", "content": "x" }],
        "thread_id": run["thread_id"] });
    let path = format!("/v1/smiths/{smith}/runs");
    let (status, error) = refused(gateway.post(&path, &again).send().await).await;
    assert_eq!(
        (status, &error["code"]),
        (409, &json!("conversation_locked"))
    );
    // It waits over a restart, too.
    let gateway = gateway.restart().await;
    let word = |at: usize, decision: &str| {
        json!({ "kind": "approval_decision", "approval_id": calls[at]["approval_id"],
            "decision": decision, "actor": "Ada" })
    };
    let once = gateway.submit(&run, word(0, "approve")).await;
    assert_eq!(once["status"], "paused_for_approval", "{once}");
    let (status, _) = refused(gateway.submission(&run, word(0, "reject")).send().await).await;
    assert_eq!(status, 409);
    let done = gateway.submit(&run, word(1, "approve")).await;
    assert_eq!(done["status"], "completed", "{done}");
    let said = text_in(&done["output"], "content");
    assert!(
        said.contains("a is molten") && said.contains("b: 12 cm"),
        "{said}"
    );
    let ledger = workshop.ledger();
    assert_eq!(ledger.len(), 2, "{ledger:?}");
    assert!(ledger[0].contains(text_in(&run, "id")), "{ledger:?}");
    let (status, error) = refused(gateway.submission(&run, word(1, "approve")).send().await).await;
    assert_eq!((status, &error["code"]), (409, &json!("run_not_paused")));
    let approvals = format!("/v1/approvals?smith_id={smith}");
    let approvals = ok(gateway.get(&approvals).send().await).await;
    let first = &approvals["data"][0];
    assert_eq!(first["status"], "approved");
    assert_eq!(first["actor"], "Ada");
    let events = gateway.run_events(&run).await;
    assert_eq!(
        kinds(&events),
        [
            "run.started",
            "tool.executing",
            "tool.completed",
            "approval.required",
            "approval.required",
            "run.paused",
            "tool.executing",
            "tool.executing",
            "tool.completed",
            "tool.completed",
            "message.delta",
            "message.completed",
            "run.completed"
        ]
    );
    let ids: Vec<&str> = events
        .lines()
        .filter_map(|l| l.strip_prefix("id: "))
        .collect();
    check_gapless(&ids, "");
    let feed = ok(gateway.get("/v1/events?type=approval").send().await).await;
    let feed: Vec<&str> = feed["data"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| text_in(event, "type"))
        .collect();
    assert_eq!(
        feed.iter()
            .filter(|kind| **kind == "approval.resolved")
            .count(),
        2
    );

    // A rejection runs nothing, and a cancellation neither.
    let run = gateway.run(&smith, script).await;
    let id = &run["output"]["tool_calls"][0]["approval_id"];
    let no = json!({ "kind": "approval_decision", "approval_id": id, "decision": "reject" });
    let rejected = gateway.submit(&run, no).await;
    assert_eq!(rejected["status"], "completed");
    assert_eq!(rejected["stop_reason"], "approval_rejected");
    let run = gateway.run(&smith, script).await;
    let cancelled = gateway.submit(&run, json!({ "kind": "cancel" })).await;
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(workshop.ledger().len(), 2);
    let pending = ok(gateway.get("/v1/approvals?status=pending").send().await).await;
    assert_eq!(pending["data"], json!([]));
}

async fn a_tool_asks_and_is_answered(store: Option<String>) {
    let gateway = on(store).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let smith = gateway.tool_smith(&[]).await;
    let run = gateway.run(&smith, "cut {\"thing\": \"bar\"}").await;
    assert_eq!(run["status"], "paused_for_approval", "{run}");
    let call = &run["output"]["tool_calls"][0];
    assert_eq!(call["elicitation"]["message"], "How wide shall bar be?");
    let word = |content: Value| {
        json!({ "kind": "approval_decision", "approval_id": call["approval_id"],
            "decision": "approve", "content": content })
    };
    let bad = gateway.submission(&run, word(json!({ "width": "wide" })));
    let (status, error) = refused(bad.send().await).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_input")));
    assert_eq!(error["param"], "content.width");
    let done = gateway.submit(&run, word(json!({ "width": 7 }))).await;
    assert!(
        text_in(&done["output"], "content").contains("bar is 7 wide"),
        "{done}"
    );
    assert_eq!(workshop.ledger(), ["cut bar 7"]);
}

/// A tool's question, answered on the wires that only know approvals by what they carry besides.
#[tokio::test(flavor = "multi_thread")]
async fn a_tools_question_is_answered_on_every_wire() {
    let gateway = on(None).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let smith = gateway.tool_smith(&[]).await;
    let send = async |path: &str, body: Value| {
        let call = gateway.post(path, &body);
        call.header("ic-smith-id", &smith).send().await
    };
    let content = json!({ "width": 5 });

    let mut messages = vec![json!({ "role": "user", "content": "cut {\"thing\": \"chat\"}" })];
    let chat = "/v1/chat/completions";
    let asked = ok(send(chat, json!({ "messages": messages })).await).await;
    let message = asked["choices"][0]["message"].clone();
    let id = message["tool_calls"][0]["id"].clone();
    messages.push(message);
    let answer = json!({ "decision": "approve", "content": content }).to_string();
    messages.push(json!({ "role": "tool", "tool_call_id": id, "content": answer }));
    let told = ok(send(chat, json!({ "messages": messages })).await).await;
    let told = text_in(&told["choices"][0]["message"], "content");
    assert!(told.contains("chat is 5 wide"), "{told}");

    let responses = "/v1/responses";
    let body = json!({ "input": "cut {\"thing\": \"item\"}" });
    let asked = ok(send(responses, body).await).await;
    let items = asked["output"].as_array().expect("items");
    let request = items
        .iter()
        .find(|item| item["type"] == "mcp_approval_request")
        .expect("a request");
    let answer = json!({ "type": "mcp_approval_response", "approve": true,
        "approval_request_id": request["id"], "content": content });
    let body = json!({ "input": [answer], "previous_response_id": asked["id"] });
    let told = ok(send(responses, body).await).await;
    assert!(
        told["output"].to_string().contains("item is 5 wide"),
        "{told}"
    );

    let messages = "/v1/messages";
    let mut said = vec![json!({ "role": "user", "content": "cut {\"thing\": \"block\"}" })];
    let asked = ok(send(messages, json!({ "messages": said })).await).await;
    assert_eq!(asked["stop_reason"], "tool_use", "{asked}");
    let blocks = asked["content"].as_array().expect("blocks");
    let call = blocks.iter().find(|block| block["type"] == "tool_use");
    let id = &call.expect("a call")["id"];
    let answer = json!({ "decision": "approve", "content": content }).to_string();
    said.push(json!({ "role": "assistant", "content": blocks }));
    said.push(json!({ "role": "user", "content": [
        { "type": "tool_result", "tool_use_id": id, "content": answer }] }));
    let told = ok(send(messages, json!({ "messages": said })).await).await;
    assert!(
        told["content"].to_string().contains("block is 5 wide"),
        "{told}"
    );

    let gemini = "/v1beta/models/smith:generateContent";
    let script = json!({ "text": "cut {\"thing\": \"part\"}" });
    let mut said = vec![json!({ "role": "user", "parts": [script] })];
    let asked = ok(send(gemini, json!({ "contents": said })).await).await;
    let parts = asked["candidates"][0]["content"]["parts"].clone();
    let calls = parts.as_array().expect("parts").iter();
    let call = calls.filter_map(|part| part.get("functionCall")).next();
    let call = call.expect("a call");
    let answer = json!({ "decision": "approve", "content": content });
    said.push(json!({ "role": "model", "parts": parts }));
    said.push(
        json!({ "role": "user", "parts": [{ "functionResponse": { "id": call["id"],
        "name": call["name"], "response": answer } }] }),
    );
    let told = ok(send(gemini, json!({ "contents": said })).await).await;
    assert!(told.to_string().contains("part is 5 wide"), "{told}");

    let text_part = json!({ "type": "text", "text": "cut {\"thing\": \"page\"}" });
    let said = json!({ "id": "1", "role": "user", "parts": [text_part] });
    let chat =
        |messages: Value| json!({ "id": "c", "trigger": "submit-message", "messages": messages });
    let ui = "/v1/ui/chat";
    let streamed = text(send(ui, chat(json!([said]))).await).await;
    let parts: Vec<Value> = data_lines(&streamed)
        .into_iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let of = |kind: &str| {
        parts
            .iter()
            .find(|part| part["type"] == kind)
            .expect("a part")
    };
    let request = of("tool-approval-request");
    let answered = json!({ "id": of("start")["messageId"], "role": "assistant", "parts": [
        { "type": "tool-cut", "toolCallId": request["toolCallId"], "input": { "thing": "page" },
          "state": "approval-responded", "approval": { "id": request["approvalId"],
            "approved": true, "content": content } } ] });
    let told = text(send(ui, chat(json!([said, answered]))).await).await;
    assert!(told.contains("page is 5 wide"), "{told}");
    assert_eq!(
        workshop.ledger(),
        [
            "cut chat 5",
            "cut item 5",
            "cut block 5",
            "cut part 5",
            "cut page 5"
        ]
    );
}

async fn chat_completions_asks_by_a_call(store: Option<String>) {
    let gateway = on(store).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let smith = gateway.tool_smith(&[]).await;
    for stream in [false, true] {
        let script = "measure {\"thing\": \"x\"}\n---\nmelt {\"thing\": \"y\"}";
        let mut messages = vec![json!({ "role": "user", "content": script })];
        let ask = async |messages: &[Value]| {
            let body = json!({ "messages": messages, "stream": stream });
            let call = gateway.post("/v1/chat/completions", &body);
            let answer = call.header("ic-smith-id", &smith).send().await;
            if !stream {
                let whole = ok(answer).await;
                let choice = whole["choices"][0].clone();
                return (choice["message"].clone(), choice["finish_reason"].clone());
            }
            let streamed = text(answer).await;
            let mut calls: Vec<Value> = Vec::new();
            let (mut content, mut reason) = (String::new(), Value::Null);
            for line in data_lines(&streamed) {
                let Ok(chunk) = serde_json::from_str::<Value>(line) else {
                    continue;
                };
                let choice = &chunk["choices"][0];
                let delta = &choice["delta"];
                content.push_str(text_in(delta, "content"));
                for call in delta["tool_calls"].as_array().into_iter().flatten() {
                    match call["id"].is_string() {
                        true => calls.push(call.clone()),
                        false => {
                            let last = calls.last_mut().expect("a call");
                            last["function"]["arguments"] = call["function"]["arguments"].clone();
                        }
                    }
                }
                if !choice["finish_reason"].is_null() {
                    reason = choice["finish_reason"].clone();
                }
            }
            let message = json!({ "role": "assistant", "content": content, "tool_calls": calls });
            (message, reason)
        };
        let (message, reason) = ask(&messages).await;
        assert_eq!(reason, "tool_calls", "{message}");
        let calls = message["tool_calls"].as_array().expect("calls").clone();
        assert_eq!(
            calls.len(),
            1,
            "the tool that needs no approval is not seen"
        );
        let id = text_in(&calls[0], "id");
        assert!(id.starts_with("run_") && id.contains("::call_1_0"), "{id}");
        assert_eq!(calls[0]["function"]["name"], "melt");
        assert_eq!(calls[0]["function"]["arguments"], "{\"thing\":\"y\"}");
        messages.push(message.clone());
        let decision = json!({ "role": "tool", "tool_call_id": id,
            "content": "{\"decision\":\"approve\"}" });
        messages.push(decision);
        let (message, reason) = ask(&messages).await;
        assert_eq!(reason, "stop");
        let said = text_in(&message, "content");
        assert!(said.contains("y is molten"), "{said}");
        // The pair stays in the client's history and is asked about no more.
        messages.push(json!({ "role": "assistant", "content": said }));
        messages.push(json!({ "role": "user", "content": "measure {\"thing\": \"z\"}" }));
        let (message, _) = ask(&messages).await;
        assert!(
            text_in(&message, "content").contains("z: 12 cm"),
            "{message}"
        );
    }
    assert_eq!(workshop.ledger().len(), 2);
}

async fn responses_show_calls_and_ask(store: Option<String>) {
    let gateway = on(store).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let smith = gateway.tool_smith(&[]).await;
    let send = async |body: Value| {
        let call = gateway.post("/v1/responses", &body);
        call.header("ic-smith-id", &smith).send().await
    };
    let events = |stream: &str| -> Vec<Value> {
        let parsed = data_lines(stream).into_iter();
        parsed
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let last = |events: &[Value]| events.last().expect("an event")["response"].clone();
    let script = "Measuring\nmeasure {\"thing\": \"x\"}\n---\nmelt {\"thing\": \"y\"}";
    let streamed = text(send(json!({ "input": script, "stream": true })).await).await;
    let first = last(&events(&streamed));
    assert_eq!(first["status"], "completed");
    let kinds: Vec<&str> = first["output"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| text_in(item, "type"))
        .collect();
    assert_eq!(kinds, ["message", "mcp_call", "mcp_approval_request"]);
    let call = &first["output"][1];
    assert_eq!(call["server_label"], "workshop");
    assert_eq!(
        (&call["name"], &call["output"]),
        (&json!("measure"), &json!("x: 12 cm"))
    );
    let request = text_in(&first["output"][2], "id").to_owned();
    let read = gateway.get(&format!("/v1/responses/{}", text_in(&first, "id")));
    assert_eq!(ok(read.send().await).await["output"], first["output"]);
    let decision = json!({ "input": [
        { "type": "item_reference", "id": request },
        { "type": "mcp_approval_response", "approval_request_id": request, "approve": true },
    ], "stream": true });
    let streamed = text(send(decision).await).await;
    let second = events(&streamed);
    for (at, event) in second.iter().enumerate() {
        assert_eq!(event["sequence_number"], at);
    }
    let second = last(&second);
    let kinds: Vec<&str> = second["output"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| text_in(item, "type"))
        .collect();
    assert_eq!(kinds, ["mcp_call", "message"]);
    assert_eq!(second["output"][0]["approval_request_id"], json!(request));
    // The whole answer: what was said before the pause and what came after it.
    let read = gateway.get(&format!("/v1/responses/{}", text_in(&first, "id")));
    let whole = ok(read.send().await).await;
    let mut expected = first["output"].as_array().expect("items")[..2].to_vec();
    expected.extend(second["output"].as_array().expect("items").iter().cloned());
    assert_eq!(whole["output"], Value::Array(expected));
    // A later turn refers to the call as the AI SDK does, and not streamed.
    let item = text_in(&second["output"][0], "id");
    let body = json!({ "input": [
        { "role": "user", "content": "hi" },
        { "type": "item_reference", "id": item },
        { "role": "user", "content": "measure {\"thing\": \"z\"}" },
    ] });
    let third = ok(send(body).await).await;
    assert_eq!(third["output"][0]["type"], "mcp_call", "{third}");
    assert_eq!(workshop.ledger().len(), 1);
}

async fn the_ui_stream_shows_steps_and_asks(store: Option<String>) {
    let gateway = on(store).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let smith = gateway.tool_smith(&[]).await;
    let script = "measure {\"thing\": \"x\"}\n---\nmelt {\"thing\": \"y\"}";
    let asked = json!({ "id": "1", "role": "user", "parts": [{ "type": "text", "text": script }] });
    let send = async |messages: Value| {
        let body = json!({ "id": "chat-1", "trigger": "submit-message", "messages": messages });
        let call = gateway.post("/v1/ui/chat", &body);
        let streamed = text(call.header("ic-smith-id", &smith).send().await).await;
        let parsed = data_lines(&streamed)
            .into_iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.collect::<Vec<Value>>()
    };
    let parts = send(json!([asked])).await;
    let of = |parts: &[Value], kind: &str| {
        let found = parts.iter().find(|part| part["type"] == kind);
        found
            .cloned()
            .unwrap_or_else(|| panic!("no {kind} in {parts:?}"))
    };
    assert_eq!(of(&parts, "tool-output-available")["output"], "x: 12 cm");
    let request = of(&parts, "tool-approval-request");
    assert_eq!(of(&parts, "finish")["finishReason"], "tool-calls");
    let message = of(&parts, "start")["messageId"].clone();
    let answered = json!({ "id": message, "role": "assistant", "parts": [
        { "type": "tool-melt", "toolCallId": request["toolCallId"], "input": { "thing": "y" },
          "state": "approval-responded",
          "approval": { "id": request["approvalId"], "approved": true } },
    ] });
    let parts = send(json!([asked, answered])).await;
    assert_eq!(of(&parts, "start")["messageId"], message);
    assert_eq!(of(&parts, "tool-output-available")["output"], "y is molten");
    assert_eq!(of(&parts, "finish")["finishReason"], "stop");
}

on_both_stores! {
    approvals_pause_and_go_on,
    a_tool_asks_and_is_answered,
    chat_completions_asks_by_a_call,
    responses_show_calls_and_ask,
    the_ui_stream_shows_steps_and_asks,
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_share_names_fail_or_are_gone_are_told_apart() {
    let gateway = on(None).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let second = gateway.request(Method::PUT, "/v1/tenant/mcp/second");
    let second = second.json(&workshop.settings()).send().await;
    assert_eq!(ok(second).await["status"], "active");
    let body = json!({ "model": "openai-chat/script",
        "mcp_servers": ["workshop", "second", "gone"] });
    let made = ok(gateway.post("/v1/smiths", &body).send().await).await;
    let smith = text_in(&made, "id").to_owned();
    let script = "workshop__measure {\"thing\": \"a\"}\nsecond__measure {\"thing\": \"b\"}\n\
                  workshop__break_down {}";
    let run = gateway.run(&smith, script).await;
    let said = text_in(&run["output"], "content");
    assert!(
        said.contains("a: 12 cm") && said.contains("b: 12 cm"),
        "{said}"
    );
    assert_eq!(run["warnings"][0]["code"], "tool_source_unavailable");
    let events = gateway.run_events(&run).await;
    assert_eq!(events.matches("\"is_error\":true").count(), 1, "{events}");
    // A server that is down costs its tools, not the turn.
    drop(workshop);
    let run = gateway
        .run(&smith, "second__measure {\"thing\": \"b\"}")
        .await;
    assert_eq!(run["status"], "completed");
    let events = gateway.run_events(&run).await;
    assert_eq!(events.matches("\"is_error\":true").count(), 1, "{events}");
    let server = ok(gateway.get("/v1/tenant/mcp/second").send().await).await;
    assert!(server["last_call_error"].is_string(), "{server}");
}

/// kill -9 in the middle of a tool, of an approved tool and of a model's answer.
async fn runs_go_on_after_a_crash(store: Option<String>) {
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let workshop = Workshop::start().await;
    let command = || {
        let mut command = with_mock(dir.path(), &mock, store.as_deref());
        command.env("SMITHGATE_EGRESS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]");
        command.env("SMITHGATE_LIMITS__LEASE_MS", "1500");
        command
    };
    let (mut running, printed) = Running::start(command(), "listens on").await;
    let token = token_in(&printed).expect("a token").to_owned();
    let post = |running: &Running, path: &str, body: Value| {
        let call = running.client.post(running.url(path));
        let call = call.bearer_auth(&token).json(&body);
        async move { ok(call.send().await).await }
    };
    let put = running.client.put(running.url("/v1/tenant/mcp/workshop"));
    let put = put.bearer_auth(&token).json(&workshop.settings());
    assert_eq!(ok(put.send().await).await["status"], "active");
    let smith = post(&running, "/v1/smiths", json!({ "model": "mock/script" })).await;
    let smith = text_in(&smith, "id").to_owned();
    let runs = format!("/v1/smiths/{smith}/runs");
    let input = |script: &str| json!({ "input": [{ "role": "user", "content": script }] });
    let paused = post(&running, &runs, input("melt {\"thing\": \"p\"}")).await;
    assert_eq!(paused["status"], "paused_for_approval");
    // It is in the middle of a tool whose outcome nobody will know.
    let begun = running.client.post(running.url(&runs)).bearer_auth(&token);
    let begun = begun.json(&input("forge {\"thing\": \"f\", \"seconds\": 30}"));
    let begun = tokio::spawn(begun.send());
    for _ in 0..200 {
        if !workshop.ledger().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(workshop.ledger().len(), 1);
    running.child.kill().await.expect("killed");
    let _ = begun.await;
    let (running, _) = Running::start(command(), "listens on").await;
    let get = |path: &str| {
        let call = running.client.get(running.url(path)).bearer_auth(&token);
        async move { ok(call.send().await).await }
    };
    let mut forged = Value::Null;
    for _ in 0..200 {
        let listed = get(&runs).await;
        forged = listed["data"][0].clone();
        if forged["status"] == "completed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(forged["status"], "completed", "{forged}");
    let said = text_in(&forged["output"], "content");
    assert!(said.contains("the outcome is unknown"), "{said}");
    assert_eq!(workshop.ledger().len(), 1, "it was not run again");
    // The approval that waited is decided after the crash, and its tool runs once.
    let path = format!("{runs}/{}/submit", text_in(&paused, "id"));
    let id = &paused["output"]["tool_calls"][0]["approval_id"];
    let word = json!({ "kind": "approval_decision", "approval_id": id, "decision": "approve" });
    let done = post(&running, &path, word).await;
    assert_eq!(done["status"], "completed");
    let melted = workshop
        .ledger()
        .iter()
        .filter(|l| l.starts_with("melt p"))
        .count();
    assert_eq!(melted, 1);
    // The log of the run that was cut is whole.
    let path = format!("{runs}/{}/events?follow=false", text_in(&forged, "id"));
    let call = running.client.get(running.url(&path)).bearer_auth(&token);
    let events = text(call.send().await).await;
    let ids: Vec<&str> = events
        .lines()
        .filter_map(|l| l.strip_prefix("id: "))
        .collect();
    check_gapless(&ids, &events);
    assert_eq!(kinds(&events).last(), Some(&"run.completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_go_on_after_a_crash_on_sqlite() {
    runs_go_on_after_a_crash(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_go_on_after_a_crash_on_postgres() {
    runs_go_on_after_a_crash(Some(postgres_url().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_clients_decide_on_approvals() {
    let gateway = on(None).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let smith = gateway.tool_smith(&[]).await;
    let token = gateway
        .smith_token(&smith, &["runs:write", "runs:read", "approvals:write"])
        .await;
    let env = [("SMITH_TOKEN", token.as_str())];
    run_python(&gateway, "approvals.py", &env).await;
    run_script(&gateway, "TEST_NODE", "approvals.mjs", &env).await;
    let chromium = std::env::var("TEST_CHROMIUM").expect("`.ci/test` names a browser");
    let env = [
        env[0],
        ("SCENARIO", "approvals"),
        ("CHROMIUM", chromium.as_str()),
    ];
    run_script(&gateway, "TEST_NODE", "use_chat.mjs", &env).await;
    let melted = workshop
        .ledger()
        .iter()
        .filter(|l| l.starts_with("melt"))
        .count();
    assert_eq!(melted, 6, "what was rejected did not run");
}

/// Hosts of both kinds of revision: asked within the call, and by a result that they answer.
#[tokio::test(flavor = "multi_thread")]
async fn mcp_hosts_ask_their_human() {
    let gateway = on(None).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let smith = gateway.tool_smith(&[]).await;
    let deployment = gateway.deploy("smith", &smith).await;
    let path = format!("/v1/deployments/{}/mcp", text_in(&deployment, "id"));
    let url = gateway.url(&path);
    let token = gateway
        .smith_token(&smith, &["runs:write", "approvals:write"])
        .await;
    let deaf = gateway.smith_token(&smith, &["runs:write"]).await;
    let env = [
        ("URL", url.as_str()),
        ("SMITH_TOKEN", token.as_str()),
        ("DEAF_TOKEN", deaf.as_str()),
    ];
    run_python(&gateway, "mcp_approvals.py", &env).await;
    run_script(&gateway, "TEST_NODE", "mcp_approvals.mjs", &env).await;
    let ledger = workshop.ledger();
    let count = |word: &str| ledger.iter().filter(|l| l.starts_with(word)).count();
    assert_eq!((count("melt"), count("cut")), (7, 5), "{ledger:?}");
    // What nobody decided still waits.
    let waiting = ok(gateway.get("/v1/approvals?status=pending").send().await).await;
    assert_eq!(waiting["data"].as_array().map(Vec::len), Some(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn mcp_hosts_use_a_smiths_tools_and_panels() {
    let gateway = on(None).await;
    let workshop = Workshop::start().await;
    gateway.put_workshop(&workshop).await;
    let smith = gateway.tool_smith(&["calculator"]).await;
    let deploy = async |kind: &str, id: &str| {
        let made = gateway.deploy(kind, id).await;
        gateway.url(&format!("/v1/deployments/{}/mcp", text_in(&made, "id")))
    };
    let url = deploy("smith", &smith).await;
    let token = gateway
        .smith_token(&smith, &["runs:write", "approvals:write"])
        .await;

    let body = json!({ "name": "Shop", "model": "openai-chat/script", "mcp_servers": [],
        "enabled_hosted_tools": ["calculator"] });
    let agent = ok(gateway.post("/v1/agents", &body).send().await).await;
    let agent = text_in(&agent, "id");
    let metadata = json!({ "name": "order", "csp": { "connectDomains": ["https://shop.test"] },
        "tool": { "description": "Orders an item.", "instruction": "add {\"a\": 40, \"b\": 2}",
            "mutating": true, "input_schema": { "type": "object", "required": ["item"],
                "properties": { "item": { "type": "string" } } } } });
    let kept = gateway.put_panel(agent, "<p>Order</p>", &metadata);
    ok(kept.send().await).await;
    let publish = format!("/v1/agents/{agent}/versions");
    ok(gateway.post(&publish, &json!({})).send().await).await;
    let body = json!({ "agent_id": agent });
    let shopper = ok(gateway.post("/v1/smiths", &body).send().await).await;
    let panel_url = deploy("agent", agent).await;
    let panel_token = gateway
        .smith_token(text_in(&shopper, "id"), &["runs:write", "approvals:write"])
        .await;
    let env = [
        ("URL", url.as_str()),
        ("SMITH_TOKEN", token.as_str()),
        ("PANEL_URL", panel_url.as_str()),
        ("PANEL_TOKEN", panel_token.as_str()),
    ];
    run_python(&gateway, "mcp_own.py", &env).await;
    let ledger = workshop.ledger();
    assert!(
        !ledger.iter().any(|line| line.contains("gold")),
        "{ledger:?}"
    );
    assert_eq!(ledger.len(), 7, "{ledger:?}");
    let events = ok(gateway.get("/v1/events?type=tool.completed").send().await).await;
    let events = events["data"].as_array().expect("events").clone();
    assert!(
        events.iter().any(|event| event["data"]["tool"] == "melt"),
        "{events:?}"
    );
}

/// Two nodes on one database: one cancels a run of the other, follows another run there, and goes
/// on with it when its node is killed.
async fn another_node_goes_on(redis: Option<&str>) {
    let store = postgres_url().await;
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let workshop = Workshop::start().await;
    let command = || {
        let mut command = with_mock(dir.path(), &mock, Some(&store));
        command.env("SMITHGATE_EGRESS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]");
        command.env("SMITHGATE_LIMITS__LEASE_MS", "1500");
        if let Some(url) = redis {
            command.env("SMITHGATE_BUS__REDIS_URL", url);
        }
        command
    };
    let (mut first, printed) = Running::start(command(), "listens on").await;
    let token = token_in(&printed).expect("a token").to_owned();
    let (second, _) = Running::start(command(), "listens on").await;
    let post = |running: &Running, path: &str, body: Value| {
        let call = running.client.post(running.url(path));
        call.bearer_auth(&token).json(&body).send()
    };
    let put = second.client.put(second.url("/v1/tenant/mcp/workshop"));
    let put = put.bearer_auth(&token).json(&workshop.settings());
    assert_eq!(ok(put.send().await).await["status"], "active");
    let smith = ok(post(&second, "/v1/smiths", json!({ "model": "mock/script" })).await).await;
    let runs = format!("/v1/smiths/{}/runs", text_in(&smith, "id"));
    let begin = async |thing: &str| {
        let before = workshop.ledger().len();
        let script = format!(
            "measure {{\"thing\": \"{thing}\"}}\n---\n\
                              forge {{\"thing\": \"{thing}\", \"seconds\": 60}}"
        );
        let input = json!({ "input": [{ "role": "user", "content": script }] });
        let begun = tokio::spawn(post(&first, &runs, input));
        for _ in 0..200 {
            if workshop.ledger().len() > before {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let listed = second.client.get(second.url(&runs)).bearer_auth(&token);
        let listed = ok(listed.send().await).await;
        assert_eq!(listed["data"][0]["status"], "running");
        (begun, text_in(&listed["data"][0], "id").to_owned())
    };
    let (begun, run) = begin("a").await;
    let cancel = json!({ "kind": "cancel", "reason": "no more iron" });
    let cancelled = post(&second, &format!("{runs}/{run}/submit"), cancel).await;
    assert_eq!(ok(cancelled).await["status"], "cancelled");
    let told = begun.await.expect("a task");
    assert_eq!(ok(told).await["status"], "cancelled");

    let (begun, run) = begin("b").await;
    let follow = second
        .client
        .get(second.url(&format!("{runs}/{run}/events")));
    let follow = follow.bearer_auth(&token).send().await;
    let follower = tokio::spawn(text(follow));
    tokio::time::sleep(Duration::from_millis(600)).await;
    first.child.kill().await.expect("killed");
    let _ = begun.await;
    let events = tokio::time::timeout(Duration::from_secs(30), follower).await;
    let events = events.expect("an end").expect("a task");
    let ids: Vec<&str> = events
        .lines()
        .filter_map(|l| l.strip_prefix("id: "))
        .collect();
    check_gapless(&ids, &events);
    assert_eq!(kinds(&events).last(), Some(&"run.completed"), "{events}");
    assert_eq!(events.matches("event: run.started").count(), 1);
    assert_eq!(workshop.ledger().len(), 2, "nothing was run again");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_goes_on_with_what_it_is_asked_to_follow() {
    another_node_goes_on(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_goes_on_over_redis() {
    let redis = Redis::start().await;
    another_node_goes_on(Some(&redis.url())).await;
}
