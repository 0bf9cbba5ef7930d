//! Rows and filters. Times are microseconds since the Unix epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EventRow, TraceRecord, UsageEventRow};
use crate::json::{Entries, Json, Object};

/// Now, in microseconds since the Unix epoch.
pub fn now_micros() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

/// Now, in seconds since the Unix epoch.
pub fn now_seconds() -> i64 {
    now_micros() / 1_000_000
}

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Tenant {
    pub id: String,
    pub name: String,
    pub created_at: i64,
}

/// A signing key: the private part sealed, the public part as a JWK.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct SigningKeyRow {
    pub kid: String,
    pub sealed: Vec<u8>,
    pub jwk: String,
    pub created_at: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct TokenRow {
    pub id: String,
    pub tenant_id: String,
    pub name: Option<String>,
    pub sub: String,
    /// JSON array of scope names.
    pub scopes: String,
    pub prefix: Option<String>,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub revoked_at: Option<i64>,
    /// The grant of an MCP host that it was minted for.
    pub grant_id: Option<String>,
}

/// What an agent is made of; a smith overrides single members.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentConfig {
    pub instructions: Option<String>,
    pub model: Option<String>,
    pub enabled_hosted_tools: Vec<String>,
    pub vector_store_ids: Vec<String>,
    /// `None`: all registered servers.
    pub mcp_servers: Option<Vec<String>>,
    pub skills: Vec<Value>,
    pub auto_memory: Option<bool>,
    pub memory_consolidation: Option<bool>,
    pub variables: Vec<AgentVariable>,
    pub ui_resources: Vec<Object>,
}

impl AgentConfig {
    /// With other members, by name; a null stands for the default.
    pub fn with_members<'a>(
        &self,
        members: impl Iterator<Item = (&'a str, &'a Value)>,
    ) -> Result<Self, serde_json::Error> {
        let mut document = serde_json::to_value(self)?;
        if let Value::Object(document) = &mut document {
            for (name, value) in members {
                match value {
                    Value::Null => document.shift_remove(name),
                    value => document.insert(name.to_owned(), value.clone()),
                };
            }
        }
        serde_json::from_value(document)
    }
}

/// A `{{ name }}` of the instructions, as its author wrote it: `{name, default?, description?,
/// required?}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentVariable(pub Object);

impl AgentVariable {
    pub fn name(&self) -> &str {
        self.0
            .get("name")
            .and_then(Json::as_str)
            .unwrap_or_default()
    }

    pub fn default_value(&self) -> Option<&str> {
        self.0.get("default").and_then(Json::as_str)
    }

    pub fn is_required(&self) -> bool {
        self.0.get("required") == Some(&Json::Bool(true))
    }
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct AgentRow {
    pub id: String,
    pub tenant_id: String,
    /// `None` only for the default agent.
    pub slug: Option<String>,
    pub name: String,
    pub is_default: bool,
    #[sqlx(try_from = "String")]
    pub draft: AgentConfig,
    pub active_version: Option<i64>,
    pub rollout_version: Option<i64>,
    pub rollout_percent: i64,
    pub created_at: i64,
    pub updated_at: i64,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct AgentVersionRow {
    pub agent_id: String,
    pub version: i64,
    #[sqlx(try_from = "String")]
    pub snapshot: AgentConfig,
    pub created_by: Option<String>,
    pub note: Option<String>,
    pub created_at: i64,
}

/// What became of a wish to publish an agent's draft.
#[derive(Debug, Clone, PartialEq)]
pub enum Publication {
    Done(Box<AgentVersionRow>),
    Missing,
    /// The draft refers to a skill that is not there, or not at that version.
    NoSkill(String),
}

/// What is known of a smith's person.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SmithProfile {
    #[serde(default)]
    pub display_name: Option<String>,
    #[serde(default)]
    pub locale: Option<String>,
    #[serde(default)]
    pub timezone: Option<String>,
    #[serde(default)]
    pub metadata: Option<Object>,
}

/// Members of [`AgentConfig`] that a smith sets for itself, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides(pub BTreeMap<String, Value>);

/// Documents are columns of JSON text on both engines.
macro_rules! from_json_text {
    ($($document:ty),+) => {$(
        impl TryFrom<String> for $document {
            type Error = serde_json::Error;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                serde_json::from_str(&text)
            }
        }
    )+};
}

