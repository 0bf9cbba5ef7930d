//! Embeddings and vector stores, on both stores.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::assets::run_python;
use crate::control::{code, id, on_both_stores, start_on};
use crate::support::{Harness, ok, refused};

on_both_stores! {
    embeddings_come_from_any_provider,
    a_store_without_vectors_is_searched_by_words,
    files_are_taken_in_when_the_provider_comes_back,
    stores_of_smiths_are_their_own,
    the_published_client_searches,
}

impl Harness {
    /// A file that is kept; its id.
    async fn keep(&self, name: &str, text: &str) -> String {
        let form = format!(
            "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n\
             --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n\
             {text}\r\n--b--\r\n"
        );
        let upload = self.request(Method::POST, "/v1/files");
        let upload = upload.header("content-type", "multipart/form-data; boundary=b");
        id(&ok(upload.body(form).send().await).await)
    }

    async fn embeddings(&self, body: &Value) -> Value {
        ok(self.post("/v1/embeddings", body).send().await).await
    }

    /// Waits until nothing of a store is under way.
    async fn settled(&self, store: &str) -> Value {
        for _ in 0..400 {
            let read = self.get(&format!("/v1/vector_stores/{store}"));
            let read = ok(read.send().await).await;
            if read["status"] == "completed" {
                return read;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the files of {store} are still under way");
    }

    /// The names of the files that a search finds.
    async fn found(&self, store: &str, body: &Value) -> Vec<String> {
        let search = self.post(&format!("/v1/vector_stores/{store}/search"), body);
        let page = ok(search.send().await).await;
        let hits = page["data"].as_array().expect("hits").iter();
        hits.map(|hit| hit["filename"].as_str().expect("a name").to_owned())
            .collect()
    }
}

async fn embeddings_come_from_any_provider(url: Option<String>) {
    let harness = start_on(url, |config| {
        config.models.embedding = Some("openai-chat/words".to_owned());
    })
    .await;
    let texts = json!(["a fast car", "an automobile"]);
    let passed = harness
        .embeddings(&json!({ "model": "openai-chat/words", "input": texts, "user": "u" }))
        .await;
    assert_eq!(passed["data"][1]["index"], 1);
    // Unknown members go on, and the model is the provider's own.
    let got = harness.mock.last();
    assert_eq!(got.path, "/openai_chat/embeddings");
    assert_eq!(
        (&got.body["user"], &got.body["model"]),
        (&json!("u"), &json!("words"))
    );
    let default = harness
        .embeddings(&json!({ "input": "an automobile" }))
        .await;
    assert_eq!(
        default["data"][0]["embedding"],
        passed["data"][1]["embedding"]
    );
    let dotted = json!({ "model": "openai-chat.words", "input": "an automobile" });
    assert_eq!(harness.embeddings(&dotted).await["data"], default["data"]);

    let gemini = json!({ "model": "gemini/words", "input": texts, "dimensions": 64 });
    let translated = harness.embeddings(&gemini).await;
    assert_eq!(translated["object"], "list");
    assert_eq!(
        translated["data"][1]["embedding"],
        passed["data"][1]["embedding"]
    );
    let got = harness.mock.last();
    assert_eq!(got.path, "/gemini/models/words:batchEmbedContents");
    assert_eq!(got.body["requests"][0]["outputDimensionality"], 64);
    assert_eq!(got.header("x-goog-api-key"), Some("hosted-gemini"));
    let packed = json!({ "model": "gemini/words", "input": "x", "encoding_format": "base64" });
    let packed = harness.embeddings(&packed).await;
    assert!(packed["data"][0]["embedding"].is_string());

    for (body, expected) in [
        (json!({}), (400, "invalid_request")),
        (json!({ "input": "" }), (400, "invalid_request")),
        (json!({ "input": ["a", ""] }), (400, "invalid_request")),
        (json!({ "input": 7 }), (400, "invalid_request")),
        (
            json!({ "input": vec!["a"; 2049] }),
            (400, "too_many_inputs"),
        ),
        (
            json!({ "input": "a", "model": "anthropic/claude" }),
            (422, "embedding_unavailable"),
        ),
        (
            json!({ "input": [1, 2], "model": "gemini/words" }),
            (400, "invalid_request"),
        ),
        (
            json!({ "input": "a", "model": "openai/text-embedding-3-small" }),
            (422, "model_key_missing"),
        ),
        (
            json!({ "input": "a", "model": "openai-chat/status-429" }),
            (429, "rate_limit_exceeded"),
        ),
    ] {
        let asked = harness.post("/v1/embeddings", &body).send().await;
        let (status, error) = refused(asked).await;
        assert_eq!((status, code(&error)), expected, "{body}");
    }

    // A smith's own key comes before all others, and its use is counted.
    let smith = harness.smith("openai-chat/text").await;
    let keys = format!("/v1/smiths/{smith}/model_keys/openai-chat");
    let key = harness.request(Method::PUT, &keys);
    ok(key.json(&json!({ "api_key": "sk-own" })).send().await).await;
    let token = harness.smith_token(&smith, &["embeddings:write"]).await;
    let asked = harness.client.post(harness.url("/v1/embeddings"));
    let asked = asked.json(&json!({ "input": "x" }));
    ok(asked.bearer_auth(&token).send().await).await;
    assert_eq!(
        harness.mock.last().header("authorization"),
        Some("Bearer sk-own")
    );
    let mut counted = json!(null);
    for _ in 0..60 {
        let usage = harness.get("/v1/usage?group_by=smith").send().await;
        counted = ok(usage).await;
        let groups = counted["groups"].as_array().expect("groups").iter();
        if groups.clone().any(|group| group["input_tokens"] == 3) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the smith's embeddings are not counted: {counted}");
}

async fn a_store_without_vectors_is_searched_by_words(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let oak = harness.keep("oak.txt", "The keel is of oak.").await;
    let page = "<p>The mast is of <b>pine</b>.</p>";
    let pine = harness.keep("pine.html", page).await;
    // Nobody has a key for the model that new stores would have.
    let body = json!({ "name": "Ship", "file_ids": [oak, pine, oak] });
    let store = ok(harness.post("/v1/vector_stores", &body).send().await).await;
    assert_eq!(
        (&store["embedding_model"], &store["smith_id"]),
        (&json!(""), &json!(""))
    );
    assert_eq!(store["file_counts"]["total"], 2);
    let store = id(&store);
    assert_eq!(harness.settled(&store).await["file_counts"]["completed"], 2);
    let query = |text: &str| json!({ "query": text });
    assert_eq!(harness.found(&store, &query("PINE")).await, ["pine.html"]);
    // Attached anew with attributes, and found no more once the file is gone.
    let attach = json!({ "file_id": pine, "attributes": { "part": "mast", "year": 1890 } });
    let files = format!("/v1/vector_stores/{store}/files");
    ok(harness.post(&files, &attach).send().await).await;
    harness.settled(&store).await;
    let of_part = json!({ "query": "of",
        "filters": { "type": "eq", "key": "part", "value": "mast" } });
    assert_eq!(harness.found(&store, &of_part).await, ["pine.html"]);
    let gone = harness.request(Method::DELETE, &format!("/v1/files/{pine}"));
    ok(gone.send().await).await;
    assert!(harness.found(&store, &query("pine")).await.is_empty());

    let stores = "/v1/vector_stores".to_owned();
    let search = format!("{stores}/{store}/search");
    let batches = format!("{stores}/{store}/file_batches");
    let hybrid = |a: f32, b: f32| {
        let weights = json!({ "embedding_weight": a, "text_weight": b });
        json!({ "query": "x", "ranking_options": { "hybrid_search": weights } })
    };
    let long: serde_json::Map<String, Value> =
        (0..17).map(|n| (n.to_string(), json!("x"))).collect();
    for (path, body, param) in [
        (
            &stores,
            json!({ "expires_after": { "anchor": "last_active_at", "days": 1 } }),
            "expires_after",
        ),
        (&stores, json!({ "metadata": long }), "metadata"),
        (
            &stores,
            json!({ "embedding_model": "nobody" }),
            "embedding_model",
        ),
        (
            &stores,
            json!({ "embedding_model": "anthropic/claude" }),
            "embedding_model",
        ),
        (
            &files,
            json!({ "file_id": oak, "chunking_strategy": { "type": "static",
                "static": { "max_chunk_size_tokens": 200, "chunk_overlap_tokens": 101 } } }),
            "chunking_strategy",
        ),
        (&batches, json!({}), "file_ids"),
        (&batches, json!({ "file_ids": [] }), "file_ids"),
        (&search, json!({ "query": " " }), "query"),
        (
            &search,
            json!({ "query": "x", "max_num_results": 51 }),
            "max_num_results",
        ),
        (
            &search,
            json!({ "query": "x", "filters": { "type": "like" } }),
            "filters",
        ),
        (&search, hybrid(0.0, 0.0), "ranking_options.hybrid_search"),
        (
            &search,
            json!({ "query": "x", "ranking_options": { "score_threshold": 2 } }),
            "ranking_options.score_threshold",
        ),
    ] {
        let (status, error) = refused(harness.post(path, &body).send().await).await;
        assert_eq!(
            (status, error["param"].as_str()),
            (400, Some(param)),
            "{body}"
        );
    }
    for (path, body) in [
        (&stores, json!({ "file_ids": ["file-none"] })),
        (&files, json!({ "file_id": "file-none" })),
        (&format!("{files}/file-none"), json!({ "attributes": {} })),
        (&format!("{batches}/vsfb_none/cancel"), json!({})),
    ] {
        assert_eq!(
            refused(harness.post(path, &body).send().await).await.0,
            404,
            "{path}"
        );
    }
}

async fn files_are_taken_in_when_the_provider_comes_back(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let file = harness.keep("oak.txt", "The keel is of oak.").await;
    // Overloaded once; what the model's name says after the mark keeps this test's count apart.
    let model = "openai-chat/flaky-1@taken";
    let body = json!({ "file_ids": [file], "embedding_model": model });
    let store = ok(harness.post("/v1/vector_stores", &body).send().await).await;
    assert_eq!(store["status"], "in_progress");
    let store = id(&store);
    let settled = harness.settled(&store).await;
    assert_eq!(settled["file_counts"]["completed"], 1, "{settled}");
    let asked = harness.mock.got();
    let asked = asked.iter().filter(|got| got.path.ends_with("/embeddings"));
    assert_eq!(asked.count(), 2);
    assert_eq!(
        harness.found(&store, &json!({ "query": "oak" })).await,
        ["oak.txt"]
    );
    // What a provider refuses for good is told, and not tried for ever.
    let body = json!({ "file_ids": [file], "embedding_model": "openai-chat/status-400" });
    let store = id(&ok(harness.post("/v1/vector_stores", &body).send().await).await);
    assert_eq!(harness.settled(&store).await["file_counts"]["failed"], 1);
    let read = harness.get(&format!("/v1/vector_stores/{store}/files/{file}"));
    let read = ok(read.send().await).await;
    assert_eq!(read["last_error"]["code"], "server_error", "{read}");
    assert_eq!(read["last_error"]["message"], "the provider says 400");
}

async fn stores_of_smiths_are_their_own(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    let smith = harness.smith("openai-chat/text").await;
    let other = harness.smith("openai-chat/text").await;
    let scopes = ["vector_stores:read", "vector_stores:write"];
    let token = harness.smith_token(&smith, &scopes).await;
    let as_smith = |method: Method, path: &str, body: &Value| {
        let request = harness.client.request(method, harness.url(path));
        request.bearer_auth(&token).json(body).send()
    };
    let nothing = json!({});
    let tenants = id(&ok(harness.post("/v1/vector_stores", &nothing).send().await).await);
    let of_other = json!({ "smith_id": other });
    let others = id(&ok(harness.post("/v1/vector_stores", &of_other).send().await).await);
    let own = ok(as_smith(Method::POST, "/v1/vector_stores", &nothing).await).await;
    assert_eq!(own["smith_id"], smith);
    let listed = ok(as_smith(Method::GET, "/v1/vector_stores", &nothing).await).await;
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    let listed = harness.get(&format!("/v1/vector_stores?smith_id={other}"));
    let listed = ok(listed.send().await).await;
    assert_eq!(listed["data"][0]["id"], others);
    for store in [tenants, others.clone()] {
        let path = format!("/v1/vector_stores/{store}");
        let (status, error) = refused(as_smith(Method::GET, &path, &nothing).await).await;
        assert_eq!((status, code(&error)), (403, "smith_mismatch"));
    }
    let (status, _) = refused(as_smith(Method::POST, "/v1/vector_stores", &of_other).await).await;
    assert_eq!(status, 403);
    // A file of the tenant's is not the smith's to attach.
    let file = harness.keep("oak.txt", "The keel is of oak.").await;
    let files = format!("/v1/vector_stores/{}/files", id(&own));
    let attach = json!({ "file_id": file });
    assert_eq!(
        refused(as_smith(Method::POST, &files, &attach).await)
            .await
            .0,
        403
    );
    ok(harness.post(&files, &attach).send().await).await;
    harness.settled(&id(&own)).await;
    let found = harness.found(&id(&own), &json!({ "query": "oak" })).await;
    assert_eq!(found, ["oak.txt"]);
}

async fn the_published_client_searches(url: Option<String>) {
    let harness = start_on(url, |_| {}).await;
    run_python(&harness, "retrieval.py", &[("MODEL", "openai-chat/words")]).await;
}
