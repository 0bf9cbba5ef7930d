//! Hostile inputs: each parser is sent depth, width, repetition and length at its limits. What
//! comes back is an answer or a refusal in time, the node answers others meanwhile, and neither it
//! nor its children grow.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cli::{Running, token_in};
use crate::crash::with_mock;
use crate::mock::Mock;
use crate::support::{Harness, ok, refused, text};

/// A machine that is busy with other tests is slow; a bomb takes minutes.
const SOON: Duration = Duration::from_secs(15);

/// Levels of references, each to the next one twice.
fn doubling(keyword: &str) -> Value {
    let mut defs = serde_json::Map::new();
    for level in 0..60 {
        let next = json!({ "$ref": format!("#/$defs/l{}", level + 1) });
        defs.insert(format!("l{level}"), json!({ keyword: [next, next] }));
    }
    defs.insert("l60".to_owned(), json!({ "type": "string" }));
    json!({ "$ref": "#/$defs/l0", "$defs": defs })
}

fn deep(open: &str, close: &str, levels: usize) -> String {
    open.repeat(levels) + "1" + &close.repeat(levels)
}

/// Asks for `/health` until it is dropped, and remembers the longest that it took.
struct Pulse(
    tokio::task::JoinHandle<()>,
    std::sync::Arc<parking_lot::Mutex<Duration>>,
);

