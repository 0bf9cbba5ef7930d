//! What coding agents send over Responses beside plain functions: custom tools, shells, namespaces,
//! tools that only a provider could run, and the items that such tools leave in a history.

use serde_json::{Value, json};

use crate::support::{Harness, check_gapless, data_lines, ok, refused, text};

/// As Codex sends it by default, with a tool of each kind.
fn tools() -> Value {
    json!([
        { "type": "function", "name": "exec_command", "strict": false,
          "parameters": { "type": "object", "properties": { "cmd": { "type": "string" } } } },
        { "type": "custom", "name": "apply_patch", "description": "Edits files.",
          "format": { "type": "grammar", "syntax": "lark", "definition": "start: begin" } },
        { "type": "local_shell" },
        { "type": "namespace", "name": "mcp__files", "description": "Files",
          "tools": [{ "type": "function", "name": "read", "parameters": { "type": "object" } }] },
        { "type": "web_search", "external_web_access": true },
        { "type": "image_generation", "output_format": "png" },
        { "type": "tool_search" },
        { "type": "code_interpreter", "container": { "type": "auto" } },
    ])
}

fn asked(script: &str, stream: bool) -> Value {
    json!({ "model": "openai-chat/script", "stream": stream, "store": false, "tools": tools(),
        "tool_choice": "auto", "include": ["reasoning.encrypted_content"],
        "input": [{ "type": "message", "role": "user",
            "content": [{ "type": "input_text", "text": script }] }] })
}

