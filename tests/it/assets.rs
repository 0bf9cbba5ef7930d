//! MCP servers, presets and skills, on both stores, with real MCP servers and the published
//! client.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::control::{code, id, on_both_stores, start_on};
use crate::support::{Harness, free_address, ok, refused};

on_both_stores!(
    mcp_servers_are_asked_for_their_tools,
    skills_are_frozen_by_versions_of_agents,
    skills_through_the_published_client,
);

pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

pub fn program(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is unset; `.ci/test` installs the clients"))
}

/// An MCP server in its own process, which ends with it.
pub struct McpServer {
    pub url: String,
    _child: tokio::process::Child,
}

impl McpServer {
    pub async fn start(mut command: tokio::process::Command, path: &str) -> Self {
        let address = free_address();
        let child = command
            .env("PORT", address.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a server");
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                let url = format!("http://{address}{path}");
                return Self { url, _child: child };
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the MCP server does not listen");
    }

    async fn python(token: &str) -> Self {
        let mut command = tokio::process::Command::new(program("TEST_PYTHON"));
        command
            .arg(clients().join("mcp_server.py"))
            .env("TOKEN", token);
        Self::start(command, "/mcp").await
    }

    async fn everything() -> Self {
        let package = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";
        let mut command = tokio::process::Command::new(program("TEST_NODE"));
        command.arg(clients().join(package)).arg("streamableHttp");
        Self::start(command, "/mcp").await
    }
}

fn tool<'a>(server: &'a Value, name: &str) -> &'a Value {
    let tools = server["tools"].as_array().expect("tools");
    let found = tools.iter().find(|tool| tool["name"] == name);
    found.unwrap_or_else(|| panic!("no tool {name} in {server}"))
}

impl Harness {
    fn put_mcp(&self, name: &str, body: &Value) -> reqwest::RequestBuilder {
        self.request(Method::PUT, &format!("/v1/tenant/mcp/{name}"))
            .json(body)
    }

    /// A skill of one file, or a new version of the skill at `path`.
    fn upload(&self, path: &str, file: &str, description: &str) -> reqwest::RequestBuilder {
        self.upload_as(&self.token, path, file, description)
    }

    fn upload_as(
        &self,
        token: &str,
        path: &str,
        file: &str,
        description: &str,
    ) -> reqwest::RequestBuilder {
        let form = format!(
            "--b\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"{file}\"\r\n\r\n\
             ---\nname: greeter\ndescription: {description}\n---\nHi.\r\n--b--\r\n"
        );
        self.client
            .post(self.url(path))
            .bearer_auth(token)
            .header("content-type", "multipart/form-data; boundary=b")
            .body(form)
    }
}

