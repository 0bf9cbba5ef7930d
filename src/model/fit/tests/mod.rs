//! What any request becomes for any target.

mod any;
mod taken;
mod tools;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::frame::Signer;
use crate::model::provider;
use crate::model::request::{Part, ResponseFormat, Role, Signature, ToolChoice, ToolDef, Turn};
use crate::model::rules;
use any::turns;
use taken::{check, check_anthropic, list};

const TARGETS: [(ProviderWire, &str, &str); 8] = [
    (ProviderWire::OpenaiChat, "api.openai.com", "gpt-4.1"),
    (
        ProviderWire::OpenaiChat,
        "api.deepseek.com",
        "deepseek-v4-pro",
    ),
    (
        ProviderWire::OpenaiChat,
        "api.mistral.ai",
        "mistral-large-latest",
    ),
    (ProviderWire::OpenaiResponses, "api.openai.com", "gpt-5.5"),
    (
        ProviderWire::Anthropic,
        "api.anthropic.com",
        "claude-sonnet-4-5",
    ),
    (
        ProviderWire::Anthropic,
        "api.anthropic.com",
        "claude-opus-4-8",
    ),
    (
        ProviderWire::Gemini,
        "generativelanguage.googleapis.com",
        "gemini-2.5-pro",
    ),
    (
        ProviderWire::Gemini,
        "generativelanguage.googleapis.com",
        "gemini-3.1-pro",
    ),
];

/// The body that a target is sent.
fn body_of(request: &ModelRequest, target: (ProviderWire, &str, &str)) -> (Value, Undo) {
    let (wire, host, model) = target;
    let rules = rules::resolve(wire, host, model, &[]);
    let mut request = request.clone();
    request.model = model.to_owned();
    let mut undo = Undo::new("p".into(), wire);
    fit_to(&mut request, wire, &rules, &mut undo).expect("it fits");
    let body = provider::api(wire).body(&request, &rules, false, true);
    (body.expect("a body"), undo)
}

fn body(request: &ModelRequest, wire: ProviderWire, model: &str) -> Value {
    body_of(request, (wire, "127.0.0.1:9", model)).0
}

fn call(id: &str) -> Part {
    Part::ToolCall {
        id: id.into(),
        name: "get_weather".into(),
        arguments: "{\"city\":\"Paris\"}".into(),
        signature: None,
        server: None,
        approved: false,
    }
}

fn result(id: &str, text: &str) -> Part {
    Part::ToolResult {
        tool_call_id: id.into(),
        content: vec![Part::Text { text: text.into() }],
        is_error: false,
    }
}

fn turn(role: Role, parts: Vec<Part>) -> Turn {
    Turn { role, parts }
}

fn request(turns: Vec<Turn>) -> ModelRequest {
    ModelRequest {
        turns,
        ..ModelRequest::default()
    }
}

// ---- what each wire refuses ----

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_turns_are_a_body_that_the_wire_takes(
        turns in turns(),
        system in proptest::option::of("[a-z]{1,9}"),
        effort in proptest::option::of(prop_oneof![Just(Effort::None), Just(Effort::High)]),
        has_tools in any::<bool>(),
    ) {
        let mut asked = request(turns);
        asked.system = system;
        asked.params.effort = effort;
        asked.params.temperature = Some(0.5);
        if has_tools {
            asked.tools = vec![ToolDef {
                name: "get".into(),
                description: None,
                parameters: json!({}),
                strict: None,
            }];
        }
        for target in TARGETS {
            let (body, _) = body_of(&asked, target);
            if let Err(why) = check(&body, target) {
                return Err(TestCaseError::fail(format!("{target:?}: {why}\n{body:#}")));
            }
            // It is the same the second time, and what fits is left as it is.
            let again = body_of(&asked, target).0;
            prop_assert_eq!(again, body);
        }
    }
}

// ---- cases ----

