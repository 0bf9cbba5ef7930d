//! What lists and reads cost when there is much: a million smiths and ten million events on
//! PostgreSQL (when `BENCH_POSTGRES_URL` names an empty database), a hundred thousand of both on
//! SQLite. Prints p50 and p99 of each route over HTTP, one request at a time.
//!
//! `SCALE=0.01` seeds a hundredth of it.

use std::time::{Duration, Instant};

use reqwest::Client;
use smithgate::config::Config;
use smithgate::gateway::Gateway;
use smithgate::server::Server;
use sqlx::{AssertSqlSafe, Connection};

const REQUESTS: usize = 300;
/// The bodies of ids: 26 characters of which the last ones count.
const BODY: &str = "01K00000000000000";

fn free() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
}

/// Statements that fill the tables; `{n}` numbers come from `numbers`.
fn seed(tenant: &str, agent: &str, smiths: u64, events: u64, postgres: bool) -> Vec<String> {
    let numbers = |count: u64| match postgres {
        true => format!("generate_series(1, {count}) AS t(n)"),
        false => format!(
            "(WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t \
             WHERE n < {count}) SELECT n FROM t)"
        ),
    };
    let padded = match postgres {
        true => "lpad(n::text, 9, '0')",
        false => "printf('%09d', n)",
    };
    let family =
        "CASE n % 3 WHEN 0 THEN 'run.failed' WHEN 1 THEN 'tool.completed' ELSE 'run.completed' END";
    let smith = match postgres {
        true => format!("'smt_{BODY}' || lpad((1 + n % {smiths})::text, 9, '0')"),
        false => format!("'smt_{BODY}' || printf('%09d', 1 + n % {smiths})"),
    };
    vec![
        format!(
            "INSERT INTO customers (id, tenant_id, name, external_ids, metadata, created_at) \
             SELECT 'cus_{BODY}' || {padded}, '{tenant}', 'c', '{{}}', '{{}}', n FROM {}",
            numbers(1000)
        ),
        format!(
            "INSERT INTO smiths (id, tenant_id, agent_id, external_id, profile, customer_id, \
             overrides, created_at) SELECT 'smt_{BODY}' || {padded}, '{tenant}', '{agent}', \
             'user-' || {padded}, '{{}}', CASE WHEN n % 100 = 0 THEN \
             'cus_{BODY}000000001' END, '{{}}', n FROM {}",
            numbers(smiths)
        ),
        format!(
            "INSERT INTO events (id, tenant_id, type, family, smith_id, data, created_at) \
             SELECT 'evt_{BODY}' || {padded}, '{tenant}', {family}, \
             CASE WHEN n % 3 = 1 THEN 'tool' ELSE 'run' END, {smith}, '{{\"run_id\":\"run_1\"}}', \
             n FROM {}",
            numbers(events)
        ),
        format!(
            "INSERT INTO runs (id, tenant_id, smith_id, agent_id, thread_id, channel, status, \
             exclusive, include_mask, input, warnings, node_id, lease_until, created_at, \
             updated_at) SELECT 'run_{BODY}' || {padded}, '{tenant}', {smith}, '{agent}', 't', \
             'api', CASE WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END, true, 0, '[]', '[]', \
             'node', 0, n, n FROM {}",
            numbers(smiths)
        ),
        "ANALYZE".to_owned(),
    ]
}

async fn fill(url: Option<&str>, file: &std::path::Path, statements: Vec<String>) {
    for statement in statements {
        let statement = AssertSqlSafe(statement);
        match url {
            Some(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.expect("connected");
                sqlx::raw_sql(statement)
                    .execute(&mut connection)
                    .await
                    .expect("seeded");
            }
            None => {
                let url = format!("sqlite://{}", file.display());
                let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("opened");
                sqlx::raw_sql(statement)
                    .execute(&mut connection)
                    .await
                    .expect("seeded");
            }
        }
    }
}

