//! What arrives on a channel, and what the clock begins, when there is much of it: messages that a
//! platform delivers at a fixed rate to one node, with a model that answers and with one that stalls,
//! and schedules that are all due in one minute.
//!
//! `BENCH_POSTGRES_URL` names a PostgreSQL server's database, beside which each part makes one of
//! its own; without it the embedded store is measured. `RATE=2000` and `SECONDS=60` say how much
//! arrives, `SCHEDULES=100000` how many are due; `ONLY=arrivals` or `ONLY=schedules` is a part.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection};

const BOT: &str = "123:abc-DEF";
const SECRET: &str = "hook-secret";
/// People who write, each in a conversation of their own.
const PEOPLE: u64 = 1000;
/// As many as a smith may have.
const SCHEDULES_OF_A_SMITH: u64 = 100;
/// How long what is left is waited for behind the last arrival.
const DRAIN: Duration = Duration::from_secs(20);

fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |time| time.as_micros() as u64)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The platform and the model's provider.
#[derive(Default)]
struct World {
    stalls: AtomicBool,
    sent: AtomicU64,
    /// From what a message says that it was sent to the model's call, in microseconds.
    lags: Mutex<Vec<u64>>,
}

async fn world(State(world): State<Arc<World>>, uri: Uri, body: Bytes) -> Response {
    let answer = |value: Value| {
        (
            [(header::CONTENT_TYPE, "application/json")],
            value.to_string(),
        )
            .into_response()
    };
    let path = uri.path();
    if path.ends_with("/chat/completions") {
        let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
        let said = asked["messages"].as_array().and_then(|all| all.last());
        let said = said
            .map(|last| last["content"].to_string())
            .unwrap_or_default();
        if let Some((_, rest)) = said.split_once("sent=") {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let sent: u64 = digits.parse().unwrap_or(0);
            world.lags.lock().push(micros().saturating_sub(sent));
        } else {
            world.lags.lock().push(0);
        }
        if world.stalls.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        let events = concat!(
            "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",",
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Noted.\"},\"finish_reason\":null}]}\n\n",
            "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",",
            "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n",
        );
        return ([(header::CONTENT_TYPE, "text/event-stream")], events).into_response();
    }
    match path.rsplit('/').next().unwrap_or_default() {
        "getMe" => answer(json!({ "ok": true, "result":
            { "id": 777, "is_bot": true, "username": "smith_bot" } })),
        "sendMessage" => {
            let count = world.sent.fetch_add(1, Ordering::Relaxed);
            answer(json!({ "ok": true, "result": { "message_id": count, "chat": { "id": 1 } } }))
        }
        _ => answer(json!({ "ok": true, "result": true })),
    }
}

