use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::frame::Signer;
use crate::model::provider;
use crate::model::request::{
    Part, ResponseFormat, Role, Signature, Source, ToolChoice, ToolDef, Turn,
};
use crate::model::rules;

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

fn is_id(id: &Value, most: usize) -> bool {
    let id = id.as_str().unwrap_or_default();
    (1..=most).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn is_said(text: &Value) -> bool {
    text.as_str().is_some_and(|text| !text.trim().is_empty())
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn of_type<'v>(blocks: &'v [Value], kind: &str) -> Vec<&'v Value> {
    blocks
        .iter()
        .filter(|block| block["type"] == kind)
        .collect()
}

fn check_anthropic(body: &Value, prefill: bool) -> Result<(), String> {
    let messages = list(&body["messages"]);
    if messages.is_empty() || messages[0]["role"] != "user" {
        return Err("the user must begin".into());
    }
    let mut ids = HashSet::new();
    let mut open: Vec<Value> = Vec::new();
    let thinks = body["thinking"]["type"] == "enabled";
    for (at, message) in messages.iter().enumerate() {
        let blocks = list(&message["content"]);
        if blocks.is_empty() || at > 0 && messages[at - 1]["role"] == message["role"] {
            return Err(format!("message {at} is empty or repeats the role"));
        }
        if of_type(&blocks, "text")
            .iter()
            .any(|b| !is_said(&b["text"]))
        {
            return Err(format!("message {at} has a blank text"));
        }
        let results: Vec<Value> = of_type(&blocks, "tool_result")
            .iter()
            .map(|b| b["tool_use_id"].clone())
            .collect();
        if results != open
            || !blocks[..results.len()]
                .iter()
                .all(|b| b["type"] == "tool_result")
        {
            return Err(format!("message {at}: results {results:?} for {open:?}"));
        }
        let calls = of_type(&blocks, "tool_use");
        open = calls.iter().map(|b| b["id"].clone()).collect();
        for call in &calls {
            if !is_id(&call["id"], 64)
                || !ids.insert(call["id"].clone())
                || !is_id(&call["name"], 64)
            {
                return Err(format!("message {at}: {call}"));
            }
        }
        if message["role"] == "assistant" {
            let first = blocks[0]["type"].as_str().unwrap_or_default();
            if thinks && !calls.is_empty() && !matches!(first, "thinking" | "redacted_thinking") {
                return Err(format!("message {at} does not begin with thinking"));
            }
            if !of_type(&blocks, "image").is_empty() {
                return Err(format!("message {at}: the assistant shows an image"));
            }
        } else if !calls.is_empty() {
            return Err(format!("message {at}: the user calls"));
        }
    }
    let last = messages.last().ok_or("no message")?;
    if last["role"] == "assistant" {
        let text = list(&last["content"]).last().map(|b| b["text"].clone());
        let ends_blank = text.is_some_and(|t| t.as_str().is_some_and(|t| t != t.trim_end()));
        if !prefill || ends_blank || thinks || !open.is_empty() {
            return Err("the assistant can not have the last word".into());
        }
    }
    if !ids.is_empty() && list(&body["tools"]).is_empty() {
        return Err("calls without tools".into());
    }
    if !body["thinking"].is_null() && !body["temperature"].is_null() {
        return Err("thinking with temperature".into());
    }
    Ok(())
}

