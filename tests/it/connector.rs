//! MCP hosts that connect by OAuth.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::assets::{run_python, run_script};
use crate::control::{on_both_stores, start_on};
use crate::support::{Harness, ok};

const VERIFIER: &str = "0123456789012345678901234567890123456789abc";
const REDIRECT: &str = "https://host.test/callback";

/// A deployment, who may use it, and a registered client.
struct Scene {
    gateway: Arc<Harness>,
    deployment: String,
    smith: String,
    token: String,
    client: String,
    http: reqwest::Client,
}

impl Scene {
    async fn set(store: Option<String>) -> Self {
        let gateway = start_on(store, |_| {}).await;
        let smith = gateway.smith("anthropic/text").await;
        let made = gateway.deploy("smith", &smith).await;
        let token = gateway
            .smith_token(&smith, &["runs:write", "approvals:write"])
            .await;
        let none = reqwest::redirect::Policy::none();
        let http = reqwest::Client::builder().redirect(none).build();
        let http = http.expect("a client");
        let body = json!({ "client_name": "<b>Host</b>", "redirect_uris": [REDIRECT] });
        let sent = http.post(gateway.url("/oauth/register")).json(&body);
        let sent = sent.send().await.expect("an answer");
        assert_eq!(sent.status(), StatusCode::CREATED);
        let client: Value = sent.json().await.expect("JSON");
        Self {
            deployment: made["id"].as_str().expect("an id").to_owned(),
            client: client["client_id"].as_str().expect("an id").to_owned(),
            gateway: Arc::new(gateway),
            smith,
            token,
            http,
        }
    }

    /// The same in another tenant.
    async fn of_tenant(&self, admin: &str) -> Self {
        let post = |path: &'static str, body: Value| {
            let call = self.http.post(self.gateway.url(path)).bearer_auth(admin);
            async move { ok(call.json(&body).send().await).await }
        };
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let smith = post("/v1/smiths", json!({ "model": "anthropic/text" })).await;
        let smith = text(&smith["id"]);
        let target = json!({ "type": "smith", "id": smith });
        let made = post(
            "/v1/deployments",
            json!({ "kind": "mcp", "target": target }),
        )
        .await;
        let minted = json!({ "smith_id": smith, "permissions": ["runs:write", "runs:read"] });
        let minted = post("/v1/tenant/tokens", minted).await;
        Self {
            gateway: self.gateway.clone(),
            deployment: text(&made["id"]),
            smith,
            token: text(&minted["token"]),
            client: self.client.clone(),
            http: self.http.clone(),
        }
    }

    fn endpoint(&self) -> String {
        let path = format!("/v1/deployments/{}/mcp", self.deployment);
        self.gateway.url(&path)
    }

    fn asked(&self) -> Vec<(&'static str, String)> {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, VERIFIER.as_bytes());
        vec![
            ("response_type", "code".to_owned()),
            ("client_id", self.client.clone()),
            ("redirect_uri", REDIRECT.to_owned()),
            ("resource", self.endpoint()),
            ("code_challenge", URL_SAFE_NO_PAD.encode(digest.as_ref())),
            ("code_challenge_method", "S256".to_owned()),
            ("state", "\"s&".to_owned()),
        ]
    }

    async fn post(&self, path: &str, form: &[(&str, String)]) -> Response {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let kind = "application/x-www-form-urlencoded";
        let call = self.http.post(self.gateway.url(path)).body(form);
        let call = call.header("Content-Type", kind);
        call.send().await.expect("an answer")
    }

    async fn consent(&self, token: &str) -> Response {
        let mut form = self.asked();
        form.push(("connect_token", token.to_owned()));
        self.post("/oauth/authorize", &form).await
    }

    async fn code(&self) -> String {
        let back = location(&self.consent(&self.token).await);
        let code = back.query_pairs().find(|(k, _)| k == "code");
        code.expect("a code").1.into_owned()
    }

    async fn exchange(&self, code: &str, changes: &[(&'static str, &str)]) -> (u16, Value) {
        let mut form = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("client_id", self.client.clone()),
            ("code", code.to_owned()),
            ("redirect_uri", REDIRECT.to_owned()),
            ("code_verifier", VERIFIER.to_owned()),
        ];
        for (name, value) in changes {
            form.retain(|(n, _)| n != name);
            form.push((name, (*value).to_owned()));
        }
        self.tokens(&form).await
    }

    async fn refresh(&self, token: &Value) -> (u16, Value) {
        let form = [
            ("grant_type", "refresh_token".to_owned()),
            ("client_id", self.client.clone()),
            ("refresh_token", token.as_str().expect("a token").to_owned()),
        ];
        self.tokens(&form).await
    }

    async fn tokens(&self, form: &[(&str, String)]) -> (u16, Value) {
        let answer = self.post("/oauth/token", form).await;
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("JSON"))
    }

    /// Whether an access token opens the endpoint.
    async fn opens(&self, token: &Value) -> bool {
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": { "name": "t", "version": "1" } } });
        let call = self.http.post(self.endpoint()).json(&ping);
        let call = call.bearer_auth(token.as_str().expect("a token"));
        let call = call.header("Accept", "application/json, text/event-stream");
        call.send().await.expect("an answer").status() == StatusCode::OK
    }
}

