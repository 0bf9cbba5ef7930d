//! `memory_consolidation`: what was said is folded into the smith's notes behind its turns.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use smithgate::store::Store;

use crate::store::{HERE, agent, on_both_engines, postgres, smith, sqlite, two_tenants};
use crate::support::{Harness, ok};

async fn memory(harness: &Harness, smith: &str) -> String {
    let path = format!("/v1/smiths/{smith}/memory");
    let shown = ok(harness.get(&path).send().await).await;
    shown["content"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_folded_into_the_memory_where_that_is_wanted() {
    let harness = Harness::start().await;
    for wanted in [true, false] {
        let body = json!({ "model": "openai-chat/text", "memory_consolidation": wanted });
        let made = ok(harness.post("/v1/smiths", &body).send().await).await;
        let smith = made["id"].as_str().expect("an id").to_owned();
        let asked = harness.mock.got().len();
        let turn = json!({ "model": "", "messages": [{ "role": "user", "content": "I am Ann" }] });
        let turn = harness
            .post("/v1/chat/completions", &turn)
            .header("IC-Smith-Id", &smith)
            .header("IC-Thread-Id", "t");
        ok(turn.send().await).await;
        let mut notes = String::new();
        for _ in 0..50 {
            notes = memory(&harness, &smith).await;
            if !notes.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(if wanted { 100 } else { 10 })).await;
        }
        if !wanted {
            assert_eq!((notes.as_str(), harness.mock.got().len()), ("", asked + 1));
            continue;
        }
        assert!(notes.contains("Hello"), "{notes}");
        let got = harness.mock.got();
        assert_eq!(got.len(), asked + 2);
        let task = got[asked + 1].body.to_string();
        assert!(
            task.contains("Person: I am Ann") && task.contains("Assistant: Hello"),
            "{task}"
        );
        // It is paid for by the smith.
        let mut calls = 0;
        for _ in 0..50 {
            let usage = harness.gateway.store.usage(&harness.tenant).await;
            calls = usage.expect("read").iter().map(|row| row.calls).sum();
            if calls == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(calls, 2);
    }
}

/// Two nodes that fold what was said into one memory lose nothing of each other's.
async fn a_memory_is_changed_by_one_at_a_time(store: Arc<dyn Store>) {
    two_tenants(&store).await;
    let made = store.insert_agent(&agent(HERE, "agt_1", Some("a"))).await;
    assert!(made.expect("made"));
    let row = smith(HERE, "smt_1", "agt_1", None);
    store.upsert_smith(&row).await.expect("made");
    let swap = async |tenant: &str, before: &str, after: &str| {
        let swapped = store.swap_smith_memory(tenant, "smt_1", before, after, 1);
        swapped.await.expect("an answer")
    };
    assert!(!swap(HERE, "other", "x").await, "nothing is there yet");
    assert!(!swap("proj_there", "", "x").await, "another's smith");
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            loop {
                let before = store.smith_memory(HERE, "smt_1").await.expect("read");
                let after = format!("{before}fact {n}\n");
                let swapped = store.swap_smith_memory(HERE, "smt_1", &before, &after, n);
                if swapped.await.expect("an answer") {
                    return;
                }
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("done");
    }
    let memory = store.smith_memory(HERE, "smt_1").await.expect("read");
    for n in 0..8 {
        assert!(memory.contains(&format!("fact {n}\n")), "{memory}");
    }
    assert!(!swap("proj_there", &memory, "x").await, "another's smith");
    assert!(swap(HERE, &memory, "").await);
    assert!(swap(HERE, "", "new").await, "an empty one is as none");
}

on_both_engines!(a_memory_is_changed_by_one_at_a_time);
