//! Agents and their versions.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Result, Rows};
use crate::json::{Json, Object};

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
    ) -> std::result::Result<Self, serde_json::Error> {
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

/// Agents and their versions.
#[async_trait]
pub trait AgentStore: Send + Sync {
    /// `false` when the slug is taken.
    async fn insert_agent(&self, agent: &AgentRow) -> Result<bool>;
    async fn agent(&self, tenant_id: &str, id: &str) -> Result<Option<AgentRow>>;
    /// The default agent, made from `template` when missing.
    async fn default_agent(&self, template: &AgentRow) -> Result<AgentRow>;
    async fn agents(
        &self,
        tenant_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<AgentRow>>;
    /// Slugs that begin with `prefix`.
    async fn agent_slugs(&self, tenant_id: &str, prefix: &str) -> Result<Vec<String>>;
    /// Snapshots the draft as the next version, its skills at the versions that they have now; the
    /// first one goes live.
    async fn publish_agent(
        &self,
        tenant_id: &str,
        agent_id: &str,
        created_by: Option<&str>,
        note: Option<&str>,
        now: i64,
    ) -> Result<Publication>;
    async fn agent_version(
        &self,
        tenant_id: &str,
        agent_id: &str,
        version: i64,
    ) -> Result<Option<AgentVersionRow>>;
    /// Newest first, versions below `before`.
    async fn agent_versions(
        &self,
        tenant_id: &str,
        agent_id: &str,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Rows<AgentVersionRow>>;
    async fn smith_count(&self, tenant_id: &str, agent_id: &str) -> Result<i64>;
    /// When the agent's last run began.
    async fn agent_activity(&self, tenant_id: &str, agent_id: &str) -> Result<Option<i64>>;
    /// Writes name, draft and `updated_at`; `false` when there is no such agent.
    async fn update_agent(&self, agent: &AgentRow) -> Result<bool>;
    /// Writes the draft, and a template's content or its deletion; `false` when there is no such
    /// agent.
    async fn put_agent_ui(
        &self,
        agent: &AgentRow,
        name: &str,
        content: Option<&[u8]>,
    ) -> Result<bool>;
    /// A template's content.
    async fn agent_ui(
        &self,
        tenant_id: &str,
        agent_id: &str,
        name: &str,
    ) -> Result<Option<Vec<u8>>>;
    /// Writes what is live; `false` when there is no such agent.
    async fn set_rollout(
        &self,
        tenant_id: &str,
        agent_id: &str,
        rollout: &Rollout,
        now: i64,
    ) -> Result<bool>;
    /// Deletes an agent that no smith runs.
    async fn delete_agent(&self, tenant_id: &str, id: &str, now: i64) -> Result<AgentRemoval>;
}
