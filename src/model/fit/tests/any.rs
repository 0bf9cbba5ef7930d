//! Turns of any kind, as no well-behaved client would send them.

use proptest::prelude::*;

use crate::frame::Signer;
use crate::model::request::{Part, Role, Signature, Source, Turn};

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

pub fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let role = prop_oneof![Just(Role::User), Just(Role::Assistant), Just(Role::Tool)];
    let turn = (role, proptest::collection::vec(part(), 0..5))
        .prop_map(|(role, parts)| Turn { role, parts });
    proptest::collection::vec(turn, 0..8)
}
