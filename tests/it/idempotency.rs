//! An idempotency key answers the caller that it belongs to, and nobody else.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::{Harness, ok, refused, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_one_smiths_and_its_answer_needs_the_scope() {
    let harness = Harness::start().await;
    let (a, b) = (
        harness.smith("openai-chat/text").await,
        harness.smith("openai-chat/text").await,
    );
    let make = |token: &str, smith: Option<&str>| {
        let call = harness
            .client
            .post(harness.url("/v1/conversations"))
            .bearer_auth(token)
            .header("Idempotency-Key", "k")
            .json(&json!({ "metadata": { "x": "y" } }));
        match smith {
            Some(smith) => call.header("IC-Smith-Id", smith),
            None => call,
        }
    };
    let id = |made: Value| made["id"].as_str().expect("an id").to_owned();
    let admin = harness.token.clone();
    let first = id(ok(make(&admin, Some(&a)).send().await).await);
    assert_eq!(id(ok(make(&admin, Some(&a)).send().await).await), first);
    let other = id(ok(make(&admin, Some(&b)).send().await).await);
    assert_ne!(other, first);
    let may = ["conversations:read", "conversations:write"];
    let of_a = harness.smith_token(&a, &may).await;
    let of_b = harness.smith_token(&b, &may).await;
    let by_a = id(ok(make(&of_a, None).send().await).await);
    assert_eq!(id(ok(make(&of_a, None).send().await).await), by_a);
    let by_b = id(ok(make(&of_b, None).send().await).await);
    assert!(by_b != by_a && by_b != first && by_b != other);
    // Another token of the same smith that may not write learns nothing.
    let reads = harness.smith_token(&a, &["conversations:read"]).await;
    let (status, error) = refused(make(&reads, None).send().await).await;
    assert_eq!(
        (status, &error["code"]),
        (403, &json!("insufficient_scope"))
    );
    let (status, error) = refused(make(&of_b, Some(&a)).send().await).await;
    assert_eq!((status, &error["code"]), (403, &json!("smith_mismatch")));
    // Without a token, and with too long a key.
    let anonymous = harness
        .client
        .post(harness.url("/v1/conversations"))
        .header("Idempotency-Key", "k");
    assert_eq!(refused(anonymous.send().await).await.0, 401);
    let long = harness
        .post("/v1/customers", &json!({ "name": "x" }))
        .header("Idempotency-Key", "k".repeat(256));
    let (status, error) = refused(long.send().await).await;
    assert_eq!((status, &error["param"]), (400, &json!("Idempotency-Key")));
    // A native run's key is its caller's as well.
    let run = |token: &str| {
        harness
            .client
            .post(harness.url(&format!("/v1/smiths/{a}/runs")))
            .bearer_auth(token)
            .header("Idempotency-Key", "r")
            .json(&json!({ "input": [{ "role": "user", "content": "hi" }] }))
    };
    let writes = harness.smith_token(&a, &["runs:write", "runs:read"]).await;
    let reads = harness.smith_token(&a, &["runs:read"]).await;
    let first = id(ok(run(&admin).send().await).await);
    assert_eq!(id(ok(run(&admin).send().await).await), first);
    assert_ne!(id(ok(run(&writes).send().await).await), first);
    assert_eq!(refused(run(&reads).send().await).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_told_apart_by_what_they_hold() {
    let harness = Harness::start().await;
    let upload = |boundary: &str, content: &str| {
        let body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
             \r\n{content}\r\n--{boundary}--\r\n"
        );
        harness
            .request(reqwest::Method::POST, "/v1/files")
            .header(
                "content-type",
                format!("multipart/form-data; boundary={boundary}"),
            )
            .header("Idempotency-Key", "k")
            .body(body)
            .send()
    };
    let one = "1".repeat(300_000);
    let two = "2".repeat(300_000);
    let first = ok(upload("b1", &one).await).await;
    // The same form, whose parts are separated by something else this time.
    let again = ok(upload("b2-longer", &one).await).await;
    assert_eq!(again["id"], first["id"]);
    let (status, error) = refused(upload("b1", &two).await).await;
    assert_eq!(
        (status, &error["code"]),
        (409, &json!("idempotency_key_reused"))
    );
    let files = ok(harness.get("/v1/files").send().await).await;
    assert_eq!(files["data"].as_array().map(Vec::len), Some(1));
    // Of two at once, one makes the file.
    let body = json!({ "name": "x" });
    let make = || {
        let call = harness.post("/v1/customers", &body);
        call.header("Idempotency-Key", "two").send()
    };
    let answers = futures_util::future::join_all((0..8).map(|_| make())).await;
    for answer in answers {
        let answer = answer.expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        match status.is_success() {
            true => assert!(body["id"].is_string()),
            false => assert_eq!(body["error"]["code"], "idempotency_in_progress"),
        }
    }
    let made = ok(harness.get("/v1/customers").send().await).await;
    assert_eq!(made["data"].as_array().map(Vec::len), Some(1));
}

