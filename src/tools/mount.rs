//! Tools of one response: MCP servers that a call names by address, and vector stores that it names
//! by id. Nothing of them is registered; their secrets are kept sealed, for as long as the run waits
//! for a human.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::hosted::{Documents, hosted};
use super::mcp::{ServerKey, discover};
use super::registry::Toolbox;
use super::tool_set::{HOSTED_SERVER, Kind, Tool, ToolSet, function_name};
use crate::error::ApiError;
use crate::store::McpTool;

/// The server of [`Mounts::stores`]' tool. No server that is registered or mounted has such a name.
pub const FILE_SEARCH: &str = "hosted:file_search";

/// Which tools of a mounted server a human must approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    Always,
    Never,
    /// All but these.
    Except(Vec<String>),
    /// Only these.
    Only(Vec<String>),
}

/// A server that a call mounts.
#[derive(Clone, Serialize, Deserialize)]
pub struct Mount {
    /// Where in the request it is, such as `tools[0]`.
    pub place: String,
    pub label: String,
    pub url: String,
    pub bearer: Option<String>,
    pub headers: Vec<(String, String)>,
    /// `None`: all.
    pub allowed: Option<Vec<String>>,
    /// Only those that change nothing, by their own word.
    pub read_only: bool,
    pub approval: Approval,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its secrets are nobody's to read.
        f.debug_struct("Mount")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

/// What a call mounts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Mounts {
    pub servers: Vec<Mount>,
    /// Vector stores to search, and where in the request each is.
    pub stores: Vec<(String, String)>,
}

impl Mounts {
    /// Whether there is nothing to mount.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.stores.is_empty()
    }
}

/// What is mounted, with the tools that the servers list.
#[derive(Debug, Clone, Default)]
pub struct Mounted {
    pub mounts: Mounts,
    servers: Vec<(ServerKey, Vec<McpTool>)>,
    /// `{server_label, tools, error}` each.
    pub listed: Vec<Value>,
    warnings: Vec<Value>,
}

fn sealed_for(run_id: &str) -> String {
    format!("mounts/{run_id}")
}

fn key(tenant_id: &Arc<str>, mount: &Mount) -> Result<ServerKey, ApiError> {
    let header = |(name, value): &(String, String)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    let headers: Option<Vec<_>> = mount.headers.iter().map(header).collect();
    let bad = || {
        let place = format!("{}.headers", mount.place);
        ApiError::invalid(place, "holds what no header may")
    };
    Ok(ServerKey {
        tenant_id: tenant_id.clone(),
        // None that is registered has such a name.
        name: format!("mount:{}", mount.label).into(),
        url: mount.url.as_str().into(),
        bearer: mount.bearer.as_deref().map(Into::into),
        headers: headers.ok_or_else(bad)?.into(),
    })
}