fn check_chat(body: &Value, rules: &Rules) -> Result<(), String> {
    let messages = list(&body["messages"]);
    let mut open: Vec<Value> = Vec::new();
    let mut before = "";
    let mut spoken = false;
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        let bad = |why: &str| Err(format!("message {at}, {why}: {message}"));
        if !open.is_empty() && message["tool_call_id"] != open[0] {
            return bad("a call is not answered");
        }
        match role {
            "system" => {}
            "user" => {
                spoken = true;
                let said = match &message["content"] {
                    Value::Array(parts) => !parts.is_empty(),
                    text => is_said(text),
                };
                if !said || before == "tool" && !rules.user_after_tool {
                    return bad("an empty user, or one behind a tool");
                }
            }
            "assistant" => {
                let calls = list(&message["tool_calls"]);
                if calls.is_empty()
                    && !is_said(&message["content"])
                    && !is_said(&message["refusal"])
                {
                    return bad("says nothing");
                }
                if rules.replay == crate::config::Replay::Required
                    && !calls.is_empty()
                    && !message["reasoning_content"].is_string()
                    && !message["reasoning_details"].is_array()
                    && !message["reasoning"].is_string()
                {
                    return bad("no reasoning");
                }
                open = calls.iter().map(|c| c["id"].clone()).collect();
                for id in &open {
                    let id = id.as_str().unwrap_or_default();
                    let fits = match rules.call_ids {
                        CallIds::Nine => {
                            id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric())
                        }
                        _ => !id.is_empty() && id.chars().count() <= 40,
                    };
                    if !fits {
                        return bad("an id");
                    }
                }
            }
            "tool" => {
                if open.is_empty() {
                    return bad("a result without a call");
                }
                open.remove(0);
            }
            _ => return bad("an unknown role"),
        }
        if !rules.repeats_roles && before == role && role != "tool" {
            return bad("the role repeats");
        }
        before = role;
    }
    if !open.is_empty() || before == "assistant" && !rules.prefill {
        return Err("the end".into());
    }
    match spoken || messages.iter().any(|m| m["role"] == "assistant") {
        true => Ok(()),
        false => Err("nobody speaks".into()),
    }
}

fn check_gemini(body: &Value) -> Result<(), String> {
    let contents = list(&body["contents"]);
    if contents.is_empty() || contents[0]["role"] != "user" {
        return Err("the user must begin".into());
    }
    let mut open: Vec<Value> = Vec::new();
    for (at, content) in contents.iter().enumerate() {
        let parts = list(&content["parts"]);
        let names = |kind: &str| -> Vec<Value> {
            parts
                .iter()
                .filter(|p| p[kind].is_object())
                .map(|p| p[kind]["name"].clone())
                .collect()
        };
        if parts.is_empty() || at > 0 && contents[at - 1]["role"] == content["role"] {
            return Err(format!("content {at} is empty or repeats the role"));
        }
        if parts.iter().any(|p| {
            p["text"].is_string() && !is_said(&p["text"]) && p["thoughtSignature"].is_null()
        }) {
            return Err(format!("content {at} has a blank text"));
        }
        if names("functionResponse") != open {
            return Err(format!("content {at}: {parts:?} for {open:?}"));
        }
        open = names("functionCall");
        if !open.is_empty() && content["role"] != "model" {
            return Err(format!("content {at}: the user calls"));
        }
    }
    match open.is_empty() {
        true => Ok(()),
        false => Err("an open call".into()),
    }
}

fn check_responses(body: &Value) -> Result<(), String> {
    let items = list(&body["input"]);
    if items.is_empty() {
        return Err("no input".into());
    }
    let mut open: HashSet<String> = HashSet::new();
    let mut all = HashSet::new();
    for (at, item) in items.iter().enumerate() {
        let id = item["call_id"].as_str().unwrap_or_default().to_owned();
        match item["type"].as_str().unwrap_or_default() {
            "function_call"
                if !is_id(&item["call_id"], 64)
                    || !all.insert(id.clone())
                    || !open.insert(id.clone()) =>
            {
                return Err(format!("item {at}: {item}"));
            }
            "function_call_output" if !open.remove(&id) => {
                return Err(format!("item {at}: a result without a call"));
            }
            "message" if !open.is_empty() || list(&item["content"]).is_empty() => {
                return Err(format!("item {at}: an open call before it, or empty"));
            }
            "reasoning" if at + 1 == items.len() => return Err("reasoning at the end".into()),
            _ => {}
        }
    }
    match open.is_empty() {
        true => Ok(()),
        false => Err("an open call".into()),
    }
}

