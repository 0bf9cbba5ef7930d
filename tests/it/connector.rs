//! MCP hosts that connect by OAuth.

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
    gateway: Harness,
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
            gateway,
            smith,
            token,
            http,
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
    real_hosts_connect,
}