from_json_text!(
    AgentConfig,
    SmithProfile,
    Overrides,
    SmithSnapshot,
    ExternalIds,
    Metadata
);

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct SmithRow {
    pub id: String,
    pub tenant_id: String,
    pub agent_id: String,
    pub external_id: Option<String>,
    #[sqlx(try_from = "String")]
    pub profile: SmithProfile,
    pub customer_id: Option<String>,
    pub pin: Option<i64>,
    #[sqlx(try_from = "String")]
    pub overrides: Overrides,
    pub created_at: i64,
}

#[derive(Debug, Clone, Default)]
pub struct SmithFilter {
    pub external_id: Option<String>,
    pub external_id_prefix: Option<String>,
    pub customer_id: Option<String>,
    pub agent_id: Option<String>,
}

/// What a smith was configured as at one time: the part of a [`SmithRow`] that changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SmithSnapshot {
    pub agent_id: String,
    pub pin: Option<i64>,
    pub customer_id: Option<String>,
    #[serde(flatten)]
    pub profile: SmithProfile,
    pub overrides: Overrides,
}

impl SmithRow {
    /// Its configuration, for a revision.
    pub fn snapshot(&self) -> SmithSnapshot {
        SmithSnapshot {
            agent_id: self.agent_id.clone(),
            pin: self.pin,
            customer_id: self.customer_id.clone(),
            profile: self.profile.clone(),
            overrides: self.overrides.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct SmithRevisionRow {
    pub smith_id: String,
    /// From 1, without gaps.
    pub version: i64,
    #[sqlx(try_from = "String")]
    pub snapshot: SmithSnapshot,
    pub created_by: Option<String>,
    pub note: Option<String>,
    pub created_at: i64,
}

/// Who changes something, why and when.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// The token's id.
    pub by: Option<&'a str>,
    pub note: Option<&'a str>,
    pub at: i64,
}

/// What became of a change of a smith.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmithChange {
    Done,
    /// There is no such smith.
    Missing,
    /// The agent has a smith with this external id already.
    Taken,
}

/// Which versions of an agent are live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollout {
    pub active_version: Option<i64>,
    /// The version that `percent` of the smiths get already.
    pub rollout_version: Option<i64>,
    pub percent: i64,
}

/// What became of an agent that was to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentRemoval {
    /// With its deployments: the ids of the tokens of hosts that were let in there.
    Done(Vec<String>),
    Missing,
    /// So many smiths run it.
    InUse(i64),
}

/// A tenant's own billable party.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct CustomerRow {
    pub id: String,
    pub tenant_id: String,
    pub name: String,
    #[sqlx(try_from = "String")]
    pub external_ids: ExternalIds,
    #[sqlx(try_from = "String")]
    pub metadata: Metadata,
    pub created_at: i64,
}

/// A customer's ids elsewhere, by the other system's name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExternalIds(pub Entries<String>);

/// Free JSON of the caller's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(pub Object);

#[derive(Clone, sqlx::FromRow)]
pub struct ModelKeyRow {
    pub tenant_id: String,
    /// Empty: the tenant's own key.
    pub smith_id: String,
    pub provider: String,
    pub base_url: Option<String>,
    pub sealed: Vec<u8>,
    pub updated_at: i64,
}

#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct RunRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub agent_id: String,
    pub thread_id: String,
    pub channel: String,
    pub status: String,
    /// Whether it holds its thread (`conversation_locked`).
    pub exclusive: bool,
    /// Which optional frames are numbered on the native stream.
    pub include_mask: i64,
    /// JSON: `[{role, content}]` as the caller sent it.
    pub input: String,
    /// JSON: the turns that this run adds to its thread.
    pub transcript: Option<String>,
    /// JSON: the `output` member.
    pub output: Option<String>,
    pub stop_reason: Option<String>,
    pub error_code: Option<String>,
    pub error: Option<String>,
    /// JSON: `[{code, message}]`.
    pub warnings: String,
    /// JSON of [`crate::frame::Usage`].
    pub token_usage: Option<String>,
    pub metadata: Option<String>,
    pub actor: Option<String>,
    pub node_id: String,
    pub lease_until: i64,
    pub created_at: i64,
    pub updated_at: i64,
    /// The response that it continues.
    pub previous_run_id: Option<String>,
    /// JSON: what the Responses wire shows of its request.
    pub response: Option<String>,
    /// Why another node wants it cancelled.
    pub cancel_reason: Option<String>,
    /// How often it was taken up after its node died with it.
    pub takings: i64,
    /// Its place in the history of its thread, for one that took it.
    pub turn: Option<i64>,
}

