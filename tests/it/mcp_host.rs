//! Smiths as MCP servers, with the published SDKs as hosts.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::assets::run_script;
use crate::control::{code, id, on_both_stores, start_on};
use crate::support::{Harness, ok, refused};

on_both_stores! {
    deployments_say_who_answers,
    hosts_ask_a_smith,
}

impl Harness {
    pub async fn deploy(&self, kind: &str, target: &str) -> Value {
        let body = json!({ "kind": "mcp", "target": { "type": kind, "id": target } });
        ok(self.post("/v1/deployments", &body).send().await).await
    }

    pub fn rpc(&self, deployment: &str, token: &str, body: &Value) -> reqwest::RequestBuilder {
        let url = self.url(&format!("/v1/deployments/{deployment}/mcp"));
        let call = self.client.post(url).bearer_auth(token).json(body);
        call.header("accept", "application/json, text/event-stream")
            .timeout(Duration::from_secs(10))
    }
}

pub fn initialize() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "t", "version": "1" } } })
}

async fn deployments_say_who_answers(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let smith = harness.smith("anthropic/text").await;
    let other = harness.smith("anthropic/text").await;
    let scopes = ["deployments:read", "deployments:write", "runs:write"];
    let token = harness.smith_token(&smith, &scopes).await;
    let made = harness.deploy("smith", &smith).await;
    let deployment = id(&made);
    let mcp_url = harness.url(&format!("/v1/deployments/{deployment}/mcp"));
    assert_eq!(made["mcp_url"], mcp_url);
    assert_eq!(made["status"], "active");
    let others = id(&harness.deploy("smith", &other).await);
    let path = format!("/v1/deployments/{deployment}");
    let patch = harness.request(Method::PATCH, &path);
    let patch = patch.json(&json!({ "display_name": "Desk", "owner_email": "a@b.example" }));
    assert_eq!(ok(patch.send().await).await["display_name"], "Desk");
    let listed = harness.get(&format!("/v1/deployments?target_id={other}"));
    assert_eq!(ok(listed.send().await).await["data"][0]["id"], others);
    let as_smith = |method: Method, path: &str, body: &Value| {
        let request = harness.client.request(method, harness.url(path));
        request.bearer_auth(&token).json(body).send()
    };
    let nothing = json!({});
    let listed = ok(as_smith(Method::GET, "/v1/deployments", &nothing).await).await;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    for (status, body) in [
        (
            (400, "invalid_kind"),
            json!({ "kind": "sms", "target": { "type": "smith", "id": smith } }),
        ),
        (
            (400, "invalid_request"),
            json!({ "kind": "mcp", "target": { "type": "x", "id": smith } }),
        ),
        (
            (400, "mcp_no_setup"),
            json!({ "kind": "mcp", "target": { "type": "smith", "id": smith },
                "setup": { "mode": "start_token" } }),
        ),
        (
            (404, "not_found"),
            json!({ "kind": "mcp", "target": { "type": "agent", "id": "agt_0" } }),
        ),
    ] {
        let (got, error) = refused(harness.post("/v1/deployments", &body).send().await).await;
        assert_eq!((got, code(&error)), status, "{body}");
    }
    let unset = json!({ "kind": "mcp", "target": { "type": "smith", "id": smith }, "setup": null });
    let made = ok(harness.post("/v1/deployments", &unset).send().await).await;
    let gone = format!("/v1/deployments/{}", id(&made));
    let gone = harness.request(Method::DELETE, &gone).send().await;
    assert_eq!(gone.expect("an answer").status(), 204);
    let theirs = json!({ "kind": "mcp", "target": { "type": "smith", "id": other } });
    let (status, error) = refused(as_smith(Method::POST, "/v1/deployments", &theirs).await).await;
    assert_eq!((status, code(&error)), (403, "forbidden_target"));
    let theirs = format!("/v1/deployments/{others}");
    let (status, error) = refused(as_smith(Method::GET, &theirs, &nothing).await).await;
    assert_eq!((status, code(&error)), (403, "forbidden_target"));

    // A session belongs to whom it was opened for.
    let opened = harness.rpc(&deployment, &token, &initialize()).send().await;
    let opened = opened.expect("an answer");
    assert_eq!(opened.status(), 200);
    let session = opened.headers()["mcp-session-id"]
        .to_str()
        .expect("text")
        .to_owned();
    let ping = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
    let foreign = harness.rpc(&others, &harness.token, &ping);
    let foreign = foreign.header("mcp-session-id", &session).send().await;
    let (status, error) = refused(foreign).await;
    assert_eq!((status, code(&error)), (403, "session_mismatch"));
    let unknown = harness.rpc(&deployment, &token, &ping);
    let unknown = unknown.header("mcp-session-id", "none").send().await;
    assert_eq!(refused(unknown).await.0, 404);
    // On an agent the caller says for which of its smiths.
    let agent = ok(harness.get(&format!("/v1/smiths/{smith}")).send().await).await;
    let agent = agent["agent_id"].as_str().expect("an agent").to_owned();
    let shared = id(&harness.deploy("agent", &agent).await);
    let nobody = harness
        .rpc(&shared, &harness.token, &initialize())
        .send()
        .await;
    let (status, error) = refused(nobody).await;
    assert_eq!((status, code(&error)), (400, "smith_required"));
    let somebody = harness.rpc(&shared, &harness.token, &initialize());
    let somebody = somebody.header("IC-Smith-Id", &smith).send().await;
    assert_eq!(somebody.expect("an answer").status(), 200);

    let gone = harness.request(Method::DELETE, &path).send().await;
    assert_eq!(gone.expect("an answer").status(), 204);
    let closed = harness.rpc(&deployment, &token, &initialize()).send().await;
    assert_eq!(refused(closed).await.0, 404);
}

