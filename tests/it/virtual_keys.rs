//! Virtual keys: what they let in and what not, how they end, on one node and on two.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use smithgate::config::{Alias, Target};

use crate::contract::{filled, one_of_each};
use crate::control::{code, id, on_both_stores, start_on};
use crate::nodes::Redis;
use crate::store::postgres_url;
use crate::support::{Harness, ok, refused};

on_both_stores!(
    a_key_has_a_life,
    usage_is_told_by_key,
    a_project_takes_its_keys_with_it,
);

const KEYS: &str = "/v1/tenant/keys";

struct Key {
    id: String,
    token: String,
}

async fn key(harness: &Harness, body: Value) -> Key {
    let made = ok(harness.post(KEYS, &body).send().await).await;
    Key {
        id: id(&made),
        token: made["token"].as_str().expect("a secret").to_owned(),
    }
}

fn call(harness: &Harness, method: Method, path: &str, token: &str) -> RequestBuilder {
    let request = harness.client.request(method, harness.url(path));
    request.bearer_auth(token).timeout(Duration::from_secs(20))
}

fn ask(harness: &Harness, token: &str, model: &str) -> RequestBuilder {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    call(harness, Method::POST, "/v1/chat/completions", token).json(&body)
}

async fn chat_status(harness: &Harness, token: &str) -> u16 {
    let answer = ask(harness, token, "openai-chat/text").send().await;
    answer.expect("an answer").status().as_u16()
}

async fn why(request: RequestBuilder) -> (u16, String) {
    let (status, error) = refused(request.send().await).await;
    (status, code(&error).to_owned())
}