impl RunRow {
    /// Whether its end is still to come, and no human is waited for.
    pub fn is_under_way(&self) -> bool {
        matches!(self.status.as_str(), "queued" | "running")
    }
}

/// What a run that is to go on with a thread must know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct ThreadSeen {
    /// Whether a run is under way or waits, so that the thread's history is not whole.
    pub is_held: bool,
    /// The place of the newest run in the history; 0 before the first.
    pub turn: i64,
}

/// What it takes to go on with a run; both are JSON.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct RunState {
    /// As it began.
    pub base: String,
    /// What it did since.
    pub progress: String,
}

/// How far a run has come, written before and after each side effect.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub tenant_id: String,
    pub run_id: String,
    /// Whose run it is; a node that has lost it writes nothing.
    pub node_id: Arc<str>,
    /// `base` only where it was not written before.
    pub base: Option<String>,
    pub progress: String,
    /// Number of the first, and the encoded frames.
    pub frames: Option<(i64, Vec<u8>)>,
    pub events: Vec<EventRow>,
    pub pause: Option<Pause>,
    pub updated_at: i64,
}

/// Why and with what a run waits.
#[derive(Debug, Clone)]
pub struct Pause {
    /// `paused_for_approval` or `paused_for_tool`.
    pub status: &'static str,
    pub transcript: Option<String>,
    pub output: String,
    pub warnings: String,
    pub token_usage: Option<String>,
    /// What humans must decide.
    pub approvals: Vec<super::ApprovalRow>,
}

#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub smith_id: Option<String>,
    pub agent_id: Option<String>,
    pub status: Option<String>,
    pub external_id_prefix: Option<String>,
}

/// What ends or changes a run's row.
#[derive(Debug, Clone)]
pub struct RunEnd {
    pub tenant_id: String,
    pub id: String,
    /// Whose run it is; a node that has lost it ends nothing.
    pub node_id: Arc<str>,
    /// Whether a state was kept of it, and maybe approvals wait.
    pub has_state: bool,
    pub status: &'static str,
    pub transcript: Option<String>,
    pub output: Option<String>,
    pub stop_reason: Option<&'static str>,
    pub error_code: Option<String>,
    pub error: Option<String>,
    pub warnings: String,
    pub token_usage: Option<String>,
    /// The run's last frames, written with its row: number of the first, and the encoded frames.
    pub frames: Option<(i64, Vec<u8>)>,
    /// What the feed says of it.
    pub event: Option<EventRow>,
    pub trace: Option<TraceRecord>,
    /// What the usage ledger says of it.
    pub ledger: Option<UsageEventRow>,
    pub updated_at: i64,
}

/// Tokens of model calls, to be added to a day's row.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UsageRow {
    pub tenant_id: String,
    /// `YYYY-MM-DD`, UTC.
    pub day: String,
    pub provider: String,
    pub model: String,
    pub calls: i64,
    pub input: i64,
    pub output: i64,
    pub cache_read: i64,
    pub cache_write: i64,
    pub reasoning: i64,
}

/// What an `Idempotency-Key` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idempotency {
    /// Not seen in the last 24 hours; now claimed.
    New,
    /// The first request is in flight; its run, when it has one.
    InProgress { run_id: Option<String> },
    /// Another body came with this key.
    Mismatch,
    /// The first answer.
    Done {
        status: u16,
        body: Vec<u8>,
        run_id: Option<String>,
    },
}

/// The stored form of [`Idempotency`].
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct IdempotencyRow {
    pub fingerprint: String,
    pub status: Option<i64>,
    pub body: Option<Vec<u8>>,
    pub run_id: Option<String>,
    pub created_at: i64,
}

impl IdempotencyRow {
    /// What it means for a request with `fingerprint`.
    pub fn judge(self, fingerprint: &str) -> Idempotency {
        if self.fingerprint != fingerprint {
            return Idempotency::Mismatch;
        }
        match (self.status, self.body) {
            (Some(status), Some(body)) => Idempotency::Done {
                status: u16::try_from(status).unwrap_or(200),
                body,
                run_id: self.run_id,
            },
            _ => Idempotency::InProgress {
                run_id: self.run_id,
            },
        }
    }
}