fn location(answer: &Response) -> url::Url {
    assert_eq!(answer.status(), StatusCode::FOUND);
    let location = answer.headers()["location"].to_str().expect("text");
    location.parse().expect("a URL")
}

fn field(url: &url::Url, name: &str) -> Option<String> {
    let found = url.query_pairs().find(|(k, _)| k == name);
    found.map(|(_, v)| v.into_owned())
}

async fn hosts_are_let_in(store: Option<String>) {
    let scene = Scene::set(store).await;
    // A host finds its way from the refusal.
    let refused = scene.http.post(scene.endpoint()).send().await;
    let refused = refused.expect("an answer");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let challenge = refused.headers()["www-authenticate"]
        .to_str()
        .expect("text");
    let metadata = challenge.split('"').nth(1).expect("the metadata's address");
    let metadata = ok(scene.http.get(metadata).send().await).await;
    assert_eq!(metadata["resource"], scene.endpoint());
    let server = metadata["authorization_servers"][0].as_str();
    let server = format!(
        "{}/.well-known/oauth-authorization-server",
        server.expect("one")
    );
    let server = ok(scene.http.get(server).send().await).await;
    assert_eq!(server["token_endpoint"], scene.gateway.url("/oauth/token"));

    let page = url::Url::parse_with_params(&scene.gateway.url("/oauth/authorize"), scene.asked());
    let page = scene.http.get(page.expect("a URL")).send().await;
    let page = page.expect("a page");
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()["x-frame-options"], "DENY");
    let page = page.text().await.expect("text");
    assert!(
        page.contains("&lt;b&gt;Host&lt;/b&gt;") && !page.contains("<b>Host</b>"),
        "{page}"
    );
    assert!(page.contains("host.test"), "{page}");

    let back = location(&scene.consent(&scene.token).await);
    assert_eq!(field(&back, "state").as_deref(), Some("\"s&"));
    let code = field(&back, "code").expect("a code");
    let (status, tokens) = scene.exchange(&code, &[]).await;
    assert_eq!(
        (status, &tokens["scope"]),
        (200, &json!("runs:write approvals:write"))
    );
    assert!(scene.opens(&tokens["access_token"]).await);
    // What a token may not do: it is the smith's, for runs and approvals.
    let minted = scene.http.get(scene.gateway.url("/v1/tenant/tokens"));
    let admin_only = minted.bearer_auth(tokens["access_token"].as_str().expect("a token"));
    assert_eq!(admin_only.send().await.expect("an answer").status(), 403);

    // Tokens rotate; the answer that brought the new one may be lost.
    let (_, lost) = scene.refresh(&tokens["refresh_token"]).await;
    let (status, third) = scene.refresh(&tokens["refresh_token"]).await;
    assert_eq!(status, 200, "{third}");
    let (status, fourth) = scene.refresh(&third["refresh_token"]).await;
    assert_eq!(status, 200, "{fourth}");
    assert!(scene.opens(&fourth["access_token"]).await);
    // Whoever shows one that was replaced ends it for all.
    let (status, error) = scene.refresh(&lost["refresh_token"]).await;
    assert_eq!((status, &error["error"]), (400, &json!("invalid_grant")));
    let (status, _) = scene.refresh(&fourth["refresh_token"]).await;
    assert_eq!(status, 400);
    assert!(!scene.opens(&fourth["access_token"]).await);
}