fn check(body: &Value, target: (ProviderWire, &str, &str)) -> Result<(), String> {
    let rules = rules::resolve(target.0, target.1, target.2, &[]);
    match target.0 {
        ProviderWire::Anthropic => check_anthropic(body, rules.prefill),
        ProviderWire::OpenaiChat => check_chat(body, &rules),
        ProviderWire::Gemini => check_gemini(body),
        ProviderWire::OpenaiResponses => check_responses(body),
    }
}

// ---- any turns ----

fn id() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("call_1".to_owned()),
        2 => Just("call_2".to_owned()),
        1 => Just("functions.get_weather:0".to_owned()),
        1 => Just(String::new()),
        1 => Just("x".repeat(90)),
    ]
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{1,8} ?\n?",
        1 => Just(String::new()),
        1 => Just(" \n\t".to_owned()),
    ]
}

fn said() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => words().prop_map(|text| Part::Text { text }),
        1 => words().prop_map(|text| Part::Refusal { text }),
        1 => Just(Part::Image {
            source: Source::from_url("data:image/png;base64,aGk="),
            detail: None,
        }),
    ]
}

fn signature() -> impl Strategy<Value = Option<Signature>> {
    prop_oneof![
        Just(None),
        Just(Some((Signer::Anthropic, "s"))),
        Just(Some((Signer::Google, "s"))),
        Just(Some((
            Signer::OpenAi,
            r#"{"type":"reasoning","id":"rs","summary":[]}"#
        ))),
        Just(Some((
            Signer::Chat,
            r#"{"provider":"p","field":"reasoning"}"#
        ))),
    ]
    .prop_map(|signed| {
        signed.map(|(signer, value)| Signature {
            signer,
            value: value.to_owned(),
        })
    })
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => said(),
        3 => (id(), "[a-z.]{0,3}").prop_map(|(id, name)| Part::ToolCall {
            id,
            name: format!("get{name}"),
            arguments: "{}".into(),
            signature: None,
            server: None,
            approved: false,
        }),
        3 => (id(), proptest::collection::vec(said(), 0..3), any::<bool>()).prop_map(
            |(tool_call_id, content, is_error)| Part::ToolResult {
                tool_call_id,
                content,
                is_error,
            }
        ),
        2 => (words(), signature()).prop_map(|(text, signature)| Part::Reasoning {
            text,
            signature,
            redacted: false,
        }),
        1 => "[a-z]{1,5}".prop_map(|name| Part::Name { name }),
        1 => Just(Part::CacheHere { ttl: None }),
    ]
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let role = prop_oneof![Just(Role::User), Just(Role::Assistant), Just(Role::Tool)];
    let turn = (role, proptest::collection::vec(part(), 0..5))
        .prop_map(|(role, parts)| Turn { role, parts });
    proptest::collection::vec(turn, 0..8)
}

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

fn schema_request(schema: Value) -> ModelRequest {
    let mut asked = request(vec![Turn::text(Role::User, "who?")]);
    asked.response_format = Some(ResponseFormat::JsonSchema {
        name: "x".into(),
        description: None,
        schema,
        strict: false,
    });
    asked
}

#[test]
fn a_schema_is_put_into_the_targets_words_or_held_by_a_tool() {
    let schema = json!({ "type": "object",
        "properties": { "n": { "type": "integer", "minimum": 1 } } });
    let asked = schema_request(schema.clone());
    let native = body(&asked, ProviderWire::Anthropic, "claude-opus-4-8");
    let sent = &native["output_config"]["format"]["schema"];
    assert_eq!(sent["additionalProperties"], false);
    assert!(sent["properties"]["n"]["minimum"].is_null());
    assert!(
        sent["properties"]["n"]["description"]
            .to_string()
            .contains("minimum")
    );
    let target = (ProviderWire::Anthropic, "h", "claude-sonnet-4-20250514");
    let (tool, undo) = body_of(&asked, target);
    assert!(tool["output_config"].is_null());
    assert_eq!(tool["tools"][0]["input_schema"], schema);
    assert_eq!(tool["tool_choice"]["name"], tool["tools"][0]["name"]);
    assert!(undo.answer.is_some());
    // What is open can not be said natively.
    let open = schema_request(json!({ "type": "object",
        "properties": { "scores": { "type": "object", "additionalProperties": { "type": "number" } } } }));
    let body = body(&open, ProviderWire::Anthropic, "claude-opus-4-8");
    assert!(
        body["output_config"].is_null() && body["tools"][0]["name"] == "answer",
        "{body}"
    );
    let target = (
        ProviderWire::OpenaiChat,
        "api.deepseek.com",
        "deepseek-chat",
    );
    let (body, _) = body_of(&asked, target);
    assert_eq!(body["response_format"], json!({ "type": "json_object" }));
    assert!(
        body["messages"][0]["content"]
            .to_string()
            .contains("minimum")
    );
}

