//! Gemini as a client wire: its bytes on every provider, what is passed on, its errors, a smith behind
//! it, counts of tokens, models.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::attachments::upload;
use crate::support::{Harness, WIRES, ok, redact, text};

fn tools() -> Value {
    json!([{ "functionDeclarations": [{ "name": "get_weather",
        "description": "The weather of a city", "parameters": { "type": "OBJECT",
        "properties": { "city": { "type": "STRING" } }, "required": ["city"] } }] }])
}

fn ask() -> Value {
    json!({ "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }],
        "generationConfig": { "maxOutputTokens": 100 } })
}

fn shown_thoughts() -> Value {
    let mut body = ask();
    body["tools"] = tools();
    body["generationConfig"]["thinkingConfig"] = json!({ "includeThoughts": true });
    body
}

fn call(harness: &Harness, model: &str, verb: &str, body: &Value) -> RequestBuilder {
    harness.post(&format!("/v1beta/models/{model}:{verb}"), body)
}

fn whole(harness: &Harness, model: &str, body: &Value) -> RequestBuilder {
    call(harness, model, "generateContent", body)
}

fn events(harness: &Harness, model: &str, body: &Value) -> RequestBuilder {
    call(harness, model, "streamGenerateContent?alt=sse", body)
}

/// The id of an answer that is made here is another each time.
fn shown(answer: &str) -> String {
    const BEFORE: &str = "\"responseId\":";
    let mut out = String::new();
    for piece in redact(answer).split_inclusive(BEFORE) {
        if !out.ends_with(BEFORE) {
            out.push_str(piece);
            continue;
        }
        let rest = piece.trim_start().trim_start_matches('"');
        let (id, rest) = rest.split_once('"').expect("a text");
        let id = if id.len() > 12 { "…" } else { id };
        out.push_str(&format!("\"{id}\"{rest}"));
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_every_provider() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        for turn in ["text", "tools", "length"] {
            let model = format!("{}/{turn}", name.replace('_', "-"));
            let stream = text(events(&harness, &model, &shown_thoughts()).send().await).await;
            insta::assert_snapshot!(format!("gemini_{name}_{turn}"), shown(&stream));
        }
    }
    for (model, name) in [
        ("openai-chat/refusal", "refusal"),
        ("openai-chat/reasoning", "reasoning"),
        ("openai-chat/quirk-chat-annotations", "citations"),
        ("openai-chat/quirk-chat-tools-interleaved", "interleaved"),
    ] {
        let stream = text(events(&harness, model, &shown_thoughts()).send().await).await;
        insta::assert_snapshot!(format!("gemini_{name}"), shown(&stream));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_answers_of_every_provider() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        for turn in ["text", "tools"] {
            let model = format!("{}/{turn}", name.replace('_', "-"));
            let mut body = ask();
            body["tools"] = tools();
            let answer = ok(whole(&harness, &model, &body).send().await).await;
            let pretty = serde_json::to_string_pretty(&answer).expect("JSON");
            insta::assert_snapshot!(format!("gemini_whole_{name}_{turn}"), shown(&pretty));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_a_list_unless_events_are_asked_for() {
    let harness = Harness::start().await;
    for (name, _) in WIRES {
        for turn in ["text", "tools"] {
            let model = format!("{}/{turn}", name.replace('_', "-"));
            let body = shown_thoughts();
            let told = text(events(&harness, &model, &body).send().await).await;
            let told: Vec<Value> = told
                .lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .map(|data| serde_json::from_str(data).expect("JSON"))
                .collect();
            let list = call(&harness, &model, "streamGenerateContent", &body);
            let list = list.send().await.expect("an answer");
            let kind = list.headers()["content-type"].to_str().expect("text");
            assert!(kind.starts_with("application/json"), "{kind}");
            let list: Vec<Value> = list.json().await.expect("a list");
            let parts = |pieces: &[Value]| -> Vec<Value> {
                let pieces = pieces.iter();
                let mut parts: Vec<Value> = pieces
                    .map(|piece| piece["candidates"][0]["content"]["parts"].clone())
                    .collect();
                // Calls without an id get another each time.
                for part in parts.iter_mut().flat_map(|parts| parts.as_array_mut()) {
                    for part in part
                        .iter_mut()
                        .filter_map(|part| part.get_mut("functionCall"))
                    {
                        part["id"] = Value::Null;
                    }
                }
                parts
            };
            assert_eq!(parts(&list), parts(&told), "{model}");
            let last = list.last().expect("a piece");
            assert!(last["candidates"][0]["finishReason"].is_string(), "{last}");
            assert!(last["usageMetadata"]["totalTokenCount"].is_u64(), "{last}");
        }
        let model = format!("{}/fault-reset", name.replace('_', "-"));
        let list = call(&harness, &model, "streamGenerateContent", &ask());
        let list: Vec<Value> = list
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect(name);
        assert_eq!(
            list.last().expect("a piece")["error"]["code"],
            502,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_passed_on_to_the_same_wire() {
    let harness = Harness::start().await;
    let body = "{ \"x\": 1.50, \"tools\": [{\"googleSearch\":{}}], \"contents\":[] }";
    let fixture = |kind| crate::mock::fixture("gemini", "text", kind).expect("a fixture");
    for (verb, kind, sent) in [
        (
            "streamGenerateContent?alt=sse",
            "sse",
            "streamGenerateContent?alt=sse",
        ),
        ("generateContent", "json", "generateContent"),
    ] {
        for path in [
            "/v1beta/models/gemini/text",
            "/v1/models/gemini/text",
            "/v1beta/gemini/text",
        ] {
            let call = harness
                .client
                .post(harness.url(&format!("{path}:{verb}")))
                .header("content-type", "application/json")
                .header("x-goog-api-key", &harness.token)
                .header("x-goog-api-client", "mine")
                .body(body);
            let answer = text(call.send().await).await;
            assert_eq!(answer.as_bytes(), fixture(kind), "{path}:{verb}");
            let got = harness.mock.last();
            assert_eq!(got.path, format!("/gemini/models/text:{sent}"));
            assert_eq!(got.body["tools"][0], json!({ "googleSearch": {} }));
            assert_eq!(got.header("x-goog-api-key"), Some("hosted-gemini"));
            assert!(got.header("x-goog-api-client").is_none());
            assert!(got.header("authorization").is_none());
        }
    }
    let metrics = harness.metrics_text().await;
    let counted = "smithgate_tokens_total{kind=\"output\",model=\"text\",provider=\"gemini\"} 54";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_comes_in_a_header_or_in_the_query() {
    let harness = Harness::start().await;
    let url = harness.url("/v1beta/models/openai-chat/text:generateContent");
    let by_query = format!("{url}?key={}", harness.token);
    let client = &harness.client;
    for call in [
        client.post(&url).header("x-goog-api-key", &harness.token),
        client.post(&url).bearer_auth(&harness.token),
        client.post(&by_query),
    ] {
        ok(call.json(&ask()).send().await).await;
        let got = format!("{:?}", harness.mock.last());
        assert!(!got.contains(&harness.token), "{got}");
    }
    for call in [
        client.post(&url),
        client.post(format!("{url}?key=tha_live_x")),
        // One that is there counts, whatever else there is.
        client
            .post(&by_query)
            .header("x-goog-api-key", "tha_live_x"),
    ] {
        let refused = told(call.json(&ask())).await;
        assert_eq!((refused.0, &*refused.1), (401, "UNAUTHENTICATED"));
    }
    // Elsewhere it means nothing.
    let elsewhere = harness.url(&format!("/v1/models?key={}", harness.token));
    let elsewhere = client.get(elsewhere).send().await.expect("an answer");
    assert_eq!(elsewhere.status(), 401);
}

/// The status, its name, and the code.
async fn told(call: RequestBuilder) -> (u16, String, String) {
    let answer = call.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let id = answer.headers()["x-request-id"].clone();
    let retry_after = answer.headers().get("retry-after").cloned();
    let body: Value = answer.json().await.expect("JSON");
    let error = &body["error"];
    assert_eq!(error["code"], status, "{body}");
    let member = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    assert_ne!(member(&error["message"]), "", "{body}");
    let detail = |kind: &str| {
        let mut details = error["details"].as_array().expect("details").iter();
        let kind = format!("type.googleapis.com/google.rpc.{kind}");
        details.find(|detail| detail["@type"] == kind).cloned()
    };
    let info = detail("ErrorInfo").expect("a reason");
    let request = detail("RequestInfo").expect("a request");
    assert_eq!(request["requestId"], id.to_str().expect("text"), "{body}");
    let delay = detail("RetryInfo").map(|retry| member(&retry["retryDelay"]));
    let seconds = retry_after.map(|after| format!("{}s", after.to_str().expect("text")));
    assert_eq!(delay, seconds, "{body}");
    let reason = member(&info["reason"]).to_lowercase();
    (status, member(&error["status"]), reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_googles_shape_wherever_they_are_made() {
    let harness = Harness::start().await;
    let url = |path: &str| harness.url(path);
    let no_key = harness.client.post(url("/v1beta/models/m:generateContent"));
    let wrong_key = harness
        .client
        .post(url("/v1/models/m:countTokens"))
        .header("x-goog-api-key", "tha_live_x");
    let no_model = harness.get("/v1beta/models/openai/nothing");
    let get = harness.get("/v1beta/models/openai-chat/text:generateContent");
    let stable = harness.get("/v1/models/openai-chat/text:countTokens");
    let mut no_role = ask();
    no_role["contents"][0]["role"] = json!("nobody");
    let mut searches = ask();
    searches["tools"] = json!([{ "googleSearch": {} }]);
    let with = |model: &str, body: &Value| whole(&harness, model, body);
    for (call, status, name, code) in [
        (no_key, 401, "UNAUTHENTICATED", "unauthenticated"),
        (wrong_key, 401, "UNAUTHENTICATED", "unauthenticated"),
        (no_model, 404, "NOT_FOUND", "not_found"),
        (get, 405, "UNIMPLEMENTED", "invalid_request"),
        (stable, 405, "UNIMPLEMENTED", "invalid_request"),
        (
            with("openai-chat/text", &json!([])),
            400,
            "INVALID_ARGUMENT",
            "invalid_request",
        ),
        (
            with("gemini/text", &json!([])),
            400,
            "INVALID_ARGUMENT",
            "invalid_request",
        ),
        (
            with("openai-chat/text", &no_role),
            400,
            "INVALID_ARGUMENT",
            "invalid_request",
        ),
        (
            with("openai-chat/text", &searches),
            400,
            "INVALID_ARGUMENT",
            "unsupported",
        ),
        (
            with("text", &ask()),
            400,
            "INVALID_ARGUMENT",
            "smith_required",
        ),
        (
            with("gemini/status-404", &ask()),
            404,
            "NOT_FOUND",
            "model_request_failed",
        ),
        (
            events(&harness, "openai-chat/status-429", &ask()),
            429,
            "RESOURCE_EXHAUSTED",
            "rate_limit_exceeded",
        ),
        (
            with("anthropic/status-529", &ask()),
            503,
            "UNAVAILABLE",
            "service_overloaded",
        ),
        (
            call(
                &harness,
                "anthropic/status-401",
                "streamGenerateContent",
                &ask(),
            ),
            502,
            "INTERNAL",
            "model_request_failed",
        ),
    ] {
        let expected = (status, name.to_owned(), code.to_owned());
        assert_eq!(told(call).await, expected);
    }
    // The other wires keep their own, on the paths of models too.
    for path in ["/v1/models/nothing", "/v1/models/nothing:else"] {
        let plain: Value = harness
            .get(path)
            .send()
            .await
            .expect("an answer")
            .json()
            .await
            .expect("JSON");
        assert_eq!(plain["error"]["code"], "not_found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_in_mid_stream_is_told_as_google_does() {
    let harness = Harness::start().await;
    for model in ["gemini/fault-reset", "openai-chat/fault-in-stream"] {
        let stream = text(events(&harness, model, &ask()).send().await).await;
        let mut data = stream.lines().rev();
        let last = data.find_map(|line| line.strip_prefix("data: "));
        let last = last.expect("an event");
        let error: Value = serde_json::from_str(last).expect("JSON");
        assert!(stream.starts_with("data: {\"candidates\":"), "{stream}");
        assert_eq!(error["error"]["status"], "INTERNAL", "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_is_kept_alive_by_empty_lines() {
    let harness = Harness::start_with(|config, _| config.server.keep_alive_ms = 60).await;
    let stream = text(
        events(&harness, "openai-chat/fault-slow", &ask())
            .send()
            .await,
    )
    .await;
    assert!(stream.matches("\n\n\n\n").count() > 1, "{stream:?}");
    let lines = stream.lines().filter(|line| !line.is_empty());
    assert!(
        lines.into_iter().all(|line| line.starts_with("data: ")),
        "{stream:?}"
    );
    let list = call(
        &harness,
        "openai-chat/fault-slow",
        "streamGenerateContent",
        &ask(),
    );
    let list = text(list.send().await).await;
    assert!(list.contains("\n\n"), "{list:?}");
    serde_json::from_str::<Vec<Value>>(&list).expect("a list");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smith_answers_and_keeps_its_thread() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let token = harness
        .smith_token(&smith, &["runs:write", "runs:read"])
        .await;
    for verb in ["generateContent", "streamGenerateContent?alt=sse"] {
        let mut body = ask();
        body["systemInstruction"] = json!({ "parts": [{ "text": "Be brief." }] });
        let call = harness
            .client
            .post(harness.url(&format!("/v1beta/models/smith:{verb}")))
            .header("x-goog-api-key", &token)
            .header("IC-Thread-Id", "thread-1")
            .json(&body);
        let answer = text(call.send().await).await;
        let name = if verb.starts_with('s') {
            "stream"
        } else {
            "whole"
        };
        insta::assert_snapshot!(format!("gemini_smith_{name}"), shown(&answer));
    }
    let got = harness.mock.last();
    let sent = got.body["messages"].as_array().expect("messages").len();
    assert_eq!(
        sent, 4,
        "system, the first turn, and this one: {}",
        got.body
    );
    // A caller's own functions go to the caller.
    let smith = harness.smith("anthropic/loop").await;
    let mut body = ask();
    body["tools"] = tools();
    let call = |body: &Value| whole(&harness, "smith", body).header("IC-Smith-Id", &smith);
    let first = ok(call(&body).send().await).await;
    let content = &first["candidates"][0]["content"];
    let contents = body["contents"].as_array_mut().expect("contents");
    contents.push(content.clone());
    let calls = content["parts"].as_array().expect("parts").iter();
    let results: Vec<Value> = calls
        .filter_map(|part| part.get("functionCall"))
        .map(|call| {
            json!({ "functionResponse": { "name": call["name"], "id": call["id"],
            "response": { "result": "mild" } } })
        })
        .collect();
    assert_eq!(results.len(), 2, "{first}");
    contents.push(json!({ "role": "user", "parts": results }));
    let second = ok(call(&body).send().await).await;
    let candidate = &second["candidates"][0];
    assert_eq!(
        candidate["content"]["parts"][0]["text"],
        "Hello, \"wörld\" \n😀"
    );
    assert_eq!(candidate["finishReason"], "STOP", "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_go_back_to_their_maker_and_to_nobody_else() {
    let harness = Harness::start().await;
    let mark = "c21pdGhnYXRl";
    for wire in ["openai-responses", "gemini", "anthropic"] {
        for has_ids in [true, false] {
            let mut body = shown_thoughts();
            let first = ok(whole(&harness, &format!("{wire}/loop"), &body).send().await).await;
            let mut content = first["candidates"][0]["content"].clone();
            let mut results = Vec::new();
            for part in content["parts"].as_array_mut().expect("parts") {
                let Some(Value::Object(call)) = part.get_mut("functionCall") else {
                    continue;
                };
                let mut response = json!({ "name": call["name"], "response": { "result": "x" } });
                match call.get("id").filter(|_| has_ids).cloned() {
                    Some(id) => response["id"] = id,
                    None => _ = call.shift_remove("id"),
                }
                results.push(json!({ "functionResponse": response }));
            }
            assert_eq!(results.len(), 2, "{first}");
            let contents = body["contents"].as_array_mut().expect("contents");
            contents.push(content);
            contents.push(json!({ "role": "user", "parts": results }));
            // Gone on with by its own maker, by Google, and by another.
            for model in [
                format!("{wire}/loop"),
                "gemini/text".into(),
                "openai-chat/text".into(),
            ] {
                ok(whole(&harness, &model, &body).send().await).await;
                let got = harness.mock.last().body.to_string();
                assert!(!got.contains(mark), "{wire} to {model}: {got}");
            }
            if wire == "gemini" && has_ids {
                ok(whole(&harness, "gemini/text", &body).send().await).await;
                assert_eq!(harness.mock.last().body, body);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_by_google_or_estimated() {
    let harness = Harness::start().await;
    let count = |model: &str| {
        let mut body = ask();
        body["tools"] = tools();
        let body = json!({ "generateContentRequest": body });
        call(&harness, model, "countTokens", &body)
    };
    let answer = count("gemini/text").send().await.expect("an answer");
    assert!(!answer.headers().contains_key("ic-token-count"));
    let answer: Value = answer.json().await.expect("JSON");
    assert_eq!(answer, json!({ "totalTokens": 42 }));
    assert_eq!(harness.mock.last().path, "/gemini/models/text:countTokens");
    for model in ["openai-chat/text", "gemini/status-404"] {
        let answer = count(model).send().await.expect("an answer");
        assert_eq!(answer.headers()["ic-token-count"], "estimate");
        let answer: Value = answer.json().await.expect("JSON");
        let tokens = answer["totalTokens"].as_u64().expect("a count");
        assert!((30..100).contains(&tokens), "{model}: {tokens}");
    }
    let refused = told(count("gemini/status-400")).await;
    assert_eq!((refused.0, &*refused.1), (400, "INVALID_ARGUMENT"));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_in_googles_shape() {
    let harness = Harness::start().await;
    let known = ok(harness.get("/v1/models").send().await).await;
    let known = known["data"].as_array().expect("models");
    let mut listed = Vec::new();
    let mut token = String::new();
    loop {
        let page = harness
            .client
            .get(harness.url(&format!("/v1beta/models?pageSize=2&pageToken={token}")))
            .header("x-goog-api-key", &harness.token);
        let page = ok(page.send().await).await;
        listed.extend(page["models"].as_array().expect("models").clone());
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    let names: Vec<String> = listed
        .iter()
        .map(|model| model["name"].as_str().unwrap_or_default().to_owned())
        .collect();
    let expected: Vec<String> = known
        .iter()
        .map(|model| format!("models/{}", model["id"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(names, expected);
    let one = ok(harness.get(&format!("/v1beta/{}", names[0])).send().await).await;
    assert_eq!(one, listed[0]);
    assert_eq!(one["supportedGenerationMethods"][0], "generateContent");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_kept_here_are_named_in_parts() {
    let harness = Harness::start().await;
    let note = upload(&harness, &harness.token, "a.txt", "text/plain", b"hello").await;
    let png = b"\x89PNG\r\n\x1a\n";
    let image = upload(&harness, &harness.token, "a.png", "image/png", png).await;
    let part = |file: &str| json!({ "fileData": { "fileUri": file } });
    let mut body = ask();
    body["contents"] = json!([{ "role": "user", "parts": [part(&note), part(&image),
        { "file_data": { "file_uri": "https://generativelanguage.googleapis.com/v1beta/files/a" } }] }]);
    ok(whole(&harness, "gemini/text", &body).send().await).await;
    let got = harness.mock.last().body["contents"][0]["parts"].clone();
    assert_eq!(
        got[0],
        json!({ "inlineData": { "mimeType": "text/plain", "data": "aGVsbG8=" } })
    );
    assert_eq!(got[1]["inlineData"]["mimeType"], "image/png");
    assert!(got[2]["file_data"].is_object());
    body["contents"][0]["parts"]
        .as_array_mut()
        .expect("parts")
        .pop();
    ok(whole(&harness, "openai-chat/text", &body).send().await).await;
    let got = harness.mock.last().body.to_string();
    assert!(got.contains("hello") && got.contains("image/png"), "{got}");
    let smith = harness.smith("anthropic/text").await;
    let call = whole(&harness, "smith", &body).header("IC-Smith-Id", &smith);
    ok(call.send().await).await;
    let got = harness.mock.last().body.to_string();
    assert!(got.contains("hello") && got.contains("image/png"), "{got}");
}