impl Pulse {
    fn of(url: String) -> Self {
        let longest = std::sync::Arc::new(parking_lot::Mutex::new(Duration::ZERO));
        let client = Client::builder().no_proxy().build().expect("a client");
        let told = longest.clone();
        let task = tokio::spawn(async move {
            loop {
                let begun = Instant::now();
                let answer = client.get(&url).timeout(Duration::from_secs(30)).send();
                assert!(answer.await.expect("healthy").status().is_success());
                let took = begun.elapsed();
                {
                    let mut longest = told.lock();
                    *longest = took.max(*longest);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self(task, longest)
    }

    fn longest(&self) -> Duration {
        assert!(!self.0.is_finished(), "the node is not healthy");
        *self.1.lock()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Harness {
    fn as_smith(&self, token: &str, path: &str, body: &Value) -> RequestBuilder {
        let call = self.client.post(self.url(path)).bearer_auth(token);
        call.timeout(Duration::from_secs(30)).json(body)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_unfold_are_refused_on_every_wire() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/structured").await;
    let token = harness
        .smith_token(&smith, &["runs:read", "runs:write"])
        .await;
    let pulse = Pulse::of(harness.url("/health"));
    let begun = Instant::now();
    for schema in [
        doubling("oneOf"),
        doubling("anyOf"),
        doubling("allOf"),
        json!({ "$ref": "#" }),
        json!({ "type": "object", "pattern": "a".repeat(100_000) }),
    ] {
        let chat = json!({ "messages": [{ "role": "user", "content": "hi" }],
            "response_format": { "type": "json_schema",
                "json_schema": { "name": "x", "schema": schema } } });
        let responses = json!({ "input": "hi", "text": { "format": {
            "type": "json_schema", "name": "x", "schema": schema } } });
        for (path, body) in [
            ("/v1/chat/completions", &chat),
            ("/v1/responses", &responses),
        ] {
            let call = harness.as_smith(&token, path, body);
            let (status, error) = refused(call.send().await).await;
            assert_eq!(status, 400, "{path}: {error}");
            assert_eq!(error["code"], "invalid_response_format", "{error}");
        }
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(pulse.longest() < SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_are_too_much_for_a_worker_are_evaluated_in_the_sandbox() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/structured").await;
    let token = harness
        .smith_token(&smith, &["runs:read", "runs:write"])
        .await;
    let ask = |schema: Value| {
        json!({ "messages": [{ "role": "user", "content": "hi" }], "response_format": {
            "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } })
    };
    // A pattern that looks ahead has no engine whose time is linear.
    let named = |pattern: &str| {
        json!({ "type": "object", "properties": {
            "name": { "type": "string", "pattern": pattern } }, "required": ["name"] })
    };
    let call = harness.as_smith(&token, "/v1/chat/completions", &ask(named("^(?!x)")));
    ok(call.send().await).await;
    let call = harness.as_smith(&token, "/v1/chat/completions", &ask(named("^(?=x)y")));
    let (status, error) = refused(call.send().await).await;
    assert_eq!(
        (status, &error["code"]),
        (502, &json!("structured_output_failed"))
    );
    let call = harness.as_smith(&token, "/v1/chat/completions", &ask(named("(?=[")));
    let (status, error) = refused(call.send().await).await;
    assert_eq!(
        (status, &error["param"]),
        (400, &json!("response_format")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn json_that_is_nested_too_deeply_is_refused_on_every_route() {
    let harness = Harness::start().await;
    let smith = harness.smith("openai-chat/text").await;
    let pulse = Pulse::of(harness.url("/health"));
    let begun = Instant::now();
    let runs = format!("/v1/smiths/{smith}/runs");
    for levels in [110, 100_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = deep(open, close, levels);
            for (path, body) in [
                (
                    "/v1/chat/completions",
                    format!(r#"{{"messages":[{{"role":"user","content":"hi","x":{nested}}}]}}"#),
                ),
                (
                    "/v1/chat/completions",
                    format!(
                        r#"{{"model":"openai-chat/text","messages":[{{"role":"user","content":"hi","x":{nested}}}]}}"#
                    ),
                ),
                (
                    "/v1/responses",
                    format!(r#"{{"input":[{{"role":"user","content":"hi","x":{nested}}}]}}"#),
                ),
                (
                    "/v1/ui/chat",
                    format!(
                        r#"{{"id":"c","messages":[{{"id":"m","role":"user","parts":[{{"type":"text","text":"hi"}},{nested}]}}]}}"#
                    ),
                ),
                (
                    runs.as_str(),
                    format!(
                        r#"{{"input":[{{"role":"user","content":"hi"}}],"metadata":{{"a":{nested}}}}}"#
                    ),
                ),
                (
                    "/v1/customers",
                    format!(r#"{{"name":"a","metadata":{{"a":{nested}}}}}"#),
                ),
            ] {
                let mut call = harness.request(Method::POST, path);
                if !body.contains("\"model\"") && path != "/v1/customers" {
                    call = call.header("IC-Smith-Id", &smith);
                }
                let call = call.header("content-type", "application/json").body(body);
                let (status, error) = refused(call.send().await).await;
                assert_eq!(status, 400, "{path}, {levels}: {error}");
                let message = error["message"].as_str().expect("a message");
                assert!(message.contains("nested too deeply"), "{path}: {message}");
            }
        }
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(pulse.longest() < SOON);
    // Brackets inside of a text are no levels.
    let said = json!({ "input": [{ "role": "user", "content": "[".repeat(100_000) }] });
    ok(harness.post(&runs, &said).send().await).await;
    ok(harness.get(&runs).send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_arguments_of_a_model_break_nothing_that_is_read_later() {
    let harness = Harness::start().await;
    let body = json!({ "model": "openai-chat/script", "enabled_hosted_tools": ["calculator"] });
    let made = ok(harness.post("/v1/smiths", &body).send().await).await;
    let smith = made["id"].as_str().expect("an id");
    for levels in [99, 110, 126, 5_000] {
        let script = format!("add {{\"a\": {}}}", deep("[", "]", levels));
        let run = harness.run(smith, &script).await;
        assert_eq!(run["status"], "completed", "{levels}: {run}");
        let path = format!(
            "/v1/smiths/{smith}/runs/{}",
            run["id"].as_str().expect("an id")
        );
        ok(harness.get(&path).send().await).await;
        let events = text(
            harness
                .get(&format!("{path}/events?follow=false"))
                .send()
                .await,
        )
        .await;
        assert!(events.contains("tool"), "{events}");
    }
    ok(harness
        .get(&format!("/v1/smiths/{smith}/runs"))
        .send()
        .await)
    .await;
    ok(harness.get("/v1/events").send().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn front_matter_and_archives_are_bounded() {
    let harness = Harness::start().await;
    let pulse = Pulse::of(harness.url("/health"));
    let begun = Instant::now();
    let upload = |name: &str, content: Vec<u8>| {
        let mut form = format!(
            "--b\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"{name}\"\r\n\r\n"
        )
        .into_bytes();
        form.extend(content);
        form.extend(b"\r\n--b--\r\n");
        let call = harness.request(Method::POST, "/v1/skills");
        let call = call.header("content-type", "multipart/form-data; boundary=b");
        call.body(form)
    };
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let of = format!("*a{}", level - 1);
        aliases += &format!("a{level}: &a{level} [{}]\n", [of.as_str(); 9].join(", "));
    }
    for matter in [
        format!("name: {}", "[".repeat(200_000)),
        format!("name: {}", "[".repeat(30_000)),
        format!("name: {}", "- ".repeat(20_000)),
        format!("name: a\n{aliases}"),
        format!("name: {}", "a".repeat(70_000)),
        "name: [a]".to_owned(),
        "- a".to_owned(),
    ] {
        let main = format!("---\n{matter}\n---\nHi.").into_bytes();
        let (status, error) = refused(upload("SKILL.md", main).send().await).await;
        assert_eq!(
            (status, &error["code"]),
            (422, &json!("invalid_bundle")),
            "{error}"
        );
    }
    let (status, error) = refused(upload("a.zip", zeros_zip()).send().await).await;
    assert!(status == 400 || status == 413, "{status}: {error}");
    assert!(begun.elapsed() < 2 * SOON, "{:?}", begun.elapsed());
    assert!(pulse.longest() < SOON);
    let fine = b"---\nname: fine\nlicense: MIT\nallowed-tools: [a, b]\n---\nHi.".to_vec();
    ok(upload("fine/SKILL.md", fine).send().await).await;
}

/// A zip of 64 KB whose one file is 64 MB of zeros.
fn zeros_zip() -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("a/SKILL.md", options).expect("begun");
    for _ in 0..64 {
        zip.write_all(&[0; 1 << 20]).expect("written");
    }
    zip.finish().expect("finished").into_inner()
}

/// A server that answers each request with one page.
async fn page_server(html: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n",
                html.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(html.as_bytes()).await;
        }
    });
    format!("http://{address}/")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_shape_are_read_or_refused_in_time() {
    let harness = Harness::start_with(|config, _| {
        config.egress.allow_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    })
    .await;
    let body = json!({ "model": "openai-chat/script", "enabled_hosted_tools": ["web_fetch"] });
    let made = ok(harness.post("/v1/smiths", &body).send().await).await;
    let smith = made["id"].as_str().expect("an id");
    let pulse = Pulse::of(harness.url("/health"));
    let fetched = async |html: String| {
        let url = page_server(html).await;
        let call = json!({ "input": [{ "role": "user",
            "content": format!("web_fetch {{\"url\": \"{url}\"}}") }] });
        let call = harness.post(&format!("/v1/smiths/{smith}/runs"), &call);
        let call = call.timeout(Duration::from_secs(60));
        let run = ok(call.send().await).await;
        assert_eq!(run["status"], "completed", "{run}");
        run["output"]["content"].as_str().expect("text").to_owned()
    };
    let said = fetched("<div>".repeat(50_000) + "The end of the page.").await;
    assert!(said.contains("The end of the page."), "{said}");
    let said = fetched("<p>A <b>page</b> like others.</p>".to_owned()).await;
    assert!(said.contains("page"), "{said}");
    // Formatting that is never closed is made anew in each paragraph.
    let open = (0..3_000)
        .map(|n| format!("<b id={n}><p>"))
        .collect::<String>();
    fetched(open).await;
    assert!(pulse.longest() < SOON, "{:?}", pulse.longest());
}

/// What a process and its children have in memory of their own, in MiB, which leaves out the program
/// that they share; `None` where that is not told.
fn memory(pid: u32) -> Option<u64> {
    let of = |pid: &str| -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    let mut all = of(&pid.to_string())?;
    for entry in Path::new("/proc").read_dir().ok()?.flatten() {
        let name = entry.file_name();
        let Some(child) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(pid.to_string().as_str()) {
            all += of(child).unwrap_or(0);
        }
    }
    Some(all / 1024)
}

/// A file that is kept and attached to a store.
async fn attach(running: &Running, token: &str, store: &str, name: &str, content: &[u8]) -> String {
    let mut form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n\
         --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
    )
    .into_bytes();
    form.extend(content);
    form.extend(b"\r\n--b--\r\n");
    let call = running.client.post(running.url("/v1/files"));
    let call = call.header("content-type", "multipart/form-data; boundary=b");
    let file = ok(call.bearer_auth(token).body(form).send().await).await;
    let id = file["id"].as_str().expect("an id").to_owned();
    let path = running.url(&format!("/v1/vector_stores/{store}/files"));
    let call = running.client.post(path).bearer_auth(token);
    ok(call.json(&json!({ "file_id": id })).send().await).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_cannot_hold_the_node_nor_keep_it_from_ending() {
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let mut command = with_mock(dir.path(), &mock, None);
    command.env("SMITHGATE_SERVER__DRAIN_TIMEOUT_S", "5");
    let (running, printed) = Running::start(command, "listens on").await;
    let token = token_in(&printed).expect("a token").to_owned();
    let pid = running.child.id().expect("running");
    let before = memory(pid);
    let store = json!({ "name": "s", "embedding_model": null });
    let call = running.client.post(running.url("/v1/vector_stores"));
    let store = ok(call.bearer_auth(&token).json(&store).send().await).await;
    let store = store["id"].as_str().expect("an id").to_owned();
    let pulse = Pulse::of(running.url("/health"));
    let bomb = include_bytes!("../fixtures/hostile/bomb.pdf");
    let bombs = [attach(&running, &token, &store, "bomb.pdf", bomb).await];
    let nested = format!("{}end", "> ".repeat(5_000));
    let mut fine = Vec::new();
    for (name, content) in [
        ("word.txt", "x".repeat(200_000)),
        ("quotes.md", nested.clone()),
        ("lists.md", nested.replace('>', "-")),
        ("deep.html", "<div>".repeat(50_000) + "The end."),
        ("fine.txt", "The keel is of oak.".to_owned()),
    ] {
        fine.push(attach(&running, &token, &store, name, content.as_bytes()).await);
    }
    let state_of = async |file: &str| {
        let path = running.url(&format!("/v1/vector_stores/{store}/files/{file}"));
        ok(running.client.get(path).bearer_auth(&token).send().await).await
    };
    let mut most = before.unwrap_or(0);
    let settled = async {
        loop {
            most = most.max(memory(pid).unwrap_or(0));
            let mut waiting = 0;
            for file in fine.iter().chain(&bombs) {
                waiting += usize::from(state_of(file).await["status"] == "in_progress");
            }
            if waiting == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), settled)
        .await
        .expect("settled in time");
    for file in &fine {
        let state = state_of(file).await;
        assert_eq!(state["status"], "completed", "{state}");
    }
    let state = state_of(&bombs[0]).await;
    assert_eq!(state["status"], "failed", "{state}");
    let why = state["last_error"]["message"].as_str().expect("a reason");
    assert!(why.contains("memory"), "{why}");
    let before = before.unwrap_or(0);
    eprintln!(
        "memory: {before} MiB before, {most} MiB at most with children; /health: {:?} at most",
        pulse.longest()
    );
    // Two children at once, of 256 MiB and a stack of 16 each, one more that has not ended yet while its
    // successor begins, and what the node itself needs. Unbounded, the document takes 1.6 GB.
    let allowed = before + 3 * (256 + 16) + 100;
    assert!(most < allowed, "{before} MiB became {most} MiB");
    assert!(pulse.longest() < SOON, "{:?}", pulse.longest());
    drop(pulse);
    // A large text is under way when the node is told to end.
    let long: String = (0..400_000).map(|n| format!("word{n} ")).collect();
    attach(&running, &token, &store, "long.txt", long.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.terminate();
    let begun = Instant::now();
    let (success, _) = running.end().await;
    assert!(success);
    assert!(
        begun.elapsed() < Duration::from_secs(7),
        "{:?}",
        begun.elapsed()
    );
    let orphans = memory(pid);
    assert_eq!(orphans, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_is_taken_up_when_it_is_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let (mut running, printed) =
        Running::start(with_mock(dir.path(), &mock, None), "listens on").await;
    let token = token_in(&printed).expect("a token").to_owned();
    let store = json!({ "name": "s", "embedding_model": null });
    let call = running.client.post(running.url("/v1/vector_stores"));
    let store = ok(call.bearer_auth(&token).json(&store).send().await).await;
    let store = store["id"].as_str().expect("an id").to_owned();
    let long: String = (0..30_000).map(|n| format!("word{n} ")).collect();
    let file = attach(&running, &token, &store, "long.txt", long.as_bytes()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    running.child.kill().await.expect("killed");
    let (running, _) = Running::start(with_mock(dir.path(), &mock, None), "listens on").await;
    let path = running.url(&format!("/v1/vector_stores/{store}/files/{file}"));
    let begun = Instant::now();
    loop {
        let call = running.client.get(&path).bearer_auth(&token);
        let state = ok(call.send().await).await;
        if state["status"] != "in_progress" {
            assert_eq!(state["status"], "completed", "{state}");
            break;
        }
        // Others wait ten minutes for a node that may be alive; here nobody else can be.
        assert!(begun.elapsed() < Duration::from_secs(120), "{state}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
