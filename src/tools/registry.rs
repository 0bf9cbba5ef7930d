//! Which tools a smith has, and how each is called. Routing is looked up in memory: no run waits
//! for a server's list of tools.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::ProgressNotificationParam;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::hosted::{HOSTED, Hosted, Parts, ToolUser, cut, hosted};
use super::mcp::{
    CallError, CallRequest, McpCall, Question, ServerKey, Sessions, Step, content_of, discover,
};
use super::output::Output;
use super::send::{SendFunction, Sending};
use super::skills;
use super::tool_set::{
    Kind, Tool, ToolSet, add_hosted, add_mcp, add_send, add_skills, function_name, is_allowed,
};
use crate::connection::Connections;
use crate::error::ApiError;
use crate::model::Part;
use crate::secrets::Vault;
use crate::store::{AgentConfig, McpAuth, McpServerRow, McpTool, McpTools, now_micros};

/// Other nodes' changes are seen after this.
const TTL: Duration = Duration::from_secs(3);
/// A list of tools is asked for again when it is older.
const LIST_AGE_MICROS: i64 = 3600 * 1_000_000;
/// Servers of one tenant that a smith may use.
const MAX_SERVERS: i64 = 1000;

/// One call of a tool.
pub struct ToolCall {
    pub caller: ToolUser,
    pub run_id: String,
    pub tool_call_id: String,
    /// The same for each attempt of this call, and for no other call.
    pub idempotency_key: String,
    pub arguments: Map<String, Value>,
}

/// A call under way.
pub enum Calling {
    Done(Output),
    Mcp(McpCall),
}

/// What happens next in a call.
pub enum Next {
    Asks(Question),
    Done(Output),
}

/// What is heard of a call.
pub enum News {
    Progress(ProgressNotificationParam),
    Next(Next),
}

/// All tools of the gateway.
pub struct Toolbox {
    pub(super) parts: Parts,
    pub(super) vault: Arc<Vault>,
    pub(super) connections: Arc<Connections>,
    pub(super) sessions: Arc<Sessions>,
    sets: moka::future::Cache<(Arc<str>, String), Arc<ToolSet>>,
    changes: super::mcp::Changes,
}

/// What a bearer secret of an MCP server is sealed for.
pub fn secret_owner(tenant: &str, name: &str) -> String {
    format!("mcp_server/{tenant}/{name}")
}

impl Toolbox {
    /// Puts the parts together and starts the task that follows changed lists.
    pub fn new(parts: Parts, vault: Arc<Vault>, connections: Arc<Connections>) -> Arc<Self> {
        let (changes, changed) = mpsc::unbounded_channel();
        let sessions = Sessions::new(parts.upstream.clone(), changes.clone(), &parts.config);
        let toolbox = Arc::new(Self {
            parts,
            vault,
            connections,
            sessions: Arc::new(sessions),
            sets: moka::future::Cache::builder()
                .max_capacity(10_000)
                .time_to_live(TTL)
                .build(),
            changes,
        });
        tokio::spawn(follow(Arc::downgrade(&toolbox), changed));
        toolbox
    }

    /// Forgets what is cached of a tenant's server, after a change on this node.
    pub fn forget(&self, tenant_id: &str, name: &str) {
        self.sessions.forget(tenant_id, name);
        self.sets.invalidate_all();
    }

    /// The tools that a configuration gives its smith.
    pub async fn set(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &str,
        config: &AgentConfig,
    ) -> Result<Arc<ToolSet>, ApiError> {
        // Some skills are one smith's own.
        let skills = match config.skills.is_empty() {
            true => Value::Null,
            false => json!([smith_id, config.skills]),
        };
        let named = json!([
            config.enabled_hosted_tools,
            config.mcp_servers,
            config.auto_memory,
            skills,
        ]);
        let send = match self.parts.senders.get() {
            Some(senders) => senders.functions(tenant_id, smith_id).await?,
            None => Arc::default(),
        };
        // Only smiths that are bound to channels have tools of their own.
        let mut named = named.to_string();
        if !send.is_empty() {
            named.push_str(smith_id);
        }
        let key = (tenant_id.clone(), named);
        self.sets
            .try_get_with(key, self.build(tenant_id, smith_id, config, &send))
            .await
            .map_err(|error: Arc<ApiError>| ApiError::clone(&error))
    }

