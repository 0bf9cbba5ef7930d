//! Every query goes by an index: the statements that the API really sends are explained.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use parking_lot::Mutex;
use smithgate::store::PostgresStore;
use sqlx::{AssertSqlSafe, Connection, Row};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::contract::{filled, is_relayed, one_of_each};
use crate::store::postgres_url;
use crate::support::{Harness, ok};

/// Tables that grow with use.
const GROWING: [&str; 36] = [
    "smiths",
    "smith_revisions",
    "smith_memory",
    "runs",
    "run_frames",
    "events",
    "webhook_deliveries",
    "customers",
    "conversations",
    "approvals",
    "connections",
    "usage_events",
    "usage_by_smith",
    "usage_daily",
    "spend",
    "traces",
    "spans",
    "files",
    "file_pieces",
    "tokens",
    "idempotency",
    "model_keys",
    "smith_counts",
    "mcp_servers",
    "skills",
    "skill_versions",
    "skill_files",
    "skill_uses",
    "vector_stores",
    "vector_store_batches",
    "vector_store_files",
    "vector_chunks",
    "deployments",
    "virtual_keys",
    "virtual_key_secrets",
    "usage_by_key",
];

/// Queries that every list takes.
const FILTERS: [(&str, &[&str]); 10] = [
    (
        "/v1/smiths",
        &[
            "external_id=a",
            "external_id_prefix=a",
            "customer_id=c",
            "agent_id=a",
            "agent_id=a&customer_id=c",
        ],
    ),
    (
        "/v1/runs",
        &[
            "smith_id=s",
            "agent_id=a",
            "status=completed",
            "external_id_prefix=a",
        ],
    ),
    (
        "/v1/events",
        &[
            "type=run.completed",
            "type=run",
            "smith_id=s",
            "since=2026-01-01T00:00:00Z",
        ],
    ),
    (
        "/v1/traces",
        &[
            "run_id=r",
            "smith_id=s",
            "app_id=a",
            "status=ok",
            "since=2026-01-01T00:00:00Z",
        ],
    ),
    (
        "/v1/deployments",
        &["target_id=s", "target_type=smith&target_id=s"],
    ),
    ("/v1/vector_stores", &["smith_id=s", "order=asc"]),
    ("/v1/approvals", &["status=pending", "smith_id=s"]),
    (
        "/v1/usage/events",
        &[
            "smith_id=s",
            "customer_id=c",
            "meter=m",
            "meter=tokens",
            "from=2026-01-01&to=2026-02-01",
        ],
    ),
    (
        "/v1/usage",
        &[
            "group_by=smith",
            "group_by=customer",
            "smith_id=s",
            "customer_id=c",
            "group_by=app",
            "group_by=key",
            "key_id=k",
        ],
    ),
    ("/v1/tenant/keys", &["owner=a", "team=a"]),
];

fn statements() -> &'static Mutex<BTreeSet<String>> {
    static STATEMENTS: OnceLock<Mutex<BTreeSet<String>>> = OnceLock::new();
    STATEMENTS.get_or_init(Mutex::default)
}

/// Keeps the text of every statement that sqlx runs in this process.
struct Keep;

#[derive(Default)]
struct Statement {
    summary: String,
    text: String,
}

impl Visit for Statement {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => value.clone_into(&mut self.summary),
            "db.statement" => value.clone_into(&mut self.text),
            _ => {}
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() != "sqlx::query" {
            return;
        }
        let mut statement = Statement::default();
        event.record(&mut statement);
        let text = match statement.text.trim().is_empty() {
            true => statement.summary,
            false => statement.text.trim().to_owned(),
        };
        statements().lock().insert(text);
    }
}

fn keep_statements() {
    static KEPT: OnceLock<()> = OnceLock::new();
    KEPT.get_or_init(|| {
        let filter = tracing_subscriber::filter::Targets::new()
            .with_target("sqlx::query", tracing::Level::DEBUG);
        let subscriber = tracing_subscriber::registry().with(Keep.with_filter(filter));
        // Another test may have set one up; then it is not this process's first.
        let _ = tracing::subscriber::set_global_default(subscriber);
    });
}

