//! A gateway for each test, on free ports, with the scripted provider behind every wire.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::FromRequest;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use smithgate::config::{Config, Provider, ProviderWire};
use smithgate::gateway::Gateway;
use smithgate::server::Server;
use sqlx::{Connection, SqliteConnection};

use crate::mock::Mock;

pub const WIRES: [(&str, ProviderWire); 4] = [
    ("openai_chat", ProviderWire::OpenaiChat),
    ("openai_responses", ProviderWire::OpenaiResponses),
    ("anthropic", ProviderWire::Anthropic),
    ("gemini", ProviderWire::Gemini),
];

/// A gateway under test.
pub struct Harness {
    pub mock: Mock,
    pub gateway: Arc<Gateway>,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    pub token: String,
    pub tenant: String,
    pub client: Client,
    pub config: Config,
    server: Option<Server>,
    _dir: Arc<tempfile::TempDir>,
}

/// An address that nobody listens on. Its port is below those that the system gives to outgoing
/// connections, any of which could take it before it is listened on.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 12_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 61;
        let port = FIRST + (step % COUNT) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A configuration with short times and the scripted provider under each wire's name.
pub fn config(mock: &Mock, dir: &std::path::Path) -> Config {
    let mut config = Config {
        data_dir: dir.to_owned(),
        ..Config::default()
    };
    config.server.listen = free_address();
    config.metrics.listen = Some(free_address());
    config.server.drain_timeout_s = 5;
    // The test is another program.
    config.sandbox.program = Some(env!("CARGO_BIN_EXE_smithgate").into());
    config.limits.connect_timeout_ms = 1_000;
    config.limits.first_byte_timeout_ms = 1_500;
    config.limits.whole_answer_timeout_ms = 1_500;
    config.limits.idle_timeout_ms = 700;
    config.limits.max_event_bytes = 1 << 20;
    // Many gateways share the machine, and are behind together.
    config.limits.max_worker_lag_ms = 0;
    for (name, wire) in WIRES {
        config.providers.insert(
            name.replace('_', "-"),
            Provider {
                wire,
                base_url: mock.url(name),
                api_key: Some(format!("hosted-{name}")),
                needs_key: true,
                models: vec!["text".to_owned()],
                stream_usage: true,
                responses: false,
                keys_of: None,
                auth_header: None,
                rules: Vec::new(),
            },
        );
    }
    config
}

