//! The table. Later entries win. Each names the public documentation or report that it is from,
//! as read in November 2026; what is not known here is what the wire's first entry says.

//!
//! One file for what speaks OpenAI's wires, one for all others.

mod openai;
mod others;

use super::{Allowed, Entry, Patch};
use crate::config::ProviderWire::{self, Anthropic, Gemini, OpenaiChat, OpenaiResponses};

const CHAT: &[ProviderWire] = &[OpenaiChat];
const RESPONSES: &[ProviderWire] = &[OpenaiResponses];
const OPENAI: &[ProviderWire] = &[OpenaiChat, OpenaiResponses];
const CLAUDE: &[ProviderWire] = &[Anthropic];
const GOOGLE: &[ProviderWire] = &[Gemini];
/// OpenAI's own hosts, and those of its models at Azure.
const OPENAI_HOSTS: &[&str] = &[
    "api.openai.com",
    "openai.azure.com",
    "cognitiveservices.azure.com",
];
const MISTRAL_HOSTS: &[&str] = &["mistral.ai"];
const DEEPSEEK_HOSTS: &[&str] = &["deepseek.com"];

const NO_SAMPLING: Patch = Patch {
    sampling: Some(Allowed::Never),
    penalties: Some(Allowed::Never),
    stop: Some(Allowed::Never),
    reasons_by_default: Some(true),
    ..Patch::NONE
};

/// All entries, in order.
pub(super) fn entries() -> impl Iterator<Item = &'static Entry> {
    openai::ENTRIES.iter().chain(others::ENTRIES)
}
