//! Every answer as a typed client of the contract takes it: each route's real answers, of a tenant
//! that has nothing and of one that has something of everything, against the shapes of the contract
//! and against our own OpenAPI document.

use reqwest::Method;
use serde_json::{Value, json};

use crate::contract::{Owned, filled, one_of_each};
use crate::shapes::{Shapes, fixture};
use crate::support::{Harness, ok, refused};

/// Documented reads whose answers are no JSON, or another standard's.
const OTHERS: [&str; 19] = [
    "/.well-known/",
    "/oauth/",
    "/content",
    "/events",
    "/stream",
    "/v1/oauth/",
    "/v1/responses/",
    "/v1/ui/",
    "/metrics",
    "/reference",
    "/v1/models/",
    "/v1/inbound_events",
    "/hosted/",
    "/grants",
    // Answers a word that it was sent.
    "/whatsapp/webhook",
    // Google's, and what is passed on.
    "/v1beta/",
    "/v1/batches",
    "/v1/fine_tuning",
    "/v1/passthrough",
];

async fn organization_key(harness: &Harness) -> String {
    let store = harness.gateway.store.as_ref();
    let organization = smithgate::gateway::organization(store).await.expect("one");
    let (_, key) = harness
        .gateway
        .auth
        .mint_organization_key(&organization.id, None, None)
        .await
        .expect("minted");
    key
}

/// A schema of the document that holds for one operation's answer.
fn documented(document: &Value, path: &str, method: &str, status: u16) -> Option<Value> {
    let answers = &document["paths"][path][method]["responses"];
    let schema = &answers[status.to_string()]["content"]["application/json"]["schema"];
    let mut schema = schema.as_object()?.clone();
    schema.insert("components".to_owned(), document["components"].clone());
    Some(Value::Object(schema))
}