#[test]
fn an_unanswered_call_is_closed_and_the_thread_goes_on() {
    let asked = request(vec![
        Turn::text(Role::User, "weather?"),
        turn(Role::Assistant, vec![call("call_1"), call("call_2")]),
        turn(Role::Tool, vec![result("call_2", "mild")]),
        Turn::text(Role::User, "never mind"),
    ]);
    let body = body(&asked, ProviderWire::OpenaiChat, "m");
    let messages = list(&body["messages"]);
    let roles: Vec<&str> = messages.iter().filter_map(|m| m["role"].as_str()).collect();
    assert_eq!(roles, ["user", "assistant", "tool", "tool", "user"]);
    assert_eq!(messages[2]["tool_call_id"], "call_1");
    assert!(
        messages[2]["content"]
            .as_str()
            .expect("text")
            .contains("not answered")
    );
    assert_eq!(messages[3]["content"], "mild");
    let body = self::body(&asked, ProviderWire::Anthropic, "claude-opus-4-8");
    let content = list(&body["messages"][2]["content"]);
    assert_eq!(content[0]["is_error"], true);
    assert_eq!(content[2], json!({ "type": "text", "text": "never mind" }));
}

#[test]
fn late_double_and_lost_results_find_their_place() {
    let asked = request(vec![
        turn(Role::Tool, vec![result("gone", "lost")]),
        turn(Role::Assistant, vec![call("a")]),
        Turn::text(Role::User, "well?"),
        turn(
            Role::Tool,
            vec![
                result("a", "late"),
                result("a", "late"),
                result("a", "more"),
            ],
        ),
    ]);
    let body = body(&asked, ProviderWire::OpenaiChat, "m");
    let messages = list(&body["messages"]);
    let shown = |at: usize| messages[at]["content"].to_string();
    assert!(
        shown(0).contains("gone") && shown(0).contains("lost"),
        "{body:#}"
    );
    assert_eq!(messages[2]["content"], "latemore");
    assert_eq!(messages[3]["content"], "well?");
    assert_eq!(messages.len(), 4);
}

#[test]
fn ids_that_come_again_belong_to_the_calls_before_them() {
    let asked = request(vec![
        Turn::text(Role::User, "x"),
        turn(Role::Assistant, vec![call("functions.f:0")]),
        turn(Role::Tool, vec![result("functions.f:0", "one")]),
        turn(Role::Assistant, vec![call("functions.f:0")]),
        turn(Role::Tool, vec![result("functions.f:0", "two")]),
    ]);
    let body = body(&asked, ProviderWire::Anthropic, "claude-opus-4-8");
    check_anthropic(&body, false).expect("acceptable");
    let result = |at: usize| body["messages"][at]["content"][0]["content"][0]["text"].clone();
    assert_eq!((result(2), result(4)), (json!("one"), json!("two")));
}

#[test]
fn a_request_of_instructions_alone_has_a_user() {
    for (wire, ..) in TARGETS {
        let mut asked = request(Vec::new());
        asked.system = Some("Say hi.".to_owned());
        let body = body(&asked, wire, "m").to_string();
        assert!(
            body.contains("Begin.") && body.contains("Say hi."),
            "{body}"
        );
    }
}

#[test]
fn the_assistants_last_word_is_kept_where_it_is_taken() {
    let asked = request(vec![
        Turn::text(Role::User, "Write JSON."),
        Turn::text(Role::Assistant, "{\n "),
    ]);
    let old = body(&asked, ProviderWire::Anthropic, "claude-sonnet-4-5");
    assert_eq!(old["messages"][1]["content"][0]["text"], "{");
    let new = body(&asked, ProviderWire::Anthropic, "claude-opus-4-8");
    assert_eq!(new["messages"][2]["role"], "user");
}

