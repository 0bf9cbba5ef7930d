//! Stores that cannot keep what they are given: a disk that is full, freed and full again, a
//! standby, connections that are cut between a commit and its answer. What was acknowledged is
//! there afterwards, what was refused is not, and nobody has to restart anything.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use smithgate::metrics::Metrics;
use smithgate::store::{
    Journal, Op, PostgresStore, RunRow, SmithUsage, SqliteStore, Store, Tenant,
};
use sqlx::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cli::{Running, token_in};
use crate::crash::with_mock;
use crate::mock::Mock;
use crate::store::postgres_url;
use crate::support::{Harness, data_lines, ok, refused, text};

/// A small disk of a test's own.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={megabytes}m");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(done) if done.status.success() => Some(Self { dir }),
            other => {
                println!("skipped: no disk can be mounted here: {other:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("a file");
        for size in [1 << 16, 4096, 1] {
            while file.write(&vec![1; size]).is_ok_and(|written| written > 0) {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.path())
            .status();
    }
}

/// A gateway in a process of its own, and what it has acknowledged.
struct Site {
    running: Running,
    token: String,
    smith: String,
    /// Names of customers that were acknowledged, and of those that were refused.
    made: Vec<String>,
    refused: Vec<String>,
    /// Runs whose clients saw them complete.
    completed: Vec<String>,
    /// Tokens that were acknowledged as revoked.
    revoked: Vec<String>,
    count: usize,
}

impl Site {
    fn call(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let call = self.running.client.request(method, self.running.url(path));
        call.bearer_auth(&self.token)
            .timeout(Duration::from_secs(30))
    }

    /// Makes a customer with some bytes; answers whether that was acknowledged.
    async fn make(&mut self) -> bool {
        self.count += 1;
        let name = format!("customer {}", self.count);
        let body = json!({ "name": name, "metadata": { "filler": "x".repeat(2000) } });
        let answer = self.call(Method::POST, "/v1/customers").json(&body);
        let answer = answer.send().await.expect("an answer");
        if answer.status().is_success() {
            self.made.push(name);
            return true;
        }
        let (status, error) = refused(Ok(answer)).await;
        assert_eq!(
            (status, &error["code"]),
            (503, &json!("storage_unavailable"))
        );
        self.refused.push(name);
        false
    }

    /// Makes customers until one is refused.
    async fn make_until_refused(&mut self) {
        for _ in 0..20_000 {
            if !self.make().await {
                return;
            }
        }
        panic!("the disk does not become full");
    }

    /// A turn over a wire, streamed or not; notes the run when its client saw it complete.
    async fn turn(&mut self, wire: &str, stream: bool) -> bool {
        let runs = format!("/v1/smiths/{}/runs", self.smith);
        let (path, body) = match wire {
            "chat" => (
                "/v1/chat/completions",
                json!({ "model": "", "stream": stream,
                    "messages": [{ "role": "user", "content": "hi" }] }),
            ),
            "responses" => (
                "/v1/responses",
                json!({ "model": "", "stream": stream, "input": "hi" }),
            ),
            _ => (
                runs.as_str(),
                json!({ "stream": stream, "input": [{ "role": "user", "content": "hi" }] }),
            ),
        };
        let call = self
            .call(Method::POST, path)
            .header("IC-Smith-Id", &self.smith);
        let answer = call.json(&body).send().await.expect("an answer");
        let status = answer.status();
        let said = answer.text().await.expect("a body");
        let ended_well = status == StatusCode::OK
            && match (wire, stream) {
                ("chat", true) => said.contains("\"finish_reason\":\"stop\""),
                ("responses", true) => said.contains("event: response.completed"),
                (_, true) => said.contains("event: run.completed"),
                _ => !said.contains("\"failed\""),
            };
        if !ended_well {
            assert!(
                said.contains("storage_unavailable"),
                "{wire} {stream}: {status} {said}"
            );
            return false;
        }
        if let (false, Some(run)) = (wire != "native", run_in(&said)) {
            self.completed.push(run);
        }
        true
    }

    async fn mint(&self) -> (String, String) {
        let body = json!({ "smith_id": self.smith, "permissions": ["runs:read"] });
        let minted = self.call(Method::POST, "/v1/tenant/tokens").json(&body);
        let minted = ok(minted.send().await).await;
        let field = |name: &str| minted[name].as_str().expect("text").to_owned();
        (field("id"), field("token"))
    }

    async fn revoke(&mut self, (id, token): &(String, String)) -> bool {
        let answer = self.call(Method::DELETE, &format!("/v1/tenant/tokens/{id}"));
        let answer = answer.send().await.expect("an answer");
        if answer.status().is_success() {
            self.revoked.push(token.clone());
            return true;
        }
        let (status, error) = refused(Ok(answer)).await;
        assert_eq!(
            (status, &error["code"]),
            (503, &json!("storage_unavailable"))
        );
        false
    }

    async fn upload(&self, bytes: usize) -> StatusCode {
        let body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n\
             --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n\
             {}\r\n--b--\r\n",
            "y".repeat(bytes)
        );
        let call = self
            .call(Method::POST, "/v1/files")
            .header("content-type", "multipart/form-data; boundary=b");
        let answer = call.body(body).send().await.expect("an answer");
        answer.status()
    }

    async fn is_ready(&self) -> bool {
        let answer = self.call(Method::GET, "/ready").send().await;
        answer.expect("an answer").status() == StatusCode::OK
    }

    async fn becomes(&self, ready: bool) {
        let since = Instant::now();
        while self.is_ready().await != ready {
            let waited = since.elapsed();
            assert!(waited < Duration::from_secs(15), "ready is not {ready}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Reads again what was acknowledged and what was refused.
    async fn check(&self) {
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/customers?limit=200&cursor={cursor}");
            let page = ok(self.call(Method::GET, &path).send().await).await;
            for row in page["data"].as_array().expect("rows") {
                assert_eq!(row["metadata"]["filler"].as_str().map(str::len), Some(2000));
                found.push(row["name"].as_str().expect("a name").to_owned());
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        for name in &self.made {
            assert!(found.contains(name), "{name} was acknowledged and is lost");
        }
        for name in &self.refused {
            assert!(!found.contains(name), "{name} was refused and is there");
        }
        for run in &self.completed {
            let path = format!("/v1/smiths/{}/runs/{run}", self.smith);
            let row = ok(self.call(Method::GET, &path).send().await).await;
            assert_eq!(row["status"], "completed", "{row}");
            let events = text(
                self.call(Method::GET, &format!("{path}/events?follow=false"))
                    .send()
                    .await,
            )
            .await;
            assert!(events.contains("event: run.completed"), "{events}");
        }
        for token in &self.revoked {
            let call = self.running.client.get(self.running.url("/v1/models"));
            let answer = call.bearer_auth(token).send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        }
        println!(
            "{} kept, {} refused, {} runs, {} revoked",
            self.made.len(),
            self.refused.len(),
            self.completed.len(),
            self.revoked.len()
        );
    }
}

fn run_in(said: &str) -> Option<String> {
    let ids = said.split('"').filter(|word| word.starts_with("run_"));
    ids.filter(|id| id.len() > 20).map(str::to_owned).next()
}

const TURNS: [(&str, bool); 6] = [
    ("chat", true),
    ("chat", false),
    ("responses", true),
    ("responses", false),
    ("native", true),
    ("native", false),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_and_freed_and_full_again_loses_nothing_that_was_acknowledged() {
    let Some(disk) = SmallDisk::mount(24) else {
        return;
    };
    let mock = Mock::start().await;
    let home = tempfile::tempdir().expect("a directory");
    let command = || {
        let mut command = with_mock(home.path(), &mock, None);
        command.arg("--data-dir").arg(disk.path());
        command.stderr(std::process::Stdio::inherit());
        command
    };
    let (running, printed) = Running::start(command(), "listens on").await;
    let token = token_in(&printed).expect("a token").to_owned();
    let mut site = Site {
        running,
        token,
        smith: String::new(),
        made: Vec::new(),
        refused: Vec::new(),
        completed: Vec::new(),
        revoked: Vec::new(),
        count: 0,
    };
    let body = json!({ "model": "mock/text" });
    let made = ok(site
        .call(Method::POST, "/v1/smiths")
        .json(&body)
        .send()
        .await)
    .await;
    site.smith = made["id"].as_str().expect("an id").to_owned();
    let mut tokens = Vec::new();
    for _ in 0..6 {
        tokens.push(site.mint().await);
    }
    for (wire, stream) in TURNS {
        assert!(site.turn(wire, stream).await);
    }
    for round in 0..2 {
        assert!(site.make().await);
        disk.fill();
        site.make_until_refused().await;
        // Room for a row now and then is no room for a run, an answer or a file.
        assert_eq!(site.upload(4 << 20).await, StatusCode::SERVICE_UNAVAILABLE);
        let before = Instant::now();
        for (wire, stream) in TURNS {
            site.turn(wire, stream).await;
        }
        assert!(
            before.elapsed() < Duration::from_secs(40),
            "{:?}",
            before.elapsed()
        );
        site.revoke(&tokens[round * 3]).await;
        site.make_until_refused().await;
        site.becomes(false).await;
        // A provider is not asked for a turn that could not be kept.
        let asked = mock.got().len();
        for (wire, stream) in TURNS {
            assert!(!site.turn(wire, stream).await, "{wire} {stream}");
        }
        assert_eq!(mock.got().len(), asked);
        // A call without a smith needs no store.
        let body =
            json!({ "model": "mock/text", "messages": [{ "role": "user", "content": "hi" }] });
        ok(site
            .call(Method::POST, "/v1/chat/completions")
            .json(&body)
            .send()
            .await)
        .await;
        disk.free();
        site.becomes(true).await;
        for _ in 0..5 {
            assert!(site.make().await);
        }
        assert!(site.revoke(&tokens[round * 3 + 1]).await);
        for (wire, stream) in TURNS {
            assert!(site.turn(wire, stream).await, "{wire} {stream}");
        }
        assert_eq!(site.upload(100_000).await, StatusCode::OK);
        site.check().await;
    }
    disk.fill();
    site.make_until_refused().await;
    site.running.child.kill().await.expect("killed");
    disk.free();
    site.running = Running::start(command(), "listens on").await.0;
    site.check().await;
    for (wire, stream) in TURNS {
        assert!(site.turn(wire, stream).await, "{wire} {stream}");
    }
    // No run is left that nobody works on.
    let path = format!("/v1/smiths/{}/runs?status=running", site.smith);
    let left = ok(site.call(Method::GET, &path).send().await).await;
    assert_eq!(left["data"], json!([]));
}

/// A run of which the row is enough.
pub fn run(id: &str) -> RunRow {
    RunRow {
        id: id.to_owned(),
        tenant_id: "proj_1".to_owned(),
        smith_id: "smt_1".to_owned(),
        agent_id: "agt_1".to_owned(),
        thread_id: format!("thr_{id}"),
        channel: "api".to_owned(),
        status: smithgate::store::RunStatus::Running,
        exclusive: true,
        include_mask: 0,
        input: "[]".to_owned(),
        transcript: None,
        output: None,
        stop_reason: None,
        error_code: None,
        error: None,
        warnings: "[]".to_owned(),
        token_usage: None,
        metadata: None,
        actor: None,
        node_id: "node_1".to_owned(),
        lease_until: 0,
        created_at: 1,
        updated_at: 1,
        previous_run_id: None,
        response: None,
        cancel_reason: None,
        takings: 0,
        turn: None,
    }
}

fn usage() -> Op {
    Op::Usage(Box::new(SmithUsage {
        tenant_id: "proj_1".to_owned(),
        day: "2026-01-01".to_owned(),
        smith_id: "smt_1".to_owned(),
        agent_id: "agt_1".to_owned(),
        customer_id: String::new(),
        key_id: String::new(),
        provider: "p".to_owned(),
        model: "m".to_owned(),
        calls: 1,
        input: 10,
        output: 1,
        cache_read: 0,
        cache_write: 0,
        reasoning: 0,
        cost: 5,
    }))
}

async fn tenant(store: &dyn Store) {
    let tenant = Tenant {
        id: "proj_1".to_owned(),
        name: "one".to_owned(),
        created_at: 1,
    };
    store.create_tenant(&tenant).await.expect("made");
}

/// A way to PostgreSQL that can be cut right behind a commit.
struct Proxy {
    address: std::net::SocketAddr,
    cuts: Arc<AtomicBool>,
}

impl Proxy {
    async fn start(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let cuts = Arc::new(AtomicBool::new(false));
        let told = cuts.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, cuts) = (to.clone(), told.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(to).await.expect("PostgreSQL");
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let answers = tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                    });
                    let mut bytes = vec![0; 64 * 1024];
                    loop {
                        let count = from_client.read(&mut bytes).await.unwrap_or(0);
                        if count == 0 {
                            break;
                        }
                        let said = &bytes[..count];
                        let is_commit = memchr::memmem::find(said, b"COMMIT").is_some();
                        let cut = is_commit && cuts.swap(false, Ordering::SeqCst);
                        if cut {
                            answers.abort();
                        }
                        let _ = to_server.write_all(said).await;
                        if cut {
                            // PostgreSQL commits, and nobody hears of it.
                            tokio::time::sleep(Duration::from_millis(300)).await;
                            return;
                        }
                    }
                    answers.abort();
                });
            }
        });
        Self { address, cuts }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_was_lost_is_in_once() {
    let url = postgres_url().await;
    let parsed = url::Url::parse(&url).expect("a URL");
    let server = format!(
        "{}:{}",
        parsed.host_str().expect("a host"),
        parsed.port().unwrap_or(5432)
    );
    let proxy = Proxy::start(server).await;
    let mut through = parsed.clone();
    through.set_host(Some("127.0.0.1")).expect("a host");
    through
        .set_port(Some(proxy.address.port()))
        .expect("a port");
    let store = PostgresStore::open(through.as_str(), 4)
        .await
        .expect("PostgreSQL");
    let store: Arc<dyn Store> = Arc::new(store);
    tenant(store.as_ref()).await;
    let (journal, _task) = Journal::start(store.clone(), Metrics::new());
    for n in 0..5 {
        proxy.cuts.store(true, Ordering::SeqCst);
        journal.append(usage());
        let created = Op::CreateRun(Arc::new(run(&format!("run_{n}"))), None);
        assert_eq!(
            journal.commit(created).await,
            Ok(true),
            "it is in, and once"
        );
    }
    assert!(!proxy.cuts.load(Ordering::SeqCst), "no commit was cut");
    let used = store.usage("proj_1").await.expect("read");
    assert_eq!((used[0].calls, used[0].input), (5, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_kept_takes_no_other_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = SqliteStore::open(&dir.path().join("s.db"), 2)
        .await
        .expect("SQLite");
    let store: Arc<dyn Store> = Arc::new(store);
    tenant(store.as_ref()).await;
    let (journal, _task) = Journal::start(store.clone(), Metrics::new());
    let mut orphan = run("run_orphan");
    orphan.tenant_id = "proj_none".to_owned();
    let (first, second) = (Arc::new(run("run_1")), Arc::new(run("run_2")));
    let (a, b, c) = tokio::join!(
        journal.commit(Op::CreateRun(first, None)),
        journal.commit(Op::CreateRun(Arc::new(orphan), None)),
        journal.commit(Op::CreateRun(second, None)),
    );
    assert_eq!((a, c), (Ok(true), Ok(true)));
    assert!(b.is_err());
    assert!(!journal.health().is_failing());
}

/// Does something to a database behind the gateway's back.
async fn operate(url: &str, sql: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.expect("PostgreSQL");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .expect(sql);
}

async fn refuses_and_recovers(harness: &Harness, begin: impl AsyncFn(), end: impl AsyncFn()) {
    let smith = harness.smith("openai-chat/text").await;
    let spare = harness.smith("openai-chat/text").await;
    let minted = json!({ "smith_id": smith, "permissions": ["runs:read"] });
    let minted = harness.post("/v1/tenant/tokens", &minted);
    let minted = ok(minted.send().await).await;
    let token = format!(
        "/v1/tenant/tokens/{}",
        minted["id"].as_str().expect("an id")
    );
    let becomes = async |ready: u16| {
        let since = Instant::now();
        loop {
            let answer = harness.get("/ready").send().await.expect("an answer");
            if answer.status() == ready {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(15), "never {ready}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let turn = |wire: &str, stream: bool| {
        let call = match wire {
            "chat" => harness.post(
                "/v1/chat/completions",
                &json!({ "model": "", "stream": stream,
                    "messages": [{ "role": "user", "content": "hi" }] }),
            ),
            _ => harness.post(
                &format!("/v1/smiths/{smith}/runs"),
                &json!({ "stream": stream, "input": [{ "role": "user", "content": "hi" }] }),
            ),
        };
        call.header("IC-Smith-Id", &smith).send()
    };
    becomes(200).await;
    begin().await;
    becomes(503).await;
    let customer = json!({ "name": "x" });
    let memory = format!("/v1/smiths/{smith}/memory");
    for call in [
        harness.post("/v1/customers", &customer),
        harness.request(Method::DELETE, &token),
        harness.request(Method::DELETE, &format!("/v1/smiths/{spare}")),
        harness
            .request(Method::PUT, &memory)
            .json(&json!({ "content": "y" })),
        harness
            .post("/v1/customers", &customer)
            .header("Idempotency-Key", "k"),
    ] {
        let (status, error) = refused(call.send().await).await;
        assert_eq!(
            (status, &error["code"]),
            (503, &json!("storage_unavailable"))
        );
    }
    for (wire, stream) in [
        ("chat", true),
        ("chat", false),
        ("native", true),
        ("native", false),
    ] {
        let answer = turn(wire, stream).await.expect("an answer");
        let said = answer.text().await.expect("a body");
        assert!(
            said.contains("storage_unavailable"),
            "{wire} {stream}: {said}"
        );
    }
    end().await;
    becomes(200).await;
    for (wire, stream) in [
        ("chat", true),
        ("chat", false),
        ("native", true),
        ("native", false),
    ] {
        let answer = turn(wire, stream).await.expect("an answer");
        let status = answer.status();
        let said = answer.text().await.expect("a body");
        assert!(
            status.is_success() && !said.contains("storage_unavailable"),
            "{said}"
        );
        assert!(!stream || !data_lines(&said).is_empty());
    }
    let made = harness
        .post("/v1/customers", &customer)
        .header("Idempotency-Key", "k");
    ok(made.send().await).await;
    let revoked = harness.request(Method::DELETE, &token).send().await;
    assert!(revoked.expect("an answer").status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_refuses_until_it_leads() {
    let url = postgres_url().await;
    let harness = Harness::start_with(|config, _| config.store.url = Some(url.clone())).await;
    let name = url.rsplit('/').next().expect("a name").to_owned();
    let server = format!("{}/postgres", url.rsplit_once('/').expect("a URL").0);
    let turn = async |word: &str| {
        operate(
            &server,
            &format!(
                "ALTER DATABASE {name} SET default_transaction_read_only = {word}; \
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
            ),
        )
        .await;
    };
    refuses_and_recovers(
        &harness,
        async || turn("on").await,
        async || turn("off").await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_postgres_refuses_until_it_has_room() {
    let url = postgres_url().await;
    let harness = Harness::start_with(|config, _| config.store.url = Some(url.clone())).await;
    let tables = [
        "customers",
        "tokens",
        "smiths",
        "smith_memory",
        "runs",
        "idempotency",
        "store_probes",
        "journal_marks",
    ];
    let full = async || {
        let mut sql = "CREATE OR REPLACE FUNCTION no_room() RETURNS trigger AS $$ BEGIN \
             RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$ \
             LANGUAGE plpgsql;"
            .to_owned();
        for table in tables {
            sql += &format!(
                "CREATE TRIGGER no_room BEFORE INSERT OR UPDATE OR DELETE ON {table} \
                 FOR EACH ROW EXECUTE FUNCTION no_room();"
            );
        }
        operate(&url, &sql).await;
    };
    let freed = async || {
        let drop = |table: &&str| format!("DROP TRIGGER no_room ON {table};");
        let sql: String = tables.iter().map(drop).collect();
        operate(&url, &sql).await;
    };
    refuses_and_recovers(&harness, full, freed).await;
}

/// Somebody at a console, or a dump, holds a table for long.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_held_holds_up_nobody_for_long() {
    let url = postgres_url().await;
    let harness = Harness::start_with(|config, _| config.store.url = Some(url.clone())).await;
    let mut holder = sqlx::PgConnection::connect(&url).await.expect("connected");
    sqlx::raw_sql("BEGIN; LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        .execute(&mut holder)
        .await
        .expect("held");
    let begun = std::time::Instant::now();
    let made = json!({ "name": "a" });
    let mut calls: Vec<_> = (0..30)
        .map(|_| harness.post("/v1/customers", &made))
        .collect();
    let last = calls.pop().expect("a call");
    let calls: Vec<_> = calls
        .into_iter()
        .map(|call| tokio::spawn(call.send()))
        .collect();
    let (status, error) = refused(last.send().await).await;
    assert_eq!(
        (status, &error["code"]),
        (503, &json!("storage_unavailable"))
    );
    for call in calls {
        assert_eq!(refused(call.await.expect("sent")).await.0, 503);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut holder)
        .await
        .expect("freed");
    ok(harness.post("/v1/customers", &made).send().await).await;
}

/// A run that kills its node each time is given up, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_ends_its_node_again_and_again_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let mock = Mock::start().await;
    let command = || with_mock(dir.path(), &mock, None);
    let (mut running, printed) = Running::start(command(), "listens on").await;
    let token = token_in(&printed).expect("a token").to_owned();
    let call = |running: &Running, method: Method, path: &str| {
        let call = running.client.request(method, running.url(path));
        call.bearer_auth(&token)
    };
    let body = json!({ "model": "mock/fault-endless" });
    let made = call(&running, Method::POST, "/v1/smiths")
        .json(&body)
        .send()
        .await;
    let smith = ok(made).await["id"].as_str().expect("an id").to_owned();
    let begin = json!({ "model": "", "background": true, "input": "hi" });
    let begun = call(&running, Method::POST, "/v1/responses")
        .header("IC-Smith-Id", &smith)
        .json(&begin);
    let begun = ok(begun.send().await).await;
    let response = begun["id"].as_str().expect("an id").to_owned();
    let list = format!("/v1/smiths/{smith}/runs");
    let mut taken = 0;
    let run = loop {
        let rows = ok(call(&running, Method::GET, &list).send().await).await;
        let run = rows["data"][0].clone();
        if run["status"] == "failed" {
            break run;
        }
        assert!(taken < 5, "it is taken up for ever: {run}");
        running.child.kill().await.expect("killed");
        running = Running::start(command(), "listens on").await.0;
        taken += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(taken, 3);
    assert_eq!(run["error"]["code"], "run_failed");
    let why = "the run ended its node 3 times";
    assert_eq!(run["error"]["message"], why);
    let id = run["id"].as_str().expect("an id");
    let path = format!("{list}/{id}/events?follow=false");
    let events = text(call(&running, Method::GET, &path).send().await).await;
    assert!(
        events.contains("event: run.failed") && events.contains(why),
        "{events}"
    );
    let path = format!("/v1/responses/{response}");
    let shown = call(&running, Method::GET, &path).header("IC-Smith-Id", &smith);
    assert_eq!(ok(shown.send().await).await["status"], "failed");
    let feed = ok(call(&running, Method::GET, "/v1/events?type=run.failed")
        .send()
        .await)
    .await;
    assert_eq!(feed["data"][0]["data"]["error"], why);
    let trace = call(&running, Method::GET, &format!("/v1/runs/{id}/trace"));
    let trace: Value = ok(trace.send().await).await;
    assert_eq!(trace["status"], "error");
}
