//! The REST slice: tokens, keys, agents, smiths, pages, idempotency, isolation, the envelope.

use reqwest::Method;
use serde_json::{Value, json};
use smithgate::auth::{Mint, MintedScope};
use smithgate::store::{Tenant, now_micros};

use crate::support::{Harness, ok, refused, text};

fn code(error: &Value) -> &str {
    error["code"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_minted_listed_and_revoked() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let body =
        json!({ "smith_id": smith, "permissions": ["runs:read", "runs:write"], "name": "browser" });
    let answer = harness
        .post("/v1/tenant/tokens", &body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 201);
    let minted: Value = answer.json().await.expect("JSON");
    let token = minted["token"].as_str().expect("a token").to_owned();
    assert!(token.starts_with("thp_live_"));
    assert_eq!(minted["sub"], format!("{}:{smith}", harness.tenant));
    assert_eq!(minted["scopes"], json!(["runs:read", "runs:write"]));
    assert!(minted["expires_at"].is_string());
    let listed = ok(harness.get("/v1/tenant/tokens").send().await).await;
    let rows = listed["data"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["name"], "browser");
    assert!(!listed.to_string().contains(&token));
    // A used token is cached, and its revocation is seen all the same.
    let with_token = |path: &str| harness.client.get(harness.url(path)).bearer_auth(&token);
    ok(with_token(&format!("/v1/smiths/{smith}")).send().await).await;
    let id = minted["id"].as_str().expect("an id");
    let path = format!("/v1/tenant/tokens/{id}");
    let gone = harness
        .request(Method::DELETE, &path)
        .send()
        .await
        .expect("an answer");
    assert_eq!(gone.status(), 204);
    let (status, error) = refused(with_token(&format!("/v1/smiths/{smith}")).send().await).await;
    assert_eq!((status, code(&error)), (401, "unauthenticated"));
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("revoked")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn minting_is_checked() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    for (body, status, wanted, param) in [
        (
            json!({ "smith_id": smith }),
            400,
            "permissions_required",
            "permissions",
        ),
        (
            json!({ "smith_id": smith, "permissions": ["tenant:*"] }),
            400,
            "invalid_scope",
            "permissions[0]",
        ),
        (
            json!({ "smith_id": smith, "permissions": ["runs:read", "nope"] }),
            400,
            "invalid_scope",
            "permissions[1]",
        ),
        (
            json!({ "smith_id": smith, "permissions": ["runs:read"], "ttl_seconds": 86401 }),
            400,
            "invalid_request",
            "ttl_seconds",
        ),
        (
            json!({ "scope": "admin", "ttl_seconds": 0 }),
            400,
            "invalid_request",
            "ttl_seconds",
        ),
        (
            json!({ "permissions": ["runs:read"] }),
            400,
            "invalid_request",
            "smith_id",
        ),
        (
            json!({ "smith_id": "smt_x", "permissions": ["runs:read"] }),
            404,
            "not_found",
            "smith_id",
        ),
        (
            json!({ "scope": "operator" }),
            400,
            "invalid_token_scope",
            "scope",
        ),
        (json!({ "scope": 5 }), 400, "invalid_request", "scope"),
    ] {
        let (got, error) = refused(harness.post("/v1/tenant/tokens", &body).send().await).await;
        assert_eq!((got, code(&error)), (status, wanted), "{body}: {error}");
        assert_eq!(error["param"], param, "{body}");
    }
    let admin = ok(harness
        .post("/v1/tenant/tokens", &json!({ "scope": "admin" }))
        .send()
        .await)
    .await;
    assert_eq!(admin["expires_at"], Value::Null);
    assert_eq!(admin["scopes"], json!(["tenant:*"]));
    let short = json!({ "smith_id": smith, "permissions": ["runs:read"], "ttl_seconds": 1 });
    let short = ok(harness.post("/v1/tenant/tokens", &short).send().await).await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let call = harness
        .client
        .get(harness.url("/v1/models"))
        .bearer_auth(short["token"].as_str().expect("a token"));
    let (status, error) = refused(call.send().await).await;
    assert_eq!(status, 401);
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|m| m.contains("expired")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_reach_what_they_may_and_no_more() {
    let harness = Harness::start().await;
    let mine = harness.smith("openai-chat/text").await;
    let other = harness.smith("openai-chat/text").await;
    let token = harness.smith_token(&mine, &["runs:write"]).await;
    let call = |method: Method, path: &str| {
        harness
            .client
            .request(method, harness.url(path))
            .bearer_auth(&token)
    };
    let said = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let run = json!({ "input": [{ "role": "user", "content": "hi" }] });
    ok(call(Method::POST, "/v1/chat/completions")
        .json(&said)
        .send()
        .await)
    .await;
    ok(call(Method::POST, "/v1/chat/completions")
        .header("IC-Smith-Id", &mine)
        .json(&said)
        .send()
        .await)
    .await;
    let cases = [
        (
            call(Method::POST, "/v1/chat/completions")
                .header("IC-Smith-Id", &other)
                .json(&said),
            403,
            "smith_mismatch",
        ),
        (
            call(Method::POST, &format!("/v1/smiths/{other}/runs")).json(&run),
            403,
            "smith_mismatch",
        ),
        (
            call(Method::GET, &format!("/v1/smiths/{mine}/runs")),
            403,
            "insufficient_scope",
        ),
        (call(Method::GET, "/v1/models"), 403, "insufficient_scope"),
        (
            call(Method::GET, "/v1/tenant/tokens"),
            403,
            "tenant_token_required",
        ),
        (
            call(Method::POST, "/v1/smiths").json(&json!({})),
            403,
            "tenant_token_required",
        ),
        (
            harness.post(
                "/v1/chat/completions",
                &json!({ "model": "x", "messages": [] }),
            ),
            400,
            "smith_required",
        ),
        (
            harness.client.get(harness.url("/v1/models")),
            401,
            "unauthenticated",
        ),
        (
            harness
                .client
                .get(harness.url("/v1/models"))
                .bearer_auth("tha_live_x.y.z"),
            401,
            "unauthenticated",
        ),
        (
            harness
                .client
                .get(harness.url("/v1/models"))
                .bearer_auth(token.replace("thp_", "tha_")),
            401,
            "unauthenticated",
        ),
        (
            harness
                .get("/v1/models")
                .header("IC-Api-Version", "2020-01-01"),
            400,
            "unsupported_api_version",
        ),
        (harness.get("/v1/nothing"), 404, "not_found"),
    ];
    for (at, (request, status, wanted)) in cases.into_iter().enumerate() {
        let (got, error) = refused(request.send().await).await;
        assert_eq!((got, code(&error)), (status, wanted), "case {at}: {error}");
    }
    ok(harness
        .get("/v1/models")
        .header("ic-api-version", "2026-05-01")
        .send()
        .await)
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_verify_the_tokens() {
    let harness = Harness::start().await;
    let jwks: Value = harness
        .client
        .get(harness.url("/.well-known/jwks.json"))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let jwt = harness.token.strip_prefix("tha_live_").expect("the prefix");
    let header = jsonwebtoken::decode_header(jwt).expect("a header");
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(jwks).expect("a key set");
    let key = keys
        .find(header.kid.as_deref().expect("a key id"))
        .expect("the key");
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    rules.required_spec_claims.clear();
    rules.validate_exp = false;
    let key = jsonwebtoken::DecodingKey::from_jwk(key).expect("a public key");
    let claims = jsonwebtoken::decode::<Value>(jwt, &key, &rules)
        .expect("a valid signature")
        .claims;
    assert_eq!(claims["sub"], harness.tenant);
    assert_eq!(claims["scopes"], json!(["tenant:*"]));
    assert!(
        claims["jti"]
            .as_str()
            .is_some_and(|id| id.starts_with("tok_"))
    );
    assert!(claims.get("exp").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn model_keys_are_sealed_and_never_shown() {
    let harness = Harness::start().await;
    let secret = "sk-very-secret-0123456789";
    let put = harness
        .request(Method::PUT, "/v1/tenant/model_keys/openai-chat")
        .json(&json!({ "api_key": secret }));
    let stored = ok(put.send().await).await;
    assert_eq!(stored["configured"], true);
    let listed = ok(harness.get("/v1/tenant/model_keys").send().await).await;
    assert_eq!(listed["data"][0]["provider"], "openai-chat");
    assert_eq!(listed["data"][0]["has_key"], true);
    assert!(!format!("{stored}{listed}").contains(secret));
    ok(harness.chat("openai-chat/text", false).send().await).await;
    assert_eq!(
        harness.mock.last().header("authorization"),
        Some(format!("Bearer {secret}").as_str())
    );
    for entry in std::fs::read_dir(&harness.config.data_dir).expect("the data directory") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none());
    }
    for (provider, body, wanted) in [
        ("openai-chat", json!({ "api_key": " " }), "empty_key"),
        ("openai-chat", json!({ "api_key": 5 }), "invalid_request"),
        ("openai-chat", json!({}), "invalid_request"),
        ("Nope!", json!({ "api_key": "k" }), "unknown_provider"),
        ("own", json!({ "api_key": "k" }), "url_required"),
        (
            "own",
            json!({ "api_key": "k", "base_url": "ftp://x" }),
            "invalid_url",
        ),
        (
            "own",
            json!({ "api_key": "k", "base_url": "https://169.254.169.254/v1" }),
            "invalid_url",
        ),
        (
            "own",
            json!({ "api_key": "k", "base_url": "https://[::1]/v1" }),
            "invalid_url",
        ),
    ] {
        let path = format!("/v1/tenant/model_keys/{provider}");
        let (status, error) =
            refused(harness.request(Method::PUT, &path).json(&body).send().await).await;
        assert_eq!((status, code(&error)), (400, wanted), "{body}");
    }
    let path = "/v1/tenant/model_keys/openai-chat";
    assert_eq!(
        harness
            .request(Method::DELETE, path)
            .send()
            .await
            .expect("an answer")
            .status(),
        204
    );
    assert_eq!(
        harness
            .request(Method::DELETE, path)
            .send()
            .await
            .expect("an answer")
            .status(),
        404
    );
    ok(harness.chat("openai-chat/text", false).send().await).await;
    assert_eq!(
        harness.mock.last().header("authorization"),
        Some("Bearer hosted-openai_chat")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn smiths_are_upserted_by_their_natural_key() {
    let harness = Harness::start().await;
    let agent = ok(harness
        .post(
            "/v1/agents",
            &json!({ "name": "Support", "model": "m", "instructions": "Help {{name}}.",
        "variables": [{ "name": "name", "default": "all" }] }),
        )
        .send()
        .await)
    .await;
    let agent_id = agent["id"].as_str().expect("an id");
    assert_eq!(agent["slug"], "support");
    let body = json!({ "external_id": "u1", "agent_id": agent_id, "display_name": "Ann" });
    let first = harness
        .post("/v1/smiths", &body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(first.status(), 201);
    let first: Value = first.json().await.expect("JSON");
    let again = harness
        .post("/v1/smiths", &body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(again.status(), 200);
    assert_eq!(
        again.json::<Value>().await.expect("JSON")["id"],
        first["id"]
    );
    let read = ok(harness
        .get(&format!(
            "/v1/smiths/{}",
            first["id"].as_str().expect("an id")
        ))
        .send()
        .await)
    .await;
    assert_eq!(read["external_id"], "u1");
    assert_eq!(read["agent_id"], agent_id);
    for (query, count) in [
        ("external_id=u1", 1),
        ("external_id=u2", 0),
        ("external_id_prefix=u", 1),
        ("external_id_prefix=%25", 0),
    ] {
        let listed = ok(harness.get(&format!("/v1/smiths?{query}")).send().await).await;
        assert_eq!(
            listed["data"].as_array().map(Vec::len),
            Some(count),
            "{query}"
        );
    }
    let (status, error) = refused(
        harness
            .post("/v1/smiths", &json!({ "agent_id": "agt_none" }))
            .send()
            .await,
    )
    .await;
    assert_eq!(
        (status, code(&error), error["param"].as_str()),
        (404, "not_found", Some("agent_id"))
    );
    // An agent that was never published answers no runs.
    let call = harness
        .post(
            "/v1/chat/completions",
            &json!({ "messages": [{ "role": "user", "content": "hi" }] }),
        )
        .header("IC-Smith-Id", first["id"].as_str().expect("an id"));
    let (status, error) = refused(call.send().await).await;
    assert_eq!(
        (status, code(&error)),
        (409, "agent_unpublished"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_have_slugs_and_versions() {
    let harness = Harness::start().await;
    let make = |body: Value| harness.post("/v1/agents", &body).send();
    let first = ok(make(json!({ "name": "Bot" })).await).await;
    let second = ok(make(json!({ "name": "Bot" })).await).await;
    assert_eq!(
        (&first["slug"], &second["slug"]),
        (&json!("bot"), &json!("bot-2"))
    );
    for (body, status, wanted) in [
        (json!({ "name": "B", "slug": "bot" }), 409, "agent_exists"),
        (
            json!({ "name": "B", "slug": "No Good" }),
            400,
            "invalid_slug",
        ),
        (json!({ "name": "  " }), 400, "name_required"),
        (json!({ "name": "x".repeat(201) }), 400, "invalid_name"),
        (json!({ "name": "B", "model": 7 }), 400, "invalid_request"),
        (json!([]), 400, "invalid_request"),
    ] {
        let (got, error) = refused(make(body.clone()).await).await;
        assert_eq!((got, code(&error)), (status, wanted), "{body}");
    }
    let path = format!(
        "/v1/agents/{}/versions",
        first["id"].as_str().expect("an id")
    );
    let one = ok(harness
        .post(&path, &json!({ "note": "first" }))
        .send()
        .await)
    .await;
    assert_eq!(
        (&one["version"], &one["note"]),
        (&json!(1), &json!("first"))
    );
    ok(harness.post(&path, &json!({})).send().await).await;
    let listed = ok(harness.get(&format!("{path}?limit=1")).send().await).await;
    assert_eq!(listed["data"][0]["version"], 2);
    assert_eq!(listed["has_more"], true);
    let cursor = listed["next_cursor"].as_str().expect("a cursor");
    let rest = ok(harness
        .get(&format!("{path}?limit=1&cursor={cursor}"))
        .send()
        .await)
    .await;
    assert_eq!(rest["data"][0]["version"], 1);
    assert_eq!(
        (&rest["has_more"], &rest["next_cursor"]),
        (&json!(false), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_newest_first() {
    let harness = Harness::start().await;
    let mut made = Vec::new();
    for n in 0..5 {
        let smith = ok(harness
            .post("/v1/smiths", &json!({ "external_id": format!("u{n}") }))
            .send()
            .await)
        .await;
        made.push(smith["id"].clone());
    }
    made.reverse();
    let mut seen = Vec::new();
    let mut path = "/v1/smiths?limit=2".to_owned();
    loop {
        let page = ok(harness.get(&path).send().await).await;
        seen.extend(
            page["data"]
                .as_array()
                .expect("rows")
                .iter()
                .map(|s| s["id"].clone()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/smiths?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    for (query, wanted) in [
        ("limit=0", "invalid_limit"),
        ("limit=x", "invalid_limit"),
        ("limit=201", "invalid_limit"),
        ("cursor=%21", "invalid_cursor"),
    ] {
        let (status, error) =
            refused(harness.get(&format!("/v1/smiths?{query}")).send().await).await;
        assert_eq!((status, code(&error)), (400, wanted), "{query}");
    }
    ok(harness.get("/v1/smiths?limit=200").send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_keys_replay_the_first_answer() {
    let harness = Harness::start().await;
    let make = |key: &str, name: &str| {
        harness
            .post("/v1/agents", &json!({ "name": name }))
            .header("Idempotency-Key", key)
            .send()
    };
    let first = text(make("k1", "One").await).await;
    let replay = make("k1", "One").await.expect("an answer");
    assert_eq!(replay.status(), 201);
    assert_eq!(replay.text().await.expect("a body"), first);
    let (status, error) = refused(make("k1", "Two").await).await;
    assert_eq!((status, code(&error)), (409, "idempotency_key_reused"));
    // A refused request leaves the key free.
    assert_eq!(refused(make("k2", " ").await).await.0, 400);
    ok(make("k2", "Three").await).await;
    let listed = ok(harness.get("/v1/agents").send().await).await;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(2));
    // The same key on another resource is another key.
    let smith = harness
        .post("/v1/smiths", &json!({ "external_id": "x" }))
        .header("Idempotency-Key", "k1");
    ok(smith.send().await).await;
    // While the first is under way, a replay is told so.
    let smith = harness.smith("openai-chat/fault-silent").await;
    let run = || {
        let body = json!({ "input": [{ "role": "user", "content": "hi" }] });
        harness
            .post(&format!("/v1/smiths/{smith}/runs"), &body)
            .header("Idempotency-Key", "k9")
            .send()
    };
    let slow = tokio::spawn(run());
    harness.mock.wait_for_request().await;
    let (status, error) = refused(run().await).await;
    assert_eq!((status, code(&error)), (409, "idempotency_in_progress"));
    let first = ok(slow.await.expect("a task")).await;
    assert_eq!(first["status"], "failed");
    assert_eq!(ok(run().await).await["id"], first["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_see_each_other() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let run = json!({ "input": [{ "role": "user", "content": "hi" }] });
    let made = ok(harness
        .post(&format!("/v1/smiths/{smith}/runs"), &run)
        .send()
        .await)
    .await;
    let run_id = made["id"].as_str().expect("an id");
    let agent = ok(harness
        .post("/v1/agents", &json!({ "name": "Mine" }))
        .send()
        .await)
    .await;
    let agent_id = agent["id"].as_str().expect("an id");
    let stranger = Tenant {
        id: "proj_stranger".into(),
        name: "stranger".into(),
        created_at: now_micros(),
    };
    harness
        .gateway
        .store
        .create_tenant(&stranger)
        .await
        .expect("a tenant");
    let minted = harness.gateway.auth.mint(Mint {
        tenant_id: stranger.id,
        scope: MintedScope::Admin,
        ttl_seconds: None,
        name: None,
    });
    let token = minted.await.expect("a token").token;
    let call = |method: Method, path: &str| {
        harness
            .client
            .request(method, harness.url(path))
            .bearer_auth(&token)
    };
    for path in [
        format!("/v1/smiths/{smith}"),
        format!("/v1/agents/{agent_id}"),
        format!("/v1/smiths/{smith}/runs"),
        format!("/v1/smiths/{smith}/runs/{run_id}"),
        format!("/v1/smiths/{smith}/runs/{run_id}/events"),
        format!("/v1/agents/{agent_id}/versions"),
        format!("/v1/smiths/{smith}/model_keys"),
    ] {
        let (status, error) = refused(call(Method::GET, &path).send().await).await;
        assert_eq!((status, code(&error)), (404, "not_found"), "{path}");
    }
    for path in [
        "/v1/smiths",
        "/v1/agents",
        "/v1/runs",
        "/v1/tenant/model_keys",
    ] {
        let listed = ok(call(Method::GET, path).send().await).await;
        assert_eq!(listed["data"], json!([]), "{path}");
    }
    let said = json!({ "messages": [{ "role": "user", "content": "hi" }] });
    let refusal = call(Method::POST, "/v1/chat/completions")
        .header("IC-Smith-Id", &smith)
        .json(&said);
    assert_eq!(refused(refusal.send().await).await.0, 404);
    let start = call(Method::POST, &format!("/v1/smiths/{smith}/runs")).json(&run);
    assert_eq!(refused(start.send().await).await.0, 404);
    let cancel = call(
        Method::POST,
        &format!("/v1/smiths/{smith}/runs/{run_id}/submit"),
    )
    .json(&json!({ "kind": "cancel" }));
    assert_eq!(refused(cancel.send().await).await.0, 404);
    let own_tokens = ok(harness.get("/v1/tenant/tokens").send().await).await;
    let token_id = own_tokens["data"][0]["id"].as_str().expect("an id");
    let revoke = call(Method::DELETE, &format!("/v1/tenant/tokens/{token_id}"));
    assert_eq!(refused(revoke.send().await).await.0, 404);
    ok(harness.get("/v1/smiths").send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_as_openai_lists_them() {
    let harness = Harness::start().await;
    let listed = ok(harness.get("/v1/models").send().await).await;
    assert_eq!(listed["object"], "list");
    let ids: Vec<&str> = listed["data"]
        .as_array()
        .expect("rows")
        .iter()
        .filter_map(|m| m["id"].as_str())
        .collect();
    assert_eq!(
        ids,
        [
            "anthropic/text",
            "gemini/text",
            "openai-chat/text",
            "openai-responses/text"
        ]
    );
    let one = ok(harness.get("/v1/models/gemini/text").send().await).await;
    assert_eq!(
        (&one["object"], &one["owned_by"]),
        (&json!("model"), &json!("gemini"))
    );
    let (status, error) = refused(harness.get("/v1/models/none").send().await).await;
    assert_eq!((status, code(&error)), (404, "not_found"));
}