    async fn build(
        &self,
        tenant_id: &Arc<str>,
        smith_id: &str,
        config: &AgentConfig,
        send: &[Arc<SendFunction>],
    ) -> Result<Arc<ToolSet>, ApiError> {
        let mut set = ToolSet::default();
        let mut named: Vec<&str> = config
            .enabled_hosted_tools
            .iter()
            .map(String::as_str)
            .collect();
        if config.auto_memory == Some(true) {
            named.extend(HOSTED.iter().filter(|t| !t.is_listed()).map(|t| t.name()));
        }
        for name in named {
            match hosted(name) {
                Some(tool) => add_hosted(&mut set, tool),
                None => set.warnings.push(json!({
                    "code": "unsupported_tools",
                    "message": format!("there is no hosted tool '{name}' here"),
                })),
            }
        }
        add_send(&mut set, send);
        let (store, references) = (self.parts.store.as_ref(), &config.skills);
        let skills =
            skills::attached(store, tenant_id, smith_id, references, &mut set.warnings).await?;
        if !skills.is_empty() {
            add_skills(&mut set, skills.into());
        }
        let servers = self.servers(tenant_id, config, &mut set.warnings).await?;
        let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
        for server in &servers {
            for tool in &server.tools.0 {
                *holders.entry(&tool.name).or_default() += 1;
            }
        }
        for server in &servers {
            for tool in &server.tools.0 {
                if !is_allowed(&server.settings, &tool.name) {
                    continue;
                }
                let shared = holders.get(tool.name.as_str()).is_some_and(|n| *n > 1);
                let known = function_name(&match shared || set.tools.contains_key(&tool.name) {
                    true => format!("{}__{}", server.name, tool.name),
                    false => tool.name.clone(),
                });
                add_mcp(&mut set, known, server, tool);
            }
        }
        Ok(Arc::new(set))
    }

    async fn servers(
        &self,
        tenant_id: &Arc<str>,
        config: &AgentConfig,
        warnings: &mut Vec<Value>,
    ) -> Result<Vec<Arc<McpServerRow>>, ApiError> {
        let store = &self.parts.store;
        if config.mcp_servers.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        let mut page = store.mcp_servers(tenant_id, None, MAX_SERVERS).await?;
        let mut rows = Vec::with_capacity(page.len());
        while let (true, Some(last)) = (page.is_cut(), page.last()) {
            let before = last.id.clone();
            rows.extend(page);
            page = store
                .mcp_servers(tenant_id, Some(&before), MAX_SERVERS - rows.len() as i64)
                .await?;
        }
        rows.extend(page);
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let lost = |name: &str, why: &str| {
            json!({ "code": "tool_source_unavailable",
                "message": format!("the tools of the MCP server '{name}' are missing: {why}") })
        };
        if let Some(names) = &config.mcp_servers {
            for name in names {
                if !rows.iter().any(|row| row.name == *name) {
                    warnings.push(lost(name, "it is not registered"));
                }
            }
            rows.retain(|row| names.contains(&row.name));
        }
        for row in &rows {
            let refreshed = row.tools_refreshed_at.unwrap_or(0);
            if row.settings.auth != McpAuth::Oauth && now_micros() - refreshed > LIST_AGE_MICROS {
                let _ = self
                    .changes
                    .send((tenant_id.clone(), row.name.as_str().into()));
            }
            if let Some(why) = row
                .discovery_error
                .as_ref()
                .filter(|_| row.tools.0.is_empty())
            {
                warnings.push(lost(&row.name, why));
            }
        }
        Ok(rows.into_iter().map(Arc::new).collect())
    }

    /// Asks a server for its tools; the bearer is its own secret.
    pub async fn discover(
        &self,
        server: &McpServerRow,
        secret: Option<String>,
    ) -> Result<Vec<McpTool>, String> {
        let key = ServerKey {
            tenant_id: server.tenant_id.as_str().into(),
            name: server.name.as_str().into(),
            url: server.url.as_str().into(),
            bearer: secret.map(Into::into),
            headers: Arc::default(),
        };
        discover(&self.sessions, &key).await
    }

