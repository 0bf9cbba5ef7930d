//! A smith's effective configuration: agent version (pin, else rollout) plus its own overrides,
//! with the variables of the instructions bound. Cached; other nodes' changes are seen in seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::spender::Spender;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store::{AgentConfig, AgentRow, AgentVariable, SmithProfile, SmithRow, Store};
use crate::tools::hosted::ToolUser;

const TTL: Duration = Duration::from_secs(3);
/// Instructions with their variables bound, in bytes: each may stand there many times.
const MAX_INSTRUCTIONS: usize = 4 * 1024 * 1024;

/// What a run of a smith works with.
#[derive(Debug, Clone)]
pub struct Effective {
    pub smith: SmithRow,
    pub agent_is_default: bool,
    /// The agent version in force; `None` on an agent that was never published.
    pub version: Option<i64>,
    /// The agent's configuration, before the overrides.
    pub inherited: AgentConfig,
    pub config: AgentConfig,
    /// The instructions with variables bound, or why they cannot be.
    pub instructions: Result<String, String>,
}

type Key = (Arc<str>, Arc<str>);

/// Agents and snapshots of versions that were looked up already.
#[derive(Default)]
struct Designs {
    agents: HashMap<String, Arc<AgentRow>>,
    versions: HashMap<(String, i64), Arc<AgentConfig>>,
}

/// Looks smiths up.
pub struct Smiths {
    store: Arc<dyn Store>,
    /// By tenant and smith; `None`: there is no such smith.
    cache: moka::future::Cache<Key, Option<Arc<Effective>>>,
    metrics: Metrics,
}

impl Smiths {
    /// Over `store`.
    pub fn new(store: Arc<dyn Store>, metrics: Metrics) -> Self {
        Self {
            store,
            cache: moka::future::Cache::builder()
                .max_capacity(100_000)
                .time_to_live(TTL)
                .build(),
            metrics,
        }
    }

    /// The smith's configuration; 404 when the tenant has no such smith.
    pub async fn effective(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &Arc<str>,
    ) -> Result<Arc<Effective>, ApiError> {
        let key = (tenant_id.clone(), smith_id.clone());
        let found = match self.cache.get(&key).await {
            Some(found) => {
                self.metrics.cache_hits.with_label_values(&["smiths"]).inc();
                found
            }
            None => {
                self.metrics
                    .cache_misses
                    .with_label_values(&["smiths"])
                    .inc();
                let found = match self.store.smith(tenant_id, smith_id).await? {
                    Some(smith) => Some(Arc::new(self.resolve(smith).await?)),
                    None => None,
                };
                self.cache.insert(key, found.clone()).await;
                found
            }
        };
        found.ok_or_else(|| ApiError::not_found("smith", smith_id))
    }

    /// Resolves without the cache.
    pub async fn resolve(&self, smith: SmithRow) -> Result<Effective, ApiError> {
        self.resolve_with(smith, &mut Designs::default()).await
    }

    /// Resolves many without the cache, looking each agent and version up once.
    pub async fn resolve_all(&self, smiths: Vec<SmithRow>) -> Result<Vec<Effective>, ApiError> {
        let mut designs = Designs::default();
        let mut resolved = Vec::with_capacity(smiths.len());
        for smith in smiths {
            resolved.push(self.resolve_with(smith, &mut designs).await?);
        }
        Ok(resolved)
    }

    async fn resolve_with(
        &self,
        smith: SmithRow,
        designs: &mut Designs,
    ) -> Result<Effective, ApiError> {
        let agent = match designs.agents.get(&smith.agent_id) {
            Some(agent) => agent.clone(),
            None => {
                let found = self.store.agent(&smith.tenant_id, &smith.agent_id).await?;
                let agent =
                    Arc::new(found.ok_or_else(|| ApiError::not_found("agent", &smith.agent_id))?);
                designs.agents.insert(smith.agent_id.clone(), agent.clone());
                agent
            }
        };
        let version = smith.pin.or_else(|| live_version(&agent, &smith.id));
        let inherited = match version {
            None => Arc::default(),
            Some(version) => {
                let key = (agent.id.clone(), version);
                match designs.versions.get(&key) {
                    Some(known) => known.clone(),
                    None => {
                        let found = self
                            .store
                            .agent_version(&smith.tenant_id, &agent.id, version)
                            .await?;
                        let missing = || ApiError::not_found("agent version", &version.to_string());
                        let snapshot = Arc::new(found.ok_or_else(missing)?.snapshot);
                        designs.versions.insert(key, snapshot.clone());
                        snapshot
                    }
                }
            }
        };
        let config = overridden(&inherited, &smith)?;
        let instructions = render_instructions(
            config.instructions.as_deref().unwrap_or_default(),
            &config.variables,
            &smith,
        );
        Ok(Effective {
            agent_is_default: agent.is_default,
            version,
            inherited: AgentConfig::clone(&inherited),
            config,
            instructions,
            smith,
        })
    }

    /// Forgets what this node has cached of a smith that it has just changed.
    pub async fn forget(&self, tenant_id: &str, smith_id: &str) {
        self.cache
            .invalidate(&(tenant_id.into(), smith_id.into()))
            .await;
    }

    /// Forgets all smiths, after a change of an agent.
    pub fn forget_all(&self) {
        self.cache.invalidate_all();
    }
}

impl Effective {
    /// In whose name its tools are called.
    pub fn caller(&self) -> ToolUser {
        ToolUser {
            tenant_id: self.smith.tenant_id.as_str().into(),
            smith_id: self.smith.id.as_str().into(),
            timezone: self.smith.profile.timezone.clone(),
            vector_store_ids: self.config.vector_store_ids.clone(),
        }
    }

