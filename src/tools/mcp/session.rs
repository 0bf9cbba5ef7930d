//! Sessions with MCP servers, kept and shared. Each carries one call at a time, so that what a
//! server asks in the middle of a call is surely about that call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction,
    ErrorCode, Implementation, ProgressNotificationParam, ProtocolVersion,
};
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, NotificationContext,
    RequestContext, RunningService, ServiceExt,
};
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
};
use rmcp::{ErrorData, RoleClient};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::key::ServerKey;
use super::legacy::LegacySse;
use super::transport::GuardedHttp;
use super::words::{self, Trouble};
use crate::config::Tools;
use crate::upstream::Upstream;

/// How long a session may take to begin.
const PATIENCE: Duration = Duration::from_secs(10);
/// Sessions without work are closed after this.
const IDLE: Duration = Duration::from_secs(300);
/// After so many failures in a row a server is left alone for a while.
const FAILURES: u32 = 5;
const LEFT_ALONE: Duration = Duration::from_secs(15);

/// What a server asks of a human in the middle of a call.
pub struct Question {
    pub message: String,
    /// JSON Schema of the answer.
    pub schema: Value,
    /// Takes the answer; `None` declines.
    pub reply: oneshot::Sender<Option<Value>>,
}

/// What a server says in the middle of a call.
pub enum Heard {
    Question(Question),
    Progress(ProgressNotificationParam),
}

/// Tells which server's list of tools has changed: tenant and name.
pub type Changes = mpsc::UnboundedSender<(Arc<str>, Arc<str>)>;

/// Our side of a session.
pub struct Handler {
    key: ServerKey,
    changes: Changes,
    /// The revision to begin with.
    version: ProtocolVersion,
    /// Who hears what the server says of the call under way.
    hearer: Mutex<Option<mpsc::Sender<Heard>>>,
    /// Questions that wait for their answer.
    asking: AtomicUsize,
}

impl ClientHandler for Handler {
    fn get_info(&self) -> ClientConfig {
        let us = Implementation::new("smithgate", env!("CARGO_PKG_VERSION"));
        let capabilities = ClientCapabilities::builder().enable_elicitation().build();
        ClientConfig::new(capabilities, us).with_protocol_version(self.version.clone())
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let declined = || ElicitResult::new(ElicitationAction::Decline);
        let ElicitRequestParams::FormElicitationParams {
            message,
            requested_schema,
            ..
        } = request
        else {
            return Ok(declined());
        };
        let Some(hearer) = self.hearer.lock().clone() else {
            return Ok(declined());
        };
        let (reply, answer) = oneshot::channel();
        let schema = serde_json::to_value(requested_schema).unwrap_or_default();
        let question = Question {
            message,
            schema,
            reply,
        };
        if hearer.send(Heard::Question(question)).await.is_err() {
            return Ok(declined());
        }
        self.asking.fetch_add(1, Ordering::Relaxed);
        let answer = answer.await;
        self.asking.fetch_sub(1, Ordering::Relaxed);
        Ok(match answer {
            Ok(Some(content)) => ElicitResult::new(ElicitationAction::Accept).with_content(content),
            _ => declined(),
        })
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        let hearer = self.hearer.lock().clone();
        // What nobody takes at once is superseded by the next.
        let _ = hearer.map(|hearer| hearer.try_send(Heard::Progress(progress)).is_ok());
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        let changed = (self.key.tenant_id.clone(), self.key.name.clone());
        // Nobody listens when the gateway goes down.
        let _ = self.changes.send(changed);
    }
}

/// A session that carries a call.
pub struct Session {
    pub service: RunningService<RoleClient, Handler>,
    /// What went wrong last on its way.
    pub(super) trouble: Trouble,
    used_at: Instant,
}

impl Session {
    /// Sends what is said of the next call to `hearer`.
    pub fn tell(&self, hearer: Option<mpsc::Sender<Heard>>) {
        *self.service.service().hearer.lock() = hearer;
    }

    /// Whether the server waits for an answer of ours.
    pub fn is_asking(&self) -> bool {
        self.service.service().asking.load(Ordering::Relaxed) > 0
    }
}

#[derive(Default)]
struct Breaker {
    failures: u32,
    failed_at: Option<Instant>,
    until: Option<Instant>,
}

struct Pool {
    idle: Mutex<Vec<Session>>,
    room: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
}

