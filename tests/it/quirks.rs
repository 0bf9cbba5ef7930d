//! Cases of `tests/fixtures/quirks/`, one file each: what a provider sends that its wire does not
//! say, and what every client must see. Its README tells the format.

mod case;
mod local;
mod seen;

pub use case::{Case, answer_of};
pub use seen::flat;

use serde_json::{Value, json};

use self::case::{CLIENTS, Sees};
use self::seen::Seen;
use crate::support::{Harness, ok};

/// The part of a provider's name in configuration that a wire's name gives.
fn provider_of(wire: &str) -> String {
    wire.replace('_', "-")
}

/// Whether this client's bytes are passed on to that wire.
fn is_forwarded(client: &str, wire: &str) -> bool {
    matches!(
        (client, wire),
        ("chat", "openai_chat")
            | ("responses", "openai_responses")
            | ("messages", "anthropic")
            | ("gemini", "gemini")
    )
}

struct Asked<'a> {
    case: &'a Case,
    client: &'static str,
    wire: &'a str,
    stream: bool,
    /// How the provider cuts what it sends.
    model: String,
}

impl Asked<'_> {
    fn about(&self) -> String {
        let form = if self.stream { "streamed" } else { "whole" };
        format!(
            "{} ({}): {} asks {}, {form}",
            self.case.name, self.model, self.client, self.wire
        )
    }

    fn expected(&self) -> Option<&Sees> {
        let case = self.case;
        if is_forwarded(self.client, self.wire) {
            return case.sees_forwarded.as_ref();
        }
        case.sees(self.stream)
    }

    async fn send(&self, harness: &Harness) -> Option<Seen> {
        let model = format!("{}/{}", provider_of(self.wire), self.model);
        let is_smith = !matches!(self.client, "chat" | "responses" | "messages" | "gemini");
        let smith = match is_smith {
            true => harness.smith(&model).await,
            false => String::new(),
        };
        let named = if is_smith { "" } else { model.as_str() };
        let (path, body) = self.case.body(self.client, named, self.stream)?;
        let path = path.replace("{smith}", &smith);
        let mut call = harness
            .request(reqwest::Method::POST, &path)
            .header("content-type", "application/json")
            .body(body);
        if is_smith {
            call = call.header("IC-Smith-Id", smith);
        }
        let answer = call.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.bytes().await.expect("a body");
        Some(Seen::of(
            self.client,
            self.stream,
            status,
            &body,
            &self.about(),
        ))
    }
}

fn check_sent(case: &Case, wire: &str, got: &Value, about: &str) {
    let Some(sent) = case.sent.get(wire) else {
        return;
    };
    for (pointer, value) in &sent.has {
        assert_eq!(
            got.pointer(pointer),
            Some(value),
            "{about}: {pointer} of {got:#}"
        );
    }
    for pointer in &sent.lacks {
        assert_eq!(got.pointer(pointer), None, "{about}: {pointer} of {got:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_sees_what_the_case_says() {
    let harness = Harness::start().await;
    for case in case::all() {
        for wire in case.provider.iter() {
            for client in CLIENTS.into_iter().filter(|client| case.asks(client)) {
                for stream in [false, true] {
                    if !case.plays(client, stream) {
                        continue;
                    }
                    for pace in ["", ".drip"] {
                        let streams = stream && case.stream.is_some();
                        if !pace.is_empty() && !streams {
                            continue;
                        }
                        let asked = Asked {
                            case: &case,
                            client,
                            wire,
                            stream,
                            model: format!("quirk-{}{pace}", case.name),
                        };
                        let Some(expected) = asked.expected() else {
                            continue;
                        };
                        let before = harness.mock.got().len();
                        let Some(seen) = asked.send(&harness).await else {
                            continue;
                        };
                        let about = asked.about();
                        expected.check(&seen, true, &about);
                        let got = harness.mock.got();
                        if let Some(got) = got.get(before) {
                            check_sent(&case, wire, &got.body, &about);
                        } else {
                            assert!(case.sent.is_empty(), "{about}: nothing was sent");
                        }
                    }
                }
            }
        }
    }
    // Nothing that a case left behind is in the way of what comes next.
    let models = ok(harness.get("/v1/models").send().await).await;
    assert_ne!(models["data"], json!([]));
}