#[test]
fn sampling_is_left_out_where_it_is_refused() {
    let mut asked = request(vec![Turn::text(Role::User, "hi")]);
    asked.params.temperature = Some(1.7);
    asked.params.top_p = Some(0.9);
    asked.params.stop = vec!["END".to_owned()];
    asked.params.frequency_penalty = Some(0.5);
    let of = |wire, model| body(&asked, wire, model);
    let opus = of(ProviderWire::Anthropic, "claude-opus-4-8");
    assert!(opus["temperature"].is_null() && opus["top_p"].is_null());
    let haiku = of(ProviderWire::Anthropic, "claude-haiku-4-5");
    assert!(haiku["temperature"] == 1.0 && haiku["top_p"].is_null());
    for model in ["o3-mini", "gpt-5", "gpt-5.5"] {
        let body = of(ProviderWire::OpenaiChat, model);
        for name in ["temperature", "top_p", "stop", "frequency_penalty"] {
            assert!(body[name].is_null(), "{model}: {body}");
        }
    }
    let body = of(ProviderWire::OpenaiChat, "gpt-4.1");
    assert!(body["temperature"] == 1.7 && body["stop"] == json!(["END"]));
    asked.params.effort = Some(Effort::None);
    let body = self::body(&asked, ProviderWire::OpenaiChat, "gpt-5.5");
    assert_eq!(
        (&body["reasoning_effort"], &body["top_p"]),
        (&json!("none"), &json!(0.9))
    );
}

#[test]
fn limits_have_the_name_that_is_known() {
    let mut asked = request(vec![Turn::text(Role::User, "hi")]);
    asked.params.max_tokens = Some(100_000);
    asked.params.seed = Some(7);
    let mistral = body_of(&asked, TARGETS[2]).0;
    assert_eq!(
        (&mistral["max_tokens"], &mistral["random_seed"]),
        (&json!(100_000), &json!(7))
    );
    assert!(mistral["max_completion_tokens"].is_null() && mistral["seed"].is_null());
    let other = body(&asked, ProviderWire::OpenaiChat, "m");
    assert_eq!(other["max_completion_tokens"], 100_000);
    let opus = body(&asked, ProviderWire::Anthropic, "claude-opus-4-1");
    assert_eq!(opus["max_tokens"], 32_000);
}

#[test]
fn thinking_is_left_off_for_calls_that_have_none() {
    let mut asked = request(vec![
        Turn::text(Role::User, "weather?"),
        turn(Role::Assistant, vec![call("a")]),
        turn(Role::Tool, vec![result("a", "mild")]),
    ]);
    asked.params.effort = Some(Effort::High);
    asked.params.temperature = Some(0.2);
    let old = body(&asked, ProviderWire::Anthropic, "claude-sonnet-4-5");
    assert!(
        old["thinking"].is_null() && old["temperature"] == 0.2,
        "{old}"
    );
    let new = body(&asked, ProviderWire::Anthropic, "claude-opus-4-6");
    assert_eq!(new["thinking"]["type"], "adaptive");
    asked.turns[1].parts.insert(
        0,
        Part::Reasoning {
            text: "hm".into(),
            signature: Some(Signature {
                signer: Signer::Anthropic,
                value: "s".into(),
            }),
            redacted: false,
        },
    );
    let old = body(&asked, ProviderWire::Anthropic, "claude-sonnet-4-5");
    assert_eq!(
        old["thinking"],
        json!({ "type": "enabled", "budget_tokens": 16_384 })
    );
    assert_eq!(old["messages"][1]["content"][0]["signature"], "s");
    assert!(old["temperature"].is_null());
}