async fn hosts_ask_a_smith(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let mut env = Vec::new();
    for (name, model) in [("", "anthropic/text"), ("SLOW_", "anthropic/fault-slow")] {
        let smith = harness.smith(model).await;
        let deployment = id(&harness.deploy("smith", &smith).await);
        let url = harness.url(&format!("/v1/deployments/{deployment}/mcp"));
        let token = harness.smith_token(&smith, &["runs:write"]).await;
        env.push((format!("{name}URL"), url));
        let name = if name.is_empty() { "SMITH_" } else { name };
        env.push((format!("{name}TOKEN"), token));
    }
    let other = harness.smith("anthropic/text").await;
    let other = harness.smith_token(&other, &["runs:write"]).await;
    env.push(("OTHER_TOKEN".to_owned(), other));
    let env: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    run_script(&harness, "TEST_PYTHON", "mcp_client.py", &env).await;
    run_script(&harness, "TEST_NODE", "mcp_client.mjs", &env).await;
    // What a host breaks off does not run on, and what it asked is on record.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let runs = ok(harness.get("/v1/runs?limit=100").send().await).await;
    let runs = runs["data"].as_array().expect("runs").clone();
    assert!(runs.iter().all(|run| run["channel"] == "mcp"));
    let statuses: Vec<&str> = runs
        .iter()
        .filter_map(|run| run["status"].as_str())
        .collect();
    assert!(statuses.contains(&"cancelled"), "{statuses:?}");
    assert!(runs.iter().all(|run| run["status"] != "running"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conformance_suite_passes() {
    let harness = start_on(None, |_| {}).await;
    let smith = harness.smith("anthropic/text").await;
    let deployment = id(&harness.deploy("smith", &smith).await);
    let url = harness.url(&format!("/v1/deployments/{deployment}/mcp"));
    let token = harness.smith_token(&smith, &["runs:write"]).await;
    let env = [("URL", url.as_str()), ("SMITH_TOKEN", token.as_str())];
    run_script(&harness, "TEST_NODE", "mcp_conformance.mjs", &env).await;
}