fn item_of<'a>(response: &'a Value, kind: &str) -> &'a Value {
    let items = response["output"].as_array().expect("items");
    let found = items.iter().find(|item| item["type"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {response}"))
}

const PATCH: &str = "apply_patch {\"input\": \"*** Begin Patch\\n+\\\"x\\\"\"}";

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_tools_call_comes_back_as_one() {
    let harness = Harness::start().await;
    let whole = ok(harness
        .post("/v1/responses", &asked(PATCH, false))
        .send()
        .await)
    .await;
    let call = item_of(&whole, "custom_tool_call");
    assert_eq!(call["input"], "*** Begin Patch\n+\"x\"");
    assert_eq!(
        (&call["name"], &call["status"]),
        (&json!("apply_patch"), &json!("completed"))
    );
    assert!(
        call["id"].as_str().expect("an id").starts_with("ctc_"),
        "{call}"
    );
    let warned = whole["warnings"].to_string();
    for kind in [
        "web_search",
        "image_generation",
        "tool_search",
        "code_interpreter",
    ] {
        assert!(warned.contains(kind), "{kind} in {warned}");
    }
    let sent = harness.mock.last().body;
    let names: Vec<&str> = sent["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .filter_map(|tool| tool["function"]["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "exec_command",
            "apply_patch",
            "local_shell",
            "mcp__files__read"
        ]
    );
    assert_eq!(
        sent["tools"][1]["function"]["parameters"]["required"],
        json!(["input"])
    );
    let told = sent["tools"][1]["function"]["description"]
        .as_str()
        .expect("a text");
    assert!(
        told.contains("lark") && told.contains("start: begin"),
        "{told}"
    );

    let streamed = text(
        harness
            .post("/v1/responses", &asked(PATCH, true))
            .send()
            .await,
    )
    .await;
    let events: Vec<Value> = data_lines(&streamed)
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let numbers: Vec<u64> = events
        .iter()
        .filter_map(|event| event["sequence_number"].as_u64())
        .collect();
    check_gapless(&numbers, &streamed);
    let of = |kind: &str| events.iter().find(|event| event["type"] == kind).cloned();
    let added = of("response.output_item.added").expect("an item");
    assert_eq!(added["item"]["type"], "custom_tool_call");
    let deltas: String = events
        .iter()
        .filter(|event| event["type"] == "response.custom_tool_call_input.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect();
    let done = of("response.custom_tool_call_input.done").expect("its end");
    assert_eq!(
        (deltas.as_str(), &done["input"]),
        ("*** Begin Patch\n+\"x\"", &call["input"])
    );
    assert!(of("response.function_call_arguments.delta").is_none());
    let end = of("response.completed").expect("the end");
    assert_eq!(
        item_of(&end["response"], "custom_tool_call")["input"],
        call["input"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn shells_and_namespaces_come_back_as_themselves() {
    let harness = Harness::start().await;
    let script = "local_shell {\"command\": [\"ls\", \"-l\"]}\nmcp__files__read {\"path\": \"a\"}";
    let whole = ok(harness
        .post("/v1/responses", &asked(script, false))
        .send()
        .await)
    .await;
    let shell = item_of(&whole, "local_shell_call");
    assert_eq!(shell["action"]["type"], "exec");
    assert_eq!(shell["action"]["command"], json!(["ls", "-l"]));
    let read = item_of(&whole, "function_call");
    assert_eq!(
        (&read["namespace"], &read["name"]),
        (&json!("mcp__files"), &json!("read"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_of_an_agent_is_taken_by_every_provider() {
    let harness = Harness::start().await;
    let input = json!([
        { "type": "message", "role": "developer", "content": [{ "type": "input_text", "text": "Rules" }] },
        { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "Go" }] },
        { "type": "reasoning", "id": "rs_1", "summary": [], "content": null, "encrypted_content": "x" },
        { "type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin" },
        { "type": "custom_tool_call_output", "call_id": "c1", "output": "Patched" },
        { "type": "local_shell_call", "call_id": "c2", "status": "completed",
          "action": { "type": "exec", "command": ["ls"] } },
        { "type": "local_shell_call_output", "id": "c2", "output": "a.txt" },
        { "type": "function_call", "call_id": "c3", "namespace": "mcp__files", "name": "read",
          "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c3", "output": "Text of a" },
        { "type": "web_search_call", "id": "ws_1", "status": "completed" },
        { "type": "tool_search_call", "call_id": "c4", "execution": "client", "arguments": {} },
        { "type": "ghost_snapshot", "ghost_commit": { "id": "abc" } },
        { "type": "compaction", "encrypted_content": "sealed" },
        { "type": "of_tomorrow", "text": "Remember the anvil" },
        { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "And?" }] },
    ]);
    for wire in ["openai-chat", "anthropic", "gemini"] {
        let body = json!({ "model": format!("{wire}/text"), "input": input, "tools": tools(),
            "store": false });
        ok(harness.post("/v1/responses", &body).send().await).await;
        let sent = harness.mock.last().body.to_string();
        for part in [
            "*** Begin",
            "Patched",
            "a.txt",
            "mcp__files__read",
            "Text of a",
            "the anvil",
        ] {
            assert!(sent.contains(part), "{part} to {wire} in {sent}");
        }
        assert!(
            !sent.contains("ghost") && !sent.contains("sealed"),
            "{wire}: {sent}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smith_searches_the_web_itself_where_it_may() {
    let harness = Harness::start().await;
    let made =
        |hosted: Value| json!({ "model": "openai-chat/script", "enabled_hosted_tools": hosted });
    let with = ok(harness
        .post("/v1/smiths", &made(json!(["web_search"])))
        .send()
        .await)
    .await;
    let without = ok(harness.post("/v1/smiths", &made(json!([]))).send().await).await;
    let body = json!({ "input": "hello", "tools": [{ "type": "web_search" }] });
    for (smith, warned) in [(with, false), (without, true)] {
        let smith = smith["id"].as_str().expect("an id");
        let call = harness
            .post("/v1/responses", &body)
            .header("ic-smith-id", smith);
        let response = ok(call.send().await).await;
        assert_eq!(response.get("warnings").is_some(), warned, "{response}");
        let names = harness.mock.last().body["tools"].to_string();
        assert_eq!(names.contains("web_search"), !warned, "{names}");
        // What is read again says the same.
        let id = response["id"].as_str().expect("an id");
        let read = harness
            .get(&format!("/v1/responses/{id}"))
            .header("ic-smith-id", smith);
        assert_eq!(
            ok(read.send().await).await["warnings"],
            response["warnings"]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tool_is_still_refused_by_name() {
    let harness = Harness::start().await;
    for (tools, param) in [
        (json!([{ "type": "function" }]), "tools[0].name"),
        (json!([{ "type": "custom", "name": "" }]), "tools[0].name"),
        (json!([{ "name": "x" }]), "tools[0].type"),
    ] {
        let body = json!({ "model": "openai-chat/text", "input": "x", "tools": tools });
        let (status, error) = refused(harness.post("/v1/responses", &body).send().await).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_tools_of_chat_completions_come_back_as_theirs() {
    let harness = Harness::start().await;
    let tools = json!([
        { "type": "custom", "custom": { "name": "apply_patch", "description": "Edits files.",
            "format": { "type": "grammar", "grammar": { "syntax": "regex", "definition": "a+" } } } },
        { "type": "web_search" },
    ]);
    let smith = harness.smith("openai-chat/script").await;
    let mut body = json!({ "model": "", "tools": tools,
        "messages": [{ "role": "user", "content": PATCH }] });
    let send = |body: &Value| {
        harness
            .post("/v1/chat/completions", body)
            .header("ic-smith-id", &smith)
            .send()
    };
    let whole = ok(send(&body).await).await;
    let call = &whole["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["type"], "custom", "{whole}");
    assert_eq!(call["custom"]["input"], "*** Begin Patch\n+\"x\"");
    let sent = harness.mock.last().body["tools"].to_string();
    assert!(
        sent.contains("a+") && !sent.contains("web_search"),
        "{sent}"
    );
    body["stream"] = json!(true);
    let streamed = text(send(&body).await).await;
    let inputs: String = data_lines(&streamed)
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|chunk| {
            let call = chunk.pointer("/choices/0/delta/tool_calls/0/custom/input")?;
            call.as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(inputs, "*** Begin Patch\n+\"x\"", "{streamed}");
    let id = call["id"].as_str().expect("an id");
    let history = json!({ "model": "anthropic/text", "tools": tools, "messages": [
        { "role": "user", "content": "Go" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": id, "content": "Patched" } ] });
    ok(harness.post("/v1/chat/completions", &history).send().await).await;
    let sent = harness.mock.last().body.to_string();
    assert!(
        sent.contains("*** Begin Patch") && sent.contains("Patched"),
        "{sent}"
    );
}