async fn measure(name: &str, url: Option<String>, smiths: u64, events: u64) {
    let dir = std::env::temp_dir().join(format!("smithgate-scale-{}", std::process::id()));
    let mut config = Config {
        data_dir: dir.clone(),
        ..Config::default()
    };
    config.server.listen = free();
    config.metrics.listen = None;
    config.store.url.clone_from(&url);
    let address = config.server.listen;
    let (gateway, first) = Gateway::start(config).await.expect("a gateway");
    let first = first.expect("an empty database");
    let server = Server::start(gateway).await.expect("a server");
    let client = Client::builder().no_proxy().build().expect("a client");
    let call = |method: reqwest::Method, path: &str| {
        client
            .request(method, format!("http://{address}{path}"))
            .bearer_auth(&first.admin_token)
    };
    let smith: serde_json::Value = call(reqwest::Method::POST, "/v1/smiths")
        .json(&serde_json::json!({ "model": "m" }))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let agent = smith["agent_id"].as_str().expect("an agent").to_owned();
    let begun = Instant::now();
    let statements = seed(&first.tenant_id, &agent, smiths, events, url.is_some());
    fill(url.as_deref(), &dir.join("smithgate.db"), statements).await;
    println!(
        "\n{name}: {smiths} smiths, {smiths} runs, {events} events, seeded in {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    println!("{:<58} {:>9} {:>9}", "route", "p50 ms", "p99 ms");
    let middle = format!("{BODY}{:09}", smiths / 2);
    let ended = events / 2;
    let cursor = |kind: &str, at: u64| {
        use base64::Engine;
        let text = format!("v1:{kind}_{BODY}{at:09}");
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    };
    let paths = [
        "/v1/smiths".to_owned(),
        format!("/v1/smiths?cursor={}", cursor("smt", smiths / 2)),
        format!("/v1/smiths/smt_{middle}"),
        format!("/v1/smiths?external_id=user-{:09}", smiths / 2),
        format!("/v1/smiths?external_id_prefix=user-{:06}", smiths / 2000),
        "/v1/smiths?external_id_prefix=user-".to_owned(),
        format!("/v1/smiths?customer_id=cus_{BODY}000000001"),
        format!("/v1/smiths?agent_id={agent}"),
        "/v1/events".to_owned(),
        format!("/v1/events?cursor={}", cursor("evt", ended)),
        "/v1/events?type=run".to_owned(),
        "/v1/events?type=run.failed".to_owned(),
        format!("/v1/events?smith_id=smt_{middle}"),
        "/v1/runs".to_owned(),
        "/v1/runs?status=failed".to_owned(),
        format!("/v1/smiths/smt_{middle}/runs"),
        format!("/v1/smiths/smt_{middle}/runs/run_{}", body_of_run(smiths)),
        "/v1/runs?external_id_prefix=user-".to_owned(),
        "/v1/customers".to_owned(),
        format!("/v1/customers/cus_{BODY}000000001"),
        "/v1/agents".to_owned(),
        format!("/v1/agents/{agent}"),
    ];
    for path in paths {
        let mut times = Vec::with_capacity(REQUESTS);
        for turn in 0..REQUESTS + 20 {
            let begun = Instant::now();
            let answer = call(reqwest::Method::GET, &path)
                .send()
                .await
                .expect("an answer");
            assert!(answer.status().is_success(), "{path}: {}", answer.status());
            answer.bytes().await.expect("a body");
            if turn >= 20 {
                times.push(begun.elapsed());
            }
        }
        times.sort();
        let ms = |at: usize| times[at].as_secs_f64() * 1e3;
        let shown: String = path.chars().take(58).collect();
        println!(
            "{shown:<58} {:>9.2} {:>9.2}",
            ms(REQUESTS / 2),
            ms(REQUESTS * 99 / 100)
        );
    }
    server.stop().await;
    let _ = std::fs::remove_dir_all(dir);
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// The run whose smith is the middle one.
fn body_of_run(smiths: u64) -> String {
    format!("{BODY}{:09}", smiths / 2 - 1)
}

fn main() {
    let scale: f64 = std::env::var("SCALE").map_or(1.0, |s| s.parse().expect("a number"));
    let of = |count: f64| (count * scale) as u64;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        measure("SQLite", None, of(100_000.0), of(100_000.0)).await;
        match std::env::var("BENCH_POSTGRES_URL") {
            Ok(url) => measure("PostgreSQL", Some(url), of(1e6), of(1e7)).await,
            Err(_) => println!("\nBENCH_POSTGRES_URL is unset: PostgreSQL is left out"),
        }
    });
}
