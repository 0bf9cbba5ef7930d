//! Files that are kept here and named by id in a message, on every wire, to every provider.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::control::on_both_stores;
use crate::support::{Harness, ok, refused};

on_both_stores!(files_are_inlined, files_of_others_are_not_there);

const PNG: &[u8] = b"\x89PNG\r\n\x1a\nnot much of an image";
const PDF: &[u8] = b"%PDF-1.4 not much of a page";

async fn start(store: Option<String>) -> Harness {
    Harness::start_with(|config, _| config.store.url = store).await
}

pub async fn upload(
    harness: &Harness,
    token: &str,
    name: &str,
    kind: &str,
    content: &[u8],
) -> String {
    let mut form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n\
         --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {kind}\r\n\r\n"
    )
    .into_bytes();
    form.extend_from_slice(content);
    form.extend_from_slice(b"\r\n--b--\r\n");
    let sent = harness
        .client
        .post(harness.url("/v1/files"))
        .bearer_auth(token)
        .header("content-type", "multipart/form-data; boundary=b")
        .body(form);
    let made = ok(sent.send().await).await;
    made["id"].as_str().expect("an id").to_owned()
}

fn chat(model: &str, parts: Value) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": parts }] })
}

fn responses(model: &str, parts: Value) -> Value {
    json!({ "model": model, "input": [{ "role": "user", "content": parts }] })
}

async fn files_are_inlined(store: Option<String>) {
    let harness = start(store).await;
    let pdf = upload(
        &harness,
        &harness.token,
        "plan.pdf",
        "application/octet-stream",
        PDF,
    )
    .await;
    // More than one piece of the store, and a label that its bytes belie.
    let mut long = PNG.to_vec();
    long.resize(1_050_000, 7);
    let png = upload(&harness, &harness.token, "anvil.bin", "text/plain", &long).await;
    let note = upload(
        &harness,
        &harness.token,
        "note.txt",
        "text/plain",
        b"The anvil is cold.",
    )
    .await;
    let (pdf_data, png_data) = (STANDARD.encode(PDF), STANDARD.encode(&long));
    let note_data = STANDARD.encode("The anvil is cold.");
    let chat_parts = json!([
        { "type": "text", "text": "See" },
        { "type": "file", "file": { "file_id": pdf } },
        { "type": "file", "file": { "file_id": png } },
        { "type": "file", "file": { "file_id": note, "filename": "mine.txt" } },
    ]);
    let response_parts = json!([
        { "type": "input_text", "text": "See" },
        { "type": "input_file", "file_id": pdf },
        { "type": "input_image", "file_id": png },
        { "type": "input_file", "file_id": note },
    ]);
    for provider in ["openai-chat", "openai-responses", "anthropic", "gemini"] {
        let model = format!("{provider}/text");
        for (path, body) in [
            ("/v1/chat/completions", chat(&model, chat_parts.clone())),
            ("/v1/responses", responses(&model, response_parts.clone())),
        ] {
            ok(harness.post(path, &body).send().await).await;
            let sent = harness.mock.last().body.to_string();
            let about = format!("{path} to {provider}: {}", &sent[..sent.len().min(600)]);
            assert!(
                sent.contains(&pdf_data) && sent.contains(&png_data),
                "{about}"
            );
            let has_note = sent.contains("The anvil is cold.") || sent.contains(&note_data);
            assert!(has_note, "{about}");
            assert!(sent.contains("plan.pdf") || provider == "gemini", "{about}");
            assert!(
                sent.contains("image/png") && !sent.contains(&pdf),
                "{about}"
            );
        }
    }
    // A smith's thread keeps the id, and sends the bytes each time.
    let smith = harness.smith("anthropic/text").await;
    for (path, body) in [
        ("/v1/chat/completions", chat("", chat_parts.clone())),
        ("/v1/responses", responses("", response_parts.clone())),
    ] {
        let call = harness.post(path, &body).header("ic-smith-id", &smith);
        ok(call.header("ic-thread-id", path).send().await).await;
        let more = match path {
            "/v1/responses" => responses("", json!("And?")),
            _ => chat("", json!("And?")),
        };
        let call = harness.post(path, &more).header("ic-smith-id", &smith);
        ok(call.header("ic-thread-id", path).send().await).await;
        let sent = harness.mock.last().body.to_string();
        assert!(
            sent.contains(&pdf_data) && sent.contains(&png_data),
            "{path}"
        );
    }
    let native = json!({ "input": [{ "role": "user", "content": [
        { "type": "file", "file_id": pdf }, { "type": "image", "file_id": png }] }] });
    let path = format!("/v1/smiths/{smith}/runs");
    let run = ok(harness.post(&path, &native).send().await).await;
    assert_eq!(run["status"], "completed", "{run}");
    assert!(harness.mock.last().body.to_string().contains(&pdf_data));
    let ui = json!({ "id": "chat-1", "trigger": "submit-message", "messages": [{ "id": "m",
        "role": "user", "parts": [{ "type": "file", "mediaType": "application/pdf", "url": pdf }] }] });
    let call = harness
        .post("/v1/ui/chat", &ui)
        .header("ic-smith-id", &smith);
    let answer = crate::support::text(call.send().await).await;
    assert!(answer.contains("finish"), "{answer}");
    assert!(harness.mock.last().body.to_string().contains(&pdf_data));
    // What was said with a file goes on when the file is gone.
    let deleted = harness.request(reqwest::Method::DELETE, &format!("/v1/files/{pdf}"));
    ok(deleted.send().await).await;
    let more = chat("", json!("And now?"));
    let call = harness
        .post("/v1/chat/completions", &more)
        .header("ic-smith-id", &smith);
    ok(call
        .header("ic-thread-id", "/v1/chat/completions")
        .send()
        .await)
    .await;
    assert!(
        harness
            .mock
            .last()
            .body
            .to_string()
            .contains("no longer kept")
    );
}

