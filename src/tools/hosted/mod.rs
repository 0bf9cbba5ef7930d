//! The tools that run in this process, by the name that enables them (`tools.md`, "Hosted tools").
//! One file each. A name may stand for several functions.

mod calculator;
mod current_time;
mod file_search;
mod memory;
mod reasoning;
pub mod recall;
mod schedules;
mod suggest_replies;
mod web_fetch;
mod web_search;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use crate::config;
use crate::error::ApiError;
use crate::store::Store;
use crate::untrusted::Sandbox;
use crate::upstream::Upstream;

/// A function that a model may call.
#[derive(Debug, Clone)]
pub struct Function {
    pub name: &'static str,
    pub description: &'static str,
    /// JSON Schema of the arguments.
    pub parameters: Value,
}

/// What was found in a document.
#[derive(Debug, Clone)]
pub struct Passage {
    pub file_id: String,
    pub filename: String,
    pub text: String,
    /// 0 to 1.
    pub score: f32,
}

/// The search over vector stores, which lives above this module.
#[async_trait]
pub trait Documents: Send + Sync {
    /// Best first; `None`: the smith has no such store.
    async fn search(
        &self,
        caller: &ToolUser,
        store_id: &str,
        query: &str,
        limit: usize,
    ) -> Result<Option<Vec<Passage>>, String>;

    /// Whether the smith has such a store.
    async fn has(&self, caller: &ToolUser, store_id: &str) -> Result<bool, ApiError>;
}

/// What hosted tools work with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub upstream: Arc<Upstream>,
    pub documents: Arc<dyn Documents>,
    pub sandbox: Arc<Sandbox>,
    pub config: config::Tools,
    /// Where channels are, once there are any.
    pub senders: super::SendersSlot,
}

/// For whom a tool is called.
#[derive(Debug, Clone)]
pub struct ToolUser {
    pub tenant_id: Arc<str>,
    pub smith_id: Arc<str>,
    /// The IANA name of the smith's time zone.
    pub timezone: Option<String>,
    pub vector_store_ids: Vec<String>,
}

/// What a tool answers.
#[derive(Debug, Default)]
pub struct Answer {
    pub text: String,
    /// Replies that the person is offered.
    pub suggested_replies: Option<Vec<String>>,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self {
            text,
            suggested_replies: None,
        }
    }
}

/// A hosted tool. The error of a call is told to the model.
#[async_trait]
pub trait Hosted: Send + Sync {
    /// What enables it.
    fn name(&self) -> &'static str;
    /// What it does, for those who choose tools.
    fn description(&self) -> &'static str;
    fn functions(&self) -> Vec<Function>;
    /// Whether it can be enabled; others come by themselves.
    fn is_listed(&self) -> bool {
        true
    }
    /// Whether a human must approve a function's calls.
    fn needs_approval(&self, _function: &str) -> bool {
        false
    }
    async fn call(
        &self,
        function: &str,
        args: &Map<String, Value>,
        caller: &ToolUser,
        parts: &Parts,
    ) -> Result<Answer, String>;
}

/// All of them.
pub static HOSTED: &[&dyn Hosted] = &[
    &calculator::Calculator,
    &reasoning::Reasoning,
    &web_fetch::WebFetch,
    &web_search::WebSearch,
    &file_search::FileSearch,
    &current_time::CurrentTime,
    &suggest_replies::SuggestReplies,
    &recall::Recall,
    &schedules::ScheduleTools,
    &memory::Memory,
];

/// The one of a name.
pub fn hosted(name: &str) -> Option<&'static dyn Hosted> {
    HOSTED.iter().find(|tool| tool.name() == name).copied()
}

/// A schema of an object; `required` names its members.
pub fn object(properties: Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required,
        "additionalProperties": false })
}

/// An argument that is a text.
pub fn text<'a>(args: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    let found = args.get(name).and_then(Value::as_str);
    found.ok_or_else(|| format!("'{name}' must be a text"))
}

/// The first `limit` bytes, cut between characters.
pub fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
