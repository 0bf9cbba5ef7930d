//! Configuration as code: what a published IaC client sends, twice. The second time it finds what it
//! wants, text for text, and has nothing to publish or upload.

use reqwest::Method;
use serde_json::json;
use smithgate::json::{Json, Object};

use crate::control::{on_both_stores, start_on};
use crate::support::{Harness, ok, refused};

on_both_stores!(
    a_second_apply_changes_nothing,
    what_was_stored_keeps_its_order
);

const VARIABLES: &str =
    r#"[{"required":true,"name":"city"},{"name":"tone","description":"How","default":null}]"#;
const TOOL: &str = r#"{"mutating":false,"description":"Shows it","input_schema":{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"number"}}}}"#;
const CSP: &str = r#"{"resourceDomains":["https://b.invalid"],"connectDomains":[]}"#;
const PERMISSIONS: &str = r#"{"microphone":{},"camera":{}}"#;

async fn object(harness: &Harness, path: &str) -> Object {
    let answer = harness.get(path).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{path}");
    serde_json::from_str(&answer.text().await.expect("a body")).expect("an object")
}

async fn list(harness: &Harness, path: &str) -> Vec<Object> {
    match object(harness, path).await.get("data") {
        Some(Json::Array(all)) => all
            .iter()
            .filter_map(|one| one.as_object().cloned())
            .collect(),
        other => panic!("{path}: {other:?}"),
    }
}

fn text(object: &Object, name: &str) -> String {
    let member = object.get(name).unwrap_or(&Json::Null);
    serde_json::to_string(member).expect("written")
}

/// What the client compares two configurations by.
fn signature(snapshot: &Object) -> Vec<String> {
    let mut all: Vec<String> = [
        "instructions",
        "model",
        "enabled_hosted_tools",
        "auto_memory",
        "memory_consolidation",
        "variables",
        "mcp_servers",
        "vector_store_ids",
        "skills",
    ]
    .iter()
    .map(|name| text(snapshot, name))
    .collect();
    if let Some(Json::Array(templates)) = snapshot.get("ui_resources") {
        for template in templates.iter().filter_map(Json::as_object) {
            let members = ["name", "content_hash", "tool", "csp", "permissions"];
            all.extend(members.iter().map(|name| text(template, name)));
        }
    }
    all
}

struct Applied {
    agent: String,
    uploads: usize,
    published: usize,
}