#[test]
fn tools_get_names_and_schemas_that_are_taken() {
    let tool = |name: &str, parameters: Value| ToolDef {
        name: name.into(),
        description: None,
        parameters,
        strict: None,
    };
    let mut asked = request(vec![Turn::text(Role::User, "x")]);
    asked.tools = vec![
        tool("a.b", json!({})),
        tool("a.b", json!({})),
        tool(
            &"n".repeat(80),
            json!({ "properties": { "q": { "type": "string" } } }),
        ),
        tool(
            "c",
            json!({ "anyOf": [{ "type": "object", "properties": { "q": {} } }] }),
        ),
        tool("d", json!(true)),
    ];
    asked.tool_choice = Some(ToolChoice::Named("a.b".into()));
    for target in TARGETS {
        let (body, undo) = body_of(&asked, target);
        assert_eq!(undo.names.len(), 2, "{target:?}");
        if target.0 == ProviderWire::Anthropic {
            let tools = list(&body["tools"]);
            assert_eq!(tools.len(), 4);
            assert!(tools.iter().all(|t| t["input_schema"]["type"] == "object"));
            assert!(tools.iter().all(|t| is_id(&t["name"], 64)), "{body}");
            assert!(tools[2]["input_schema"]["anyOf"].is_null());
            assert_eq!(body["tool_choice"]["name"], tools[0]["name"]);
        }
    }
    let fable = body(&asked, ProviderWire::Anthropic, "claude-opus-5-5");
    assert_eq!(fable["tool_choice"]["type"], "auto");
    assert!(fable["system"].to_string().contains("Call the tool"));
}

#[test]
fn openais_models_that_do_not_reason_with_tools_say_so() {
    let mut asked = request(vec![Turn::text(Role::User, "x")]);
    asked.params.effort = Some(Effort::High);
    asked.tools = vec![ToolDef {
        name: "f".into(),
        description: None,
        parameters: json!({}),
        strict: None,
    }];
    let target = (ProviderWire::OpenaiChat, "api.openai.com", "gpt-5.6");
    assert_eq!(body_of(&asked, target).0["reasoning_effort"], "none");
    asked.tools.clear();
    assert_eq!(body_of(&asked, target).0["reasoning_effort"], "high");
}

#[test]
fn what_responses_has_a_place_for_goes_there() {
    let mut asked = request(vec![Turn::text(Role::User, "x")]);
    let params = &mut asked.params;
    params.verbosity = Some("low".into());
    params.service_tier = Some("flex".into());
    params.prompt_cache_key = Some("k".into());
    params.metadata = json!({ "a": "b" }).as_object().cloned().map(Into::into);
    let body = body(&asked, ProviderWire::OpenaiResponses, "gpt-5.5");
    assert_eq!(body["text"]["verbosity"], "low");
    assert_eq!(body["service_tier"], "flex");
    assert_eq!(body["prompt_cache_key"], "k");
    assert_eq!(body["metadata"]["a"], "b");
    let mistral = body_of(&asked, TARGETS[2]).0;
    assert!(mistral["verbosity"].is_null() && mistral["service_tier"].is_null());
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