#[test]
fn efforts_become_what_the_model_has() {
    let mut asked = request(vec![Turn::text(Role::User, "hi")]);
    let mut of = |effort, model: &str| {
        asked.params.effort = Some(effort);
        body(&asked, ProviderWire::Anthropic, model)
    };
    let effort = |body: &Value| body["output_config"]["effort"].clone();
    assert_eq!(effort(&of(Effort::XHigh, "claude-opus-4-6")), "high");
    assert_eq!(effort(&of(Effort::XHigh, "claude-opus-4-8")), "xhigh");
    assert_eq!(effort(&of(Effort::Max, "claude-sonnet-4-6")), "max");
    assert!(of(Effort::None, "claude-opus-4-8")["thinking"].is_null());
    assert_eq!(
        of(Effort::None, "claude-sonnet-5")["thinking"]["type"],
        "disabled"
    );
    assert_eq!(
        of(Effort::None, "claude-sonnet-5-5")["thinking"]["type"],
        "between_tools"
    );
    let always = of(Effort::None, "claude-opus-5-5");
    assert!(always["thinking"].is_null() && effort(&always) == "low");
    let opus = of(Effort::XHigh, "claude-opus-4-1");
    let budget = opus["thinking"]["budget_tokens"]
        .as_u64()
        .expect("a budget");
    assert!(
        budget < opus["max_tokens"].as_u64().expect("a limit"),
        "{opus}"
    );
}

#[test]
fn a_name_without_words_is_no_turn() {
    let name = || Part::Name { name: "bob".into() };
    let blank = Part::Text { text: " ".into() };
    let marked = vec![name(), blank, Part::CacheHere { ttl: None }];
    let asked = request(vec![
        Turn::text(Role::User, "x"),
        turn(Role::Assistant, vec![name()]),
        turn(Role::User, marked),
    ]);
    for target in TARGETS {
        let body = body_of(&asked, target).0;
        let [turns] = ["messages", "input", "contents"]
            .map(|name| list(&body[name]))
            .into_iter()
            .filter(|turns| !turns.is_empty())
            .collect::<Vec<_>>()
            .try_into()
            .expect("one list of turns");
        assert_eq!(turns.len(), 1, "{body}");
    }
}

#[test]
fn one_id_for_all_calls_is_told_apart_in_no_time() {
    const MANY: usize = 60_000;
    let calls = |many| (0..many).map(|_| call("call_0")).collect::<Vec<_>>();
    let results = |many| {
        let results = (0..many).map(|at| result("call_0", &format!("{at}")));
        results.collect::<Vec<_>>()
    };
    let began = std::time::Instant::now();
    for turns in [
        vec![
            turn(Role::Assistant, calls(MANY)),
            turn(Role::Tool, results(MANY)),
        ],
        vec![
            turn(Role::Tool, results(MANY)),
            turn(Role::Assistant, calls(MANY)),
        ],
    ] {
        let mut asked = request(turns);
        let rules = rules::resolve(ProviderWire::OpenaiChat, "api.openai.com", "gpt-4.1", &[]);
        history::fit_turns(&mut asked, ProviderWire::OpenaiChat, "p", &rules);
        let texts: Vec<&str> = asked
            .turns
            .iter()
            .flat_map(|turn| &turn.parts)
            .filter_map(|part| match part {
                Part::ToolResult { content, .. } => match &content[0] {
                    Part::Text { text } => Some(text.as_str()),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        assert_eq!(texts.len(), MANY);
        assert!((0..MANY).all(|at| texts[at] == format!("{at}")));
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(30));
}

#[test]
fn a_mark_behind_reasoning_does_not_make_it_more_than_the_end() {
    let thought = Part::Reasoning {
        text: "a".into(),
        signature: Some(Signature {
            signer: Signer::OpenAi,
            value: r#"{"type":"reasoning","id":"rs","summary":[]}"#.into(),
        }),
        redacted: false,
    };
    let said = Part::Text { text: "b".into() };
    let asked = request(vec![
        Turn::text(Role::User, "x"),
        turn(
            Role::Assistant,
            vec![said, thought, Part::CacheHere { ttl: None }],
        ),
        Turn::text(Role::User, "y"),
    ]);
    let body = body(&asked, ProviderWire::OpenaiResponses, "gpt-5.5");
    assert!(!body["input"].to_string().contains("reasoning"), "{body}");
}