async fn mcp_servers_are_asked_for_their_tools(url: Option<String>) {
    let loopback = "127.0.0.0/8".parse().expect("a network");
    let harness = start_on(url, |config| config.egress.allow_networks = vec![loopback]).await;
    let desk = McpServer::python("s3cret").await;
    let body = json!({ "url": desk.url, "auth": { "kind": "bearer", "secret": "s3cret" },
        "tool_allowlist": ["lookup_order", "refund"],
        "approval_policy": [{ "match": "ref*", "require": "approval" }] });
    let server = ok(harness.put_mcp("desk", &body).send().await).await;
    assert_eq!(server["status"], "active", "{server}");
    assert_eq!(server["tools_discovered"], 3);
    assert_eq!(server["origin"], "tenant_registered");
    assert!(!server.to_string().contains("s3cret"));
    let of = |name: &str| {
        let tool = tool(&server, name);
        (tool["requires_approval"] == true, tool["enabled"] == true)
    };
    assert_eq!(of("lookup_order"), (false, true));
    assert_eq!(of("delete_order"), (true, false));
    assert_eq!(of("refund"), (true, true));
    assert_eq!(tool(&server, "refund")["description"], "Pays money back.");

    // A full replace keeps the id, and nothing else that is left out.
    let wrong = json!({ "url": desk.url, "auth": { "kind": "bearer", "secret": "wrong" } });
    let replaced = ok(harness.put_mcp("desk", &wrong).send().await).await;
    assert_eq!(replaced["id"], server["id"]);
    assert_eq!(replaced["tool_allowlist"], Value::Null);
    assert_eq!(replaced["status"], "degraded");
    assert_eq!(replaced["tools_discovered"], 0);
    let why = replaced["discovery_error"].as_str().expect("a reason");
    assert!(
        why.to_lowercase().contains("auth") && !why.contains("wrong"),
        "{why}"
    );
    let refresh = harness.post("/v1/tenant/mcp/desk/refresh", &json!({}));
    let (status, error) = refused(refresh.send().await).await;
    assert_eq!((status, code(&error)), (502, "discovery_failed"));

    let everything = McpServer::everything().await;
    let body = json!({ "url": everything.url, "auth": { "kind": "none" } });
    let server = ok(harness.put_mcp("everything", &body).send().await).await;
    assert_eq!(server["status"], "active", "{server}");
    tool(&server, "echo");
    let refresh = harness.post("/v1/tenant/mcp/everything/refresh", &json!({}));
    let again = ok(refresh.send().await).await;
    assert_eq!(again["tools"], server["tools"]);
    // One that is gone keeps its tools and says what is wrong.
    drop(everything);
    let refresh = harness.post("/v1/tenant/mcp/everything/refresh", &json!({}));
    let (status, _) = refused(refresh.send().await).await;
    assert_eq!(status, 502);
    let gone = ok(harness.get("/v1/tenant/mcp/everything").send().await).await;
    assert_eq!(
        (&gone["status"], &gone["tools"]),
        (&json!("degraded"), &server["tools"])
    );

    let listed = ok(harness.get("/v1/tenant/mcp?limit=1").send().await).await;
    assert_eq!(listed["data"][0]["name"], "everything");
    assert_eq!(listed["has_more"], true);
    let gone = harness
        .request(Method::DELETE, "/v1/tenant/mcp/everything")
        .send();
    assert_eq!(gone.await.expect("an answer").status(), 204);
    let (status, _) = refused(harness.get("/v1/tenant/mcp/everything").send().await).await;
    assert_eq!(status, 404);

    for (body, expected) in [
        (json!({ "url": desk.url }), (400, "invalid_auth_kind")),
        (
            json!({ "url": desk.url, "auth": { "kind": "basic" } }),
            (400, "invalid_auth_kind"),
        ),
        (
            json!({ "url": desk.url, "auth": { "kind": "bearer" } }),
            (400, "secret_required"),
        ),
        (
            json!({ "url": desk.url, "auth": { "kind": "oauth" } }),
            (400, "invalid_request"),
        ),
        (json!({ "auth": { "kind": "none" } }), (400, "url_required")),
        (
            json!({ "catalog": "nothing" }),
            (400, "unknown_catalog_entry"),
        ),
        (
            json!({ "url": "http://10.0.0.1/mcp", "auth": { "kind": "none" } }),
            (400, "invalid_url"),
        ),
        (
            json!({ "url": desk.url, "auth": { "kind": "none" },
                "approval_policy": [{ "match": "a", "when": {} }] }),
            (422, "unsupported_policy_rule"),
        ),
        (
            json!({ "url": desk.url, "auth": { "kind": "none" },
                "approval_policy": [{ "match": "[" }] }),
            (400, "invalid_approval_policy"),
        ),
    ] {
        let (status, error) = refused(harness.put_mcp("bad", &body).send().await).await;
        assert_eq!((status, code(&error)), expected, "{body}");
    }
    let (status, error) = refused(harness.put_mcp("Bad", &wrong).send().await).await;
    assert_eq!((status, code(&error)), (400, "invalid_name"));

    let catalog = ok(harness.get("/v1/catalog").send().await).await;
    let slugs = catalog["data"].as_array().expect("presets").iter();
    let slugs: Vec<&str> = slugs.filter_map(|entry| entry["slug"].as_str()).collect();
    assert!(slugs.contains(&"stripe"), "{slugs:?}");
    let stripe = ok(harness.get("/v1/catalog/stripe").send().await).await;
    assert_eq!(stripe["auth"]["kind"], "bearer");
    let tools = ok(harness.get("/v1/tenant/hosted_tools").send().await).await;
    let tools = tools["data"].as_array().expect("tools");
    assert!(tools.iter().any(|tool| tool["name"] == "calculator"));
}

