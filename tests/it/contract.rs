//! The API as a whole: its OpenAPI document against the running gateway, the isolation of tenants
//! and smiths on every route, and metrics in a strict parser.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use smithgate::auth::{Mint, MintedScope};
use smithgate::ids;
use smithgate::store::{
    ApprovalRow, AuthorizeRequestRow, InboundRow, OutboundRow, Tenant, now_micros,
};

use crate::support::{Harness, ok};

fn python() -> String {
    std::env::var("TEST_PYTHON").expect("TEST_PYTHON is unset; `.ci/test` installs the clients")
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let harness = Harness::start().await;
    let hooks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let config = hooks.join("schemathesis.toml");
    let work = tempfile::tempdir().expect("a directory");
    let child = tokio::process::Command::new(python())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(config)
        .arg("run")
        .arg(harness.url("/openapi.json"))
        // What is passed on is answered by others.
        .args(["--exclude-tag", "relay"])
        .args(["-H", &format!("Authorization: Bearer {}", harness.token)])
        .current_dir(work.path())
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONPATH", hooks)
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(300), child)
        .await
        .expect("schemathesis ends in time")
        .expect("schemathesis starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metrics = harness.metrics_text().await;
    for line in metrics
        .lines()
        .filter(|l| l.starts_with("smithgate_requests_total"))
    {
        assert!(!line.contains("status=\"500\""), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_parse_strictly() {
    let harness = Harness::start().await;
    ok(harness.chat("openai-chat/text", false).send().await).await;
    // A request is counted when its answer is out, which its client may see first.
    let mut metrics = String::new();
    for _ in 0..100 {
        metrics = harness.metrics_text().await;
        if metrics.contains("smithgate_requests_total{") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let script = "import sys\nfrom prometheus_client.parser import text_string_to_metric_families\n\
        seen = {}\nfor family in text_string_to_metric_families(sys.stdin.read()):\n\
        \x20   assert family.documentation, family.name\n\
        \x20   assert family.type != 'unknown', family.name\n\
        \x20   assert family.name not in seen, family.name\n\
        \x20   seen[family.name] = len(family.samples)\n\
        assert seen['smithgate_requests'] > 0\nprint(len(seen))";
    let mut child = tokio::process::Command::new(python())
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("Python");
    let mut stdin = child.stdin.take().expect("a pipe");
    tokio::io::AsyncWriteExt::write_all(&mut stdin, metrics.as_bytes())
        .await
        .expect("written");
    drop(stdin);
    let output = child.wait_with_output().await.expect("an end");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What a tenant has one of each of, by the name of a path's parameter.
pub struct Owned {
    /// By the first segments of a path, the ids for its parameters in order.
    pub ids: BTreeMap<&'static str, Vec<String>>,
}

/// One of everything, in the harness's own tenant.
fn arrival(tenant_id: &str, smith: &str) -> InboundRow {
    InboundRow {
        id: ids::mint(ids::Kind::InboundEvent),
        tenant_id: tenant_id.to_owned(),
        source: "telegram".to_owned(),
        kind: "message".to_owned(),
        subject: "42".to_owned(),
        idempotency_key: "1".to_owned(),
        smith_id: smith.to_owned(),
        data: "{}".to_owned(),
        status: "done".to_owned(),
        reason: None,
        takings: 0,
        attempts: 0,
        due_at: None,
        created_at: now_micros(),
    }
}

fn message(tenant_id: &str, smith: &str, deployment: &str) -> OutboundRow {
    OutboundRow {
        id: ids::mint(ids::Kind::Outbound),
        tenant_id: tenant_id.to_owned(),
        smith_id: smith.to_owned(),
        deployment_id: deployment.to_owned(),
        channel: "telegram".to_owned(),
        chat: "42".to_owned(),
        run_id: None,
        kind: "notice".to_owned(),
        reply_to: "{}".to_owned(),
        content: Some("hi".to_owned()),
        status: "failed".to_owned(),
        attempts: 1,
        takings: 0,
        progress: "{}".to_owned(),
        last_error: Some("gone".to_owned()),
        due_at: None,
        created_at: now_micros(),
        updated_at: now_micros(),
    }
}

pub async fn one_of_each(harness: &Harness, smith: &str) -> Owned {
    let made = async |path: &str, body: Value| {
        let answer = harness.post(path, &body).header("IC-Smith-Id", smith);
        let made = ok(answer.send().await).await;
        made["id"].as_str().expect("an id").to_owned()
    };
    let agent = made("/v1/agents", json!({ "name": "A" })).await;
    ok(harness
        .post(&format!("/v1/agents/{agent}/versions"), &json!({}))
        .send()
        .await)
    .await;
    let customer = made("/v1/customers", json!({ "name": "C" })).await;
    let conversation = made("/v1/conversations", json!({})).await;
    let budget = made("/v1/budgets", json!({ "scope": "tenant", "limit": 5 })).await;
    let token = made("/v1/tenant/tokens", json!({ "scope": "admin" })).await;
    let key = made("/v1/tenant/keys", json!({ "name": "k" })).await;
    let webhook = made(
        "/v1/tenant/webhooks",
        json!({ "url": "https://hooks.invalid/", "active": false }),
    )
    .await;
    ok(harness
        .post(&format!("/v1/tenant/webhooks/{webhook}/test"), &json!({}))
        .send()
        .await)
    .await;
    let deliveries = format!("/v1/tenant/webhooks/{webhook}/deliveries");
    let delivery = ok(harness.get(&deliveries).send().await).await["data"][0]["id"].clone();
    let delivery = delivery.as_str().expect("an id").to_owned();
    let credential = json!({ "provider": "x", "credential": { "access_token": "t" } });
    let connection = made(&format!("/v1/smiths/{smith}/connections"), credential).await;
    let run = made(
        &format!("/v1/smiths/{smith}/runs"),
        json!({ "input": [{ "role": "user", "content": "hi" }] }),
    )
    .await;
    for path in [
        "/v1/tenant/model_keys/openai",
        &format!("/v1/smiths/{smith}/model_keys/openai"),
    ] {
        let key = harness
            .request(Method::PUT, path)
            .json(&json!({ "api_key": "sk-1" }));
        ok(key.send().await).await;
    }
    let provider = harness.request(Method::PUT, "/v1/tenant/providers/github");
    ok(provider.json(&json!({ "client_id": "c" })).send().await).await;
    let form = "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nvision\r\n--b\r\n\
        Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nx\r\n--b--\r\n";
    let file = harness
        .request(Method::POST, "/v1/files")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(form);
    let file = ok(file.send().await).await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let form = "--b\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"s/SKILL.md\"\r\n\r\n\
        ---\nname: s\ndescription: d\n---\nx\r\n--b--\r\n";
    let skill = harness
        .request(Method::POST, "/v1/skills")
        .header("content-type", "multipart/form-data; boundary=b")
        .body(form);
    let skill = ok(skill.send().await).await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let target = json!({ "kind": "mcp", "target": { "type": "smith", "id": smith } });
    let deployment = made("/v1/deployments", target).await;
    let target = json!({ "kind": "web", "target": { "type": "smith", "id": smith } });
    let page = made("/v1/deployments", target).await;
    let schedules = format!("/v1/smiths/{smith}/schedules");
    let schedule = made(&schedules, json!({ "cron": "@yearly" })).await;
    let (arrival, message) = (
        arrival(&harness.tenant, smith),
        message(&harness.tenant, smith, &deployment),
    );
    let store = &harness.gateway.store;
    let kept = store.accept(std::slice::from_ref(&arrival)).await;
    assert_eq!(kept.expect("written"), [true]);
    assert!(store.insert_outbound(&message).await.expect("written"));
    let asked = json!({ "model": "anthropic/text", "input": "hi" });
    let response = made("/v1/responses", asked).await;
    let next =
        json!({ "model": "anthropic/text", "input": "on", "previous_response_id": response });
    let response = made("/v1/responses", next).await;
    let store = made("/v1/vector_stores", json!({})).await;
    let batches = format!("/v1/vector_stores/{store}/file_batches");
    let batch = made(&batches, json!({ "file_ids": [file] })).await;
    // Nobody answers there, which is kept as degraded.
    let server = harness.request(Method::PUT, "/v1/tenant/mcp/desk");
    let nowhere = json!({ "url": "http://nowhere.invalid/mcp", "auth": { "kind": "none" } });
    ok(server.json(&nowhere).send().await).await;
    let approval = ApprovalRow {
        id: "apr_1".to_owned(),
        tenant_id: harness.tenant.clone(),
        run_id: Some(run.clone()),
        smith_id: Some(smith.to_owned()),
        tool_call_id: None,
        tool: Some("t".to_owned()),
        args: "{}".to_owned(),
        elicitation: None,
        status: smithgate::store::ApprovalStatus::Pending,
        actor: None,
        reason: None,
        created_at: now_micros(),
        resolved_at: None,
        answer: None,
        expires_at: None,
    };
    harness
        .gateway
        .store
        .insert_approval(&approval)
        .await
        .expect("written");
    let host_body = json!({ "client_name": "H", "redirect_uris": ["https://host.example/back"] });
    let host = harness.client.post(harness.url("/oauth/register"));
    let host = ok(host.json(&host_body).send().await).await;
    let request = AuthorizeRequestRow {
        id: "oar_1".to_owned(),
        tenant_id: harness.tenant.clone(),
        client_id: host["client_id"].as_str().expect("an id").to_owned(),
        deployment_id: deployment.clone(),
        redirect_uri: "https://host.example/back".to_owned(),
        resource: "https://gateway.example/mcp".to_owned(),
        challenge: "c".to_owned(),
        state: None,
        issuer: "https://gateway.example".to_owned(),
        created_at: now_micros(),
    };
    let waiting = harness.gateway.store.insert_authorize_request(&request);
    waiting.await.expect("written");
    let trace = run.replace("run_", "trc_");
    let smith = smith.to_owned();
    let one = |id: &str| vec![id.to_owned()];
    Owned {
        ids: BTreeMap::from([
            ("/v1/agents/", one(&agent)),
            (
                "/v1/agents/{id}/ui/",
                vec![agent.clone(), "panel".to_owned()],
            ),
            ("/v1/customers/", one(&customer)),
            ("/v1/conversations/", one(&conversation)),
            ("/v1/budgets/", one(&budget)),
            ("/v1/tenant/tokens/", one(&token)),
            ("/v1/tenant/keys/", one(&key)),
            ("/v1/tenant/webhooks/", vec![webhook, delivery]),
            ("/v1/tenant/model_keys/", one("openai")),
            ("/v1/tenant/providers/", one("github")),
            ("/v1/approvals/", one("apr_1")),
            ("/v1/traces/", one(&trace)),
            ("/v1/runs/", one(&run)),
            ("/v1/responses/", one(&response)),
            ("/v1/ui/chat/", one("a chat")),
            ("/v1/deployments/", one(&deployment)),
            (
                "/v1/deployments/{id}/deliveries/",
                vec![deployment.clone(), message.id],
            ),
            ("/v1/inbound_events/", one(&arrival.id)),
            ("/v1/telegram/webhook/", one(&harness.tenant)),
            ("/v1/whatsapp/webhook/", one(&harness.tenant)),
            ("/v1/discord/webhook/", one(&harness.tenant)),
            // A page is anybody's; what its visitors have is tested where pages are.
            ("/hosted/", one(&page)),
            ("/v1/hosted/", one(&page)),
            ("/v1/ui/decisions/", one("none")),
            ("/v1/ui/connections/", one("none")),
            ("/v1/slack/events/", one(&harness.tenant)),
            ("/v1/slack/interactivity/", one(&harness.tenant)),
            ("/v1/slack/commands/", one(&harness.tenant)),
            ("/v1/slack/oauth/", one(&harness.tenant)),
            ("/v1/email/inbound/", one(&harness.tenant)),
            ("/v1/tenant/email/suppressions/", one("ann@example.com")),
            ("/v1/smiths/{id}/schedules/", vec![smith.clone(), schedule]),
            ("/v1/files/", one(&file)),
            ("/v1/skills/", vec![skill, "1".to_owned()]),
            ("/v1/vector_stores/", vec![store.clone(), file.clone()]),
            ("/v1/vector_stores/{id}/file_batches/", vec![store, batch]),
            ("/v1/models/", one("m")),
            ("/v1beta/models/", one("m")),
            ("/v1/tenant/mcp/", one("desk")),
            ("/v1/catalog/", one("stripe")),
            ("/v1/oauth/authorize-requests/", one("oar_1")),
            ("/v1/tenant/grants/", one("ocg_1")),
            (
                "/v1/smiths/{id}/grants/",
                vec![smith.clone(), "ocg_1".to_owned()],
            ),
            (
                "/v1/smiths/{id}/connections/",
                vec![smith.clone(), connection],
            ),
            (
                "/v1/smiths/{id}/model_keys/",
                vec![smith.clone(), "openai".to_owned()],
            ),
            (
                "/v1/smiths/{id}/revisions/",
                vec![smith.clone(), "1".to_owned()],
            ),
            ("/v1/smiths/{id}/runs/", vec![smith.clone(), run]),
            ("/v1/smiths/", one(&smith)),
            (
                "/v1/organization/projects/",
                vec![harness.tenant.clone(), token],
            ),
            ("/v1/organization/keys/", one("tok_1")),
        ]),
    }
}

/// A body that each route takes, so that nothing is refused for its shape alone.
fn body_of(path: &str, method: &Method) -> Value {
    match (method.as_str(), path) {
        ("POST", p) if p.contains("/models/{model}:") => json!({ "contents": "hi" }),
        ("POST", p) if p.ends_with("/rollout") => json!({ "version": 1 }),
        ("POST", p) if p.ends_with("/attach") => json!({ "all": true }),
        ("POST", p) if p.ends_with("/recall") => json!({ "query": "hi" }),
        ("POST", p) if p.ends_with("/authorize") => json!({ "provider": "github" }),
        ("POST", p) if p.ends_with("/complete") => json!({ "smith_id": "smt_none" }),
        ("POST", p) if p.ends_with("/submit") => json!({ "kind": "cancel" }),
        ("POST", p) if p.ends_with("/connections") => {
            json!({ "provider": "x", "credential": { "access_token": "t" } })
        }
        ("POST", p) if p.ends_with("/schedules") => json!({ "cron": "@daily" }),
        ("POST", p) if p.ends_with("/runs") => {
            json!({ "input": [{ "role": "user", "content": "hi" }] })
        }
        ("POST", p) if p.ends_with("/file_batches") => json!({ "file_ids": ["file-x"] }),
        ("POST", "/v1/vector_stores/{id}/files") => json!({ "file_id": "file-x" }),
        ("POST", p) if p.ends_with("/search") => json!({ "query": "hi" }),
        ("POST", "/v1/skills/{id}") => json!({ "default_version": "1" }),
        ("PUT", p) if p.ends_with("/memory") => json!({ "content": "stolen" }),
        ("PUT", p) if p.contains("/model_keys/") => json!({ "api_key": "sk-2" }),
        ("PATCH", p) if p.ends_with("smiths/{id}") => json!({ "display_name": "Eve" }),
        ("PATCH", p) if p.contains("webhooks") => json!({ "active": true }),
        ("PATCH", p) if p.contains("connections") => json!({ "metadata": {} }),
        ("PATCH", p) if p.contains("budgets") => json!({ "limit": 9 }),
        _ => json!({ "name": "Eve" }),
    }
}

/// Whether an operation is passed on to a provider.
pub fn is_relayed(operation: &Value) -> bool {
    operation["tags"][0] == "relay"
}

/// The path with its parameters filled in, when it has any.
pub fn filled(path: &str, owned: &Owned) -> Option<String> {
    // Metadata of endpoints is the same for all, and nobody's.
    if !path.contains('{') || path.starts_with("/.well-known/") {
        return None;
    }
    // Of what is passed on, nothing is kept here.
    if path.ends_with("{path}") {
        return Some(path.replace("{path}", "x").replace("{provider}", "openai"));
    }
    let mut found = None;
    for (prefix, ids) in &owned.ids {
        // The longest beginning that fits knows all parameters.
        if path.starts_with(prefix) || (path.starts_with("/v1/smiths/") && *prefix == "/v1/smiths/")
        {
            let better = found.is_none_or(|(p, _): (&str, _)| prefix.len() > p.len());
            if better {
                found = Some((*prefix, ids));
            }
        }
    }
    let (_, ids) = found.unwrap_or_else(|| panic!("nothing is made for {path}"));
    let mut ids = ids.iter();
    let parts: Vec<String> = path
        .split('/')
        .map(|part| match part.starts_with('{') {
            true => {
                let id = ids.next();
                let id = id.unwrap_or_else(|| panic!("an id more for {path}"));
                let behind = part.split_once('}').map_or("", |(_, behind)| behind);
                format!("{id}{behind}")
            }
            false => part.to_owned(),
        })
        .collect();
    Some(parts.join("/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_answers_who_may_not_call_it() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let owned = one_of_each(&harness, &smith).await;
    let [weak, other] = [
        harness.smith_token(&smith, &["schedules:read"]).await,
        harness.smith_token(&smith, &["embeddings:write"]).await,
    ];
    let document = ok(harness.get("/openapi.json").send().await).await;
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let is_open = operation["security"].as_array().is_some_and(|all| {
                all.iter()
                    .any(|one| one.as_object().is_some_and(|one| one.is_empty()))
            });
            if is_open {
                continue;
            }
            let method: Method = method.to_uppercase().parse().expect("a method");
            let url = filled(path, &owned).unwrap_or_else(|| path.clone());
            // A scope that the route does not ask for.
            let weak = match path.contains("/schedules") {
                true => &other,
                false => &weak,
            };
            for (token, expected) in [(None, 401), (Some(weak), 403)] {
                let mut request = harness
                    .client
                    .request(method.clone(), harness.url(&url))
                    .timeout(Duration::from_secs(10));
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                if method != Method::GET && method != Method::DELETE {
                    request = request.json(&body_of(path, &method));
                }
                let answer = request.send().await.expect("an answer");
                let status = answer.status().as_u16();
                let text = answer.text().await.expect("a body");
                assert_eq!(status, expected, "{method} {path}: {text}");
                walked += 1;
            }
        }
    }
    assert!(walked > 200, "{walked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_gives_anything_of_anothers() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let owned = one_of_each(&harness, &smith).await;
    // Another tenant's admin, and a smith of the same tenant with every permission.
    let stranger = Tenant {
        id: "proj_stranger".to_owned(),
        name: "stranger".to_owned(),
        created_at: now_micros(),
    };
    let store = harness.gateway.store.clone();
    store.create_tenant(&stranger).await.expect("made");
    let mint = Mint {
        tenant_id: stranger.id,
        scope: MintedScope::Admin,
        ttl_seconds: None,
        name: None,
    };
    let foreign = harness.gateway.auth.mint(mint).await.expect("minted").token;
    let neighbour = harness.smith("openai-chat/text").await;
    let all: Vec<&str> = smithgate::auth::Scope::ALL
        .iter()
        .map(|s| s.as_str())
        .collect();
    let sibling = harness.smith_token(&neighbour, &all).await;
    let document = ok(harness.get("/openapi.json").send().await).await;
    let paths = document["paths"].as_object().expect("paths");
    // Their parameter is a name of the caller's own choosing, not an id.
    let by_name = [
        "/v1/tenant/model_keys/{provider}",
        "/v1/tenant/providers/{provider}",
        "/v1/models/{id}",
        "/v1beta/models/{id}",
        "/v1/models/{model}:countTokens",
        "/v1beta/models/{model}:countTokens",
        "/v1/tenant/mcp/{name}",
        "/v1/catalog/{slug}",
        "/v1/ui/chat/{id}/stream",
        // Platforms have no token; without a bot's secret nothing comes of it.
        "/v1/telegram/webhook/{tenant}",
        // Anybody may open a page.
        "/hosted/{id}",
        "/hosted/{id}/embed.js",
        "/v1/hosted/{id}",
        "/v1/hosted/{id}/chat",
        "/v1/slack/events/{tenant}",
        "/v1/slack/interactivity/{tenant}",
        "/v1/slack/commands/{tenant}",
        "/v1/slack/oauth/{tenant}",
        "/v1/email/inbound/{tenant}",
    ];
    let mut walked = 0;
    for (path, item) in paths {
        let filled = filled(path, &owned);
        for (method, operation) in item.as_object().expect("operations") {
            // What is passed on has nothing of anybody here, and would leave the house.
            if is_relayed(operation) {
                continue;
            }
            let method: Method = method.to_uppercase().parse().expect("a method");
            for (who, token) in [("another tenant", &foreign), ("another smith", &sibling)] {
                let url = filled.as_deref().unwrap_or(path);
                let mut request = harness
                    .client
                    .request(method.clone(), harness.url(url))
                    .bearer_auth(token)
                    .header("IC-Smith-Id", &smith)
                    .timeout(Duration::from_secs(10));
                if method != Method::GET && method != Method::DELETE {
                    request = request.json(&body_of(path, &method));
                }
                let answer = request.send().await.expect("an answer");
                let status = answer.status().as_u16();
                let text = answer.text().await.expect("a body");
                walked += 1;
                let open = [
                    "/health",
                    "/ready",
                    "/.well-known/jwks.json",
                    "/v1/oauth/callback",
                    "/hosted/{id}",
                    "/hosted/{id}/embed.js",
                    "/v1/hosted/{id}",
                ];
                if filled.is_some() && !by_name.contains(&path.as_str()) {
                    assert!(
                        matches!(status, 401 | 403 | 404),
                        "{who}: {method} {path}: {status} {text}"
                    );
                } else if !open.contains(&path.as_str()) {
                    // Lists and creations answer, with what is the caller's own alone.
                    for ids in owned.ids.values() {
                        for id in ids
                            .iter()
                            .filter(|id| id.len() > 10 && **id != harness.tenant)
                        {
                            let asked =
                                status >= 400 && text.to_lowercase().contains("smith_mismatch");
                            assert!(
                                asked || status == 404 || !text.contains(id.as_str()),
                                "{who}: {method} {path} shows {id}: {text}"
                            );
                        }
                    }
                }
            }
        }
    }
    assert!(walked > 200, "{walked}");
    // And nothing was changed on the way.
    for (prefix, ids) in &owned.ids {
        if prefix.contains("organization") || prefix.contains('{') || prefix.contains("tokens") {
            continue;
        }
        if [
            "/v1/tenant/model_keys/",
            "/v1/tenant/webhooks/",
            "/v1/runs/",
            "/v1/tenant/grants/",
            "/v1/ui/chat/",
            "/v1/telegram/webhook/",
            "/v1/whatsapp/webhook/",
            "/v1/discord/webhook/",
            "/hosted/",
            "/v1/hosted/",
            "/v1/ui/decisions/",
            "/v1/ui/connections/",
            "/v1/slack/events/",
            "/v1/slack/interactivity/",
            "/v1/slack/commands/",
            "/v1/slack/oauth/",
            "/v1/email/inbound/",
            "/v1/tenant/email/suppressions/",
            "/v1/models/",
            "/v1beta/models/",
        ]
        .contains(prefix)
        {
            continue;
        }
        let path = format!("{prefix}{}", ids[0]);
        let read = harness
            .get(&path)
            .header("IC-Smith-Id", &smith)
            .send()
            .await;
        let kept = ok(read).await.to_string();
        assert!(!kept.contains("Eve"), "{kept}");
    }
    let client = ok(harness.get("/v1/tenant/providers/github").send().await).await;
    assert_eq!(client["client_id"], "c");
    let keys = ok(harness.get("/v1/tenant/model_keys").send().await).await;
    assert_eq!(keys["data"].as_array().map(Vec::len), Some(1));
    let memory = ok(harness
        .get(&format!("/v1/smiths/{smith}/memory"))
        .send()
        .await)
    .await;
    assert_eq!(memory["content"], "");
}