async fn codes_serve_once_and_for_their_host(store: Option<String>) {
    let scene = Scene::set(store).await;
    let other = "x".repeat(43);
    for (change, error) in [
        (("code_verifier", other.as_str()), "invalid_grant"),
        (("code_verifier", ""), "invalid_grant"),
        (("redirect_uri", "https://host.test/other"), "invalid_grant"),
        (("client_id", "occ_none"), "invalid_client"),
        (("grant_type", "password"), "unsupported_grant_type"),
        (
            ("resource", "https://x.test/v1/deployments/dep_0/mcp"),
            "invalid_target",
        ),
        (("code", "guess"), "invalid_grant"),
    ] {
        let code = scene.code().await;
        let (status, refusal) = scene.exchange(&code, &[change]).await;
        assert!(status == 400 || status == 401, "{change:?}: {refusal}");
        assert_eq!(refusal["error"], error, "{change:?}");
    }
    let code = scene.code().await;
    let (_, tokens) = scene.exchange(&code, &[]).await;
    assert!(scene.opens(&tokens["access_token"]).await);
    let (status, error) = scene.exchange(&code, &[]).await;
    assert_eq!((status, &error["error"]), (400, &json!("invalid_grant")));
    assert!(
        !scene.opens(&tokens["access_token"]).await,
        "a stolen code ends it"
    );

    // A host that signs off (RFC 7009).
    let code = scene.code().await;
    let (_, tokens) = scene.exchange(&code, &[]).await;
    let token = tokens["refresh_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let gone = scene.post("/oauth/revoke", &[("token", token)]).await;
    assert_eq!(gone.status(), 200);
    assert!(!scene.opens(&tokens["access_token"]).await);
    assert_eq!(scene.refresh(&tokens["refresh_token"]).await.0, 400);

    // A smith that is gone is nobody's any more.
    let code = scene.code().await;
    let (_, tokens) = scene.exchange(&code, &[]).await;
    let path = format!("/v1/smiths/{}", scene.smith);
    let gone = scene.gateway.request(Method::DELETE, &path).send().await;
    assert!(gone.expect("an answer").status().is_success());
    assert_eq!(scene.refresh(&tokens["refresh_token"]).await.0, 400);
}

async fn nobody_is_let_in_by_mistake(store: Option<String>) {
    let scene = Scene::set(store).await;
    let other = scene.gateway.smith("anthropic/text").await;
    let others = scene.gateway.smith_token(&other, &["runs:write"]).await;
    let reader = scene
        .gateway
        .smith_token(&scene.smith, &["runs:read"])
        .await;
    for token in [
        "",
        "guess",
        others.as_str(),
        reader.as_str(),
        scene.gateway.token.as_str(),
    ] {
        let page = scene.consent(token).await;
        assert_eq!(page.status(), StatusCode::UNAUTHORIZED, "{token}");
        let page = page.text().await.expect("text");
        assert!(page.contains("role=\"alert\""), "{page}");
    }
    // A token lets in to no more than it may itself.
    let runs_only = scene
        .gateway
        .smith_token(&scene.smith, &["runs:write"])
        .await;
    let back = location(&scene.consent(&runs_only).await);
    let code = field(&back, "code").expect("a code");
    let (_, tokens) = scene.exchange(&code, &[]).await;
    assert_eq!(tokens["scope"], "runs:write");

    let change = |name: &'static str, value: &str| {
        let mut asked = scene.asked();
        asked.retain(|(n, _)| *n != name);
        asked.push((name, value.to_owned()));
        asked.push(("connect_token", scene.token.clone()));
        asked
    };
    for (name, value) in [
        ("client_id", "occ_none"),
        ("redirect_uri", "https://evil.test/"),
    ] {
        let page = scene.post("/oauth/authorize", &change(name, value)).await;
        assert_eq!(
            page.status(),
            400,
            "{name}: the human is told, nobody is sent anywhere"
        );
    }
    for (name, value, error) in [
        ("response_type", "token", "unsupported_response_type"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("code_challenge", "", "invalid_request"),
        (
            "resource",
            "https://evil.test/v1/deployments/dep_1/mcp",
            "invalid_target",
        ),
        ("decision", "deny", "access_denied"),
    ] {
        let back = location(&scene.post("/oauth/authorize", &change(name, value)).await);
        assert_eq!(field(&back, "error").as_deref(), Some(error), "{name}");
        assert_eq!(field(&back, "code"), None);
    }
    for body in [
        json!({}),
        json!({ "redirect_uris": [] }),
        json!({ "redirect_uris": ["http://host.test/"] }),
        json!({ "redirect_uris": [REDIRECT], "client_name": "a\nb" }),
    ] {
        let sent = scene
            .http
            .post(scene.gateway.url("/oauth/register"))
            .json(&body);
        assert_eq!(
            sent.send().await.expect("an answer").status(),
            400,
            "{body}"
        );
    }
}

async fn grants_end_with_their_reason(store: Option<String>) {
    let scene = Scene::set(store).await;
    let gateway = &scene.gateway;
    let delete = |path: String| async move {
        let gone = gateway.request(Method::DELETE, &path).send().await;
        assert_eq!(gone.expect("an answer").status(), 204, "{path}");
    };
    let id_of = |token: &str| {
        let claims = token.split('.').nth(1).expect("claims").to_owned();
        let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        claims["jti"].as_str().expect("an id").to_owned()
    };
    let let_in = |token: String| {
        let scene = &scene;
        async move {
            let back = location(&scene.consent(&token).await);
            let code = field(&back, "code").expect("a code");
            scene.exchange(&code, &[]).await.1
        }
    };
    let is_out = |tokens: Value, why: &'static str| {
        let scene = &scene;
        async move {
            assert!(!scene.opens(&tokens["access_token"]).await, "{why}");
            let (status, error) = scene.refresh(&tokens["refresh_token"]).await;
            assert_eq!(
                (status, &error["error"]),
                (400, &json!("invalid_grant")),
                "{why}"
            );
        }
    };
    let fresh = || gateway.smith_token(&scene.smith, &["runs:write", "approvals:write"]);

    // The token that let it in, also after it has been refreshed.
    let cause = fresh().await;
    let first = let_in(cause.clone()).await;
    let (_, tokens) = scene.refresh(&first["refresh_token"]).await;
    assert!(scene.opens(&tokens["access_token"]).await);
    let code = {
        let back = location(&scene.consent(&cause).await);
        field(&back, "code").expect("a code")
    };
    delete(format!("/v1/tenant/tokens/{}", id_of(&cause))).await;
    is_out(tokens, "its cause is revoked").await;
    assert!(
        !scene.opens(&first["access_token"]).await,
        "the access token before"
    );
    assert_eq!(
        scene.exchange(&code, &[]).await.0,
        400,
        "a code of that token"
    );

    // The access token itself, as whoever revokes all that is to be seen does.
    let tokens = let_in(fresh().await).await;
    let access = tokens["access_token"].as_str().expect("a token");
    delete(format!("/v1/tenant/tokens/{}", id_of(access))).await;
    is_out(tokens, "its own token is revoked").await;

    // A host's token lets nobody in.
    let tokens = let_in(fresh().await).await;
    let access = tokens["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(
        scene.consent(&access).await.status(),
        StatusCode::UNAUTHORIZED
    );

    // By the list, as the tenant and as the smith.
    let listed = ok(gateway.get("/v1/tenant/grants?limit=2").send().await).await;
    assert_eq!(listed["has_more"], true);
    let grant = &listed["data"][0];
    assert_eq!(grant["client_name"], "<b>Host</b>");
    assert_eq!(grant["smith_id"], json!(scene.smith));
    assert_eq!(grant["deployment_id"], json!(scene.deployment));
    assert_eq!(grant["scopes"], json!(["runs:write", "approvals:write"]));
    assert_eq!(grant["revoked_at"], Value::Null);
    assert!(listed["data"][1]["revoked_at"].is_string(), "{listed}");
    let id = grant["id"].as_str().expect("an id").to_owned();
    delete(format!("/v1/tenant/grants/{id}")).await;
    is_out(tokens, "it was sent away").await;
    let gone = gateway
        .request(Method::DELETE, "/v1/tenant/grants/ocg_none")
        .send()
        .await;
    assert_eq!(gone.expect("an answer").status(), 404);

    let tokens = let_in(fresh().await).await;
    let own = gateway
        .smith_token(&scene.smith, &["connections:read", "connections:write"])
        .await;
    let other = gateway.smith("anthropic/text").await;
    let as_smith = |method: Method, path: String| {
        let call = scene.http.request(method, gateway.url(&path));
        call.bearer_auth(&own).send()
    };
    let path = format!("/v1/smiths/{}/grants", scene.smith);
    let listed = ok(as_smith(Method::GET, path.clone()).await).await;
    let id = listed["data"][0]["id"].as_str().expect("an id").to_owned();
    let foreign = as_smith(Method::DELETE, format!("/v1/smiths/{other}/grants/{id}")).await;
    assert_eq!(foreign.expect("an answer").status(), 403);
    let wrong = format!("/v1/smiths/{other}/grants/{id}");
    let wrong = gateway.request(Method::DELETE, &wrong).send().await;
    assert_eq!(wrong.expect("an answer").status(), 404);
    let own_tenant = as_smith(Method::GET, "/v1/tenant/grants".to_owned()).await;
    assert_eq!(own_tenant.expect("an answer").status(), 403);
    let gone = as_smith(Method::DELETE, format!("{path}/{id}")).await;
    assert_eq!(gone.expect("an answer").status(), 204);
    is_out(tokens, "its smith sent it away").await;

    // The deployment.
    let tokens = let_in(fresh().await).await;
    delete(format!("/v1/deployments/{}", scene.deployment)).await;
    is_out(tokens, "its deployment is gone").await;
}