impl Harness {
    pub async fn start() -> Self {
        Self::start_with(|_, _| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config, &Mock)) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let mock = Mock::start().await;
        let mut config = config(&mock, dir.path());
        change(&mut config, &mock);
        Self::launch(config, mock, dir, None).await
    }

    async fn launch(
        config: Config,
        mock: Mock,
        dir: Arc<tempfile::TempDir>,
        known: Option<(String, String)>,
    ) -> Self {
        let (gateway, first) = Gateway::start(config.clone()).await.expect("a gateway");
        let (token, tenant) = match (first, known) {
            (Some(first), _) => (first.admin_token, first.tenant_id),
            (None, Some(known)) => known,
            (None, None) => panic!("neither a first start nor a known token"),
        };
        let server = Server::start(gateway.clone()).await.expect("a server");
        Self {
            mock,
            address: config.server.listen,
            metrics: config.metrics.listen.expect("a metrics listener"),
            gateway,
            token,
            tenant,
            client: Client::builder().no_proxy().build().expect("a client"),
            config,
            server: Some(server),
            _dir: dir,
        }
    }

    /// Stops this gateway and starts another on the same store.
    pub async fn restart(mut self) -> Self {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        self.config.server.listen = free_address();
        self.config.metrics.listen = Some(free_address());
        let known = Some((self.token.clone(), self.tenant.clone()));
        Self::launch(
            self.config.clone(),
            self.mock.clone(),
            self._dir.clone(),
            known,
        )
        .await
    }

    /// Another node on the same store.
    pub async fn beside(&self) -> Self {
        let mut config = self.config.clone();
        config.server.listen = free_address();
        config.metrics.listen = Some(free_address());
        let known = Some((self.token.clone(), self.tenant.clone()));
        Self::launch(config, self.mock.clone(), self._dir.clone(), known).await
    }

    /// Another gateway on a copy of this one's embedded store, as a crash would leave it.
    pub async fn crash_copy(&self) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        // A reader keeps the log from beginning again while it is copied.
        let url = format!("sqlite://{}/smithgate.db", self.config.data_dir.display());
        let mut reader = SqliteConnection::connect(&url).await.expect("opened");
        sqlx::raw_sql("BEGIN; SELECT count(*) FROM sqlite_master")
            .execute(&mut reader)
            .await
            .expect("begun");
        for entry in std::fs::read_dir(&self.config.data_dir).expect("the data directory") {
            let from = entry.expect("an entry").path();
            let name = from.file_name().expect("a name").to_owned();
            // Shared memory is rebuilt from the log when a database is opened after a crash.
            if name.to_string_lossy().ends_with("-shm") {
                continue;
            }
            std::fs::copy(&from, dir.path().join(name)).expect("copied");
        }
        let mut config = self.config.clone();
        config.data_dir = dir.path().to_owned();
        config.server.listen = free_address();
        config.metrics.listen = Some(free_address());
        let known = Some((self.token.clone(), self.tenant.clone()));
        Self::launch(config, self.mock.clone(), dir, known).await
    }

    pub fn take_server(&mut self) -> Server {
        self.server.take().expect("a running server")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, self.url(path))
            .bearer_auth(&self.token)
            .timeout(Duration::from_secs(20))
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, path).json(body)
    }

    /// A smith on the default agent.
    pub async fn smith(&self, model: &str) -> String {
        let body = json!({ "model": model, "instructions": "Be brief." });
        let made = ok(self.post("/v1/smiths", &body).send().await).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Uploads a template of an agent.
    pub fn put_panel(&self, agent: &str, html: &str, metadata: &Value) -> reqwest::RequestBuilder {
        let body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.html\"\r\n\r\n\
             {html}\r\n--b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n\
             {metadata}\r\n--b--\r\n"
        );
        self.request(reqwest::Method::POST, &format!("/v1/agents/{agent}/ui"))
            .header("content-type", "multipart/form-data; boundary=b")
            .body(body)
    }

    /// A smith token.
    pub async fn smith_token(&self, smith: &str, permissions: &[&str]) -> String {
        let body = json!({ "smith_id": smith, "permissions": permissions });
        let made = ok(self.post("/v1/tenant/tokens", &body).send().await).await;
        made["token"].as_str().expect("a token").to_owned()
    }

    /// One user message to a model, without a smith.
    pub fn chat(&self, model: &str, stream: bool) -> RequestBuilder {
        self.post(
            "/v1/chat/completions",
            &json!({ "model": model, "stream": stream, "messages": [{ "role": "user", "content": "hi" }] }),
        )
    }

    pub async fn metrics_text(&self) -> String {
        let url = format!("http://{}/metrics", self.metrics);
        self.client
            .get(url)
            .send()
            .await
            .expect("metrics")
            .text()
            .await
            .expect("text")
    }
}

/// A field of a form that was posted.
#[derive(Debug, Clone)]
pub struct Uploaded {
    pub name: String,
    pub file: Option<String>,
    pub media_type: Option<String>,
    pub content: Vec<u8>,
}

impl Uploaded {
    pub fn text(&self) -> String {
        String::from_utf8(self.content.clone()).expect("UTF-8")
    }

    /// What a test says of a file.
    pub fn told(&self) -> Value {
        json!({ "name": self.file, "type": self.media_type, "size": self.content.len() })
    }
}