/// What of an answer is not as its schema says.
fn undocumented(
    document: &Value,
    path: &str,
    method: &str,
    status: u16,
    answer: &Value,
) -> Vec<String> {
    let Some(schema) = documented(document, path, method, status) else {
        return vec![format!("{status} with JSON is not documented")];
    };
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let errors = validator.iter_errors(answer);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

struct Reader {
    shapes: Shapes,
    document: Value,
    organization_key: String,
    problems: Vec<String>,
}

impl Reader {
    async fn new(harness: &Harness) -> Self {
        Self {
            shapes: Shapes::load(),
            document: ok(harness.get("/openapi.json").send().await).await,
            organization_key: organization_key(harness).await,
            problems: Vec::new(),
        }
    }

    async fn read(&mut self, harness: &Harness, path: &str, url: &str, kind: &str, smith: &str) {
        let mut request = harness.get(url).header("IC-Smith-Id", smith);
        if path.starts_with("/v1/organization") {
            request = harness
                .client
                .get(harness.url(url))
                .bearer_auth(&self.organization_key);
        }
        let answer = ok(request.send().await).await;
        let shape = self.shapes.problems(&answer, kind);
        let schema = undocumented(&self.document, path, "get", 200, &answer);
        let all = shape.into_iter().chain(schema);
        self.problems
            .extend(all.map(|problem| format!("GET {url}{problem}")));
    }

    fn check(&mut self, what: &str, answer: &Value, kind: &str) {
        let problems = self.shapes.problems(answer, kind);
        let named = problems
            .into_iter()
            .map(|problem| format!("{what}{problem}"));
        self.problems.extend(named);
    }

    fn end(self) {
        assert!(self.problems.is_empty(), "{:#?}", self.problems);
    }
}

/// Fills in what `one_of_each` leaves bare.
async fn fill(harness: &Harness, owned: &Owned, smith: &str) {
    let send = async |method: Method, path: &str, body: Value| {
        let request = harness.request(method, path).json(&body);
        ok(request.header("IC-Smith-Id", smith).send().await).await
    };
    let agent = &owned.ids["/v1/agents/"][0];
    let skill = &owned.ids["/v1/skills/"][0];
    let draft = json!({ "enabled_hosted_tools": ["calculator"], "mcp_servers": ["desk"],
        "skills": [{ "skill_id": skill }], "auto_memory": true, "variables": [
            { "name": "a", "default": null }, { "name": "b", "required": true, "description": "d" }] });
    send(Method::PATCH, &format!("/v1/agents/{agent}"), draft).await;
    let metadata = json!({ "name": "panel", "tool": { "description": "d", "mutating": true,
        "input_schema": { "type": "object" }, "instruction": null }, "csp": { "connectDomains": [] } });
    ok(harness
        .put_panel(agent, "<p>hi</p>", &metadata)
        .send()
        .await)
    .await;
    let published = send(
        Method::POST,
        &format!("/v1/agents/{agent}/versions"),
        json!({}),
    )
    .await;
    let rollout = json!({ "version": published["version"], "percent": 50 });
    send(
        Method::POST,
        &format!("/v1/agents/{agent}/rollout"),
        rollout,
    )
    .await;
    let change = json!({ "display_name": "Ann", "locale": "de", "timezone": "Europe/Vienna",
        "metadata": { "z": 1, "a": [null] }, "auto_memory": true, "skills": [] });
    send(Method::PATCH, &format!("/v1/smiths/{smith}"), change).await;
    let count = json!({ "meter": "seats", "quantity": 2.5, "metadata": { "b": 1 } });
    send(Method::POST, "/v1/usage/events", count.clone()).await;
    let of_smith = json!({ "meter": "seats", "quantity": 1, "smith_id": smith });
    send(Method::POST, "/v1/usage/events", of_smith).await;
    let spans = json!({ "spans": [{ "span_id": "a", "kind": "retrieval", "attributes": { "q": 1 } },
        { "span_id": "b", "parent_span_id": "a", "kind": "else", "run_id": "r", "app_id": "x",
          "duration_ms": 5, "cost": 0.5 }] });
    send(Method::POST, "/v1/traces:ingest", spans).await;
    send(
        Method::PUT,
        &format!("/v1/smiths/{smith}/memory"),
        json!({ "content": "likes tea" }),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_is_what_typed_clients_take() {
    let kinds = fixture("reads.json");
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let mut reader = Reader::new(&harness).await;
    let paths = reader.document["paths"].as_object().expect("paths").clone();
    let missing: Vec<&String> = paths
        .iter()
        .filter(|(path, item)| {
            let is_known = kinds.contains_key(*path) || OTHERS.iter().any(|o| path.contains(o));
            item.get("get").is_some() && !is_known
        })
        .map(|(path, _)| path)
        .collect();
    assert!(missing.is_empty(), "reads.json has no word on {missing:?}");
    for (path, kind) in &kinds {
        assert!(paths.contains_key(path), "{path} is not documented");
        let kind = kind.as_str().expect("a kind");
        // A tenant with a bare smith.
        let url = path.replace("/v1/smiths/{id}", &format!("/v1/smiths/{smith}"));
        if !url.contains('{') {
            reader.read(&harness, path, &url, kind, &smith).await;
        }
    }
    let owned = one_of_each(&harness, &smith).await;
    fill(&harness, &owned, &smith).await;
    for (path, kind) in &kinds {
        let url = filled(path, &owned).unwrap_or_else(|| path.clone());
        let kind = kind.as_str().expect("a kind");
        reader.read(&harness, path, &url, kind, &smith).await;
    }
    for group in ["app", "smith", "model", "customer"] {
        let url = format!("/v1/usage?group_by={group}");
        reader
            .read(&harness, "/v1/usage", &url, "UsageBreakdown", &smith)
            .await;
    }
    reader.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_all_wires_show_messages_as_their_input() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let chat = json!({ "messages": [
        { "role": "system", "content": "Be kind." },
        { "role": "user", "content": [{ "type": "text", "text": "hi" }] },
        { "role": "assistant", "content": null, "tool_calls": [
            { "id": "call_a", "type": "function", "function": { "name": "now", "arguments": "{}" } }] },
        { "role": "tool", "tool_call_id": "call_a", "content": "noon" }] });
    let responses = json!({ "input": [
        { "role": "user", "content": "hi" },
        { "type": "function_call", "call_id": "call_a", "name": "now", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "call_a", "output": "noon" }] });
    let ui = json!({ "id": "c", "trigger": "submit-message", "messages": [
        { "id": "m1", "role": "user", "parts": [{ "type": "text", "text": "hi" }] }] });
    for (path, body) in [
        ("/v1/chat/completions", chat),
        ("/v1/responses", responses),
        ("/v1/responses", json!({ "input": "hi" })),
        ("/v1/ui/chat", ui),
    ] {
        let call = harness.post(path, &body).header("IC-Smith-Id", &smith);
        assert_eq!(
            call.send().await.expect("an answer").status(),
            200,
            "{path}"
        );
    }
    let runs = ok(harness.get("/v1/runs").send().await).await;
    assert_eq!(runs["data"].as_array().map(Vec::len), Some(4));
    let problems = Shapes::load().problems(&runs, "page(Run)");
    assert!(problems.is_empty(), "{problems:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_answers_what_typed_clients_take() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let mut reader = Reader::new(&harness).await;
    let owned = one_of_each(&harness, &smith).await;
    fill(&harness, &owned, &smith).await;
    let id = |prefix: &str| owned.ids[prefix].last().expect("an id").clone();
    let (agent, skill) = (id("/v1/agents/"), owned.ids["/v1/skills/"][0].clone());
    let (webhook, delivery) = {
        let both = &owned.ids["/v1/tenant/webhooks/"];
        (both[0].clone(), both[1].clone())
    };
    let store = owned.ids["/v1/vector_stores/"][0].clone();
    let file = owned.ids["/v1/vector_stores/"][1].clone();
    let batch = id("/v1/vector_stores/{id}/file_batches/");
    let connection = id("/v1/smiths/{id}/connections/");
    let (customer, budget) = (id("/v1/customers/"), id("/v1/budgets/"));
    let conversation = id("/v1/conversations/");
    let deployment = id("/v1/deployments/");
    let input =
        json!({ "input": [{ "role": "user", "content": "hi" }], "metadata": { "b": 1, "a": 2 } });
    let changes = [
        (
            "POST",
            "/v1/agents".to_owned(),
            json!({ "name": "B" }),
            201,
            "Agent",
        ),
        (
            "PATCH",
            format!("/v1/agents/{agent}"),
            json!({ "name": "C" }),
            200,
            "Agent",
        ),
        (
            "POST",
            format!("/v1/agents/{agent}/versions"),
            json!({ "note": null }),
            201,
            "AgentVersion",
        ),
        (
            "POST",
            format!("/v1/agents/{agent}/rollout"),
            json!({ "version": 1 }),
            200,
            "Agent",
        ),
        (
            "POST",
            "/v1/agents/import".to_owned(),
            json!({ "from_smith": smith, "name": "D" }),
            201,
            "Agent",
        ),
        (
            "POST",
            format!("/v1/agents/{agent}/attach"),
            json!({ "smith_ids": [smith] }),
            200,
            "Attachments",
        ),
        (
            "POST",
            "/v1/smiths".to_owned(),
            json!({ "external_id": "ann" }),
            201,
            "Smith",
        ),
        (
            "POST",
            "/v1/smiths".to_owned(),
            json!({ "external_id": "ann" }),
            200,
            "Smith",
        ),
        (
            "PATCH",
            format!("/v1/smiths/{smith}"),
            json!({ "model": "anthropic/text" }),
            200,
            "Smith",
        ),
        (
            "POST",
            format!("/v1/smiths/{smith}/revisions/1/restore"),
            json!({}),
            200,
            "SmithRevision",
        ),
        (
            "PUT",
            format!("/v1/smiths/{smith}/memory"),
            json!({ "content": "a" }),
            200,
            "Memory",
        ),
        (
            "POST",
            format!("/v1/smiths/{smith}/memory/recall"),
            json!({ "query": "hi" }),
            200,
            "list(RecallHit)",
        ),
        (
            "PUT",
            format!("/v1/smiths/{smith}/model_keys/openai"),
            json!({ "api_key": "k" }),
            200,
            "ModelKeyMade",
        ),
        (
            "POST",
            format!("/v1/smiths/{smith}/connections"),
            json!({ "provider": "x", "credential": { "access_token": "t" } }),
            201,
            "Connection",
        ),
        (
            "PATCH",
            format!("/v1/smiths/{smith}/connections/{connection}"),
            json!({ "metadata": { "a": 1 } }),
            200,
            "Connection",
        ),
        (
            "POST",
            format!("/v1/smiths/{smith}/connections/authorize"),
            json!({ "provider": "github" }),
            200,
            "Authorize",
        ),
        (
            "POST",
            format!("/v1/smiths/{smith}/runs"),
            input,
            200,
            "Run",
        ),
        (
            "POST",
            "/v1/customers".to_owned(),
            json!({ "name": "B" }),
            201,
            "Customer",
        ),
        (
            "PATCH",
            format!("/v1/customers/{customer}"),
            json!({ "external_ids": { "z": "1", "a": "2" } }),
            200,
            "Customer",
        ),
        (
            "POST",
            "/v1/conversations".to_owned(),
            json!({}),
            200,
            "Conversation",
        ),
        (
            "POST",
            format!("/v1/conversations/{conversation}"),
            json!({ "title": "T" }),
            200,
            "Conversation",
        ),
        (
            "POST",
            "/v1/budgets".to_owned(),
            json!({ "scope": "smith", "scope_id": smith, "limit": 1 }),
            201,
            "Budget",
        ),
        (
            "PATCH",
            format!("/v1/budgets/{budget}"),
            json!({ "limit": 9 }),
            200,
            "Budget",
        ),
        (
            "POST",
            "/v1/usage/events".to_owned(),
            json!({ "meter": "m", "quantity": 1 }),
            201,
            "UsageEvent",
        ),
        (
            "POST",
            "/v1/traces:ingest".to_owned(),
            json!({ "spans": [{}] }),
            202,
            "Ingested",
        ),
        (
            "POST",
            "/v1/vector_stores".to_owned(),
            json!({ "metadata": { "n": 1, "b": true } }),
            200,
            "VectorStore",
        ),
        (
            "POST",
            format!("/v1/vector_stores/{store}"),
            json!({ "name": "S" }),
            200,
            "VectorStore",
        ),
        (
            "POST",
            format!("/v1/vector_stores/{store}/search"),
            json!({ "query": "x" }),
            200,
            "VectorSearch",
        ),
        (
            "POST",
            format!("/v1/vector_stores/{store}/files/{file}"),
            json!({ "attributes": { "b": 1, "a": "x" } }),
            200,
            "VectorFile",
        ),
        (
            "POST",
            format!("/v1/vector_stores/{store}/file_batches/{batch}/cancel"),
            json!({}),
            200,
            "VectorBatch",
        ),
        (
            "POST",
            format!("/v1/skills/{skill}"),
            json!({ "default_version": 1 }),
            200,
            "Skill",
        ),
        (
            "POST",
            "/v1/tenant/tokens".to_owned(),
            json!({ "scope": "admin", "ttl_seconds": 60 }),
            201,
            "MintedToken",
        ),
        (
            "POST",
            "/v1/tenant/tokens".to_owned(),
            json!({ "smith_id": smith, "permissions": ["runs:read"] }),
            201,
            "MintedToken",
        ),
        (
            "POST",
            "/v1/tenant/webhooks".to_owned(),
            json!({ "url": "https://hooks.invalid/b" }),
            201,
            "WebhookMade",
        ),
        (
            "PATCH",
            format!("/v1/tenant/webhooks/{webhook}"),
            json!({ "events": ["run"] }),
            200,
            "WebhookId",
        ),
        (
            "POST",
            format!("/v1/tenant/webhooks/{webhook}/rotate_secret"),
            json!({}),
            200,
            "WebhookRotated",
        ),
        (
            "POST",
            format!("/v1/tenant/webhooks/{webhook}/test"),
            json!({}),
            200,
            "WebhookTested",
        ),
        (
            "POST",
            format!("/v1/tenant/webhooks/{webhook}/deliveries/{delivery}/redeliver"),
            json!({}),
            200,
            "Redelivered",
        ),
        (
            "PUT",
            "/v1/tenant/providers/github".to_owned(),
            json!({ "client_id": "c" }),
            200,
            "ProviderMade",
        ),
        (
            "PUT",
            "/v1/tenant/model_keys/openai".to_owned(),
            json!({ "api_key": "k", "base_url": null }),
            200,
            "ModelKeyMade",
        ),
        (
            "PUT",
            "/v1/tenant/mcp/wiki".to_owned(),
            json!({ "catalog": "deepwiki", "auth": {}, "url": "http://nowhere.invalid/mcp" }),
            200,
            "McpServer",
        ),
        (
            "PATCH",
            format!("/v1/deployments/{deployment}"),
            json!({ "display_name": "D" }),
            200,
            "Deployment",
        ),
        (
            "POST",
            "/v1/organization/projects".to_owned(),
            json!({ "name": "P", "metadata": null }),
            201,
            "Project",
        ),
        (
            "POST",
            format!("/v1/organization/projects/{}/tokens", harness.tenant),
            json!({}),
            201,
            "MintedToken",
        ),
        (
            "POST",
            "/v1/organization/keys".to_owned(),
            json!({}),
            201,
            "OrganizationKeyMade",
        ),
        (
            "DELETE",
            format!("/v1/conversations/{conversation}"),
            json!({}),
            200,
            "ConversationDeleted",
        ),
        (
            "DELETE",
            format!("/v1/vector_stores/{store}/files/{file}"),
            json!({}),
            200,
            "VectorFileDeleted",
        ),
        (
            "DELETE",
            format!("/v1/vector_stores/{store}"),
            json!({}),
            200,
            "VectorStoreDeleted",
        ),
        (
            "DELETE",
            format!("/v1/files/{file}"),
            json!({}),
            200,
            "FileDeleted",
        ),
    ];
    for (method, path, body, status, kind) in changes {
        let method: Method = method.parse().expect("a method");
        let mut request = harness
            .request(method.clone(), &path)
            .header("IC-Smith-Id", &smith);
        if path.starts_with("/v1/organization") {
            request = harness
                .client
                .request(method.clone(), harness.url(&path))
                .bearer_auth(&reader.organization_key);
        }
        if method != Method::DELETE {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("an answer");
        let told = answer.status().as_u16();
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(told, status, "{method} {path}: {answer}");
        reader.check(&format!("{method} {path}"), &answer, kind);
    }
    for path in [
        format!("/v1/smiths/{smith}/connections/{connection}"),
        format!("/v1/customers/{customer}"),
        format!("/v1/budgets/{budget}"),
        format!("/v1/tenant/webhooks/{webhook}"),
        "/v1/tenant/providers/github".to_owned(),
        "/v1/tenant/model_keys/openai".to_owned(),
        "/v1/tenant/mcp/wiki".to_owned(),
        format!("/v1/deployments/{deployment}"),
        format!("/v1/smiths/{smith}"),
    ] {
        let answer = harness.request(Method::DELETE, &path).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 204, "{path}");
        assert!(answer.bytes().await.expect("a body").is_empty(), "{path}");
    }
    let missing = harness
        .get("/v1/agents/agt_none")
        .send()
        .await
        .expect("an answer");
    assert!(missing.headers().contains_key("x-request-id"));
    reader.check("404", &missing.json().await.expect("JSON"), "Error");
    reader.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_the_hosted_service_say_that_they_are_not_here() {
    let harness = Harness::start().await;
    let key = organization_key(&harness).await;
    for (method, path) in [
        ("GET", "/v1/organization/billing/balance"),
        ("GET", "/v1/organization/billing/usage/series"),
        ("POST", "/v1/organization/billing/checkout"),
        ("PUT", "/v1/organization/billing/autoreload"),
        ("GET", "/v1/organization/apps"),
        ("DELETE", "/v1/organization/apps/app_1"),
        ("GET", "/v1/tenant/sandbox_secrets"),
        ("PUT", "/v1/tenant/sandbox_secrets/A"),
        ("POST", "/v1/evaluate"),
    ] {
        let token = match path.contains("organization") {
            true => &key,
            false => &harness.token,
        };
        let method: Method = method.parse().expect("a method");
        let request = harness.client.request(method.clone(), harness.url(path));
        let (status, error) = refused(request.bearer_auth(token).send().await).await;
        assert_eq!(
            (status, &error["code"]),
            (501, &json!("unsupported")),
            "{method} {path}"
        );
    }
    let nobody = harness
        .client
        .get(harness.url("/v1/organization/billing/balance"));
    assert_eq!(refused(nobody.send().await).await.0, 401);
}
