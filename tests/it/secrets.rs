//! Where secrets and browsers go: only where their owner said, and into no log, page or metric.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::cli::{Running, token_in};
use crate::crash::with_mock;
use crate::mock::Mock;
use crate::support::{Harness, free_address, ok, refused};
use crate::webhooks::{Receiver, loopback_allowed};

fn browser() -> Client {
    let none = reqwest::redirect::Policy::none();
    let built = Client::builder().no_proxy().redirect(none).build();
    built.expect("a client")
}

fn forms(receiver: &Receiver) -> Vec<String> {
    let arrived = receiver.arrived().into_iter();
    arrived
        .map(|sent| String::from_utf8(sent.body.to_vec()).expect("text"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_secret_goes_only_where_its_owner_said() {
    let (thief, good) = (Receiver::start().await, Receiver::start().await);
    let harness = Harness::start_with(loopback_allowed).await;
    let smith = harness.smith("openai-chat/text").await;
    let token = harness
        .smith_token(&smith, &["connections:read", "connections:write"])
        .await;
    let connections = format!("/v1/smiths/{smith}/connections");
    let as_smith = |method: Method, path: &str, body: &Value| {
        let call = harness.client.request(method, harness.url(path));
        call.bearer_auth(&token).json(body).send()
    };
    let put = |body: Value| {
        let call = harness.request(Method::PUT, "/v1/tenant/providers/github");
        call.json(&body).send()
    };
    let own = |provider: &str| {
        json!({ "provider": provider, "credential": { "refresh_token": "r",
            "token_uri": thief.url("/token") } })
    };
    // Before the tenant has a client of its own, then with one whose secret has no address.
    let early = ok(as_smith(Method::POST, &connections, &own("github")).await).await;
    let early = format!("{connections}/{}", early["id"].as_str().expect("an id"));
    let secret = json!({ "client_id": "me", "client_secret": "planted-secret" });
    ok(put(secret.clone()).await).await;
    let refresh = format!("{early}/refresh");
    let (status, error) = refused(as_smith(Method::POST, &refresh, &json!({})).await).await;
    assert_eq!((status, &error["code"]), (502, &json!("refresh_failed")));
    for (method, path) in [(Method::POST, &connections), (Method::PATCH, &early)] {
        let answer = as_smith(method.clone(), path, &own("github")).await;
        let (status, error) = refused(answer).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("invalid_url")),
            "{method}"
        );
        assert_eq!(error["param"], "credential.token_uri");
    }
    // With an address of the tenant's: that one, whatever the connection says.
    let mut known = secret;
    known["token_uri"] = json!(good.url("/token"));
    ok(put(known).await).await;
    good.answer(200, r#"{"access_token":"a"}"#);
    ok(as_smith(Method::POST, &refresh, &json!({})).await).await;
    assert!(forms(&good)[0].contains("client_secret=planted-secret"));
    // A provider that sends the request on elsewhere is not followed.
    good.answer(307, "");
    let (status, _) = refused(as_smith(Method::POST, &refresh, &json!({})).await).await;
    assert_eq!(status, 502);
    assert!(thief.arrived().is_empty());
    // A public client has nothing to steal.
    let public = ok(as_smith(Method::POST, &connections, &own("public")).await).await;
    let public = format!(
        "{connections}/{}/refresh",
        public["id"].as_str().expect("an id")
    );
    thief.answer(200, r#"{"access_token":"a"}"#);
    ok(as_smith(Method::POST, &public, &json!({})).await).await;
    assert!(!forms(&thief)[0].contains("secret"), "{:?}", forms(&thief));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_key_goes_only_where_it_belongs() {
    let thief = Receiver::start().await;
    let harness = Harness::start_with(loopback_allowed).await;
    let smith = harness.smith("openai-chat/text").await;
    let token = harness
        .smith_token(&smith, &["model_keys:write", "runs:write"])
        .await;
    let call = |method: Method, path: String, body: Value| {
        let call = harness.client.request(method, harness.url(&path));
        call.bearer_auth(&token).json(&body).send()
    };
    // The tenant's own key, and the operator's, are in reach of this smith.
    let tenants = harness.request(Method::PUT, "/v1/tenant/model_keys/openai-chat");
    ok(tenants
        .json(&json!({ "api_key": "tenants-key" }))
        .send()
        .await)
    .await;
    let path = format!("/v1/smiths/{smith}/model_keys/openai-chat");
    let no_key = call(
        Method::PUT,
        path.clone(),
        json!({ "base_url": thief.url("") }),
    )
    .await;
    assert_eq!(no_key.expect("an answer").status(), 400);
    let empty = json!({ "api_key": " ", "base_url": thief.url("") });
    assert_eq!(
        call(Method::PUT, path.clone(), empty)
            .await
            .expect("an answer")
            .status(),
        400
    );
    let own = json!({ "api_key": "smiths-key", "base_url": thief.url("/v1") });
    ok(call(Method::PUT, path, own).await).await;
    let run = json!({ "input": [{ "role": "user", "content": "hi" }] });
    let _ = call(Method::POST, format!("/v1/smiths/{smith}/runs"), run).await;
    let sent = thief.wait(1).await;
    for request in sent {
        let text = format!("{:?} {:?}", request.headers, request.body);
        assert!(text.contains("smiths-key"), "{text}");
        assert!(
            !text.contains("tenants-key") && !text.contains("hosted-"),
            "{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_go_back_only_to_registered_origins() {
    let harness = Harness::start_with(|config, _| {
        config.server.public_url = Some("https://gateway.test".to_owned());
        config.server.return_origins = vec!["https://operator.test".to_owned()];
    })
    .await;
    let smith = harness.smith("openai-chat/text").await;
    let client = json!({ "client_id": "me", "authorize_url": "https://login.test/a",
        "token_uri": "https://login.test/t" });
    let put = harness
        .request(Method::PUT, "/v1/tenant/providers/p")
        .json(&client);
    ok(put.send().await).await;
    let origins = json!({ "return_origins": ["https://app.test", "http://localhost:3000"] });
    let put = harness
        .request(Method::PUT, "/v1/tenant/consent")
        .json(&origins);
    let stored = ok(put.send().await).await;
    assert_eq!(stored["return_origins"], origins["return_origins"]);
    let path = format!("/v1/smiths/{smith}/connections/authorize");
    let begin = |url: &str| {
        let body = json!({ "provider": "p", "return_url": url });
        harness.post(&path, &body).send()
    };
    for good in [
        "https://app.test/done?x=1",
        "https://operator.test/",
        "https://gateway.test/back",
        "http://localhost:3000/cb",
    ] {
        ok(begin(good).await).await;
    }
    for bad in [
        "https://evil.test/",
        "https://app.test.evil.test/",
        "https://app.test:444/",
        "http://app.test/",
        "http://localhost:3001/",
        "https://app.test@evil.test/",
        "https://app.test:x@evil.test",
        "https://evil.test\\@app.test/",
        "https:evil.test",
        "//evil.test/",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://app.test/\r\nx: y",
        "\thttps://app.test/",
        "",
    ] {
        let (status, error) = refused(begin(bad).await).await;
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("invalid_return_url")),
            "{bad:?}"
        );
    }
    // What is no longer registered is not gone to either.
    let begun = ok(begin("https://app.test/done").await).await;
    let page = url::Url::parse(begun["authorize_url"].as_str().expect("a page")).expect("a URL");
    let asked: HashMap<String, String> = page.query_pairs().into_owned().collect();
    let put = harness
        .request(Method::PUT, "/v1/tenant/consent")
        .json(&json!({}));
    ok(put.send().await).await;
    let back = harness.url(&format!(
        "/v1/oauth/callback?error=x&state={}",
        asked["state"]
    ));
    let answer = browser().get(back).send().await.expect("an answer");
    assert_eq!(answer.status(), 400);
    assert!(!answer.headers().contains_key("location"));
}

fn check_guards(answer: &Response, what: &str) {
    let header = |name: &str| {
        let value = answer.headers().get(name);
        value
            .map(|v| v.to_str().expect("text").to_owned())
            .unwrap_or_default()
    };
    assert!(header("content-type").starts_with("text/html"), "{what}");
    let policy = header("content-security-policy");
    assert!(policy.contains("default-src 'none'"), "{what}: {policy}");
    assert!(
        policy.contains("frame-ancestors 'none'"),
        "{what}: {policy}"
    );
    assert_eq!(header("x-frame-options"), "DENY", "{what}");
    assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
    assert_eq!(header("referrer-policy"), "no-referrer", "{what}");
    assert_eq!(header("cache-control"), "no-store", "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_what_strangers_wrote_as_text() {
    let harness = Harness::start_with(|config, _| {
        config.server.public_url = Some(format!("http://{}", config.server.listen));
    })
    .await;
    let (http, evil) = (
        browser(),
        "\"><script>alert(1)</script><img src=x onerror=alert(1)>'",
    );
    let redirect = format!("https://host.test/?a={evil}");
    let body = json!({ "client_name": evil, "redirect_uris": [redirect] });
    let made = http
        .post(harness.url("/oauth/register"))
        .json(&body)
        .send()
        .await;
    let client = ok(made).await["client_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let resource = harness.url("/v1/deployments/dep_1/mcp");
    let good = |name: &str, value: &str| {
        let mut asked = vec![
            ("response_type", "code"),
            ("client_id", &client),
            ("redirect_uri", &redirect),
            ("resource", &resource),
            (
                "code_challenge",
                "0123456789012345678901234567890123456789abc",
            ),
            ("code_challenge_method", "S256"),
            ("state", evil),
        ];
        asked.retain(|(n, _)| *n != name);
        asked.push((name, value));
        url::Url::parse_with_params(&harness.url("/oauth/authorize"), asked).expect("a URL")
    };
    let mut pages = Vec::new();
    for (what, url) in [
        ("the consent page", good("x", "y")),
        ("an unknown client", good("client_id", evil)),
        (
            "a redirect that is not registered",
            good("redirect_uri", evil),
        ),
    ] {
        pages.push((what, http.get(url).send().await.expect("a page")));
    }
    let form = good("connect_token", evil);
    let form = http
        .post(harness.url("/oauth/authorize"))
        .body(form.query().unwrap_or_default().to_owned());
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    pages.push(("a refused token", form.send().await.expect("a page")));
    pages.push((
        "the reference",
        http.get(harness.url("/reference"))
            .send()
            .await
            .expect("a page"),
    ));
    // The callback's page, for a person without a page to go back to.
    let smith = harness.smith("openai-chat/text").await;
    let provider = json!({ "client_id": "me", "authorize_url": "https://login.test/a", "token_uri": "https://login.test/t" });
    let put = harness
        .request(Method::PUT, "/v1/tenant/providers/p")
        .json(&provider);
    ok(put.send().await).await;
    let begun = harness.post(
        &format!("/v1/smiths/{smith}/connections/authorize"),
        &json!({ "provider": "p" }),
    );
    let begun = ok(begun.send().await).await;
    let page = url::Url::parse(begun["authorize_url"].as_str().expect("a page")).expect("a URL");
    let asked: HashMap<String, String> = page.query_pairs().into_owned().collect();
    let back = url::Url::parse_with_params(
        &harness.url("/v1/oauth/callback"),
        [("error", evil), ("state", &asked["state"])],
    );
    pages.push((
        "the callback",
        http.get(back.expect("a URL")).send().await.expect("a page"),
    ));
    for (what, page) in pages {
        check_guards(&page, what);
        let text = page.text().await.expect("text");
        assert!(
            !text.contains("<script") && !text.contains("<img"),
            "{what}: {text}"
        );
    }
    // Nothing else is HTML, whatever is asked for, and no origin gets credentials.
    for path in [
        "/v1/<script>",
        "/v1/oauth/callback?state=<script>",
        "/oauth/token",
        "/health",
    ] {
        let answer = http
            .get(harness.url(path))
            .header("origin", "https://evil.test");
        let answer = answer
            .header("accept", "text/html")
            .send()
            .await
            .expect("an answer");
        assert_eq!(
            answer.headers()["content-type"],
            "application/json",
            "{path}"
        );
        assert_eq!(
            answer.headers()["access-control-allow-origin"],
            "*",
            "{path}"
        );
        assert!(
            !answer
                .headers()
                .contains_key("access-control-allow-credentials"),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_we_are_is_told_by_whom_we_believe() {
    for (trusts, https) in [(false, false), (true, true)] {
        let harness = Harness::start_with(|config, _| config.server.trust_forwarded = trusts).await;
        let asked = |host: &str| {
            let call = browser().post(harness.url("/v1/deployments/dep_1/mcp"));
            call.header("host", host)
                .header("x-forwarded-proto", "https")
                .header("x-forwarded-host", "front.test, inner.test")
                .send()
        };
        let answer = asked("plain.test").await.expect("an answer");
        let challenge = answer.headers()["www-authenticate"]
            .to_str()
            .expect("text")
            .to_owned();
        let expected = match https {
            true => {
                "\"https://front.test/.well-known/oauth-protected-resource/v1/deployments/dep_1/mcp\""
            }
            false => {
                "\"http://plain.test/.well-known/oauth-protected-resource/v1/deployments/dep_1/mcp\""
            }
        };
        assert!(challenge.contains(expected), "{challenge}");
        let metadata = browser()
            .get(harness.url("/.well-known/oauth-authorization-server"))
            .header("host", "plain.test")
            .header("x-forwarded-proto", "https")
            .send();
        let issuer = match https {
            true => "https://plain.test",
            false => "http://plain.test",
        };
        assert_eq!(ok(metadata.await).await["issuer"], issuer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_or_shown() {
    const PLANTED: [&str; 9] = [
        "planted-provider-key",
        "planted-tenant-key",
        "planted-mcp-bearer",
        "planted-client-secret",
        "planted-access-token",
        "planted-refresh-token",
        "planted-oauth-code",
        "planted-bad-bearer",
        "planted-metrics-token",
    ];
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let receiver = Receiver::start().await;
    let log = dir.path().join("log");
    let mut command = with_mock(dir.path(), &mock, None);
    command
        .env("SMITHGATE_PROVIDERS__MOCK__API_KEY", PLANTED[0])
        .env("SMITHGATE_METRICS__TOKEN", PLANTED[8])
        .env("SMITHGATE_LOG__FILTER", "debug")
        .env("SMITHGATE_EGRESS__ALLOW_NETWORKS", "[\"127.0.0.0/8\"]")
        .env(
            "SMITHGATE_SERVER__PUBLIC_URL",
            format!("http://{}", free_address()),
        )
        .stderr(Stdio::from(std::fs::File::create(&log).expect("a log")));
    let (running, printed) = Running::start(command, "listens on").await;
    let admin = token_in(&printed).expect("a token").to_owned();
    let call = |method: Method, path: &str, body: Value| {
        let call = running.client.request(method, running.url(path));
        call.bearer_auth(&admin).json(&body).send()
    };
    let mut shown = String::new();
    let mut tokens = vec![admin.clone()];
    let smith = ok(call(Method::POST, "/v1/smiths", json!({ "model": "mock/text" })).await).await;
    let smith = smith["id"].as_str().expect("an id").to_owned();
    let minted = json!({ "smith_id": smith, "permissions": ["runs:write"] });
    let minted = ok(call(Method::POST, "/v1/tenant/tokens", minted).await).await;
    tokens.push(minted["token"].as_str().expect("a token").to_owned());
    let hook = json!({ "url": receiver.url("/hook"), "events": ["run"] });
    let hook = ok(call(Method::POST, "/v1/tenant/webhooks", hook).await).await;
    tokens.push(hook["secret"].as_str().expect("a secret").to_owned());
    let connections = format!("/v1/smiths/{smith}/connections");
    let key = json!({ "api_key": PLANTED[1] });
    let server =
        json!({ "url": receiver.url("/mcp"), "auth": { "kind": "bearer", "secret": PLANTED[2] } });
    let client = json!({ "client_id": "me", "client_secret": PLANTED[3],
        "token_uri": receiver.url("/token"), "authorize_url": "https://login.test/a" });
    let grant = json!({ "provider": "p", "credential": { "access_token": PLANTED[4], "refresh_token": PLANTED[5] } });
    for (method, path, body) in [
        (Method::PUT, "/v1/tenant/model_keys/mock", key),
        (Method::PUT, "/v1/tenant/mcp/tools", server),
        (Method::PUT, "/v1/tenant/providers/p", client),
        (Method::POST, &connections, grant),
    ] {
        shown += &call(method, path, body)
            .await
            .expect("an answer")
            .text()
            .await
            .expect("text");
    }
    // Runs that work and runs that do not, calls that are refused, an authorization that fails.
    for model in ["text", "status-500", "status-401", "fault-reset"] {
        let body = json!({ "model": format!("mock/{model}"), "messages": [{ "role": "user", "content": "hi" }] });
        shown += &call(Method::POST, "/v1/chat/completions", body)
            .await
            .expect("an answer")
            .text()
            .await
            .expect("text");
    }
    let run = json!({ "input": [{ "role": "user", "content": "hi" }] });
    shown += &call(Method::POST, &format!("/v1/smiths/{smith}/runs"), run)
        .await
        .expect("an answer")
        .text()
        .await
        .expect("text");
    let begun = call(
        Method::POST,
        &format!("{connections}/authorize"),
        json!({ "provider": "p" }),
    )
    .await;
    let begun = ok(begun).await;
    let page = url::Url::parse(begun["authorize_url"].as_str().expect("a page")).expect("a URL");
    let asked: HashMap<String, String> = page.query_pairs().into_owned().collect();
    receiver.answer(
        400,
        &format!(
            r#"{{"error":"invalid_grant","error_description":"{}"}}"#,
            PLANTED[6]
        ),
    );
    let back = format!(
        "/v1/oauth/callback?code={}&state={}",
        PLANTED[6], asked["state"]
    );
    shown += &running
        .client
        .get(running.url(&back))
        .send()
        .await
        .expect("an answer")
        .text()
        .await
        .expect("text");
    let bad = running
        .client
        .get(running.url("/v1/agents"))
        .bearer_auth(PLANTED[7])
        .send()
        .await;
    shown += &bad.expect("an answer").text().await.expect("text");
    for head in [
        "GET / HTTP/7.7\r\n",
        "GET /a\u{1}b HTTP/1.1\r\n",
        "G\u{1}T / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nx\r\n",
        "GET / HTTP/1.1\r\na: b\u{1}\r\n",
    ] {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = running.url("").replace("http://", "");
        let mut stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("connected");
        let request = format!("{head}authorization: Bearer {}\r\n\r\n", PLANTED[7]);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read_to_string(&mut answer));
        let _ = read.await;
        shown += &answer;
    }
    for path in [
        "/v1/events",
        "/v1/traces",
        "/v1/runs",
        "/v1/tenant/tokens",
        "/v1/tenant/mcp",
        "/v1/tenant/providers",
        "/v1/tenant/model_keys",
        "/v1/tenant/webhooks",
        &connections,
        "/v1/usage/events",
        "/v1/tenant/grants",
    ] {
        shown += &call(Method::GET, path, Value::Null)
            .await
            .expect("an answer")
            .text()
            .await
            .expect("text");
    }
    drop(running);
    let logged = std::fs::read_to_string(&log).expect("a log");
    assert!(logged.lines().count() > 5, "{logged}");
    for secret in PLANTED
        .iter()
        .copied()
        .chain(tokens.iter().map(String::as_str))
    {
        assert!(!shown.contains(secret), "{secret} is shown");
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is logged");
    }
}

/// Sends the process a signal.
pub fn signal(child: u32, name: &str) {
    let sent = std::process::Command::new("kill")
        .args([name, &child.to_string()])
        .status();
    assert!(sent.expect("kill").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_stopped_in_pulses_refuses_nobody() {
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let command = with_mock(dir.path(), &mock, None);
    let (running, printed) = Running::start(command, "listens on").await;
    let admin = token_in(&printed).expect("a token").to_owned();
    let child = running.child.id().expect("a process");
    let pulses = tokio::spawn(async move {
        for _ in 0..25 {
            signal(child, "-STOP");
            tokio::time::sleep(Duration::from_millis(150)).await;
            signal(child, "-CONT");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut callers = Vec::new();
    for _ in 0..16 {
        let (client, url, admin) = (
            running.client.clone(),
            running.url("/v1/chat/completions"),
            admin.clone(),
        );
        callers.push(tokio::spawn(async move {
            let body =
                json!({ "model": "mock/text", "messages": [{ "role": "user", "content": "hi" }] });
            let mut statuses = Vec::new();
            for _ in 0..12 {
                let sent = client
                    .post(&url)
                    .bearer_auth(&admin)
                    .json(&body)
                    .send()
                    .await;
                statuses.push(sent.expect("an answer").status().as_u16());
            }
            statuses
        }));
    }
    pulses.await.expect("pulses");
    for caller in callers {
        let statuses = caller.await.expect("a caller");
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    }
}