/// All sessions of this node.
pub struct Sessions {
    upstream: Arc<Upstream>,
    changes: Changes,
    /// Calls to one server at a time.
    concurrency: usize,
    /// How long a call may take.
    pub(super) time_limit: Duration,
    pools: Mutex<HashMap<ServerKey, Arc<Pool>>>,
}

/// A session taken out for a call.
pub struct Taken {
    pub session: Session,
    /// Whether it was open before, and so may have been closed by the server since.
    pub reused: bool,
    pool: Arc<Pool>,
    _room: OwnedSemaphorePermit,
}

impl Sessions {
    /// Without sessions yet.
    pub fn new(upstream: Arc<Upstream>, changes: Changes, config: &Tools) -> Self {
        Self {
            upstream,
            changes,
            concurrency: config.mcp_concurrency.max(1),
            time_limit: Duration::from_secs(config.call_timeout_s.max(1)),
            pools: Mutex::default(),
        }
    }

    fn pool(&self, key: &ServerKey) -> Arc<Pool> {
        let mut pools = self.pools.lock();
        let pool = pools
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Pool::new(self.concurrency)));
        pool.clone()
    }

    /// Takes a session, an idle one if there is one and `fresh` is not asked. The error says for
    /// people why there is none.
    pub async fn take(&self, key: &ServerKey, fresh: bool) -> Result<Taken, String> {
        let pool = self.pool(key);
        if pool
            .breaker
            .lock()
            .until
            .is_some_and(|t| t > Instant::now())
        {
            return Err("the server failed several times and is left alone for a moment".into());
        }
        let room = pool.room.clone().acquire_owned().await;
        let room = room.map_err(|error| error.to_string())?;
        let idle = match fresh {
            true => None,
            false => loop {
                let next = pool.idle.lock().pop();
                match next {
                    Some(session) if session.service.is_closed() => {}
                    Some(session) if session.used_at.elapsed() > IDLE => {}
                    other => break other,
                }
            },
        };
        let reused = idle.is_some();
        let session = match idle {
            Some(session) => session,
            None => match self.open(key).await {
                Ok(session) => session,
                Err(why) => {
                    pool.failed();
                    return Err(why);
                }
            },
        };
        Ok(Taken {
            session,
            reused,
            pool,
            _room: room,
        })
    }

    /// Opens a session: over Streamable HTTP, else over the older transport.
    pub async fn open(&self, key: &ServerKey) -> Result<Session, String> {
        let opened = tokio::time::timeout(PATIENCE, self.connect(key)).await;
        let late = || {
            format!(
                "the server began no session within {} s",
                PATIENCE.as_secs()
            )
        };
        let (service, trouble) = opened.unwrap_or_else(|_| Err(late()))?;
        Ok(Session {
            service,
            trouble,
            used_at: Instant::now(),
        })
    }

    async fn connect(
        &self,
        key: &ServerKey,
    ) -> Result<(RunningService<RoleClient, Handler>, Trouble), String> {
        let handler = |version: &ProtocolVersion| Handler {
            key: key.clone(),
            changes: self.changes.clone(),
            version: version.clone(),
            hearer: Mutex::default(),
            asking: AtomicUsize::new(0),
        };
        let bearer = key.bearer.as_deref().map(str::to_owned);
        let streamable = || {
            let http = GuardedHttp::new(self.upstream.clone());
            let trouble = http.trouble();
            let mut config = StreamableHttpClientTransportConfig::with_uri(&*key.url);
            config.auth_header.clone_from(&bearer);
            config.custom_headers = key.headers.iter().cloned().collect();
            (
                StreamableHttpClientTransport::with_client(http, config),
                trouble,
            )
        };
        let newest = ProtocolVersion::LATEST;
        let (transport, trouble) = streamable();
        let error = match handler(&newest).serve(transport).await {
            Ok(service) => return Ok((service, trouble)),
            Err(error) => error,
        };
        let why = words::of_beginning(&error, &trouble);
        if error.is_authorization_required() {
            return Err(why);
        }
        match spoken(&error, &why) {
            Some(version) if version.has_initialize() => {
                let (transport, trouble) = streamable();
                if let Ok(service) = handler(&version).serve(transport).await {
                    return Ok((service, trouble));
                }
            }
            Some(version) => {
                let (transport, trouble) = streamable();
                let modern = ClientLifecycleMode::Discover {
                    preferred_versions: vec![version.clone()],
                };
                let begun = handler(&version).serve_with_lifecycle(transport, modern);
                if let Ok(service) = begun.await {
                    return Ok((service, trouble));
                }
            }
            None => {}
        }
        let http = GuardedHttp::new(self.upstream.clone());
        let trouble = http.trouble();
        match LegacySse::connect(http, key).await {
            Ok(legacy) => match handler(&newest).serve(legacy).await {
                Ok(service) => Ok((service, trouble)),
                Err(error) => Err(words::of_beginning(&error, &trouble)),
            },
            Err(_) => Err(why),
        }
    }

    /// Closes the sessions with a server that has been changed or removed.
    pub fn forget(&self, tenant_id: &str, name: &str) {
        self.pools
            .lock()
            .retain(|key, _| *key.tenant_id != *tenant_id || *key.name != *name);
    }

    /// Closes what has been idle for long.
    pub fn tidy(&self) {
        let is_busy = |pool: &Arc<Pool>| Arc::strong_count(pool) > 1;
        let mut pools = self.pools.lock();
        pools.retain(|_, pool| is_busy(pool) || pool.is_kept_for(IDLE));
    }
}