/// A node, its world and a client.
struct Node {
    process: Child,
    address: SocketAddr,
    token: String,
    client: Client,
    world: Arc<World>,
    /// Its database, when it is PostgreSQL's.
    database: Option<String>,
    _dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

/// A new database beside the one that is named.
async fn database(name: &str) -> Option<String> {
    let url = std::env::var("BENCH_POSTGRES_URL").ok()?;
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("PostgreSQL");
    for statement in ["DROP DATABASE IF EXISTS", "CREATE DATABASE"] {
        let statement = format!("{statement} bench_{name}");
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .expect("a database");
    }
    let (server, _) = url.rsplit_once('/').expect("a database's URL");
    Some(format!("{server}/bench_{name}"))
}

impl Node {
    async fn start(name: &str) -> Self {
        let world = Arc::new(World::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let outside = listener.local_addr().expect("an address");
        let app = axum::Router::new()
            .fallback(self::world)
            .with_state(world.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let dir = tempfile::tempdir().expect("a folder");
        let (address, database) = (free(), database(name).await);
        let store = database
            .as_ref()
            .map_or_else(String::new, |url| format!("[store]\nurl = \"{url}\"\n"));
        let config = format!(
            "data_dir = {:?}\n[server]\nlisten = \"{address}\"\npublic_url = \"https://gateway.example\"\n\
             [metrics]\nlisten = \"{}\"\n[log]\nfilter = \"error\"\n{store}\
             [channels]\ntelegram_url = \"http://{outside}\"\n\
             [egress]\nallow_networks = [\"127.0.0.0/8\"]\n\
             [providers.mock]\nwire = \"openai_chat\"\nbase_url = \"http://{outside}/v1\"\nneeds_key = false\n",
            dir.path().join("data"),
            free(),
        );
        let file = dir.path().join("smithgate.toml");
        std::fs::write(&file, config).expect("written");
        let (process, token) = launch(&file);
        Self {
            process,
            address,
            token,
            client: Client::builder().no_proxy().build().expect("a client"),
            world,
            database,
            _dir: dir,
        }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let call = self
            .client
            .request(method, format!("http://{}{path}", self.address));
        let answer = call
            .bearer_auth(&self.token)
            .json(body)
            .send()
            .await
            .expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Processor time so far, in seconds.
    fn busy(&self) -> f64 {
        let file = format!("/proc/{}/stat", self.process.id());
        let stat = std::fs::read_to_string(file).unwrap_or_default();
        let behind = stat.rsplit(')').next().unwrap_or_default();
        let ticks = behind.split_whitespace().skip(11).take(2);
        ticks
            .filter_map(|field| field.parse::<f64>().ok())
            .sum::<f64>()
            / 100.0
    }

    /// The one number that a question has for its answer.
    async fn number(&self, question: &str) -> f64 {
        let question = AssertSqlSafe(question.to_owned());
        let answer: Result<f64, sqlx::Error> = match &self.database {
            Some(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.expect("connected");
                sqlx::query_scalar(question)
                    .fetch_one(&mut connection)
                    .await
            }
            None => {
                let file = self._dir.path().join("data/smithgate.db");
                let url = format!("sqlite://{}", file.display());
                let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("opened");
                sqlx::query_scalar(question)
                    .fetch_one(&mut connection)
                    .await
            }
        };
        answer.expect("a number")
    }

    async fn change(&self, statement: String) {
        let statement = AssertSqlSafe(statement);
        match &self.database {
            Some(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.expect("connected");
                let done = sqlx::raw_sql(statement).execute(&mut connection).await;
                done.expect("changed");
            }
            None => {
                let file = self._dir.path().join("data/smithgate.db");
                let url = format!("sqlite://{}", file.display());
                let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("opened");
                let done = sqlx::raw_sql(statement).execute(&mut connection).await;
                done.expect("changed");
            }
        }
    }
}

/// Starts the binary; answers with the token that it prints at its first start.
fn launch(file: &Path) -> (Child, String) {
    let binary = std::env::var("BENCH_SMITHGATE");
    let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_smithgate").to_owned());
    let mut process = Command::new(binary)
        .arg("--config")
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut token = String::new();
    let stdout = process.stdout.take().expect("its output");
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if line.starts_with("tha_live_") {
            token = line;
        } else if line.contains("listens on") {
            return (process, token);
        }
    }
    let ended = process.wait();
    panic!("the node did not start: {ended:?}");
}

/// p50, p99 and the most, in milliseconds.
fn spread(mut micros: Vec<u64>) -> String {
    micros.sort_unstable();
    let at = |part: usize| {
        let index = (micros.len() * part / 1000).min(micros.len().saturating_sub(1));
        micros.get(index).copied().unwrap_or(0) as f64 / 1e3
    };
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, at most {:.0} ms",
        at(500),
        at(990),
        at(1000)
    )
}

/// Messages at a fixed rate: each is posted when it is time, whatever became of those before.
async fn arrivals(stalls: bool) {
    let (rate, seconds) = (setting("RATE", 2000), setting("SECONDS", 60));
    let node = Node::start(if stalls { "stalled" } else { "arrivals" }).await;
    node.world.stalls.store(stalls, Ordering::Relaxed);
    let account = json!({ "bot_token": BOT, "webhook_secret": SECRET });
    node.call(Method::PUT, "/v1/tenant/telegram", &account)
        .await;
    let agent = node
        .call(Method::POST, "/v1/agents", &json!({ "name": "A" }))
        .await;
    let agent = agent["id"].as_str().expect("an id").to_owned();
    let path = format!("/v1/agents/{agent}");
    node.call(Method::PATCH, &path, &json!({ "model": "mock/m" }))
        .await;
    node.call(Method::POST, &format!("{path}/versions"), &json!({}))
        .await;
    let target = json!({ "kind": "telegram", "target": { "type": "agent", "id": agent } });
    node.call(Method::POST, "/v1/deployments", &target).await;
    let tenant = node
        .call(Method::GET, "/v1/tenant/telegram", &Value::Null)
        .await;
    let hook = tenant["webhook_url"]
        .as_str()
        .expect("where Telegram delivers to");
    let hook = hook.replace(
        "https://gateway.example",
        &format!("http://{}", node.address),
    );
    let (acknowledged, refused) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(AtomicU64::new(0)),
    );
    let (begun, busy) = (Instant::now(), node.busy());
    let mut posts = tokio::task::JoinSet::new();
    for number in 0..rate * seconds {
        let due = begun + Duration::from_micros(number * 1_000_000 / rate);
        // The clock of timers is one of milliseconds.
        if due > Instant::now() + Duration::from_millis(1) {
            tokio::time::sleep_until(due.into()).await;
        }
        let person = 1 + number % PEOPLE;
        let update = json!({ "update_id": number + 1, "message": { "message_id": number + 1,
            "date": 1, "chat": { "id": person, "type": "private" },
            "from": { "id": person, "is_bot": false, "first_name": "Ann" },
            "text": format!("number={number} sent={}", micros()) } });
        let post = node
            .client
            .post(&hook)
            .header("X-Telegram-Bot-Api-Secret-Token", SECRET);
        let post = post.json(&update).send();
        let (acknowledged, refused) = (acknowledged.clone(), refused.clone());
        posts.spawn(async move {
            match post.await {
                Ok(answer) if answer.status().is_success() => {
                    let took = due.elapsed().as_micros() as u64;
                    acknowledged.lock().push(took);
                }
                _ => drop(refused.fetch_add(1, Ordering::Relaxed)),
            }
        });
        while posts.try_join_next().is_some() {}
    }
    while posts.join_next().await.is_some() {}
    let took = begun.elapsed().as_secs_f64();
    let used = node.busy() - busy;
    let at_the_end = node.world.lags.lock().len();
    let begun = Instant::now();
    while !stalls
        && begun.elapsed() < DRAIN
        && (node.world.lags.lock().len() as u64) < rate * seconds
    {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let acknowledged = acknowledged.lock().clone();
    let model = if stalls {
        "a model that stalls"
    } else {
        "a model that answers"
    };
    println!(
        "\n{rate} arrivals a second for {seconds} s, {model}: {} taken in {took:.1} s, {} refused, \
         {used:.1} s of processor time",
        acknowledged.len(),
        refused.load(Ordering::Relaxed)
    );
    println!("  acknowledged: {}", spread(acknowledged));
    let lags = node.world.lags.lock().clone();
    println!(
        "  the model was called {at_the_end} times meanwhile, {} times {} s later; behind the arrival: {}",
        lags.len(),
        begun.elapsed().as_secs(),
        spread(lags)
    );
}

/// Schedules that are all due within one minute.
async fn schedules() {
    let count = setting("SCHEDULES", 100_000);
    let node = Node::start("schedules").await;
    let smith = node
        .call(Method::POST, "/v1/smiths", &json!({ "model": "mock/m" }))
        .await;
    let first = smith["id"].as_str().expect("an id").to_owned();
    let made = json!({ "cron": "0 0 1 1 *", "timezone": "UTC", "input": [{ "role": "user", "content": "It is time." }] });
    let path = format!("/v1/smiths/{first}/schedules");
    node.call(Method::POST, &path, &made).await;
    // The same schedule and smith, many times.
    let smiths = count.div_ceil(SCHEDULES_OF_A_SMITH);
    let numbers = |count: u64| match node.database {
        Some(_) => format!("generate_series(1, {count}) AS t(n)"),
        None => format!(
            "(WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < {count}) \
             SELECT n FROM t)"
        ),
    };
    let padded = |number: &str| match node.database {
        Some(_) => format!("lpad(({number})::text, 9, '0')"),
        None => format!("printf('%09d', {number})"),
    };
    let body = "01K00000000000000";
    node.change(format!(
        "INSERT INTO smiths (id, tenant_id, agent_id, external_id, profile, customer_id, overrides, \
         created_at) SELECT 'smt_{body}' || {}, tenant_id, agent_id, 'user-' || {}, profile, customer_id, \
         overrides, created_at FROM smiths, {} WHERE id = '{first}'",
        padded("n"), padded("n"), numbers(smiths))).await;
    let due = micros() + 5_000_000;
    node.change(format!(
        "INSERT INTO schedules (id, tenant_id, smith_id, cron, timezone, turns, input, enabled, \
         next_fire_at, due_at, created_at) SELECT 'sch_{body}' || {}, tenant_id, \
         'smt_{body}' || {}, cron, timezone, turns, input, enabled, {due} + n * CAST(60000000 AS BIGINT) / {count}, \
         {due} + n * CAST(60000000 AS BIGINT) / {count}, created_at FROM schedules, {}",
        padded("n"), padded(&format!("1 + (n - 1) / {SCHEDULES_OF_A_SMITH}")), numbers(count))).await;
    println!("\n{count} schedules of {smiths} smiths, all due within a minute:");
    let busy = node.busy();
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let fired = node
            .number("SELECT CAST(COUNT(*) AS DOUBLE PRECISION) FROM schedule_fires")
            .await;
        if micros() > due + 60_000_000 && fired as u64 >= count {
            break;
        }
    }
    let late = |most: &str| {
        format!(
            "SELECT CAST({most} AS DOUBLE PRECISION) FROM (SELECT created_at - due_at AS late, \
         ROW_NUMBER() OVER (ORDER BY created_at - due_at) AS place FROM schedule_fires) AS fires"
        )
    };
    let fired = node.number(&late("COUNT(*)")).await;
    let mut shown = Vec::new();
    for part in [0.5, 0.99, 1.0] {
        let question = late(&format!(
            "MIN(CASE WHEN place >= {} THEN late END)",
            (fired * part).floor()
        ));
        shown.push(node.number(&question).await / 1e3);
    }
    println!(
        "  {fired} fired; late: p50 {:.0} ms, p99 {:.0} ms, at most {:.0} ms",
        shown[0], shown[1], shown[2]
    );
    println!(
        "  runs begun by then: {}; {:.1} s of processor time, of {:.0} s",
        node.world.lags.lock().len(),
        node.busy() - busy,
        (micros() - due) as f64 / 1e6
    );
}

#[tokio::main]
async fn main() {
    let only = std::env::var("ONLY").unwrap_or_default();
    if only != "schedules" {
        arrivals(true).await;
        arrivals(false).await;
    }
    if only != "arrivals" {
        schedules().await;
    }
}
