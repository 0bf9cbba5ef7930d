//! Ids of both forms in one store: lists are in the order of time, whatever the engine and whatever
//! order of letters the database was made with.

use std::sync::Arc;

use serde_json::{Value, json};
use smithgate::ids::{self, Kind};
use smithgate::store::{EventFilter, EventRow, Store};
use sqlx::Connection;

use crate::store::{HERE, agent, on_both_engines, postgres, postgres_url, sqlite, two_tenants};
use crate::support::{Harness, ok};

on_both_engines!(
    lists_are_in_the_order_of_bytes,
    a_range_since_a_time_holds_both_forms,
);

/// Ids of agents, oldest first.
fn agents_of_all_times() -> Vec<String> {
    let old = [1, 2, 1_795_000_000].map(|second| ids::floor(Kind::Agent, second * 1_000_000).old);
    // Letters of both cases, where a language's order is another than that of bytes.
    let made = [
        "1CBa", "1CBb", "1Ca", "1CaA", "1CaB", "1Cab", "1Cb", "1CbA", "1Cz", "1D",
    ]
    .map(|body| format!("agt_{body:1<22}"));
    old.into_iter().chain(made).collect()
}

async fn lists_are_in_the_order_of_bytes(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    let mut all = agents_of_all_times();
    for (at, id) in all.iter().enumerate() {
        let slug = format!("slug-{at}");
        let inserted = store.insert_agent(&agent(HERE, id, Some(&slug))).await;
        assert!(inserted.expect("written"));
    }
    all.sort_unstable_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
    let mut listed: Vec<String> = Vec::new();
    loop {
        let before = listed.last().cloned();
        let page = store.agents(HERE, before.as_deref(), 3).await;
        let page = page.expect("a page");
        listed.extend(page.iter().map(|agent| agent.id.clone()));
        if page.len() < 3 {
            break;
        }
    }
    assert_eq!(listed, all);
}

async fn a_range_since_a_time_holds_both_forms(store: Arc<dyn Store>) {
    const HOUR: i64 = 3_600_000_000;
    two_tenants(&store).await;
    let now = smithgate::store::now_micros();
    // Three that were made before ids had their form of today, two after.
    for (hours, is_old) in [(50, true), (30, true), (10, true), (5, false), (1, false)] {
        let mut event = EventRow::new(HERE, "webhook.test", None, &json!({}), None);
        event.created_at = now - hours * HOUR;
        let floor = ids::floor(Kind::Event, event.created_at);
        event.id = if is_old { floor.old } else { floor.new };
        store.append_event(&event).await.expect("written");
    }
    for (hours, found) in [(60, 5), (40, 4), (20, 3), (7, 2), (2, 1), (0, 0)] {
        let since = EventFilter {
            since: Some(now - hours * HOUR),
            ..EventFilter::default()
        };
        let events = store.events(HERE, &since, None, 10).await.expect("a page");
        assert_eq!(events.len(), found, "since {hours} hours");
        assert!(events.is_sorted_by(|a, b| a.created_at > b.created_at));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_text_of_the_schema_is_compared_byte_by_byte() {
    let url = postgres_url().await;
    smithgate::store::PostgresStore::open(&url, 2)
        .await
        .expect("PostgreSQL");
    let mut connection = sqlx::PgConnection::connect(&url).await.expect("connected");
    let others: Vec<String> = sqlx::query_scalar(
        "SELECT table_name || '.' || column_name FROM information_schema.columns \
         WHERE table_schema = current_schema() AND data_type = 'text' \
         AND table_name <> '_sqlx_migrations' AND collation_name IS DISTINCT FROM 'C'",
    )
    .fetch_all(&mut connection)
    .await
    .expect("columns");
    assert!(
        others.is_empty(),
        "a migration from 0031 on says COLLATE \"C\" itself: {others:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_the_old_form_is_taken_everywhere() {
    let harness = Harness::start().await;
    let store = harness.gateway.store.clone();
    let id = ids::floor(Kind::Agent, 1_795_000_000_000_000).old;
    let tenant = harness.tenant.clone();
    assert!(
        store
            .insert_agent(&agent(&tenant, &id, Some("old")))
            .await
            .expect("written")
    );
    let path = format!("/v1/agents/{id}");
    assert_eq!(ok(harness.get(&path).send().await).await["id"], json!(id));
    let versions = harness.post(&format!("{path}/versions"), &json!({}));
    ok(versions.send().await).await;
    let body = json!({ "agent_id": id, "external_id": "ann" });
    let smith = ok(harness.post("/v1/smiths", &body).send().await).await;
    assert_eq!(smith["agent_id"], json!(id));
    // Behind those that are made today.
    ok(harness
        .post("/v1/agents", &json!({ "name": "New" }))
        .send()
        .await)
    .await;
    let agents = ok(harness.get("/v1/agents").send().await).await;
    let listed: Vec<&Value> = agents["data"].as_array().expect("a list").iter().collect();
    assert_eq!(listed.last().expect("one")["id"], json!(id));
    assert!(listed.len() > 1);
}