/// With which revision a server that refused to begin may be asked again: one that it names, a
/// common one when it does not know ours, or the newest when it does not know `initialize`.
fn spoken(error: &ClientInitializeError, why: &str) -> Option<ProtocolVersion> {
    let known = |name: &str| {
        let versions = ProtocolVersion::KNOWN_VERSIONS.iter().rev();
        versions
            .clone()
            .find(|version| version.as_str() == name)
            .cloned()
    };
    if let ClientInitializeError::JsonRpcError(error) = error {
        let names = |list: &Value| {
            let names = list.as_array()?.iter().filter_map(Value::as_str);
            names
                .filter_map(known)
                .max_by_key(|version| version.as_str().to_owned())
        };
        let data = error.data.as_ref();
        let named = data.and_then(|data| {
            ["supported", "supportedVersions", "supported_versions"]
                .iter()
                .find_map(|name| names(data.get(*name)?))
        });
        if named.is_some() {
            return named;
        }
        if error.code == ErrorCode::METHOD_NOT_FOUND {
            return Some(ProtocolVersion::LATEST);
        }
    }
    let why = why.to_ascii_lowercase().replace('-', " ");
    let is_about_it = why.contains("protocol version") || why.contains("protocolversion");
    is_about_it.then_some(ProtocolVersion::V_2025_03_26)
}

impl Pool {
    fn new(concurrency: usize) -> Self {
        Self {
            idle: Mutex::default(),
            room: Arc::new(Semaphore::new(concurrency)),
            breaker: Mutex::default(),
        }
    }

    /// Closes what has been idle for `time`; whether anything is left that is worth keeping.
    fn is_kept_for(&self, time: Duration) -> bool {
        let mut idle = self.idle.lock();
        idle.retain(|s| s.used_at.elapsed() < time && !s.service.is_closed());
        // Failures are not remembered for ever: a run may bring a server of its own, which nobody
        // calls a second time.
        let failed_at = self.breaker.lock().failed_at;
        !idle.is_empty() || failed_at.is_some_and(|at| at.elapsed() < time)
    }

    fn failed(&self) {
        let mut breaker = self.breaker.lock();
        breaker.failures += 1;
        breaker.failed_at = Some(Instant::now());
        if breaker.failures >= FAILURES {
            breaker.until = Some(Instant::now() + LEFT_ALONE);
            // One failure more and it is left alone again.
            breaker.failures = FAILURES - 1;
        }
    }
}

impl Taken {
    /// Gives the session back; `works` tells whether the server answered.
    pub fn give_back(mut self, works: bool) {
        self.session.tell(None);
        if !works {
            self.pool.failed();
            return;
        }
        *self.pool.breaker.lock() = Breaker::default();
        self.session.used_at = Instant::now();
        self.pool.idle.lock().push(self.session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_remembered_for_a_while() {
        let pool = Pool::new(1);
        assert!(!pool.is_kept_for(IDLE));
        pool.failed();
        assert!(pool.is_kept_for(IDLE));
        assert!(!pool.is_kept_for(Duration::ZERO));
        for _ in 1..FAILURES {
            pool.failed();
        }
        assert!(pool.breaker.lock().until.is_some());
        assert!(!pool.is_kept_for(Duration::ZERO));
    }
}