    /// A server's own secret.
    pub fn secret(&self, server: &McpServerRow) -> Result<Option<String>, ApiError> {
        let Some(sealed) = &server.sealed else {
            return Ok(None);
        };
        let owner = secret_owner(&server.tenant_id, &server.name);
        let opened = self
            .vault
            .open(&owner, sealed)
            .map_err(ApiError::internal)?;
        Ok(Some(String::from_utf8_lossy(&opened).into_owned()))
    }

    async fn refresh(&self, tenant_id: &str, name: &str) -> Result<(), ApiError> {
        let Some(mut server) = self.parts.store.mcp_server(tenant_id, name).await? else {
            return Ok(());
        };
        let secret = self.secret(&server)?;
        match self.discover(&server, secret).await {
            Ok(tools) => {
                server.tools = McpTools(tools);
                server.discovery_error = None;
            }
            Err(why) => server.discovery_error = Some(why),
        }
        server.tools_refreshed_at = Some(now_micros());
        self.parts.store.put_mcp_tools(&server).await?;
        self.sets.invalidate_all();
        Ok(())
    }

    /// Begins a call. Arguments are held against the tool's schema first.
    pub async fn begin(&self, tool: &Tool, call: &ToolCall) -> Calling {
        if let Some(schema) = &tool.schema {
            let arguments = Value::Object(call.arguments.clone());
            let tenant = &call.caller.tenant_id;
            if let Err(fault) = schema.check(&arguments, &self.parts.sandbox, tenant).await {
                return Calling::Done(Output::error(format!("invalid arguments {fault}")));
            }
        }
        match &tool.kind {
            Kind::Hosted(hosted) => {
                Calling::Done(self.hosted(*hosted, tool, call, &call.caller).await)
            }
            Kind::Documents(hosted, ids) => {
                let caller = ToolUser {
                    vector_store_ids: ids.to_vec(),
                    ..call.caller.clone()
                };
                Calling::Done(self.hosted(*hosted, tool, call, &caller).await)
            }
            Kind::Send(function) => {
                let sending = Sending {
                    tenant_id: &call.caller.tenant_id,
                    smith_id: &call.caller.smith_id,
                    run_id: &call.run_id,
                    idempotency_key: &call.idempotency_key,
                    arguments: &call.arguments,
                };
                let sent = match self.parts.senders.get() {
                    Some(senders) => senders.send(function, sending).await,
                    None => Err("there are no channels here".to_owned()),
                };
                Calling::Done(match sent {
                    Ok(text) => Output {
                        content: vec![Part::Text { text }],
                        ..Output::default()
                    },
                    Err(why) => Output::error(why),
                })
            }
            Kind::Skills(skills) => {
                let (store, tenant) = (&self.parts.store, &call.caller.tenant_id);
                let read = skills::call(store, tenant, skills, &tool.name, &call.arguments);
                Calling::Done(match read.await {
                    Ok(text) => Output {
                        content: vec![Part::Text { text }],
                        ..Output::default()
                    },
                    Err(why) => Output::error(why),
                })
            }
            Kind::Mcp(server) => match self.bearer(server, &call.caller).await {
                Ok(bearer) => {
                    let key = ServerKey {
                        tenant_id: call.caller.tenant_id.clone(),
                        name: server.name.as_str().into(),
                        url: server.url.as_str().into(),
                        bearer: bearer.map(Into::into),
                        headers: Arc::default(),
                    };
                    self.of_server(key, tool, call)
                }
                Err(output) => Calling::Done(output),
            },
            Kind::Mounted(key) => self.of_server(key.clone(), tool, call),
        }
    }

    async fn hosted(
        &self,
        hosted: &'static dyn Hosted,
        tool: &Tool,
        call: &ToolCall,
        caller: &ToolUser,
    ) -> Output {
        let answer = hosted.call(&tool.name, &call.arguments, caller, &self.parts);
        match answer.await {
            Ok(answer) => Output {
                content: vec![Part::Text { text: answer.text }],
                suggested_replies: answer.suggested_replies,
                ..Output::default()
            },
            Err(why) => Output::error(why),
        }
    }

    fn of_server(&self, key: ServerKey, tool: &Tool, call: &ToolCall) -> Calling {
        let request = CallRequest {
            key,
            tool: tool.name.clone(),
            arguments: call.arguments.clone(),
            meta: meta(call),
            repeatable: tool.repeatable,
        };
        Calling::Mcp(McpCall::begin(self.sessions.clone(), request))
    }