async fn the_deleted_take_their_tokens_along(store: Option<String>) {
    let scene = Scene::set(store).await;
    let gateway = &scene.gateway;
    let (_, tokens) = scene.exchange(&scene.code().await, &[]).await;
    let as_smith = |token: &str| {
        let call = scene.http.get(gateway.url("/v1/models"));
        call.bearer_auth(token).send()
    };
    let reader = gateway.smith_token(&scene.smith, &["runs:read"]).await;
    ok(as_smith(&reader).await).await;
    let connections = format!("/v1/smiths/{}/connections", scene.smith);
    let connection = json!({ "provider": "p", "credential": { "access_token": "t" } });
    ok(gateway.post(&connections, &connection).send().await).await;

    let path = format!("/v1/smiths/{}", scene.smith);
    let gone = gateway.request(Method::DELETE, &path).send().await;
    assert_eq!(gone.expect("an answer").status(), 204);
    assert_eq!(as_smith(&reader).await.expect("an answer").status(), 401);
    assert!(!scene.opens(&tokens["access_token"]).await);
    assert_eq!(scene.refresh(&tokens["refresh_token"]).await.0, 400);
    let path = format!("/v1/deployments/{}", scene.deployment);
    let gone = gateway.get(&path).send().await.expect("an answer");
    assert_eq!(gone.status(), 404, "its own deployment goes with it");
    let store = &gateway.gateway.store;
    let left = store.connections(&gateway.tenant, &scene.smith, None, None, 10);
    assert!(left.await.expect("read").is_empty());

    // A project with all its tokens, an agent with its deployment's.
    let organization = smithgate::gateway::organization(store.as_ref())
        .await
        .expect("one");
    let auth = &gateway.gateway.auth;
    let (_, key) = auth
        .mint_organization_key(&organization.id, None, None)
        .await
        .expect("a key");
    let call = |method: Method, path: String| {
        let call = scene.http.request(method, gateway.url(&path));
        call.bearer_auth(&key)
    };
    let made = call(Method::POST, "/v1/organization/projects".to_owned());
    let made = ok(made.json(&json!({ "name": "p" })).send().await).await;
    let project = format!(
        "/v1/organization/projects/{}",
        made["id"].as_str().expect("an id")
    );
    let minted = call(Method::POST, format!("{project}/tokens")).json(&json!({}));
    let minted = ok(minted.send().await).await;
    let admin = minted["token"].as_str().expect("a token").to_owned();
    let other = scene.of_tenant(&admin).await;
    let (_, tokens) = other.exchange(&other.code().await, &[]).await;
    assert!(other.opens(&tokens["access_token"]).await);
    let gone = call(Method::DELETE, project)
        .send()
        .await
        .expect("an answer");
    assert_eq!(gone.status(), 204);
    assert!(!other.opens(&tokens["access_token"]).await);
    assert_eq!(other.refresh(&tokens["refresh_token"]).await.0, 400);
    assert_eq!(
        as_smith(&other.token).await.expect("an answer").status(),
        401
    );
    assert_eq!(as_smith(&admin).await.expect("an answer").status(), 401);
}