/// As the client's agent resource does it.
async fn apply_agent(harness: &Harness) -> Applied {
    let (mut uploads, mut published) = (0, 0);
    let body = format!(
        r#"{{"slug":"desk","name":"desk","instructions":null,"model":null,"enabled_hosted_tools":["calculator"],
            "mcp_servers":null,"vector_store_ids":[],"auto_memory":null,"memory_consolidation":null,
            "variables":{VARIABLES},"skills":[]}}"#
    );
    let send = |method: Method, path: String, body: String| {
        let request = harness.request(method, &path);
        request
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let agents = list(harness, "/v1/agents?limit=200").await;
    let found = agents
        .iter()
        .find(|agent| text(agent, "slug") == "\"desk\"");
    let agent = match found {
        Some(agent) => {
            let id = text(agent, "id").trim_matches('"').to_owned();
            ok(send(Method::PATCH, format!("/v1/agents/{id}"), body).await).await;
            id
        }
        None => {
            let made = ok(send(Method::POST, "/v1/agents".into(), body).await).await;
            made["id"].as_str().expect("an id").to_owned()
        }
    };
    let read = object(harness, &format!("/v1/agents/{agent}")).await;
    let draft = read
        .get("draft")
        .and_then(Json::as_object)
        .expect("a draft");
    let html = "<p>hi</p>";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, html.as_bytes());
    let hash = format!("\"{}\"", hex::encode(digest.as_ref()));
    let wanted = [
        ("content_hash", hash.as_str()),
        ("tool", TOOL),
        ("csp", CSP),
        ("permissions", PERMISSIONS),
    ];
    let kept = match draft.get("ui_resources") {
        Some(Json::Array(all)) => all.first().and_then(Json::as_object).cloned(),
        _ => None,
    };
    let is_kept =
        kept.is_some_and(|kept| wanted.iter().all(|(name, said)| text(&kept, name) == *said));
    if !is_kept {
        let metadata =
            format!(r#"{{"name":"panel","csp":{CSP},"permissions":{PERMISSIONS},"tool":{TOOL}}}"#);
        let form = format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"panel.html\"\r\n\
             Content-Type: text/html\r\n\r\n{html}\r\n--b\r\n\
             Content-Disposition: form-data; name=\"metadata\"\r\n\r\n{metadata}\r\n--b--\r\n"
        );
        let upload = harness
            .request(Method::POST, &format!("/v1/agents/{agent}/ui"))
            .header("content-type", "multipart/form-data; boundary=b")
            .body(form);
        ok(upload.send().await).await;
        uploads += 1;
    }
    let desired: Object = serde_json::from_str(&format!(
        r#"{{"instructions":null,"model":null,"enabled_hosted_tools":["calculator"],"auto_memory":null,
            "memory_consolidation":null,"variables":{VARIABLES},"mcp_servers":null,"vector_store_ids":[],"skills":[],
            "ui_resources":[{{"name":"panel","content_hash":{hash},"tool":{TOOL},"csp":{CSP},"permissions":{PERMISSIONS}}}]}}"#
    ))
    .expect("an object");
    let versions = list(harness, &format!("/v1/agents/{agent}/versions?limit=200")).await;
    let active = text(&read, "active_version");
    let live = versions
        .iter()
        .find(|version| text(version, "version") == active);
    let live = live.and_then(|version| version.get("snapshot")?.as_object().cloned());
    let mut version = active;
    if live.as_ref().map(signature) != Some(signature(&desired)) {
        let made = send(
            Method::POST,
            format!("/v1/agents/{agent}/versions"),
            r#"{"note":null}"#.into(),
        );
        version = ok(made.await).await["version"].to_string();
        published += 1;
    }
    let rollout = format!(r#"{{"version":{version},"percent":100}}"#);
    ok(send(Method::POST, format!("/v1/agents/{agent}/rollout"), rollout).await).await;
    Applied {
        agent,
        uploads,
        published,
    }
}

async fn a_second_apply_changes_nothing(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let first = apply_agent(&harness).await;
    assert_eq!((first.uploads, first.published), (1, 1));
    let second = apply_agent(&harness).await;
    assert_eq!((second.uploads, second.published), (0, 0));
    assert_eq!(second.agent, first.agent);
    let third = apply_agent(&harness).await;
    assert_eq!((third.uploads, third.published), (0, 0));
    // The other resources are replaced whole, with what is not set as null or missing.
    for (path, body, shown) in [
        (
            "/v1/tenant/mcp/wiki",
            r#"{"auth":{},"catalog":"deepwiki","url":"http://nowhere.invalid/mcp"}"#,
            r#""auth":{"kind":"none","provider":null}"#,
        ),
        (
            "/v1/tenant/mcp/desk",
            r#"{"auth":{"kind":"bearer","secret":"s","provider":null,"client_mode":null},
                "url":"http://nowhere.invalid/mcp","catalog":null,"tool_allowlist":[],
                "approval_policy":[{"match":"pay_*"}]}"#,
            r#""tool_allowlist":[],"approval_policy":[{"match":"pay_*"}]"#,
        ),
        (
            "/v1/tenant/providers/github",
            r#"{"client_id":"c","scopes_allowed":null}"#,
            r#""configured":true"#,
        ),
        ("/v1/tenant/providers/gitlab", "{}", r#""client_id":null"#),
        (
            "/v1/tenant/model_keys/openai",
            r#"{"api_key":"k","base_url":null}"#,
            r#""configured":true"#,
        ),
    ] {
        let put = || {
            let request = harness.request(Method::PUT, path);
            request
                .header("content-type", "application/json")
                .body(body)
                .send()
        };
        for _ in 0..2 {
            let answer = put().await.expect("an answer");
            let status = answer.status();
            let told = answer.text().await.expect("a body");
            assert!(
                status.is_success() && told.contains(shown),
                "{path}: {status} {told}"
            );
        }
    }
    let no_kind = json!({ "url": "http://nowhere.invalid/mcp", "auth": {} });
    let request = harness
        .request(Method::PUT, "/v1/tenant/mcp/other")
        .json(&no_kind);
    let (status, error) = refused(request.send().await).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_auth_kind")));
}

