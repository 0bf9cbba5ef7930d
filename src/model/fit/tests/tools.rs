//! Schemas and names of tools.

use serde_json::{Value, json};

use super::taken::is_id;
use super::*;

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