    async fn bearer(
        &self,
        server: &McpServerRow,
        caller: &ToolUser,
    ) -> Result<Option<String>, Output> {
        let failed = |error: ApiError| Output::error(error.message);
        if server.settings.auth != McpAuth::Oauth {
            return self.secret(server).map_err(failed);
        }
        let provider = server.settings.provider.clone().unwrap_or_default();
        let (tenant, smith) = (&caller.tenant_id, &caller.smith_id);
        let token = self
            .connections
            .access_token(tenant, smith, &provider)
            .await;
        match token.map_err(failed)? {
            Some(token) => Ok(Some(token)),
            None => Err(Output {
                lacks_connection: Some(provider.clone()),
                ..Output::error(format!(
                    "the person has not connected '{provider}' yet; ask them to"
                ))
            }),
        }
    }

    /// Waits for what happens next in a call, whatever its progress.
    pub async fn next(&self, tool: &Tool, caller: &ToolUser, calling: &mut Calling) -> Next {
        loop {
            if let News::Next(next) = self.news(tool, caller, calling).await {
                return next;
            }
        }
    }

    /// Waits for what is heard next of a call.
    pub async fn news(&self, tool: &Tool, caller: &ToolUser, calling: &mut Calling) -> News {
        let call = match calling {
            Calling::Done(output) => {
                return News::Next(Next::Done(std::mem::take(output).cut()));
            }
            Calling::Mcp(call) => call,
        };
        let result = match call.next().await {
            Step::Asks(question) => return News::Next(Next::Asks(question)),
            Step::Progress(progress) => return News::Progress(progress),
            Step::Done(result) => result,
        };
        News::Next(Next::Done(match result {
            Ok(result) => Output {
                content: content_of(&result),
                is_error: result.is_error.unwrap_or(false),
                ..Output::default()
            }
            .cut(),
            Err(error) => {
                let why = error.to_string();
                tracing::info!(server = %tool.server, tool = %tool.name, error = %why,
                    "a tool call failed");
                if let Kind::Mcp(server) = &tool.kind {
                    let store = &self.parts.store;
                    let noted = store.note_mcp_error(
                        &caller.tenant_id,
                        &server.name,
                        cut(&why, 500),
                        now_micros(),
                    );
                    if let Err(error) = noted.await {
                        tracing::warn!(%error, "cannot note a failed call");
                    }
                }
                match error {
                    CallError::Refused(_) => Output::error(why),
                    CallError::Unknown(_) => Output::error(format!(
                        "{why}. The tool may or may not have run: find out before calling it again."
                    )),
                }
            }
        }))
    }
}

/// Who is behind a call (`tools.md`), under this project's prefix as MCP wants it.
fn meta(call: &ToolCall) -> Map<String, Value> {
    [
        ("smith_id", &*call.caller.smith_id),
        ("tenant_id", &*call.caller.tenant_id),
        ("run_id", call.run_id.as_str()),
        ("tool_call_id", call.tool_call_id.as_str()),
        ("idempotency_key", call.idempotency_key.as_str()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("smithgate/{name}"), json!(value)))
    .collect()
}

/// Asks servers for their tools again when they say that these changed, or when the list is old.
async fn follow(
    toolbox: std::sync::Weak<Toolbox>,
    mut changed: mpsc::UnboundedReceiver<(Arc<str>, Arc<str>)>,
) {
    const TIDY_EVERY: Duration = Duration::from_secs(60);
    let mut asked: HashMap<(Arc<str>, Arc<str>), std::time::Instant> = HashMap::new();
    loop {
        let next = tokio::time::timeout(TIDY_EVERY, changed.recv()).await;
        let Some(toolbox) = toolbox.upgrade() else {
            return;
        };
        toolbox.sessions.tidy();
        asked.retain(|_, at| at.elapsed() < Duration::from_secs(1));
        match next {
            Err(_) => {}
            Ok(None) => return,
            // A server that says so all the time is asked once a second.
            Ok(Some(key)) if asked.contains_key(&key) => {}
            Ok(Some(key)) => {
                if let Err(error) = toolbox.refresh(&key.0, &key.1).await {
                    tracing::warn!(%error, "cannot refresh a list of tools");
                }
                asked.insert(key, std::time::Instant::now());
            }
        }
    }
}
