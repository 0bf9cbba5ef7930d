//! `memory_consolidation`: what was said is folded into the smith's notes behind its turns.

use std::time::Duration;

use serde_json::json;

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