async fn grants_and_clients_do_not_last_for_ever(store: Option<String>) {
    let scene = Scene::set(store).await;
    let code = scene.code().await;
    let (_, tokens) = scene.exchange(&code, &[]).await;
    let store = &scene.gateway.gateway.store;
    let id = tokens["refresh_token"].as_str().expect("a token");
    let id = id.split('.').next().expect("an id");
    let grant = store
        .connector_grant(id)
        .await
        .expect("read")
        .expect("a grant");
    let days = (grant.ends_at - grant.created_at) / (24 * 3600 * 1_000_000);
    assert_eq!(days, 90);
    // However often it is refreshed, its end stays.
    let (_, next) = scene.refresh(&tokens["refresh_token"]).await;
    let later = store
        .connector_grant(id)
        .await
        .expect("read")
        .expect("a grant");
    assert_eq!(later.ends_at, grant.ends_at);
    assert!(later.expires_at <= later.ends_at);
    let mut ended = later.clone();
    ended.id = format!("{}x", ended.id);
    ended.ends_at = 1;
    store.insert_connector_grant(&ended).await.expect("written");
    let secret = next["refresh_token"].as_str().expect("a token");
    let secret = secret.split_once('.').expect("two parts").1;
    let (status, _) = scene
        .refresh(&json!(format!("{}.{secret}", ended.id)))
        .await;
    assert_eq!(status, 400, "a grant that has ended");
    // Registered and never let in: only so many are kept.
    let row = |n: i64, created_at: i64| smithgate::store::ConnectorClientRow {
        id: format!("occ_{n}"),
        name: "host".to_owned(),
        redirect_uris: "[]".to_owned(),
        created_at,
        used_at: None,
    };
    for n in 0..3 {
        assert!(
            store
                .insert_connector_client(&row(n, 10), 3, 5)
                .await
                .expect("written")
        );
    }
    assert!(
        !store
            .insert_connector_client(&row(9, 20), 3, 5)
            .await
            .expect("tried")
    );
    assert!(
        store
            .insert_connector_client(&row(9, 20), 3, 15)
            .await
            .expect("written")
    );
    assert_eq!(store.connector_client("occ_0").await.expect("read"), None);
    // The one that was let in stays.
    assert!(
        store
            .connector_client(&scene.client)
            .await
            .expect("read")
            .is_some()
    );
}