async fn files_of_others_are_not_there(store: Option<String>) {
    let harness = start(store).await;
    let (one, other) = (
        harness.smith("openai-chat/text").await,
        harness.smith("anthropic/text").await,
    );
    let scopes = ["runs:write", "files:write", "files:read"];
    let token = harness.smith_token(&one, &scopes).await;
    let others = harness.smith_token(&other, &scopes).await;
    let file = upload(&harness, &token, "a.pdf", "application/pdf", PDF).await;
    let parts = |id: &str| json!([{ "type": "text", "text": "x" }, { "type": "file", "file": { "file_id": id } }]);
    let send = |token: String, path: &'static str, body: Value| {
        harness
            .client
            .post(harness.url(path))
            .bearer_auth(token)
            .json(&body)
            .send()
    };
    let chat_path = "/v1/chat/completions";
    ok(send(token.clone(), chat_path, chat("", parts(&file))).await).await;
    let (status, error) =
        refused(send(others.clone(), chat_path, chat("", parts(&file))).await).await;
    assert_eq!(
        (status, &error["param"]),
        (404, &json!("messages[0].content[1].file.file_id")),
        "{error}"
    );
    let item = json!([{ "type": "input_file", "file_id": file }]);
    let (status, error) = refused(send(others, "/v1/responses", responses("", item)).await).await;
    assert_eq!(
        (status, &error["param"]),
        (404, &json!("input[0].content[0].file_id")),
        "{error}"
    );
    let blind = harness.smith_token(&one, &["runs:write"]).await;
    let (status, error) = refused(send(blind, chat_path, chat("", parts(&file))).await).await;
    assert_eq!(
        (status, &error["code"]),
        (403, &json!("insufficient_scope")),
        "{error}"
    );
    // Without a smith: unknown ids are named; a provider's own id goes on to that provider alone.
    let admin = harness.token.clone();
    for (model, id, status_is) in [
        ("anthropic/text", "file-none", 404),
        ("openai-chat/text", "file-01KAAAAAAAAAAAAAAAAAAAAAAA", 404),
        ("openai-chat/text", "file-6F2ksmvXxt4VdoqmHRw6kL", 200),
    ] {
        let answer = send(admin.clone(), chat_path, chat(model, parts(id)))
            .await
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), status_is, "{model} {id}");
    }
    assert!(
        harness
            .mock
            .last()
            .body
            .to_string()
            .contains("file-6F2ksmvXxt4VdoqmHRw6kL")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn named_files_count_in_the_nodes_budget() {
    const MIB: usize = 1024 * 1024;
    let harness = Harness::start_with(|config, _| {
        config.server.max_body_bytes = MIB;
        config.server.max_bytes_in_flight = 8 * MIB;
        config.limits.first_byte_timeout_ms = 4_000;
        config.limits.whole_answer_timeout_ms = 4_000;
        let responses = config.providers.get_mut("openai-responses");
        responses.expect("a provider").responses = true;
    })
    .await;
    let mut image = PNG.to_vec();
    image.resize(2 * MIB, 7);
    let file = upload(&harness, &harness.token, "a.png", "image/png", &image).await;
    let chat_parts = json!([{ "type": "file", "file": { "file_id": file } }]);
    let response_parts = json!([{ "type": "input_image", "file_id": file }]);
    let smith = harness.smith("anthropic/fault-silent").await;
    let silent = |provider: &str| format!("{provider}/fault-silent");
    // Passed on, translated, and of a smith whose run goes on without its client's head.
    let calls = [
        (
            "/v1/chat/completions",
            chat(&silent("openai-chat"), chat_parts.clone()),
            false,
        ),
        (
            "/v1/chat/completions",
            chat(&silent("gemini"), chat_parts.clone()),
            false,
        ),
        (
            "/v1/responses",
            responses(&silent("openai-responses"), response_parts.clone()),
            false,
        ),
        (
            "/v1/responses",
            responses(&silent("anthropic"), response_parts.clone()),
            false,
        ),
        ("/v1/chat/completions", chat("", chat_parts), true),
        ("/v1/responses", responses("", response_parts), true),
    ];
    for (path, body, is_smiths) in &calls {
        let send = || {
            let call = harness.post(path, body);
            match is_smiths {
                true => call.header("ic-smith-id", &smith).send(),
                false => call.send(),
            }
        };
        // A tenant may hold 4 MiB, and the file is 2.7 MiB in a request; of a smith, 2 MiB are
        // counted at most.
        let answers = futures_util::future::join_all((0..6).map(|_| send())).await;
        let mut refusals = 0;
        for answer in answers {
            let (status, error) = refused(answer).await;
            match error["code"].as_str() {
                Some("service_overloaded") => refusals += 1,
                _ => assert_eq!(status, 504, "{path}: {error}"),
            }
        }
        let expected = if *is_smiths { 4..=5 } else { 5..=5 };
        assert!(expected.contains(&refusals), "{path}: {refusals}");
        // All is given back.
        let held = harness.gateway.bodies.in_flight();
        assert_eq!(held, 0, "{path}");
    }
    // Alone, what is larger than the share has room, too.
    let parts: Vec<Value> = (0..6)
        .map(|_| json!({ "type": "file", "file": { "file_id": file } }))
        .collect();
    for model in ["openai-chat/text", "anthropic/text"] {
        let call = harness.post("/v1/chat/completions", &chat(model, json!(parts)));
        ok(call.send().await).await;
    }
}