/// A turn on each wire that answers with one: where, with what, and where its stream says its end.
fn turns(model: &str, stream: bool) -> [(&'static str, Value); 3] {
    let chat = json!({ "model": model, "stream": stream, "stream_options": { "include_usage": true },
        "messages": [{ "role": "user", "content": "hi" }] });
    let responses = json!({ "model": model, "stream": stream, "input": "hi" });
    let ui = json!({ "id": "c", "trigger": "submit-message", "model": model, "messages": [
        { "id": "m1", "role": "user", "parts": [{ "type": "text", "text": "hi" }] } ] });
    [
        ("/v1/chat/completions", chat),
        ("/v1/responses", responses),
        ("/v1/ui/chat", ui),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_with_a_key_is_answered_again_and_not_run_again() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let other = harness.smith("openai-chat/text").await;
    let token = harness
        .smith_token(&smith, &["runs:write", "runs:read"])
        .await;
    let mut keys = 0;
    let tools =
        json!([{ "type": "function", "name": "get_weather", "parameters": { "type": "object" } }]);
    let chat_tools = json!([{ "type": "function", "function": tools[0] }]);
    for thread in [None, Some("t")] {
        for stream in [false, true] {
            for kind in ["text", "tools", "custom"] {
                for (path, mut body) in turns("openai-chat/tools", stream) {
                    match (kind, path) {
                        ("text", _) => body["model"] = json!("openai-chat/text"),
                        (_, "/v1/ui/chat") => continue,
                        ("custom", "/v1/responses") => {
                            body["tools"] = json!([{ "type": "custom", "name": "get_weather" }]);
                        }
                        (_, "/v1/responses") => body["tools"] = tools.clone(),
                        ("custom", _) => {
                            body["tools"] =
                                json!([{ "type": "custom", "custom": { "name": "get_weather" } }]);
                        }
                        _ => body["tools"] = chat_tools.clone(),
                    }
                    keys += 1;
                    let call = |smith: Option<&str>, body: &Value| {
                        let call = harness.client.post(harness.url(path)).json(body);
                        let call = match smith {
                            Some(smith) => call
                                .bearer_auth(&harness.token)
                                .header("IC-Smith-Id", smith),
                            None => call.bearer_auth(&token),
                        };
                        let call = call.header("Idempotency-Key", format!("k{keys}"));
                        match thread {
                            Some(thread) => call.header("IC-Thread-Id", thread),
                            None => call,
                        }
                    };
                    let about = format!("{path} {kind}, stream {stream}, thread {thread:?}");
                    let asked = harness.mock.got().len();
                    let first = call(Some(&smith), &body).send().await.expect("an answer");
                    assert_eq!(first.status(), 200, "{about}");
                    let heads = first.headers().clone();
                    let first = first.text().await.expect("text");
                    assert_eq!(harness.mock.got().len(), asked + 1, "{about}");
                    let again = call(Some(&smith), &body).send().await.expect("an answer");
                    assert_eq!(again.status(), 200, "{about}");
                    assert_eq!(again.headers()["content-type"], heads["content-type"]);
                    assert_eq!(again.text().await.expect("text"), first, "{about}");
                    assert_eq!(harness.mock.got().len(), asked + 1, "{about}");
                    let mut changed = body.clone();
                    changed["metadata"] = json!({ "a": "b" });
                    let (status, error) = refused(call(Some(&smith), &changed).send().await).await;
                    let told = (status, error["code"].as_str());
                    assert_eq!(told, (409, Some("idempotency_key_reused")), "{about}");
                    // Another caller's key, and another smith's, is another.
                    for smith in [None, Some(other.as_str())] {
                        let theirs = text(call(smith, &body).send().await).await;
                        assert_ne!(theirs, first, "{about}");
                    }
                    assert_eq!(harness.mock.got().len(), asked + 3, "{about}");
                }
            }
        }
    }
    // No scope, no answer.
    let reads = harness.smith_token(&smith, &["runs:read"]).await;
    for (path, body) in turns("openai-chat/text", false) {
        let call = harness.client.post(harness.url(path)).bearer_auth(&reads);
        let call = call.header("Idempotency-Key", "k1").json(&body);
        assert_eq!(refused(call.send().await).await.0, 403);
    }
    let (path, body) = turns("openai-chat/text", false)[0].clone();
    let call = harness.post(path, &body).header("IC-Smith-Id", &smith);
    let (status, error) = refused(call.header("Idempotency-Key", "").send().await).await;
    assert_eq!((status, &error["param"]), (400, &json!("Idempotency-Key")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_free_again_when_no_answer_came() {
    let harness = Harness::start_with(|config, _| config.limits.idle_timeout_ms = 20_000).await;
    let smith = harness.smith("openai-chat/text").await;
    let call = |path: &str, body: &Value, key: &str| {
        let call = harness.post(path, body).header("IC-Smith-Id", &smith);
        call.header("Idempotency-Key", key).send()
    };
    for (at, (path, body)) in turns("openai-chat/status-400", false)
        .into_iter()
        .enumerate()
    {
        // The same call is tried again, whatever came of the first.
        let key = format!("f{at}");
        for _ in 0..2 {
            let asked = harness.mock.got().len();
            refused(call(path, &body, &key).await).await;
            assert_eq!(harness.mock.got().len(), asked + 1, "{path}");
        }
    }
    for (path, body) in turns("openai-chat/fault-endless", true) {
        // It is cancelled with its client, but on the UI wire, where the client may come back.
        let first = call(path, &body, "e").await.expect("an answer");
        assert_eq!(first.status(), 200);
        let mut first = first.bytes_stream();
        first.next().await.expect("a piece").expect("bytes");
        let (status, error) = refused(call(path, &body, "e").await).await;
        let told = (status, error["code"].as_str());
        assert_eq!(told, (409, Some("idempotency_in_progress")), "{path}");
        drop(first);
        if path == "/v1/ui/chat" {
            continue;
        }
        let mut again = call(path, &body, "e").await.expect("an answer");
        for _ in 0..100 {
            if again.status() == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            again = call(path, &body, "e").await.expect("an answer");
        }
        assert_eq!(again.status(), 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_response_is_begun_once() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let body = json!({ "input": "hi", "background": true });
    let call = || {
        let call = harness.post("/v1/responses", &body);
        let call = call.header("IC-Smith-Id", &smith);
        call.header("Idempotency-Key", "k").send()
    };
    let first = ok(call().await).await;
    let again = ok(call().await).await;
    assert_eq!(again["id"], first["id"]);
    let path = format!("/v1/responses/{}", first["id"].as_str().expect("an id"));
    for _ in 0..100 {
        if ok(harness.get(&path).send().await).await["status"] == "completed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ok(call().await).await["status"], "completed");
    assert_eq!(harness.mock.got().len(), 1);
}

/// Calls of a model without a smith: where, with what, and how often the provider is asked for it.
fn routed(model: &str) -> [(&'static str, Value); 2] {
    let chat = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    let responses = json!({ "model": model, "input": "hi" });
    [("/v1/chat/completions", chat), ("/v1/responses", responses)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_smith_is_answered_once_for_each_key() {
    let harness = Harness::start_with(|config, _| {
        let responses = config.providers.get_mut("openai-responses");
        responses.expect("a provider").responses = true;
    })
    .await;
    let smith = harness.smith("openai-chat/text").await;
    let theirs = harness.smith_token(&smith, &["runs:write"]).await;
    let call = |token: &str, path: &str, body: &Value| {
        let call = harness.client.post(harness.url(path)).json(body);
        call.bearer_auth(token)
            .header("Idempotency-Key", "k")
            .send()
    };
    // Passed on, and translated.
    for provider in ["openai-chat", "openai-responses", "anthropic", "gemini"] {
        for (path, body) in routed(&format!("{provider}/text")) {
            let about = format!("{path} to {provider}");
            let asked = harness.mock.got().len();
            let call = |body: &Value| {
                let call = harness.post(path, body);
                call.header("Idempotency-Key", format!("k {provider}"))
                    .send()
            };
            let first = call(&body).await.expect("an answer");
            assert_eq!(first.status(), 200, "{about}");
            assert!(!first.headers().contains_key("idempotent-replayed"));
            let kind = first.headers()["content-type"].clone();
            let first = first.bytes().await.expect("bytes");
            for _ in 0..2 {
                let again = call(&body).await.expect("an answer");
                assert_eq!(again.status(), 200, "{about}");
                assert_eq!(again.headers()["idempotent-replayed"], "true", "{about}");
                assert_eq!(again.headers()["content-type"], kind, "{about}");
                assert_eq!(again.bytes().await.expect("bytes"), first, "{about}");
            }
            let mut changed = body.clone();
            changed["temperature"] = json!(0.5);
            let (status, error) = refused(call(&changed).await).await;
            let told = (status, error["code"].as_str());
            assert_eq!(told, (409, Some("idempotency_key_reused")), "{about}");
            assert_eq!(harness.mock.got().len(), asked + 1, "{about}");
        }
    }
    // Another caller's key is another, and what is kept is sealed.
    let (path, body) = routed("openai-chat/text")[0].clone();
    let first = text(call(&harness.token, path, &body).await).await;
    let asked = harness.mock.got().len();
    ok(harness
        .client
        .post(harness.url(path))
        .bearer_auth(&theirs)
        .header("Idempotency-Key", "k")
        .header("IC-Smith-Id", &smith)
        .json(&body)
        .send()
        .await)
    .await;
    assert_eq!(harness.mock.got().len(), asked + 1);
    let said: Value = serde_json::from_str(&first).expect("JSON");
    let said = said["choices"][0]["message"]["content"].as_str();
    let said = said.expect("a text").as_bytes().to_vec();
    let store = format!(
        "sqlite://{}/smithgate.db",
        harness.config.data_dir.display()
    );
    let mut store = sqlx::SqliteConnection::connect(&store)
        .await
        .expect("opened");
    let kept = sqlx::query_scalar("SELECT body FROM idempotency WHERE status IS NOT NULL");
    let kept: Vec<Vec<u8>> = kept.fetch_all(&mut store).await.expect("rows");
    assert!(kept.len() > 8, "{}", kept.len());
    for kept in kept {
        assert!(memchr::memmem::find(&kept, &said).is_none());
    }
    drop(store);
    // A restart forgets nothing.
    let harness = harness.restart().await;
    let asked = harness.mock.got().len();
    let again = harness
        .post(path, &body)
        .header("Idempotency-Key", "k")
        .send();
    assert_eq!(text(again.await).await, first);
    assert_eq!(harness.mock.got().len(), asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_answered_whole_gives_its_key_back() {
    let harness = Harness::start_with(|config, _| {
        config.limits.idle_timeout_ms = 20_000;
        config.limits.first_byte_timeout_ms = 20_000;
        config.limits.whole_answer_timeout_ms = 20_000;
    })
    .await;
    let call = |path: &str, body: &Value, key: &str| {
        let call = harness.post(path, body);
        call.header("Idempotency-Key", key).send()
    };
    for provider in ["openai-chat", "anthropic"] {
        // An error.
        for (path, body) in routed(&format!("{provider}/status-400")) {
            for _ in 0..2 {
                let asked = harness.mock.got().len();
                refused(call(path, &body, "e").await).await;
                assert_eq!(harness.mock.got().len(), asked + 1, "{path} {provider}");
            }
        }
        for (path, mut body) in routed(&format!("{provider}/text")) {
            // A stream that has ended.
            body["stream"] = json!(true);
            for _ in 0..2 {
                let asked = harness.mock.got().len();
                let mut streamed = call(path, &body, provider).await.expect("an answer");
                for _ in 0..100 {
                    if streamed.status() == 200 {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    streamed = call(path, &body, provider).await.expect("an answer");
                }
                assert!(!text(Ok(streamed)).await.is_empty());
                assert_eq!(harness.mock.got().len(), asked + 1, "{path} {provider}");
            }
        }
        if provider != "openai-chat" {
            continue;
        }
        for (path, mut body) in routed(&format!("{provider}/fault-endless")) {
            // One that has not, until its client leaves.
            body["stream"] = json!(true);
            let first = call(path, &body, "s").await.expect("an answer");
            assert_eq!(first.status(), 200);
            let mut first = first.bytes_stream();
            first.next().await.expect("a piece").expect("bytes");
            let (status, error) = refused(call(path, &body, "s").await).await;
            let told = (status, error["code"].as_str());
            assert_eq!(told, (409, Some("idempotency_in_progress")), "{path}");
            drop(first);
            let mut again = call(path, &body, "s").await.expect("an answer");
            for _ in 0..100 {
                if again.status() == 200 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                again = call(path, &body, "s").await.expect("an answer");
            }
            assert_eq!(again.status(), 200, "{path}");
        }
    }
    // Of several at once, one asks the provider.
    let (path, body) = routed("openai-chat/text")[0].clone();
    let asked = harness.mock.got().len();
    let calls = (0..8).map(|_| call(path, &body, "at once"));
    for answer in futures_util::future::join_all(calls).await {
        let answer = answer.expect("an answer");
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        match status.is_success() {
            true => assert!(body["choices"].is_array()),
            false => assert_eq!(body["error"]["code"], "idempotency_in_progress"),
        }
    }
    assert_eq!(harness.mock.got().len(), asked + 1);
    // A call that no model was named for, and one without the scope, have no key.
    let (status, _) = refused(call(path, &json!({ "messages": [] }), "n").await).await;
    assert_eq!(status, 400);
    let (status, _) = refused(call(path, &json!({ "messages": [] }), "n").await).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_made_once_for_each_key() {
    let harness = Harness::start().await;
    let call = |body: &Value| {
        let call = harness.post("/v1/embeddings", body);
        call.header("Idempotency-Key", "k").send()
    };
    let body = json!({ "model": "openai-chat/embed", "input": "the anvil" });
    let first = text(call(&body).await).await;
    let asked = harness.mock.got().len();
    let again = call(&body).await.expect("an answer");
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(again.text().await.expect("text"), first);
    assert_eq!(harness.mock.got().len(), asked);
    // An answer that is too long to be kept is asked for again.
    let long = json!({ "model": "openai-chat/embed-wide", "input": vec!["the anvil"; 2000] });
    let call = |body: &Value| {
        let call = harness.post("/v1/embeddings", body);
        call.header("Idempotency-Key", "long").send()
    };
    let asked = harness.mock.got().len();
    let length = text(call(&long).await).await.len();
    assert!(length > 1024 * 1024, "{length}");
    assert_eq!(text(call(&long).await).await.len(), length);
    assert_eq!(harness.mock.got().len(), asked + 2);
}
