//! Two turns on one thread at once: one waits its turn, and none answers without the other's words.

use serde_json::{Value, json};

use crate::control::on_both_stores;
use crate::support::Harness;

on_both_stores!(a_turn_that_is_let_in_knows_the_one_before);

async fn a_turn_that_is_let_in_knows_the_one_before(store: Option<String>) {
    let harness = Harness::start_with(|config, _| config.store.url = store).await;
    let smith = harness.smith("openai-chat/text").await;
    for round in 0..20 {
        let thread = format!("t{round}");
        let words = [format!("first {round}."), format!("second {round}.")];
        let turn = |said: &str| {
            let body = json!({ "messages": [{ "role": "user", "content": said }] });
            let call = harness.post("/v1/chat/completions", &body);
            call.header("ic-smith-id", &smith)
                .header("ic-thread-id", &thread)
                .send()
        };
        // The second comes when the first may just be ending.
        let late = async {
            tokio::time::sleep(std::time::Duration::from_millis(round % 10)).await;
            turn(&words[1]).await
        };
        let (one, two) = tokio::join!(turn(&words[0]), late);
        let statuses = [one, two].map(|answer| answer.expect("an answer").status().as_u16());
        match statuses {
            [200, 200] => {
                let got = harness.mock.got();
                let of_round = |body: &Value| {
                    let text = body["messages"].to_string();
                    (text.contains(&words[0]), text.contains(&words[1]))
                };
                let both = got
                    .iter()
                    .filter(|got| of_round(&got.body) == (true, true))
                    .count();
                assert_eq!(both, 1, "round {round}: a turn does not know the other");
            }
            [200, 409] | [409, 200] => {}
            other => panic!("round {round}: {other:?}"),
        }
    }
}