/// Every place where a client's own JSON is kept.
async fn what_was_stored_keeps_its_order(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let smith = harness.smith("openai-chat/text").await;
    let free = r#"{"z":{"y":[{"b":1,"a":2.50}],"x":null},"a":true,"Z":"10"}"#;
    let flat = r#"{"z":"1","a":2,"M":false}"#;
    let ids = r#"{"zendesk":"1","crm":"2"}"#;
    let target = format!(r#"{{"type":"smith","id":"{smith}"}}"#);
    // Numbers are numbers: 2.50 is written as 2.5.
    let free_out = free.replace("2.50", "2.5");
    let shown = |name: &str, text: &str| format!("\"{name}\":{text}");
    for (path, body, shown) in [
        (
            "/v1/customers".to_owned(),
            format!(r#"{{"name":"C","external_ids":{ids},"metadata":{free}}}"#),
            vec![shown("external_ids", ids), shown("metadata", &free_out)],
        ),
        (
            "/v1/smiths".to_owned(),
            format!(r#"{{"metadata":{free}}}"#),
            vec![shown("metadata", &free_out)],
        ),
        (
            "/v1/conversations".to_owned(),
            format!(r#"{{"metadata":{free}}}"#),
            vec![shown("metadata", &free_out)],
        ),
        (
            "/v1/vector_stores".to_owned(),
            format!(r#"{{"metadata":{flat}}}"#),
            vec![shown("metadata", flat)],
        ),
        (
            "/v1/usage/events".to_owned(),
            format!(r#"{{"meter":"m","quantity":1,"metadata":{free}}}"#),
            vec![shown("metadata", &free_out)],
        ),
        (
            "/v1/deployments".to_owned(),
            format!(r#"{{"kind":"mcp","target":{target},"provider_metadata":{free}}}"#),
            vec![shown("provider_metadata", &free_out)],
        ),
        (
            format!("/v1/smiths/{smith}/connections"),
            format!(r#"{{"provider":"x","credential":{{"access_token":"t"}},"metadata":{free}}}"#),
            vec![shown("metadata", &free_out)],
        ),
        (
            format!("/v1/smiths/{smith}/runs"),
            format!(r#"{{"input":[{{"role":"user","content":"hi"}}],"metadata":{free}}}"#),
            vec![shown("metadata", &free_out)],
        ),
    ] {
        let request = harness
            .request(Method::POST, &path)
            .header("content-type", "application/json")
            .header("IC-Smith-Id", &smith)
            .body(body);
        let answer = request.send().await.expect("an answer");
        let (status, told) = (answer.status(), answer.text().await.expect("a body"));
        assert!(status.is_success(), "{path}: {told}");
        for shown in &shown {
            assert!(told.contains(shown.as_str()), "{path}: {told}");
        }
        let made: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let id = made["id"].as_str().expect("an id");
        if path == "/v1/usage/events" {
            continue;
        }
        let read = harness
            .get(&format!("{path}/{id}"))
            .header("IC-Smith-Id", &smith);
        let told = crate::support::text(read.send().await).await;
        for shown in &shown {
            assert!(told.contains(shown.as_str()), "{path}: {told}");
        }
    }
}