    /// On whose account a run of the smith is.
    pub fn spender(&self) -> Spender {
        Spender {
            tenant_id: self.smith.tenant_id.as_str().into(),
            smith_id: self.smith.id.as_str().into(),
            agent_id: self.smith.agent_id.as_str().into(),
            customer_id: self.smith.customer_id.as_deref().unwrap_or("").into(),
            key_id: Spender::nobody(),
        }
    }

    /// 409 `agent_unpublished` when its agent has no version to run; the default agent needs none.
    pub fn require_published(&self) -> Result<(), ApiError> {
        if self.version.is_some() || self.agent_is_default {
            Ok(())
        } else {
            Err(ApiError::new(
                StatusCode::CONFLICT,
                "agent_unpublished",
                "the smith's agent was never published",
            ))
        }
    }
}

/// The version that the rollout gives a smith: sticky, by a hash of its id.
fn live_version(agent: &AgentRow, smith_id: &str) -> Option<i64> {
    match agent.rollout_version {
        Some(version) if bucket(smith_id) < agent.rollout_percent => Some(version),
        _ => agent.active_version,
    }
}

fn bucket(smith_id: &str) -> i64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, smith_id.as_bytes());
    let bytes: [u8; 8] = digest.as_ref()[..8].try_into().unwrap_or_default();
    (u64::from_be_bytes(bytes) % 100) as i64
}

fn overridden(inherited: &AgentConfig, smith: &SmithRow) -> Result<AgentConfig, ApiError> {
    if smith.overrides.0.is_empty() {
        return Ok(inherited.clone());
    }
    inherited
        .with_members(smith.overrides.0.iter().map(|(k, v)| (k.as_str(), v)))
        .map_err(ApiError::internal)
}

/// Binds `{{ name }}` from the smith's metadata, then its fields, then the variable's default.
/// Names that are no variable stay as they are. The error says which required one is unbound.
pub fn render_instructions(
    instructions: &str,
    variables: &[AgentVariable],
    smith: &SmithRow,
) -> Result<String, String> {
    for variable in variables.iter().filter(|v| v.is_required()) {
        if bound(variable, smith).is_none() {
            return Err(format!("the variable '{}' has no value", variable.name()));
        }
    }
    let mut out = String::with_capacity(instructions.len());
    let mut rest = instructions;
    while let Some(open) = rest.find("{{") {
        let Some(close) = rest[open..].find("}}") else {
            break;
        };
        let name = rest[open + 2..open + close].trim();
        out.push_str(&rest[..open]);
        if out.len() > MAX_INSTRUCTIONS {
            return Err(format!(
                "with their variables the instructions are longer than {MAX_INSTRUCTIONS} bytes"
            ));
        }
        match variables.iter().find(|v| v.name() == name) {
            Some(variable) => out.push_str(&bound(variable, smith).unwrap_or_default()),
            None => out.push_str(&rest[open..open + close + 2]),
        }
        rest = &rest[open + close + 2..];
    }
    out.push_str(rest);
    Ok(out)
}

fn bound(variable: &AgentVariable, smith: &SmithRow) -> Option<String> {
    let SmithProfile {
        display_name,
        locale,
        timezone,
        metadata,
    } = &smith.profile;
    metadata
        .as_ref()
        .and_then(|m| m.get(variable.name()))
        .filter(|value| !value.is_null())
        .map(|value| value.to_plain_text().into_owned())
        .or_else(|| match variable.name() {
            "display_name" => display_name.clone(),
            "locale" => locale.clone(),
            "timezone" => timezone.clone(),
            "external_id" => smith.external_id.clone(),
            _ => None,
        })
        .or_else(|| variable.default_value().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Object;
    use crate::store::Overrides;

    fn smith() -> SmithRow {
        SmithRow {
            id: "smt_1".into(),
            tenant_id: "proj_1".into(),
            agent_id: "agt_1".into(),
            external_id: Some("u1".into()),
            profile: SmithProfile {
                display_name: Some("Ada".into()),
                metadata: Some(Object::parse_or_empty(r#"{"plan":"pro"}"#)),
                ..SmithProfile::default()
            },
            customer_id: None,
            pin: None,
            overrides: Overrides::default(),
            created_at: 0,
        }
    }

    fn variable(name: &str, default: Option<&str>, required: bool) -> AgentVariable {
        let written = serde_json::json!({ "name": name, "default": default, "required": required });
        serde_json::from_value(written).expect("a variable")
    }

    #[test]
    fn variables_are_bound_in_order() {
        let variables = [
            variable("display_name", None, true),
            variable("plan", Some("free"), false),
            variable("tone", Some("kind"), false),
        ];
        let text = "Hi {{ display_name }}, {{plan}}, {{ tone }}, {{ other }} {{";
        assert_eq!(
            render_instructions(text, &variables, &smith()).as_deref(),
            Ok("Hi Ada, pro, kind, {{ other }} {{")
        );
        let missing = [variable("city", None, true)];
        assert!(render_instructions("", &missing, &smith()).is_err());
    }

    #[test]
    fn overrides_replace_single_members() {
        let mut smith = smith();
        smith.overrides.0.insert("model".into(), "gpt-5.5".into());
        let inherited = AgentConfig {
            instructions: Some("a".into()),
            model: Some("b".into()),
            ..AgentConfig::default()
        };
        let config = overridden(&inherited, &smith).expect("valid");
        assert_eq!(config.model.as_deref(), Some("gpt-5.5"));
        assert_eq!(config.instructions.as_deref(), Some("a"));
    }

    #[test]
    fn rollout_buckets_are_sticky_and_spread() {
        let low = (0..1000)
            .filter(|n| bucket(&format!("smt_{n}")) < 20)
            .count();
        assert!((120..280).contains(&low), "{low}");
        assert_eq!(bucket("smt_a"), bucket("smt_a"));
    }
}
