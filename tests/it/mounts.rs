//! Tools that one Responses call mounts: MCP servers by their address, vector stores by their id.

use serde_json::{Value, json};

use crate::control::on_both_stores;
use crate::support::{Harness, check_gapless, data_lines, ok, refused, text};
use crate::tools::Workshop;

on_both_stores!(
    a_server_is_mounted_for_one_response,
    stores_are_searched_for_one_response
);

async fn start(store: Option<String>) -> Harness {
    Harness::start_with(|config, _| {
        config.store.url = store;
        config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await
}

fn mount(workshop: &Workshop, approval: &str) -> Value {
    json!({ "type": "mcp", "server_label": "shop", "server_url": workshop.settings()["url"],
        "authorization": "s3cr3t-token", "headers": { "X-Key": "s3cr3t-key" },
        "require_approval": approval, "allowed_tools": ["measure", "melt"] })
}

fn kinds(response: &Value) -> Vec<&str> {
    let items = response["output"].as_array().expect("items");
    items
        .iter()
        .filter_map(|item| item["type"].as_str())
        .collect()
}

async fn a_server_is_mounted_for_one_response(store: Option<String>) {
    let gateway = start(store).await;
    let workshop = Workshop::start().await;
    let smith = gateway.smith("openai-chat/script").await;
    let respond = |body: Value| {
        gateway
            .post("/v1/responses", &body)
            .header("ic-smith-id", &smith)
    };
    let script = "measure {\"thing\": \"b\"}";
    let body = json!({ "input": script, "tools": [mount(&workshop, "never")] });
    let whole = ok(respond(body.clone()).send().await).await;
    assert_eq!(
        kinds(&whole),
        ["mcp_list_tools", "mcp_call", "message"],
        "{whole}"
    );
    let listed = whole["output"][0]["tools"].as_array().expect("tools");
    assert_eq!(
        (listed.len(), &whole["output"][0]["server_label"]),
        (2, &json!("shop"))
    );
    let call = &whole["output"][1];
    assert_eq!(
        (&call["server_label"], &call["name"]),
        (&json!("shop"), &json!("measure"))
    );
    assert!(
        call["output"]
            .as_str()
            .expect("an output")
            .contains("12 cm"),
        "{call}"
    );
    let id = whole["id"].as_str().expect("an id");
    let read = gateway
        .get(&format!("/v1/responses/{id}"))
        .header("ic-smith-id", &smith);
    let read = ok(read.send().await).await;
    assert_eq!(read["output"], whole["output"]);
    assert!(!format!("{whole}{read}").contains("s3cr3t"), "{whole}");

    let mut streamed = body;
    streamed["stream"] = json!(true);
    let events = text(respond(streamed).send().await).await;
    let events: Vec<Value> = data_lines(&events)
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let numbers: Vec<u64> = events
        .iter()
        .filter_map(|event| event["sequence_number"].as_u64())
        .collect();
    check_gapless(&numbers, "");
    let told: Vec<&str> = events
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    for kind in [
        "response.mcp_list_tools.completed",
        "response.mcp_call.completed",
    ] {
        assert!(told.contains(&kind), "{kind} in {told:?}");
    }
    let end = &events.last().expect("the end")["response"];
    assert_eq!(kinds(end), ["mcp_list_tools", "mcp_call", "message"]);

    // It is of that response alone.
    let next = ok(respond(json!({ "input": script })).send().await).await;
    assert!(!next.to_string().contains("mcp_list_tools"), "{next}");
    assert_eq!(gateway.mock.last().body["tools"], Value::Null);

    // A human decides, after a restart too.
    let body = json!({ "input": "melt {\"thing\": \"c\"}", "tools": [mount(&workshop, "always")] });
    let waits = ok(respond(body).send().await).await;
    assert_eq!(
        kinds(&waits),
        ["mcp_list_tools", "mcp_approval_request"],
        "{waits}"
    );
    let request = waits["output"][1]["id"].clone();
    let gateway = gateway.restart().await;
    let word = json!({ "previous_response_id": waits["id"], "input": [{
        "type": "mcp_approval_response", "approval_request_id": request, "approve": true }] });
    let call = gateway
        .post("/v1/responses", &word)
        .header("ic-smith-id", &smith);
    let done = ok(call.send().await).await;
    assert!(done.to_string().contains("c is molten"), "{done}");

    for (tool, param) in [
        (
            json!({ "type": "mcp", "server_label": "x" }),
            "tools[0].server_url",
        ),
        (
            json!({ "type": "mcp", "server_url": "http://127.0.0.1:9/" }),
            "tools[0].server_label",
        ),
        (
            json!({ "type": "mcp", "server_label": "x", "server_url": "http://10.0.0.1/mcp" }),
            "tools[0].server_url",
        ),
        (
            json!({ "type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:9/",
            "headers": { "Host": "y" } }),
            "tools[0].headers",
        ),
    ] {
        let body = json!({ "input": "x", "tools": [tool] });
        let call = gateway
            .post("/v1/responses", &body)
            .header("ic-smith-id", &smith);
        let (status, error) = refused(call.send().await).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
    }
    // One that does not answer is told, and the turn goes on without it.
    let dead = json!({ "type": "mcp", "server_label": "dead", "server_url": "http://127.0.0.1:9/mcp",
        "require_approval": "never" });
    let body = json!({ "input": "hello", "tools": [dead] });
    let call = gateway
        .post("/v1/responses", &body)
        .header("ic-smith-id", &smith);
    let lost = ok(call.send().await).await;
    let why = lost["output"][0]["error"].as_str().expect("a reason");
    assert!(why.contains("cannot reach the MCP server"), "{why}");
    let body =
        json!({ "model": "openai-chat/text", "input": "x", "tools": [mount(&workshop, "never")] });
    let (status, error) = refused(gateway.post("/v1/responses", &body).send().await).await;
    assert_eq!((status, &error["code"]), (400, &json!("smith_required")));
}

async fn stores_are_searched_for_one_response(store: Option<String>) {
    let gateway = start(store).await;
    let smith = gateway.smith("openai-chat/script").await;
    let other = gateway.smith("openai-chat/script").await;
    let form = "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"keys.txt\"\r\n\r\n\
        The keys of the forge hang behind the door.\r\n--b--\r\n";
    let sent = gateway
        .request(reqwest::Method::POST, "/v1/files")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(form);
    let file = ok(sent.send().await).await["id"].clone();
    let made = json!({ "name": "Forge", "file_ids": [file], "smith_id": smith });
    let made = ok(gateway.post("/v1/vector_stores", &made).send().await).await;
    let id = made["id"].as_str().expect("an id").to_owned();
    for _ in 0..200 {
        let read = ok(gateway.get(&format!("/v1/vector_stores/{id}")).send().await).await;
        if read["file_counts"]["completed"] == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let body = json!({ "input": "file_search {\"query\": \"forge keys\"}",
        "include": ["file_search_call.results"],
        "tools": [{ "type": "file_search", "vector_store_ids": [id] }] });
    let respond = |body: &Value, smith: &str| {
        gateway
            .post("/v1/responses", body)
            .header("ic-smith-id", smith)
            .send()
    };
    let whole = ok(respond(&body, &smith).await).await;
    assert_eq!(kinds(&whole), ["file_search_call", "message"], "{whole}");
    let call = &whole["output"][0];
    assert_eq!(call["queries"], json!(["forge keys"]));
    assert_eq!(call["results"][0]["filename"], "keys.txt");
    assert!(
        call["results"][0]["text"]
            .as_str()
            .expect("a text")
            .contains("behind the door")
    );
    let read = format!("/v1/responses/{}", whole["id"].as_str().expect("an id"));
    let read = ok(gateway
        .get(&read)
        .header("ic-smith-id", &smith)
        .send()
        .await)
    .await;
    assert_eq!(read["output"], whole["output"]);
    let mut plain = body.clone();
    plain["include"] = json!([]);
    let plain = ok(respond(&plain, &smith).await).await;
    assert_eq!(plain["output"][0]["results"], Value::Null);
    let (status, error) = refused(respond(&body, &other).await).await;
    assert_eq!(
        (status, &error["param"]),
        (404, &json!("tools[0].vector_store_ids[0]")),
        "{error}"
    );
}