impl Toolbox {
    /// Asks the servers for their tools. One that gives none is told in the response, whose turn
    /// does without it. Boxed, as a session's state is large and deep.
    pub fn mount<'a>(
        &'a self,
        tenant_id: &'a Arc<str>,
        mounts: Mounts,
    ) -> BoxFuture<'a, Result<Mounted, ApiError>> {
        Box::pin(self.list_mounted(tenant_id, mounts))
    }

    async fn list_mounted(
        &self,
        tenant_id: &Arc<str>,
        mounts: Mounts,
    ) -> Result<Mounted, ApiError> {
        let mut keys = Vec::new();
        for mount in &mounts.servers {
            let base = mount
                .url
                .split_once('?')
                .map_or(mount.url.as_str(), |(base, _)| base);
            let checked = self.connections.check_url("server_url", base).await;
            checked.map_err(|e| e.param(format!("{}.server_url", mount.place)))?;
            keys.push(key(tenant_id, mount)?);
        }
        let asked = keys.iter().map(|key| discover(&self.sessions, key));
        let answers = futures_util::future::join_all(asked).await;
        let mut mounted = Mounted::default();
        for ((mount, key), answer) in mounts.servers.iter().zip(keys).zip(answers) {
            let (mut tools, error) = match answer {
                Ok(tools) => (tools, None),
                Err(why) => (Vec::new(), Some(why)),
            };
            tools.retain(|tool| {
                let allowed = mount.allowed.as_ref();
                allowed.is_none_or(|names| names.contains(&tool.name))
                    && (tool.read_only || !mount.read_only)
            });
            if let Some(why) = &error {
                let label = &mount.label;
                mounted.warnings.push(json!({ "code": "tool_source_unavailable",
                    "message": format!("the tools of the MCP server '{label}' are missing: {why}") }));
            }
            let shown: Vec<Value> = tools
                .iter()
                .map(|tool| {
                    json!({ "name": tool.name, "description": tool.description,
                        "input_schema": tool.input_schema,
                        "annotations": { "read_only": tool.read_only } })
                })
                .collect();
            mounted
                .listed
                .push(json!({ "server_label": mount.label, "tools": shown,
                "error": error }));
            mounted.servers.push((key, tools));
        }
        mounted.mounts = mounts;
        Ok(mounted)
    }

    /// A smith's tools with those that are mounted.
    pub fn with_mounted(&self, set: &ToolSet, mounted: &Mounted) -> Arc<ToolSet> {
        let mut set = set.clone();
        set.warnings.extend(mounted.warnings.iter().cloned());
        let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
        for tool in mounted.servers.iter().flat_map(|(_, tools)| tools) {
            *holders.entry(&tool.name).or_default() += 1;
        }
        for (mount, (key, tools)) in mounted.mounts.servers.iter().zip(&mounted.servers) {
            for tool in tools {
                let shared = holders.get(tool.name.as_str()).is_some_and(|n| *n > 1);
                let known = function_name(&match shared || set.tools.contains_key(&tool.name) {
                    true => format!("{}__{}", mount.label, tool.name),
                    false => tool.name.clone(),
                });
                let needs_approval = match &mount.approval {
                    Approval::Always => true,
                    Approval::Never => false,
                    Approval::Except(names) => !names.contains(&tool.name),
                    Approval::Only(names) => names.contains(&tool.name),
                };
                let mut schema = Value::Object(tool.input_schema.clone());
                if schema["type"].is_null() {
                    schema["type"] = json!("object");
                }
                let added = Tool::new(
                    tool.name.clone(),
                    mount.label.clone(),
                    needs_approval,
                    tool.read_only || tool.idempotent,
                    Kind::Mounted(key.clone()),
                    &schema,
                );
                set.add(known, tool.description.clone(), schema, added);
            }
        }
        if let (false, Some(search)) = (mounted.mounts.stores.is_empty(), hosted("file_search")) {
            let ids: Vec<String> = mounted
                .mounts
                .stores
                .iter()
                .map(|(id, _)| id.clone())
                .collect();
            for function in search.functions() {
                // The smith's own stores are not what this call names.
                let own = set.tools.get(function.name);
                if own.is_some_and(|tool| tool.server == HOSTED_SERVER) {
                    set.tools.remove(function.name);
                    set.defs.retain(|def| def.name != function.name);
                }
                let added = Tool::new(
                    function.name.to_owned(),
                    FILE_SEARCH.to_owned(),
                    false,
                    true,
                    Kind::Documents(search, ids.clone().into()),
                    &function.parameters,
                );
                let described = Some(function.description.to_owned());
                set.add(
                    function.name.to_owned(),
                    described,
                    function.parameters,
                    added,
                );
            }
        }
        Arc::new(set)
    }

    /// What is mounted for a run, sealed for when it goes on.
    pub fn seal_mounts(&self, run_id: &str, mounts: &Mounts) -> Result<String, ApiError> {
        let text = serde_json::to_vec(mounts).map_err(ApiError::internal)?;
        let sealed = self.vault.seal(&sealed_for(run_id), &text);
        Ok(STANDARD.encode(sealed.map_err(ApiError::internal)?))
    }

    /// The other way.
    pub fn open_mounts(&self, run_id: &str, sealed: &str) -> Result<Mounts, ApiError> {
        let sealed = STANDARD.decode(sealed).map_err(ApiError::internal)?;
        let text = self.vault.open(&sealed_for(run_id), &sealed);
        serde_json::from_slice(&text.map_err(ApiError::internal)?).map_err(ApiError::internal)
    }

    /// Refuses vector stores that a smith has not.
    pub async fn check_stores(
        &self,
        caller: &super::hosted::ToolUser,
        mounts: &Mounts,
    ) -> Result<(), ApiError> {
        let documents: &dyn Documents = self.parts.documents.as_ref();
        for (id, place) in &mounts.stores {
            if !documents.has(caller, id).await? {
                return Err(ApiError::not_found("vector store", id).param(place.clone()));
            }
        }
        Ok(())
    }
}