async fn tenants_ask_their_people_themselves(store: Option<String>) {
    let scene = Scene::set(store).await;
    let gateway = &scene.gateway;
    let put = |body: Value| {
        gateway
            .request(Method::PUT, "/v1/tenant/consent")
            .json(&body)
            .send()
    };
    for bad in [
        "http://tenant.test/consent",
        "javascript:alert(1)",
        "https://a@tenant.test/",
        "https://tenant.test/#x",
    ] {
        let refused = put(json!({ "authorize_url": bad })).await;
        assert_eq!(refused.expect("an answer").status(), 400, "{bad}");
    }
    let page = "https://tenant.test/consent?lang=de";
    let stored = ok(put(json!({ "authorize_url": page })).await).await;
    assert_eq!(
        stored,
        json!({ "authorize_url": page, "return_origins": [] })
    );

    let begin = || async {
        let url = url::Url::parse_with_params(&gateway.url("/oauth/authorize"), scene.asked());
        let sent = scene.http.get(url.expect("a URL")).send().await;
        let there = location(&sent.expect("an answer"));
        assert_eq!(there.host_str(), Some("tenant.test"));
        assert_eq!(field(&there, "lang").as_deref(), Some("de"));
        field(&there, "request_id").expect("an id")
    };
    let path = |id: &str, what: &str| format!("/v1/oauth/authorize-requests/{id}{what}");
    let id = begin().await;
    // The form does not go round it.
    let there = location(&scene.consent(&scene.token).await);
    assert_eq!(there.host_str(), Some("tenant.test"));
    let request = ok(gateway.get(&path(&id, "")).send().await).await;
    assert_eq!(request["client_name"], "<b>Host</b>");
    assert_eq!(request["deployment_id"], json!(scene.deployment));
    assert_eq!(request["resource"], json!(scene.endpoint()));
    assert_eq!(request["tenant"], json!(gateway.tenant));
    assert!(!request["target_name"].as_str().expect("a name").is_empty());
    // Who is no admin of this tenant does not see it.
    let as_other = |token: &str, method: Method, path: String| {
        let call = scene.http.request(method, gateway.url(&path));
        call.bearer_auth(token)
            .json(&json!({ "smith_id": scene.smith }))
            .send()
    };
    for (method, what) in [
        (Method::GET, ""),
        (Method::POST, "/complete"),
        (Method::POST, "/decline"),
    ] {
        let refused = as_other(&scene.token, method.clone(), path(&id, what)).await;
        assert_eq!(refused.expect("an answer").status(), 403, "{what}");
        let refused = as_other(&other_tenant(gateway).await, method, path(&id, what)).await;
        assert_eq!(refused.expect("an answer").status(), 404, "{what}");
    }
    // A smith that the deployment does not answer for, one that is none, none at all.
    let other = gateway.smith("anthropic/text").await;
    for (body, status) in [
        (json!({ "smith_id": other }), 403),
        (json!({ "smith_id": "smt_none" }), 404),
        (json!({}), 400),
    ] {
        let refused = gateway.post(&path(&id, "/complete"), &body).send().await;
        assert_eq!(refused.expect("an answer").status(), status, "{body}");
    }
    let body = json!({ "smith_id": scene.smith });
    let done = ok(gateway.post(&path(&id, "/complete"), &body).send().await).await;
    let back: url::Url = done["redirect_url"]
        .as_str()
        .expect("a URL")
        .parse()
        .expect("a URL");
    assert!(back.as_str().starts_with(REDIRECT), "{back}");
    assert_eq!(field(&back, "state").as_deref(), Some("\"s&"));
    assert!(field(&back, "iss").is_some());
    let (status, tokens) = scene
        .exchange(&field(&back, "code").expect("a code"), &[])
        .await;
    assert_eq!(
        (status, &tokens["scope"]),
        (200, &json!("runs:write approvals:write"))
    );
    assert!(scene.opens(&tokens["access_token"]).await);
    // Answered once.
    for what in ["/complete", "/decline"] {
        let again = gateway.post(&path(&id, what), &body).send().await;
        assert_eq!(again.expect("an answer").status(), 404, "{what}");
    }
    let id = begin().await;
    let done = ok(gateway
        .post(&path(&id, "/decline"), &json!({}))
        .send()
        .await)
    .await;
    let back: url::Url = done["redirect_url"]
        .as_str()
        .expect("a URL")
        .parse()
        .expect("a URL");
    assert_eq!(field(&back, "error").as_deref(), Some("access_denied"));
    assert_eq!(field(&back, "code"), None);
    // Without a page of its own, people consent here again.
    ok(put(json!({})).await).await;
    let back = location(&scene.consent(&scene.token).await);
    assert_eq!(back.host_str(), Some("host.test"));
}