async fn a_key_has_a_life(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let about = json!({ "name": "ci", "owner": "ann", "team": "core", "metadata": { "z": 1, "a": 2 },
        "tags": ["x"], "models": ["openai-chat/*"], "routes": ["chat.completions"] });
    let made = ok(harness.post(KEYS, &about).send().await).await;
    let token = made["token"].as_str().expect("a secret");
    let path = format!("{KEYS}/{}", id(&made));
    assert!(token.starts_with("sk-sg-") && token.len() == 49, "{token}");
    assert!(token.ends_with(made["last_four"].as_str().expect("letters")));
    let read = ok(harness.get(&path).send().await).await;
    for (member, given) in about.as_object().expect("members") {
        assert_eq!(read[member], *given, "{member}");
    }
    assert!(read.get("token").is_none(), "{read}");
    assert_eq!(read["metadata"].to_string(), r#"{"z":1,"a":2}"#);
    let listed = ok(harness.get(&format!("{KEYS}?owner=ann")).send().await).await;
    assert_eq!(listed["data"], json!([read]));
    let none = ok(harness.get(&format!("{KEYS}?owner=bob")).send().await).await;
    assert_eq!(none["data"], json!([]));

    assert_eq!(chat_status(&harness, token).await, 200);
    let other = ask(&harness, token, "anthropic/text");
    assert_eq!(why(other).await, (403, "model_not_allowed".to_owned()));
    let other = call(&harness, Method::GET, "/v1/models", token);
    assert_eq!(why(other).await, (403, "route_not_allowed".to_owned()));

    // Changed, disabled, enabled.
    let patch = |body: Value| harness.request(Method::PATCH, &path).json(&body);
    let patched = ok(
        patch(json!({ "models": null, "routes": null, "owner": null }))
            .send()
            .await,
    )
    .await;
    assert_eq!(
        (&patched["models"], &patched["owner"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(patched["team"], "core");
    let other = ask(&harness, token, "anthropic/text").send().await;
    ok(other).await;
    ok(patch(json!({ "disabled": true })).send().await).await;
    let disabled = ask(&harness, token, "openai-chat/text");
    assert_eq!(why(disabled).await, (401, "key_disabled".to_owned()));
    ok(patch(json!({ "disabled": false })).send().await).await;
    assert_eq!(chat_status(&harness, token).await, 200);

    // Rotated with an overlap, then without one, which ends all before it.
    let rotate = format!("{path}/rotate");
    let second = ok(harness
        .post(&rotate, &json!({ "overlap_seconds": 60 }))
        .send()
        .await)
    .await;
    let second = second["token"].as_str().expect("a secret").to_owned();
    assert_eq!(chat_status(&harness, token).await, 200);
    assert_eq!(chat_status(&harness, &second).await, 200);
    let third = ok(harness
        .post(&rotate, &json!({ "overlap_seconds": 1 }))
        .send()
        .await)
    .await;
    let third = third["token"].as_str().expect("a secret").to_owned();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for old in [token, &second] {
        let ended = ask(&harness, old, "openai-chat/text");
        assert_eq!(why(ended).await, (401, "key_expired".to_owned()));
    }
    let fourth = ok(harness.post(&rotate, &json!({})).send().await).await;
    let fourth = fourth["token"].as_str().expect("a secret").to_owned();
    assert_eq!(chat_status(&harness, &third).await, 401);
    assert_eq!(chat_status(&harness, &fourth).await, 200);

    // It ends by its time, and for good when it is revoked.
    let soon = smithgate::store::rfc3339(smithgate::store::now_micros() + 1_000_000);
    ok(patch(json!({ "expires_at": soon })).send().await).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let ended = ask(&harness, &fourth, "openai-chat/text");
    assert_eq!(why(ended).await, (401, "key_expired".to_owned()));
    ok(patch(json!({ "expires_at": null })).send().await).await;
    assert_eq!(chat_status(&harness, &fourth).await, 200);
    for _ in 0..2 {
        let revoked = harness.request(Method::DELETE, &path).send().await;
        assert_eq!(revoked.expect("an answer").status(), 204);
        let revoked = ask(&harness, &fourth, "openai-chat/text");
        assert_eq!(why(revoked).await, (401, "key_revoked".to_owned()));
    }
    assert_eq!(
        why(patch(json!({ "disabled": false }))).await,
        (409, "key_revoked".to_owned())
    );
    assert_eq!(
        why(harness.post(&rotate, &json!({}))).await,
        (409, "key_revoked".to_owned())
    );

    // All of it was told, and no secret with it.
    let events = ok(harness.get("/v1/events?type=key").send().await).await;
    let told = events.to_string();
    let mut kinds: Vec<&str> = events["data"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["type"].as_str())
        .collect();
    kinds.dedup();
    kinds.reverse();
    assert_eq!(
        kinds,
        [
            "key.created",
            "key.updated",
            "key.rotated",
            "key.updated",
            "key.revoked"
        ]
    );
    for secret in [token, &second, &third, &fourth] {
        assert!(
            !told.contains(secret) && !told.contains(&secret[6..]),
            "{told}"
        );
    }
}

async fn usage_is_told_by_key(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let (first, second) = (
        key(&harness, json!({})).await,
        key(&harness, json!({})).await,
    );
    for (token, model) in [
        (&first.token, "openai-chat/text"),
        (&first.token, "anthropic/text"),
        (&second.token, "openai-chat/text"),
        (&harness.token, "openai-chat/text"),
    ] {
        ok(ask(&harness, token, model).send().await).await;
    }
    let body = json!({ "model": "anthropic/text", "stream": true, "max_tokens": 9,
        "messages": [{ "role": "user", "content": "hi" }] });
    let streamed = harness.client.post(harness.url("/v1/messages")).json(&body);
    let streamed = streamed.header("x-api-key", &first.token).send().await;
    let text = streamed.expect("an answer").text().await.expect("a stream");
    assert!(text.contains("message_stop"), "{text}");
    let of = async |query: &str| ok(harness.get(&format!("/v1/usage?{query}")).send().await).await;
    let begun = Instant::now();
    let by_key = loop {
        let by_key = of("group_by=key").await;
        if by_key["totals"]["run_count"] == json!(4) || begun.elapsed() > Duration::from_secs(5) {
            break by_key;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let counts: BTreeMap<&str, i64> = by_key["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .map(|group| {
            (
                group["key"].as_str().expect("a key"),
                group["run_count"].as_i64().expect("a count"),
            )
        })
        .collect();
    assert_eq!(
        counts,
        BTreeMap::from([(&*first.id, 3), (&*second.id, 1)]),
        "{by_key}"
    );
    let by_model = of(&format!("key_id={}", first.id)).await;
    assert_eq!(
        by_model["groups"].as_array().map(Vec::len),
        Some(1),
        "{by_model}"
    );
    assert_eq!(by_model["totals"]["run_count"], json!(3));
    assert!(by_model["totals"]["tokens"].as_i64() > Some(0));
    // The tenant's sum has them, too.
    assert_eq!(of("group_by=model").await["totals"]["run_count"], json!(5));
    let metrics = harness.metrics_text().await;
    let line = format!("smithgate_key_calls_total{{key=\"{}\"}} 3", first.id);
    assert!(metrics.contains(&line), "{line}");
    assert!(!metrics.contains(&first.token));
    let both = harness.get("/v1/usage?group_by=key&smith_id=smt_x");
    assert_eq!(why(both).await.0, 400);
}

async fn a_project_takes_its_keys_with_it(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let store = harness.gateway.store.clone();
    let organization = smithgate::gateway::organization(store.as_ref())
        .await
        .expect("one");
    let auth = &harness.gateway.auth;
    let minted = auth
        .mint_organization_key(&organization.id, None, None)
        .await;
    let organization = minted.expect("a key").1;
    let projects = "/v1/organization/projects";
    let body = json!({ "name": "second" });
    let made = call(&harness, Method::POST, projects, &organization).json(&body);
    let project = format!("{projects}/{}", id(&ok(made.send().await).await));
    let minted = call(
        &harness,
        Method::POST,
        &format!("{project}/tokens"),
        &organization,
    );
    let minted = ok(minted.json(&json!({})).send().await).await;
    let admin = minted["token"].as_str().expect("a token");
    let made = call(&harness, Method::POST, KEYS, admin).json(&json!({}));
    let made = ok(made.send().await).await;
    let token = made["token"].as_str().expect("a secret");
    // Another tenant's key is not there.
    let path = format!("{KEYS}/{}", id(&made));
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::PATCH, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/rotate")),
    ] {
        let foreign = harness.request(method.clone(), &path).json(&json!({}));
        assert_eq!(
            why(foreign).await,
            (404, "not_found".to_owned()),
            "{method} {path}"
        );
    }
    assert_eq!(ok(harness.get(KEYS).send().await).await["data"], json!([]));
    assert_eq!(chat_status(&harness, token).await, 200);
    let gone = call(&harness, Method::DELETE, &project, &organization)
        .send()
        .await;
    assert_eq!(gone.expect("an answer").status(), 204);
    assert_eq!(chat_status(&harness, token).await, 401);
}

/// A key may not do what is not a use of models, whatever the route.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_reaches_models_and_nothing_else() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let owned = one_of_each(&harness, &smith).await;
    let key = key(&harness, json!({})).await;
    let document = ok(harness.get("/openapi.json").send().await).await;
    let uses = [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/embeddings",
        "/v1/models",
        "/v1/models/{id}",
        "/v1/completions",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/images/variations",
        "/v1/audio/speech",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/rerank",
        "/v1/responses/input_tokens",
        "/v1beta/models",
        "/v1beta/models/{id}",
    ];
    let mut walked = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let is_open = operation["security"].as_array().is_some_and(|all| {
                all.iter()
                    .any(|one| one.as_object().is_some_and(|one| one.is_empty()))
            });
            let is_gemini = ["Content", "countTokens"]
                .iter()
                .any(|verb| path.ends_with(verb));
            if is_open || is_gemini || uses.contains(&&**path) {
                continue;
            }
            let method: Method = method.to_uppercase().parse().expect("a method");
            let url = filled(path, &owned).unwrap_or_else(|| path.clone());
            for named in [None, Some(&smith)] {
                let mut request = call(&harness, method.clone(), &url, &key.token);
                if method != Method::GET && method != Method::DELETE {
                    request = request.json(&json!({}));
                }
                if let Some(smith) = named {
                    request = request.header("IC-Smith-Id", smith);
                }
                let answer = request.send().await.expect("an answer");
                let status = answer.status().as_u16();
                let text = answer.text().await.expect("a body");
                assert_eq!(status, 403, "{method} {path}: {text}");
                assert!(
                    text.contains("virtual_key_not_allowed"),
                    "{method} {path}: {text}"
                );
                walked += 1;
            }
        }
    }
    assert!(walked > 200, "{walked}");
    // Nor may it act as a smith, or go on with a thread.
    let acting = ask(&harness, &key.token, "openai-chat/text").header("IC-Smith-Id", &smith);
    assert_eq!(
        why(acting).await,
        (403, "virtual_key_not_allowed".to_owned())
    );
    let thread = ask(&harness, &key.token, "openai-chat/text").header("IC-Thread-Id", "t");
    assert_eq!(why(thread).await, (400, "smith_required".to_owned()));
    // Nor name a file of the tenant's.
    let file = &owned.ids["/v1/files/"][0];
    for (path, model, expected) in [
        ("/v1/chat/completions", "openai-chat/text", 404),
        ("/v1/chat/completions", "gemini/text", 403),
    ] {
        let content = json!([{ "type": "file", "file": { "file_id": file } }]);
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": content }] });
        let named = call(&harness, Method::POST, path, &key.token).json(&body);
        assert_eq!(why(named).await.0, expected, "{model}");
    }
}

fn with_aliases(aliases: &[(&str, &[&str])]) -> BTreeMap<String, Alias> {
    let alias = |(name, targets): &(&str, &[&str])| {
        let target = |model: &&str| Target {
            model: (*model).to_owned(),
            retries: 0,
            timeout_ms: None,
        };
        let targets = targets.iter().map(target).collect();
        (
            (*name).to_owned(),
            Alias {
                targets,
                ..Alias::default()
            },
        )
    };
    aliases.iter().map(alias).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn models_of_a_key_are_those_that_are_asked_in_the_end() {
    let harness = Harness::start_with(|config, _| {
        config.models.aliases = with_aliases(&[
            ("dear", &["anthropic/text"]),
            ("mixed", &["anthropic/text", "openai-chat/text"]),
            // One whose first target fails before its content.
            ("falls", &["openai-chat/status-500", "anthropic/text"]),
        ]);
    })
    .await;
    let one = key(
        &harness,
        json!({ "models": ["openai-chat/text", "openai-chat/status-500"] }),
    )
    .await;
    let all = key(&harness, json!({ "models": ["openai-chat/*"] })).await;
    let by_alias = key(&harness, json!({ "models": ["dear"] })).await;
    let not_allowed = (403, "model_not_allowed".to_owned());
    for model in [
        "dear",
        "anthropic/text",
        "gemini/text",
        "anthropic.text",
        "openai-responses/text",
        "openai-chat/Text",
        "openai-chat/text ",
        "openai-chat/loop",
        "openai-chat/text/../loop",
    ] {
        let denied = why(ask(&harness, &one.token, model)).await;
        assert_eq!(denied, not_allowed, "{model}");
    }
    for model in [
        "dear",
        "anthropic/text",
        "openai-chat2/text",
        "OPENAI-CHAT/text",
    ] {
        let (status, code) = why(ask(&harness, &all.token, model)).await;
        assert!(
            status == 403 || code == "smith_required" || status == 400,
            "{model}: {status} {code}"
        );
        assert_ne!(status, 200);
    }
    ok(ask(&harness, &all.token, "openai-chat/loop").send().await).await;
    // An alias that is named may be asked, its target alone not.
    ok(ask(&harness, &by_alias.token, "dear").send().await).await;
    assert_eq!(
        why(ask(&harness, &by_alias.token, "anthropic/text")).await,
        not_allowed
    );
    // One that is not is asked with what is allowed of it, also when that fails.
    let before = harness.mock.got().len();
    ok(ask(&harness, &one.token, "mixed").send().await).await;
    assert_eq!(harness.mock.got().len(), before + 1);
    let failed = ask(&harness, &one.token, "falls")
        .send()
        .await
        .expect("an answer");
    assert!(failed.status().is_server_error(), "{}", failed.status());
    let listed = async |token: &str| -> Vec<String> {
        let listed = call(&harness, Method::GET, "/v1/models", token);
        let listed = ok(listed.send().await).await;
        let data = listed["data"].as_array().expect("models");
        data.iter()
            .filter_map(|m| m["id"].as_str())
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(listed(&by_alias.token).await, ["dear"]);
    assert_eq!(
        listed(&one.token).await,
        ["falls", "mixed", "openai-chat/text"]
    );
    let hidden = call(
        &harness,
        Method::GET,
        "/v1/models/anthropic/text",
        &one.token,
    );
    assert_eq!(why(hidden).await.0, 404);
    // A body may not name others beside its own.
    for (member, given) in [
        ("models", json!(["anthropic/text"])),
        ("Model", json!("loop")),
        ("fallbacks", json!([{ "model": "loop" }])),
        (
            "tools",
            json!([{ "type": "advisor", "name": "a", "model": "loop" }]),
        ),
    ] {
        let mut body = json!({ "model": "openai-chat/text", "messages": [{ "role": "user", "content": "hi" }] });
        body[member] = given;
        let beside = call(&harness, Method::POST, "/v1/chat/completions", &one.token).json(&body);
        assert_eq!(why(beside).await, not_allowed, "{member}");
    }
    let twice = r#"{"model":"openai-chat/text","model":"openai-chat/loop","messages":[{"role":"user","content":"hi"}]}"#;
    for body in [
        twice,
        &twice.replacen("model", "mod\\u0065l", 1),
        &twice.replacen("text\",\"model", "text\",\"Model", 1),
    ] {
        let twice = call(&harness, Method::POST, "/v1/chat/completions", &one.token)
            .header("content-type", "application/json")
            .body(body.to_owned());
        let answer = twice.send().await.expect("an answer");
        if answer.status().is_success() {
            assert_eq!(harness.mock.last().body["model"], "text", "{body}");
        }
    }
    // The default of embeddings is a model like others.
    let body = json!({ "input": "x", "model": "openai-responses/text" });
    let embed = call(&harness, Method::POST, "/v1/embeddings", &one.token).json(&body);
    assert_eq!(why(embed).await, not_allowed);
    let body = json!({ "input": "x", "model": "openai-chat/text" });
    let embed = call(&harness, Method::POST, "/v1/embeddings", &one.token).json(&body);
    ok(embed.send().await).await;
    let count =
        json!({ "model": "anthropic/text", "messages": [{ "role": "user", "content": "hi" }] });
    let count = call(
        &harness,
        Method::POST,
        "/v1/messages/count_tokens",
        &one.token,
    )
    .json(&count);
    assert_eq!(why(count).await, not_allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_is_not_given_to_a_key_that_lost_its_model() {
    let harness = Harness::start().await;
    let made = key(&harness, json!({ "models": ["openai-chat/text"] })).await;
    let again = || ask(&harness, &made.token, "openai-chat/text").header("Idempotency-Key", "k");
    ok(again().send().await).await;
    let replay = again().send().await.expect("an answer");
    assert_eq!(
        replay
            .headers()
            .get("idempotent-replayed")
            .map(|v| v.as_bytes()),
        Some(&b"true"[..])
    );
    let path = format!("{KEYS}/{}", made.id);
    let patch = harness
        .request(Method::PATCH, &path)
        .json(&json!({ "models": ["anthropic/text"] }));
    ok(patch.send().await).await;
    assert_eq!(why(again()).await, (403, "model_not_allowed".to_owned()));
    let other = key(&harness, json!({})).await;
    let first = ask(&harness, &other.token, "openai-chat/text").header("Idempotency-Key", "k");
    let first = first.send().await.expect("an answer");
    assert!(first.status().is_success() && !first.headers().contains_key("idempotent-replayed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_refused() {
    let harness = Harness::start().await;
    let made = key(&harness, json!({})).await;
    let secret = &made.token[6..];
    for bad in [
        "sk-sg-".to_owned(),
        format!("sk-sg-{}", "A".repeat(43)),
        format!("sk-sg-{}", "A".repeat(5_000)),
        made.token.to_uppercase(),
        format!("SK-SG-{secret}"),
        format!("tha_live_{secret}"),
        format!("thp_live_{}", made.token),
        secret.to_owned(),
        made.id.clone(),
        format!("{}A", made.token),
        harness.token.replacen("tha_live_", "sk-sg-", 1),
    ] {
        assert_eq!(chat_status(&harness, &bad).await, 401, "{bad}");
    }
    for (about, member) in [
        (json!({ "models": [] }), "models"),
        (json!({ "models": ["*"] }), "models[0]"),
        (json!({ "models": ["a", "open*"] }), "models[1]"),
        (json!({ "routes": ["mcp"] }), "routes[0]"),
        (json!({ "routes": [] }), "routes"),
        (
            json!({ "expires_at": "2020-01-01T00:00:00Z" }),
            "expires_at",
        ),
        (json!({ "expires_at": "soon" }), "expires_at"),
        (json!({ "name": "x".repeat(201) }), "name"),
        (json!({ "tags": vec!["x"; 51] }), "tags"),
        (
            json!({ "metadata": { "x": "y".repeat(70_000) } }),
            "metadata",
        ),
    ] {
        let (status, error) = refused(harness.post(KEYS, &about).send().await).await;
        assert_eq!(
            (status, error["param"].as_str()),
            (400, Some(member)),
            "{error}"
        );
    }
    let overlap = harness.post(
        &format!("{KEYS}/{}/rotate", made.id),
        &json!({ "overlap_seconds": -1 }),
    );
    assert_eq!(why(overlap).await.0, 400);
    // The store holds no secret.
    let file = harness.config.data_dir.join("smithgate.db");
    for file in [file.clone(), file.with_extension("db-wal")] {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(
            memchr::memmem::find(&bytes, secret.as_bytes()).is_none(),
            "{}",
            file.display()
        );
    }
}

/// Ends a key on one node and tells how long another still took it.
async fn outlives(first: &Harness, second: &Harness) -> Duration {
    let made = key(first, json!({})).await;
    assert_eq!(chat_status(second, &made.token).await, 200);
    let path = format!("{KEYS}/{}", made.id);
    let revoked = first.request(Method::DELETE, &path).send().await;
    let at = Instant::now();
    assert_eq!(revoked.expect("an answer").status(), 204);
    assert_eq!(chat_status(first, &made.token).await, 401);
    while chat_status(second, &made.token).await == 200 {
        assert!(at.elapsed() < Duration::from_secs(5), "it lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    at.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_dies_on_all_nodes_within_a_second() {
    let redis = Redis::start().await;
    for bus in [None, Some(redis.url())] {
        let url = postgres_url().await;
        let with_bus = bus.is_some();
        let first = start_on(Some(url), |config| config.bus.redis_url = bus).await;
        let second = first.beside().await;
        let mut longest = Duration::ZERO;
        for _ in 0..5 {
            longest = longest.max(outlives(&first, &second).await);
        }
        println!("bus: {with_bus}, a revoked key lived for at most {longest:?} elsewhere");
        assert!(longest < Duration::from_secs(1), "{longest:?}");
        // One that was not seen to change is not asked for again.
        let made = key(&first, json!({})).await;
        let patch = json!({ "models": ["anthropic/text"] });
        assert_eq!(chat_status(&second, &made.token).await, 200);
        let patched = first
            .request(Method::PATCH, &format!("{KEYS}/{}", made.id))
            .json(&patch);
        ok(patched.send().await).await;
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        assert_eq!(chat_status(&second, &made.token).await, 403);
    }
}

/// How long a check takes; figures are printed, and bounded widely for busy machines.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_is_short() {
    let harness = Harness::start().await;
    let made = key(&harness, json!({ "models": ["openai-chat/*"] })).await;
    let keys = &harness.gateway.auth.virtual_keys;
    const TIMES: u32 = 20_000;
    keys.verify(made.token.as_bytes()).await.expect("a key");
    let begun = Instant::now();
    for _ in 0..TIMES {
        keys.verify(made.token.as_bytes()).await.expect("a key");
    }
    let warm = begun.elapsed() / TIMES;
    let mut cold = Vec::new();
    for n in 0..200 {
        keys.heard_of(&[(
            made.id.clone(),
            smithgate::store::now_micros() + 1_000_000 * n,
        )]);
        let begun = Instant::now();
        keys.verify(made.token.as_bytes()).await.expect("a key");
        cold.push(begun.elapsed());
    }
    cold.sort_unstable();
    println!(
        "a check: {warm:?} remembered, {:?} looked up (median), {:?} (p95)",
        cold[100], cold[190]
    );
    assert!(warm < Duration::from_micros(50), "{warm:?}");
}
