#![no_main]
#![allow(unsafe_code, reason = "the fuzzer's entry points are C functions")]
//! The fuzz targets, in one program: `FUZZ_TARGET` names the one to run. `.ci/fuzz` builds it, with
//! coverage counters in this crate alone, so that the dependencies are those of the tests.

mod targets;

use std::sync::OnceLock;

use smithgate::config::ProviderWire;

static TARGET: OnceLock<String> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let named = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        TARGET.set(named).expect("set once");
    },
    |data: &[u8]| match TARGET.get().map(String::as_str).unwrap_or_default() {
        "sse" => targets::sse(data),
        "framing" => targets::framing(data),
        "openai_chat" => targets::provider(ProviderWire::OpenaiChat, data),
        "openai_responses" => targets::provider(ProviderWire::OpenaiResponses, data),
        "anthropic" => targets::provider(ProviderWire::Anthropic, data),
        "gemini" => targets::provider(ProviderWire::Gemini, data),
        "chat_request" => targets::chat_request(data),
        "native_request" => targets::native_request(data),
        "responses_request" => targets::responses_request(data),
        "messages_request" => targets::messages_request(data),
        "gemini_request" => targets::gemini_request(data),
        "ui_request" => targets::ui_request(data),
        "telegram" => targets::telegram(data),
        "whatsapp" => targets::whatsapp(data),
        "discord" => targets::discord(data),
        "web_page" => targets::web_page(data),
        "slack" => targets::slack(data),
        "email" => targets::email(data),
        other => panic!("no target is named '{other}'"),
    }
);