/// Reads everything that can be read, with every filter.
async fn read_all(harness: &Harness) {
    let smith = harness.smith("openai-chat/text").await;
    let owned = one_of_each(harness, &smith).await;
    let document = ok(harness.get("/openapi.json").send().await).await;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let get = item.get("get");
        if get.is_none_or(is_relayed) || path.contains("organization") {
            continue;
        }
        let url = filled(path, &owned).unwrap_or_else(|| path.clone());
        let queries = FILTERS
            .iter()
            .find(|(p, _)| p == path)
            .map_or(&[][..], |(_, q)| q);
        for query in [""].iter().chain(queries) {
            let joint = if url.contains("/events") && url.contains("/runs/") {
                "follow=false"
            } else {
                ""
            };
            let url = format!("{url}?{query}&{joint}");
            let answer = harness.get(&url).header("IC-Smith-Id", &smith).send().await;
            let status = answer.expect("an answer").status();
            assert!(!status.is_server_error(), "{url}: {status}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_finds_by_index() {
    keep_statements();
    let harness = Harness::start().await;
    read_all(&harness).await;
    // Sums are flushed, the outbox is looked at.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let file = harness.config.data_dir.join("smithgate.db");
    let url = format!("sqlite://{}", file.display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("opened");
    let texts = statements().lock().clone();
    let mut explained = 0;
    for text in &texts {
        let verb = text
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_uppercase();
        if !["SELECT", "UPDATE", "DELETE", "INSERT"].contains(&verb.as_str()) {
            continue;
        }
        let explain = format!("EXPLAIN QUERY PLAN {text}");
        let Ok(plan) = sqlx::query(AssertSqlSafe(explain))
            .fetch_all(&mut connection)
            .await
        else {
            // A statement of PostgreSQL's, from a test beside this one.
            continue;
        };
        explained += 1;
        for row in plan {
            let step: String = row.get("detail");
            let scanned = step.strip_prefix("SCAN ").map(|rest| {
                let table = rest.split_whitespace().next().unwrap_or_default();
                let aliases = [
                    ("w", "webhooks"),
                    ("d", "webhook_deliveries"),
                    ("s", "spend"),
                ];
                let known = aliases.iter().find(|(alias, _)| *alias == table);
                (
                    known.map_or(table, |(_, name)| name).to_owned(),
                    rest.contains("USING"),
                )
            });
            if let Some((table, by_index)) = scanned {
                assert!(
                    by_index || !GROWING.contains(&table.as_str()),
                    "{step}\n{text}"
                );
            }
        }
    }
    assert!(explained > 60, "{explained} of {}", texts.len());
}

/// Ends the other connections to a database: a backend reports its counts when it ends.
async fn only_one_left(connection: &mut sqlx::PgConnection) {
    const OTHERS: &str = "FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    for _ in 0..100 {
        let end = format!("SELECT pg_terminate_backend(pid) {OTHERS}");
        sqlx::query(AssertSqlSafe(end))
            .execute(&mut *connection)
            .await
            .expect("ended");
        let count = format!("SELECT COUNT(*) {OTHERS}");
        let left: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .fetch_one(&mut *connection)
            .await
            .expect("counted");
        if left == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("connections come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_finds_by_index() {
    // Without choice, a sequential scan is taken only where there is no index to take.
    let url = postgres_url().await;
    let planned = format!("{url}?options=-c%20enable_seqscan%3Doff");
    drop(PostgresStore::open(&url, 2).await.expect("a schema"));
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("connected");
    // What the migrations scanned to build indexes does not count.
    only_one_left(&mut connection).await;
    sqlx::query("SELECT pg_stat_reset()")
        .execute(&mut connection)
        .await
        .expect("reset");
    let harness = Harness::start_with(|config, _| config.store.url = Some(planned)).await;
    read_all(&harness).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    // The gateway would connect again.
    harness.gateway.drain().await;
    only_one_left(&mut connection).await;
    let scanned: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT relname::text, seq_scan, idx_scan FROM pg_stat_user_tables \
         WHERE idx_scan IS NOT NULL ORDER BY relname",
    )
    .fetch_all(&mut connection)
    .await
    .expect("read");
    let mut used = 0;
    for (table, sequential, by_index) in &scanned {
        if GROWING.contains(&table.as_str()) {
            assert_eq!(*sequential, 0, "{table} was scanned; {scanned:?}");
            used += i64::from(*by_index > 0);
        }
    }
    assert!(used > 10, "{scanned:?}");
}
