//! An idempotency key answers the caller that it belongs to, and nobody else.

use serde_json::{Value, json};

use crate::support::{Harness, ok, refused};

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