async fn skills_are_frozen_by_versions_of_agents(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let upload = harness.upload("/v1/skills", "greeter/SKILL.md", "one");
    let skill = id(&ok(upload.send().await).await);
    let versions = format!("/v1/skills/{skill}/versions");
    let draft = json!({ "name": "a", "skills": [{ "skill_id": skill }] });
    let agent = id(&ok(harness.post("/v1/agents", &draft).send().await).await);
    let publish = format!("/v1/agents/{agent}/versions");
    let first = ok(harness.post(&publish, &json!({})).send().await).await;
    assert_eq!(
        first["snapshot"]["skills"],
        json!([{ "skill_id": skill, "version": 1 }])
    );
    // The version stays as it was published, whatever becomes the default later.
    let upload = harness.upload(&versions, "SKILL.md", "two");
    ok(upload.send().await).await;
    let set = harness.post(
        &format!("/v1/skills/{skill}"),
        &json!({ "default_version": "2" }),
    );
    assert_eq!(ok(set.send().await).await["default_version"], 2);
    let published = ok(harness.get(&publish).send().await).await;
    assert_eq!(published["data"][0]["snapshot"]["skills"][0]["version"], 1);
    let again = ok(harness.post(&publish, &json!({})).send().await).await;
    assert_eq!(again["snapshot"]["skills"][0]["version"], 2);
    let frozen = ok(harness.get(&format!("{versions}/1")).send().await).await;
    let agent_versions = json!([{ "agent_id": agent, "version": 1 }]);
    assert_eq!(frozen["referenced_by"], agent_versions);
    for path in [format!("{versions}/1"), format!("/v1/skills/{skill}")] {
        let removal = harness.request(Method::DELETE, &path);
        let (status, error) = refused(removal.send().await).await;
        assert_eq!((status, code(&error)), (409, "skill_in_use"), "{path}");
    }
    // A file by its path, and nothing by another.
    let file = harness.get(&format!("{versions}/1/content?path=SKILL.md"));
    let text = file.send().await.expect("an answer").text().await;
    assert!(text.expect("text").contains("description: one"));
    let in_root = harness.get(&format!("{versions}/1/content?path=greeter/SKILL.md"));
    let in_root = in_root.send().await.expect("an answer");
    let header = |name: &str| in_root.headers()[name].to_str().expect("text").to_owned();
    assert_eq!(
        header("content-disposition"),
        "attachment; filename=\"SKILL.md\""
    );
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(
        in_root
            .text()
            .await
            .expect("text")
            .contains("description: one")
    );
    for other in [
        "../SKILL.md",
        "greeter/greeter/SKILL.md",
        "greeter",
        "/SKILL.md",
    ] {
        let other = harness.get(&format!("{versions}/1/content?path={other}"));
        assert_eq!(refused(other.send().await).await.0, 404);
    }
    // A draft that refers to nothing is not published.
    for reference in [
        json!({ "skill_id": "skl_none" }),
        json!({ "skill_id": skill, "version": 9 }),
    ] {
        let patch = harness.request(Method::PATCH, &format!("/v1/agents/{agent}"));
        let patch = patch.json(&json!({ "skills": [reference] }));
        ok(patch.send().await).await;
        let (status, error) = refused(harness.post(&publish, &json!({})).send().await).await;
        assert_eq!(
            (status, error["param"].as_str()),
            (400, Some("skills")),
            "{error}"
        );
    }
    // What no live agent holds can go.
    let gone = harness.request(Method::DELETE, &format!("/v1/agents/{agent}"));
    assert_eq!(gone.send().await.expect("an answer").status(), 204);
    let gone = harness.request(Method::DELETE, &format!("/v1/skills/{skill}"));
    assert_eq!(ok(gone.send().await).await["deleted"], true);
    for (file, expected) in [
        ("greeter/README.md", "invalid_bundle"),
        ("../SKILL.md", "invalid_bundle"),
    ] {
        let upload = harness.upload("/v1/skills", file, "x");
        let (status, error) = refused(upload.send().await).await;
        assert_eq!((status, code(&error)), (400, expected), "{file}");
    }
    // A smith has skills of its own and sees no other's.
    let smith = harness.smith("openai-chat/text").await;
    let token = harness
        .smith_token(&smith, &["skills:read", "skills:write"])
        .await;
    let upload = harness.upload("/v1/skills", "SKILL.md", "tenant's");
    let tenants = id(&ok(upload.send().await).await);
    let upload = harness.upload_as(&token, "/v1/skills", "SKILL.md", "smith's");
    let own = id(&ok(upload.send().await).await);
    let listed = harness.client.get(harness.url("/v1/skills"));
    let listed = ok(listed.bearer_auth(&token).send().await).await;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed["data"][0]["id"], own);
    let others = harness
        .client
        .get(harness.url(&format!("/v1/skills/{tenants}")));
    let (status, error) = refused(others.bearer_auth(&token).send().await).await;
    assert_eq!((status, code(&error)), (403, "smith_mismatch"));
}

async fn skills_through_the_published_client(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    run_python(&harness, "skills.py", &[]).await;
}

/// Runs a script of `tests/clients` against the gateway, in Python.
pub(crate) async fn run_python(harness: &Harness, script: &str, env: &[(&str, &str)]) {
    run_script(harness, "TEST_PYTHON", script, env).await;
}

/// Runs a script of `tests/clients` against the gateway.
pub(crate) async fn run_script(
    harness: &Harness,
    interpreter: &str,
    script: &str,
    env: &[(&str, &str)],
) {
    let output = tokio::process::Command::new(program(interpreter))
        .arg(clients().join(script))
        .env("BASE_URL", harness.url("/v1"))
        .env("TOKEN", &harness.token)
        .env("NO_PROXY", "127.0.0.1")
        .envs(env.iter().copied())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), output)
        .await
        .expect("the client ends in time")
        .expect("the client starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