/// The fields of a form with files; `None`: it is none.
pub async fn uploaded(headers: &axum::http::HeaderMap, body: &Bytes) -> Option<Vec<Uploaded>> {
    let kind = headers.get("content-type")?;
    if !kind.as_bytes().starts_with(b"multipart/form-data") {
        return None;
    }
    let mut request = axum::http::Request::new(axum::body::Body::from(body.clone()));
    request
        .headers_mut()
        .insert("content-type", kind.to_owned());
    let form = axum::extract::Multipart::from_request(request, &()).await;
    let mut form = form.expect("a form");
    let mut fields = Vec::new();
    while let Some(field) = form.next_field().await.expect("a field") {
        fields.push(Uploaded {
            name: field.name().unwrap_or_default().to_owned(),
            file: field.file_name().map(str::to_owned),
            media_type: field.content_type().map(str::to_owned),
            content: field.bytes().await.expect("content").to_vec(),
        });
    }
    Some(fields)
}

/// What the workshop's `paint` gives, in bytes.
pub const PICTURE_SIZE: usize = 70;
pub const REPORT: &[u8] = b"%PDF-1.4 a report";

/// The JSON of a successful answer.
pub async fn ok(answer: reqwest::Result<Response>) -> Value {
    let answer = answer.expect("an answer");
    let status = answer.status();
    let text = answer.text().await.expect("a body");
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// The error envelope of a refused call, with its status.
pub async fn refused(answer: reqwest::Result<Response>) -> (u16, Value) {
    let answer = answer.expect("an answer");
    let status = answer.status().as_u16();
    assert!(answer.headers().contains_key("x-request-id"));
    let body: Value = answer.json().await.expect("an envelope");
    let mut error = body["error"].clone();
    // Gemini and Messages have them elsewhere.
    if error["details"].is_array() {
        error = crate::quirks::flat(&error);
    } else if let Some(details) = error.get("details").cloned() {
        error["code"] = details["error_code"].clone();
        error["param"] = details["param"].clone();
    }
    for key in ["message", "type", "param", "code"] {
        assert!(error.get(key).is_some(), "{key} is missing in {error}");
    }
    (status, error)
}

pub async fn text(answer: reqwest::Result<Response>) -> String {
    answer.expect("an answer").text().await.expect("a body")
}

/// Checks that the ids of a stream's events count up from nought; `about` is told when they do not.
pub fn check_gapless<T: ToString>(ids: &[T], about: &str) {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let gapless: Vec<String> = (0..ids.len()).map(|n| n.to_string()).collect();
    assert_eq!(ids, gapless, "{about}");
}

/// The `data:` payloads of an event stream.
pub fn data_lines(stream: &str) -> Vec<&str> {
    stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect()
}

/// The text that a Chat Completions stream says.
pub fn said(stream: &str) -> String {
    data_lines(stream)
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|chunk| {
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect()
}

/// Ids, times and ports replaced, so that snapshots hold.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let prefixes = [
        "run_",
        "smt_",
        "thr_",
        "call_",
        "chatcmpl-",
        "resp_",
        "msg_",
        "fc_",
        "rs_",
        "proj_",
        "agt_",
        "tok_",
    ];
    while let Some((at, prefix)) = prefixes
        .iter()
        .filter_map(|prefix| rest.find(prefix).map(|at| (at, *prefix)))
        .min_by_key(|(at, _)| *at)
    {
        let body = &rest[at + prefix.len()..];
        // Bodies of our time begin with `1`; those of providers' fixtures do not.
        let minted = body.starts_with('1')
            && body.len() >= 22
            && body.as_bytes()[..22].iter().all(u8::is_ascii_alphanumeric);
        out.push_str(&rest[..at + prefix.len()]);
        if minted {
            out.push_str("<ulid>");
            rest = &body[22..];
        } else {
            rest = body;
        }
    }
    out.push_str(rest);
    ["\"created\":", "\"created_at\":"]
        .iter()
        .fold(out, |text, name| without_time(&text, name))
}

/// The text without the number behind each `name`.
fn without_time(text: &str, name: &str) -> String {
    let mut lines = String::new();
    for piece in text.split_inclusive(name) {
        let number = |c: char| c.is_ascii_digit();
        lines.push_str(match piece.starts_with(number) && !lines.is_empty() {
            true => piece.trim_start_matches(number),
            false => piece,
        });
        if piece.ends_with(name) {
            lines.push_str("<time>");
        }
    }
    lines
}
