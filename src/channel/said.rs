//! What arrives, in words that all channels share.

use serde_json::{Value, json};

use crate::model::Part;

/// What is kept of a request of a platform.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The platform's own name for it: the same thing delivered again has the same one.
    pub key: String,
    /// What it is, in the platform's words.
    pub kind: String,
    /// The conversation that it belongs to.
    pub subject: String,
    pub data: Value,
}

/// Who sent a message, as the platform says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// In the platform's words: a user, a number, an address.
    pub id: String,
    pub name: Option<String>,
    /// Whether the platform vouches for it.
    pub is_verified: bool,
}

/// Words that a channel acts on itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// With the token that binds the conversation.
    Start(Option<String>),
    /// A fresh thread.
    New,
    /// The run that is under way ends.
    Stop,
    Help,
}

impl Command {
    /// Of its word, without what marks it as one; `token` is what stands behind it.
    pub fn of(word: &str, token: Option<&str>) -> Option<Self> {
        let token = token.filter(|token| !token.is_empty());
        Some(match word {
            "start" => Self::Start(token.map(str::to_owned)),
            "new" => Self::New,
            "stop" => Self::Stop,
            "help" => Self::Help,
            _ => return None,
        })
    }
}

/// A message of a person.
#[derive(Debug, Clone)]
pub struct Said {
    pub sender: Sender,
    /// The conversation, as `subject` of its arrival.
    pub chat: String,
    /// Whether sender and smith are alone.
    pub is_private: bool,
    pub text: String,
    /// What came with the text.
    pub parts: Vec<Part>,
    /// The platform's name for the message within its conversation.
    pub message: String,
    /// Where an answer goes.
    pub reply_to: Value,
    pub command: Option<Command>,
    /// Whether it replaces what was said under the same name.
    pub is_edit: bool,
}

/// A press of a button.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub approval_id: String,
    pub approve: bool,
    /// What answers a question, where the platform has forms of its own.
    pub content: Option<Value>,
    pub sender: Sender,
    pub chat: String,
}

/// What an arrival means.
#[derive(Debug, Clone)]
pub enum Meaning {
    /// Nothing that anybody answers, and why.
    Nothing(&'static str),
    Said(Box<Said>),
    Decided(Decision),
    /// Conversation and message.
    TakenBack(String, String),
}

/// What a human is asked to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub approval_id: String,
    pub tool: String,
    /// JSON, for reading.
    pub arguments: String,
    /// What is asked beside yes or no.
    pub question: Option<Question>,
    /// A page that asks the same: for questions, and for platforms without buttons. Whoever has it may
    /// decide, once.
    pub link: Option<String>,
}

/// What an MCP server wants to know (an elicitation of its `form` mode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub message: String,
    /// JSON Schema of a flat object.
    pub schema: Value,
}

/// The tool by which a smith begins to speak over a channel.
#[derive(Debug, Clone)]
pub struct SendTool {
    pub name: &'static str,
    pub description: &'static str,
    /// What the argument `to` is, told to the model.
    pub to: &'static str,
}

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The conversation, as `Said::chat`.
    pub chat: String,
    /// As `Said::reply_to`.
    pub reply_to: Value,
}

impl Question {
    /// Of an approval's `{message, requested_schema}`.
    pub fn of(elicitation: &str) -> Option<Self> {
        let asked: Value = serde_json::from_str(elicitation).ok()?;
        Some(Self {
            message: asked["message"].as_str().unwrap_or_default().to_owned(),
            schema: asked["requested_schema"].clone(),
        })
    }
}

/// Adds what there is no part for to what was said, as a line of its own.
pub fn add_line(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
}

impl Sender {
    /// For records and for the model.
    pub fn to_json(&self, channel: &str) -> Value {
        json!({ "channel": channel, "id": self.id, "name": self.name, "verified": self.is_verified })
    }
}
