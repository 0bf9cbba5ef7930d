//! What a wire asks of a run.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::auth::Principal;
use crate::ids;
use crate::json::Object;
use crate::limit::Permit;
use crate::model::{Params, ResponseFormat, ToolChoice, ToolDef, Turn};
use crate::tools::Mounted;

/// Reasoning frames are numbered on the run's native stream.
pub const INCLUDE_REASONING: i64 = 1;
/// Frames of tool arguments are numbered on the run's native stream.
pub const INCLUDE_TOOL_ARGS: i64 = 2;
/// Native streams carry what the answer rests on.
pub const INCLUDE_CITATIONS: i64 = 4;

/// Where the turn's history is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thread {
    /// The input is the whole conversation; nothing is added to it. The run may be filed under a
    /// thread all the same, so that it is found again.
    Stateless(Option<String>),
    /// Kept here under this id; only new turns come in.
    Kept(String),
    /// The responses that this one continues; none for the first of a chain. Several may continue
    /// one response.
    Chain(Option<Link>),
}

/// A response that another continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub run_id: String,
    pub thread_id: String,
}

/// What the Responses wire shows of a request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResponseRecord {
    /// Whether it can be read again under its id.
    pub store: bool,
    /// Whether reasoning items carry `encrypted_content`.
    pub encrypted: bool,
    /// How many of the run's turns are its input.
    pub input_turns: usize,
    /// Whether `file_search_call` items carry what was found.
    pub results: bool,
    /// `mcp_list_tools` items, without their ids.
    pub listed: Vec<Value>,
    /// Where the answer's items begin: the places of items, and of reasoning.
    pub places: [usize; 2],
    /// Members of the response that are those of the request.
    pub echo: Map<String, Value>,
}

/// One turn to run.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// Minted beforehand when an idempotency key points to it.
    pub run_id: String,
    pub tenant_id: Arc<str>,
    pub smith_id: Arc<str>,
    /// Which surface it came from, for example `api` or `chat_completions`.
    pub channel: String,
    pub thread: Thread,
    pub input: Vec<Turn>,
    /// The input as the caller wrote it, as JSON text: `[{role, content}]`.
    pub input_record: String,
    /// Where in the caller's request that was.
    pub input_member: &'static str,
    /// Added after the smith's instructions.
    pub extra_instructions: Option<String>,
    /// Overrides the smith's model for this run.
    pub model: Option<String>,
    /// Functions that the caller runs; with them the smith's own tools sit out.
    pub client_tools: Vec<ToolDef>,
    pub tool_choice: Option<ToolChoice>,
    pub parallel_tool_calls: Option<bool>,
    pub response_format: Option<ResponseFormat>,
    pub params: Params,
    /// [`INCLUDE_REASONING`], [`INCLUDE_TOOL_ARGS`], [`INCLUDE_CITATIONS`].
    pub include_mask: i64,
    pub metadata: Option<Object>,
    pub actor: Value,
    /// Tools of this run alone, beside the smith's own.
    pub mounted: Option<Box<Mounted>>,
    /// What the Responses wire shows of its request, which must still be told the model.
    pub response: Option<ResponseRecord>,
    /// Held until the run has ended.
    pub permit: Permit,
    /// Whether it goes on when its client leaves.
    pub detached: bool,
}

impl RunRequest {
    /// A turn of a smith for `principal`, in a thread of its own that nobody goes on with, and with
    /// nothing said yet: a surface says what it asks beyond that.
    pub fn of(
        principal: &Principal,
        smith_id: Arc<str>,
        channel: impl Into<String>,
        permit: Permit,
    ) -> Self {
        let tenant_id = principal.tenant_id.clone();
        Self::of_nobody(tenant_id, smith_id, channel, principal.actor(), permit)
    }

    /// The same without a token: `actor` is whoever or whatever began it.
    pub fn of_nobody(
        tenant_id: Arc<str>,
        smith_id: Arc<str>,
        channel: impl Into<String>,
        actor: Value,
        permit: Permit,
    ) -> Self {
        Self {
            run_id: ids::mint(ids::Kind::Run),
            tenant_id,
            smith_id,
            channel: channel.into(),
            thread: Thread::Stateless(None),
            input: Vec::new(),
            input_record: "[]".to_owned(),
            input_member: "input",
            extra_instructions: None,
            model: None,
            client_tools: Vec::new(),
            tool_choice: None,
            parallel_tool_calls: None,
            response_format: None,
            params: Params::default(),
            include_mask: 0,
            metadata: None,
            actor,
            mounted: None,
            response: None,
            permit,
            detached: false,
        }
    }
}