/// An admin's token of another tenant.
async fn other_tenant(gateway: &Harness) -> String {
    let store = &gateway.gateway.store;
    let tenant = smithgate::store::Tenant {
        id: smithgate::ids::mint(smithgate::ids::Kind::Project),
        name: "other".to_owned(),
        created_at: 1,
    };
    store.create_tenant(&tenant).await.expect("made");
    let mint = smithgate::auth::Mint {
        tenant_id: tenant.id,
        scope: smithgate::auth::MintedScope::Admin,
        ttl_seconds: None,
        name: None,
    };
    gateway.gateway.auth.mint(mint).await.expect("minted").token
}

async fn real_hosts_connect(store: Option<String>) {
    let scene = Scene::set(store).await;
    let endpoint = scene.endpoint();
    let env = [
        ("URL", endpoint.as_str()),
        ("SMITH_TOKEN", scene.token.as_str()),
    ];
    run_python(&scene.gateway, "mcp_connect.py", &env).await;
    run_script(&scene.gateway, "TEST_NODE", "mcp_connect.mjs", &env).await;
}

on_both_stores! {
    hosts_are_let_in,
    codes_serve_once_and_for_their_host,
    nobody_is_let_in_by_mistake,
    grants_end_with_their_reason,
    the_deleted_take_their_tokens_along,
    grants_and_clients_do_not_last_for_ever,
    tenants_ask_their_people_themselves,
    real_hosts_connect,
}
