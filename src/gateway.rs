//! The parts of a gateway, put together. The edge and the API work on this; tests and benches
//! build it too.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::answers::Answers;
use crate::auth::{Auth, KeyError, Mint, MintedScope, Principal, SigningKeys};
use crate::bodies::Bodies;
use crate::bus::{Bus, Notice, RedisError};
use crate::channel::{Arrivals, Hub, HubParts, Outbox};
use crate::config::Config;
use crate::connection::Connections;
use crate::error::ApiError;
use crate::ids;
use crate::lane::{Lanes, Turns};
use crate::limit::Admission;
use crate::metrics::Metrics;
use crate::model::{Models, Routing};
use crate::overload::Overload;
use crate::prices;
use crate::retention::Retention;
use crate::retrieval::{Ingestion, Retrieval};
use crate::run::{Accounting, Budgets, LapsedRuns, RunParts, Runs, Smiths, Spender};
use crate::schedule::Schedules;
use crate::secrets::{Vault, VaultError};
use crate::store::{self, Journal, OrganizationRow, Store, StoreError, Tenant, now_micros};
use crate::tended;
use crate::tools::{self, Toolbox};
use crate::untrusted::Sandbox;
use crate::upstream::{AddressGuard, Upstream};
use crate::webhook::{Deliveries, Sender, Webhooks};
use crate::work::{Room, Tell, Worker, wake_on};

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("store: {0}")]
    Store(#[from] StoreError),
    #[error("bus.redis_url: {0}")]
    Bus(#[from] RedisError),
    #[error("{0}")]
    Keys(#[from] KeyError),
    #[error("secrets.master_key: {0}")]
    Vault(#[from] VaultError),
    #[error("the master key file cannot be used: {0}")]
    MasterKeyFile(std::io::Error),
    #[error("{0}")]
    Config(String),
    #[error("the first token cannot be minted: {0}")]
    FirstToken(ApiError),
    #[error("{key}: cannot listen on {address}: {source}")]
    Listen {
        key: &'static str,
        address: std::net::SocketAddr,
        source: std::io::Error,
    },
}

/// A running gateway, without its listeners.
pub struct Gateway {
    pub config: Config,
    pub store: Arc<dyn Store>,
    pub journal: Journal,
    pub auth: Arc<Auth>,
    pub overload: Arc<Overload>,
    pub bodies: Arc<Bodies>,
    pub models: Arc<Models>,
    pub answers: Arc<Answers>,
    pub smiths: Arc<Smiths>,
    pub runs: Arc<Runs>,
    pub lanes: Arc<Lanes>,
    pub hub: Arc<Hub>,
    pub schedules: Arc<Schedules>,
    pub accounting: Arc<Accounting>,
    pub budgets: Arc<Budgets>,
    pub vault: Arc<Vault>,
    pub webhooks: Arc<Webhooks>,
    pub connections: Arc<Connections>,
    pub tools: Arc<Toolbox>,
    pub retrieval: Arc<Retrieval>,
    pub ingestion: Arc<Worker<Ingestion>>,
    pub sandbox: Arc<Sandbox>,
    pub admission: Arc<Admission>,
    pub metrics: Metrics,
    pub bus: Bus,
    draining: AtomicBool,
    /// Told when it begins to drain.
    drains: CancellationToken,
    in_flight: AtomicUsize,
    request_ended: Notify,
    /// Held while this process serves an embedded store.
    data_dir_lock: parking_lot::Mutex<Option<std::fs::File>>,
    tasks: parking_lot::Mutex<Vec<tokio::task::JoinHandle<()>>>,
    lapsed_runs: Arc<Worker<LapsedRuns>>,
    /// All work that is shared with other nodes.
    rooms: Vec<Arc<dyn Room>>,
    /// What says that there may be something to do in a room.
    wakes: Vec<(Arc<Notify>, Arc<dyn Room>)>,
    /// Those that end before the store is closed.
    workers: parking_lot::Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

/// What a first start made.
#[derive(Debug)]
pub struct FirstStart {
    pub tenant_id: String,
    /// Shown once, never again.
    pub admin_token: String,
}

/// Counts a request as in flight until it is dropped.
pub struct InFlight(Arc<Gateway>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        if self.0.is_draining() {
            self.0.request_ended.notify_waiters();
        }
    }
}

impl Gateway {
    /// Where clients reach this gateway.
    pub fn public_url(&self) -> String {
        public_url(&self.config)
    }

    /// Opens the store, loads the keys and starts the tasks in the background. On an empty store
    /// it also makes a tenant and its first admin token.
    pub async fn start(config: Config) -> Result<(Arc<Self>, Option<FirstStart>), StartError> {
        let store = store::open(&config).await?;
        let is_new = store.signing_keys().await?.is_empty();
        let vault = Arc::new(vault(&config, is_new)?);
        let metrics = Metrics::new();
        let keys = SigningKeys::load(&store, &vault).await?;
        let node_id: Arc<str> = ids::mint(ids::Kind::Node).into();
        let (heard, changes) = mpsc::unbounded_channel();
        let bus = match &config.bus.redis_url {
            Some(url) => {
                Bus::connect(url, node_id.clone(), heard, metrics.bus_lost.clone()).await?
            }
            None => Bus::default(),
        };
        let auth = Auth::new(
            keys,
            &config.auth,
            store.clone(),
            bus.clone(),
            metrics.clone(),
        )
        .await?;
        let auth = Arc::new(auth);
        let overload = Overload::new(
            Duration::from_millis(config.limits.max_worker_lag_ms),
            &metrics,
        );
        let server = &config.server;
        let bodies = Bodies::new(server.max_bytes_in_flight, server.max_body_bytes, &metrics);
        let routing = Routing::new(&config, store.clone(), vault.clone(), metrics.clone())
            .map_err(StartError::Config)?;
        let guard = AddressGuard::new(config.egress.allow_networks.clone());
        let upstream = Arc::new(Upstream::new(guard));
        let models = Models::new(&config, upstream.clone(), routing, metrics.clone());
        let models = Arc::new(models);
        let answers = Arc::new(Answers::new(config.models.cache_bytes, bus.clone()));
        let smiths = Arc::new(Smiths::new(store.clone(), metrics.clone()));
        let prices = prices::book(&config).map_err(StartError::Config)?;
        let accounting = Arc::new(Accounting::new(prices, metrics.clone()));
        let budgets = Arc::new(Budgets::new(store.clone()));
        let (journal, writer) = Journal::start(store.clone(), metrics.clone());
        let sender = Sender::new(store.clone(), vault.clone(), upstream.clone());
        let others = bus.clone();
        let tell: Tell = Arc::new(move |name| {
            others.change(Notice::Work {
                name: name.to_owned(),
            });
        });
        let hold = Duration::from_millis(config.limits.lease_ms);
        let deliveries = Deliveries { sender, hold };
        let webhooks = Worker::new(deliveries, metrics.clone(), tell.clone());
        let admission = Arc::new(Admission::new(
            &config.limits.rate,
            &config.limits.concurrency,
        ));
        let connections = Connections::new(store.clone(), vault.clone(), upstream.clone());
        let connections = Arc::new(connections);
        let sandbox = Sandbox::new(&config.sandbox);
        let retrieval = Retrieval::new(
            store.clone(),
            models.clone(),
            smiths.clone(),
            accounting.clone(),
            budgets.clone(),
            sandbox.clone(),
        );
        let ingestion = Ingestion::new(retrieval.clone(), hold);
        let ingestion = Worker::new(ingestion, metrics.clone(), tell.clone());
        let hub_upstream = upstream.clone();
        let senders = tools::SendersSlot::default();
        let parts = tools::hosted::Parts {
            store: store.clone(),
            upstream,
            documents: retrieval.clone(),
            sandbox: sandbox.clone(),
            config: config.tools.clone(),
            senders: senders.clone(),
        };
        let tools = Toolbox::new(parts, vault.clone(), connections.clone());
        let parts = RunParts {
            node_id,
            bus: bus.clone(),
            tools: tools.clone(),
            sandbox: sandbox.clone(),
            bodies: bodies.clone(),
            approval_timeout: Duration::from_secs(config.tools.approval_timeout_s),
            store: store.clone(),
            journal: journal.clone(),
            models: models.clone(),
            smiths: smiths.clone(),
            accounting: accounting.clone(),
            budgets: budgets.clone(),
            metrics: metrics.clone(),
        };
        let runs = Runs::new(parts, config.limits.clone());
        let lapsed_runs = LapsedRuns::new(runs.clone());
        let lapsed_runs = Worker::new(lapsed_runs, metrics.clone(), tell.clone());
        let lanes = Lanes::new(
            store.clone(),
            runs.clone(),
            admission.clone(),
            metrics.clone(),
        );
        let hub = Hub::new(HubParts {
            store: store.clone(),
            vault: vault.clone(),
            upstream: hub_upstream,
            sandbox: sandbox.clone(),
            runs: runs.clone(),
            smiths: smiths.clone(),
            lanes: lanes.clone(),
            config: config.channels.clone(),
            public_url: public_url(&config),
            metrics: metrics.clone(),
        });
        let sender: Arc<dyn tools::Senders> = hub.clone();
        senders.set(Arc::downgrade(&sender));
        let schedules = Schedules::new(store.clone(), lanes.clone(), metrics.clone());
        let turns = Worker::new(Turns(lanes.clone()), metrics.clone(), tell.clone());
        let arrivals = Worker::new(Arrivals(hub.clone()), metrics.clone(), tell.clone());
        let outbox = Worker::new(Outbox(hub.clone()), metrics.clone(), tell);
        let wakes: Vec<(Arc<Notify>, Arc<dyn Room>)> = vec![
            (runs.lane_due.clone(), turns.clone()),
            (hub.arrived(), arrivals.clone()),
            (runs.answers_due.clone(), outbox.clone()),
        ];
        let rooms: Vec<Arc<dyn Room>> = vec![
            lapsed_runs.clone(),
            webhooks.clone(),
            ingestion.clone(),
            turns,
            arrivals,
            outbox,
        ];
        let tasks = vec![
            writer,
            tended::spawn("revocations", {
                let auth = auth.clone();
                move || auth.clone().follow_revocations()
            }),
            tended::spawn("virtual keys", {
                let auth = auth.clone();
                move || {
                    let auth = auth.clone();
                    async move { auth.virtual_keys.follow().await }
                }
            }),
            tended::spawn("overload", {
                let overload = overload.clone();
                move || overload.clone().watch()
            }),
            tended::spawn("accounting", {
                let parts = (accounting.clone(), journal.clone(), budgets.clone());
                move || {
                    let (accounting, journal, budgets) = parts.clone();
                    accounting.flush_regularly(journal, budgets)
                }
            }),
        ];
        let first = first_start(store.as_ref(), &auth).await?;
        let gateway = Arc::new(Self {
            config,
            store,
            journal,
            auth,
            overload,
            bodies,
            models,
            answers,
            smiths,
            runs,
            lanes,
            hub,
            schedules,
            accounting,
            budgets,
            vault,
            webhooks,
            connections,
            tools,
            retrieval,
            ingestion,
            sandbox,
            admission,
            metrics,
            bus,
            draining: AtomicBool::new(false),
            drains: CancellationToken::new(),
            in_flight: AtomicUsize::new(0),
            request_ended: Notify::new(),
            data_dir_lock: parking_lot::Mutex::new(None),
            tasks: parking_lot::Mutex::new(tasks),
            lapsed_runs,
            rooms,
            wakes,
            workers: parking_lot::Mutex::default(),
        });
        let follow = follow_changes(Arc::downgrade(&gateway), changes);
        gateway.tasks.lock().push(tokio::spawn(follow));
        Ok((gateway, first))
    }

    /// Forgets what is remembered of something that was changed, here at once and on other nodes
    /// as soon as they hear of it.
    pub async fn changed(&self, change: Notice) {
        self.forget(&change).await;
        self.bus.change(change);
    }

    async fn forget(&self, change: &Notice) {
        match change {
            Notice::Revoked { tokens } => self.auth.heard_of(tokens.clone()),
            Notice::VirtualKeys { keys } => self.auth.virtual_keys.heard_of(keys),
            Notice::Smith {
                tenant_id,
                smith_id,
            } => self.smiths.forget(tenant_id, smith_id).await,
            Notice::Smiths => self.smiths.forget_all(),
            Notice::McpServer { tenant_id, name } => self.tools.forget(tenant_id, name),
            Notice::ModelKeys => self.models.routing.forget_keys(),
            Notice::Budgets => self.budgets.forget_all(),
            Notice::Work { name } => {
                let rooms = self.rooms.iter();
                rooms
                    .filter(|room| room.name() == name)
                    .for_each(|room| room.wake_here());
            }
        }
    }

    /// Makes this process one that runs turns: it takes the embedded store for itself, ends what a
    /// dead process left running, and keeps the leases of its own runs.
    pub async fn begin_serving(&self) -> Result<(), StartError> {
        let alone = self.config.store.url.is_none();
        if alone {
            *self.data_dir_lock.lock() = Some(lock_data_dir(&self.config.data_dir)?);
            // What a process held that was killed is not waited for until the hold lapses.
            let now = now_micros();
            let files = self.store.release_all_vector_files(now).await;
            let deliveries = self.store.release_all_deliveries(now).await;
            let lanes = self.store.release_all_held(now).await;
            if let Err(error) = files.and(deliveries).and(lanes) {
                tracing::warn!(%error, "cannot give back what a dead process held");
            }
        }
        // An embedded store has one node: whatever is marked as running there is not.
        self.lapsed_runs.begin(alone).await;
        let (runs, cancels) = (self.runs.clone(), self.runs.clone());
        let (retention, admission) = (self.retention(), self.admission.clone());
        let (schedules, polls, shown) =
            (self.schedules.clone(), self.hub.clone(), self.hub.clone());
        self.workers.lock().extend([
            tended::spawn("leases", move || runs.clone().keep_leases()),
            tended::spawn("cancels", move || cancels.clone().follow_cancels()),
            tended::spawn("retention", move || retention.clone().work()),
            tended::spawn("limits", move || tidy_regularly(admission.clone())),
            tended::spawn("schedules", move || schedules.clone().work()),
            tended::spawn("live", move || shown.clone().show_answers()),
            tended::spawn("polls", move || polls.clone().poll()),
        ]);
        let wakes = self.wakes.iter().cloned();
        let wakes = wakes.map(|(said, room)| {
            tended::spawn("wakes", move || wake_on(said.clone(), room.clone()))
        });
        self.workers.lock().extend(wakes);
        let rooms = self.rooms.iter().cloned();
        let rooms = rooms.map(|room| tended::spawn(room.name(), move || room.clone().run()));
        self.workers.lock().extend(rooms);
        Ok(())
    }

    /// What prunes what is old.
    pub fn retention(&self) -> Retention {
        Retention::new(
            self.store.clone(),
            &self.config.retention,
            self.runs.node_id(),
        )
    }

    /// On whose account a call is; 404 when there is no such smith.
    pub async fn spender(
        &self,
        caller: &Principal,
        smith_id: Option<&Arc<str>>,
    ) -> Result<Spender, ApiError> {
        match smith_id {
            Some(smith_id) => {
                let smith = self.smiths.effective(&caller.tenant_id, smith_id).await?;
                Ok(smith.spender())
            }
            None => Ok(Spender::caller(caller)),
        }
    }

    /// The models that a caller can use: `(id, provider)`, aliases first.
    pub async fn usable_models(
        &self,
        caller: &Principal,
    ) -> Result<Vec<(String, String)>, ApiError> {
        let routing = &self.models.routing;
        let mut models = routing.usable_models(&caller.tenant_id).await?;
        if let Some(rights) = caller.rights().filter(|rights| rights.is_limited()) {
            models.retain(|(id, owner)| {
                let by_owner = id
                    .strip_prefix(&**owner)
                    .and_then(|id| id.strip_prefix('/'));
                let mut targets = routing.alias_targets(id);
                rights.names(id)
                    || match routing.is_alias(id) {
                        true => targets.any(|(provider, model)| rights.takes(provider, model)),
                        false => rights.takes(owner, by_owner.unwrap_or(id)),
                    }
            });
        }
        Ok(models)
    }

    /// Whether the gateway is going down and takes no new work.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Waits until this node has drained for as long as `grace`, counted from now at the earliest.
    pub async fn draining_for(&self, grace: Duration) {
        self.drains.cancelled().await;
        tokio::time::sleep(grace).await;
    }

    /// Counts a request; 503 while draining.
    pub fn enter(self: &Arc<Self>) -> Result<InFlight, ApiError> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        let entered = InFlight(self.clone());
        if self.is_draining() {
            return Err(shuts_down());
        }
        Ok(entered)
    }

    /// Refuses new work, lets what is in flight end, and makes everything durable. Work that has
    /// not ended shortly before the configured time is cancelled.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drains.cancel();
        let limit = Duration::from_secs(self.config.server.drain_timeout_s);
        // For the ends of what is cancelled, and for the store.
        let rest = (limit / 4).min(Duration::from_secs(5));
        let rooms = self
            .rooms
            .iter()
            .map(|room| room.drain(limit - rest, rest / 2));
        let rooms = futures_util::future::join_all(rooms);
        let idle = tokio::time::timeout(limit - rest, self.idle());
        let (ended, _) = tokio::join!(idle, rooms);
        if ended.is_err() {
            tracing::warn!("cancelling what has not ended in time");
            self.runs.cancel_all();
            let _ = tokio::time::timeout(rest / 2, self.idle()).await;
        }
        self.sandbox.close();
        for task in self.workers.lock().drain(..) {
            task.abort();
        }
        if let Err(error) = self.runs.settle().await {
            tracing::error!(%error, "runs that were not kept could not be settled");
        }
        self.accounting.flush(&self.journal);
        if let Err(error) = self.journal.flush().await {
            tracing::error!(%error, "the journal did not become empty");
        }
        let kept = self.models.continuity.flush();
        if tokio::time::timeout(Duration::from_secs(5), kept)
            .await
            .is_err()
        {
            tracing::warn!("what calls came with was not written in time");
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.data_dir_lock.lock().take();
    }

    async fn idle(&self) {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        while self.in_flight.load(Ordering::Acquire) > 0 || self.runs.live_count() > 0 {
            let _ = tokio::time::timeout(LOOK_AGAIN, self.request_ended.notified()).await;
        }
    }
}

/// Keeps the limits' memory small, for ever.
async fn tidy_regularly(admission: Arc<Admission>) {
    let mut interval = tokio::time::interval(Duration::from_secs(60));
    loop {
        interval.tick().await;
        admission.tidy();
    }
}

/// Where clients reach this gateway.
fn public_url(config: &Config) -> String {
    let server = &config.server;
    match &server.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", server.listen),
    }
}

/// The master key: configured, or kept in the data directory, made at first start.
fn vault(config: &Config, is_new: bool) -> Result<Vault, StartError> {
    if let Some(master) = &config.secrets.master_key {
        return Ok(Vault::from_base64(master)?);
    }
    std::fs::create_dir_all(&config.data_dir).map_err(StartError::MasterKeyFile)?;
    let file = config.data_dir.join("master.key");
    match std::fs::read_to_string(&file) {
        Ok(master) => Ok(Vault::from_base64(&master)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_new => {
            Err(StartError::Config(format!(
                "secrets.master_key: {} is missing, and what the store holds was sealed with it: \
                 put it back, or set the key",
                file.display()
            )))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let master = Vault::generate_master()?;
            write_private(&file, master.as_bytes()).map_err(StartError::MasterKeyFile)?;
            Ok(Vault::from_base64(&master)?)
        }
        Err(error) => Err(StartError::MasterKeyFile(error)),
    }
}

/// Refuses to go on, before anything is opened, where another process serves from the data directory.
pub fn check_data_dir(config: &Config) -> Result<(), StartError> {
    if config.store.url.is_some() || !config.data_dir.exists() {
        return Ok(());
    }
    lock_data_dir(&config.data_dir).map(drop)
}

/// Two processes on one embedded store would end each other's runs.
fn lock_data_dir(data_dir: &Path) -> Result<std::fs::File, StartError> {
    let refused = |why: String| {
        StartError::Config(format!(
            "data_dir: cannot lock {}: {why}",
            data_dir.display()
        ))
    };
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(data_dir.join("serving.lock"))
        .map_err(|e| refused(e.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(refused("another smithgate serves from it".to_owned()))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(refused(error.to_string())),
    }
}

/// 503 for work that another node must do.
pub fn shuts_down() -> ApiError {
    ApiError::unavailable("service_overloaded", "this node is shutting down", 1)
}

/// Takes in what other nodes have changed, until the gateway ends.
async fn follow_changes(
    gateway: std::sync::Weak<Gateway>,
    mut changes: mpsc::UnboundedReceiver<Notice>,
) {
    while let Some(change) = changes.recv().await {
        let Some(gateway) = gateway.upgrade() else {
            return;
        };
        gateway.forget(&change).await;
    }
}

/// Writes a file that only its owner may read: whole or, on a full disk, not at all.
pub fn write_private(file: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = Path::new(&name);
    let written = options.open(new).and_then(|mut opened| {
        opened.write_all(content)?;
        opened.sync_all()
    });
    let placed = written.and_then(|()| std::fs::rename(new, file));
    if placed.is_err() {
        let _ = std::fs::remove_file(new);
        return placed;
    }
    // Its name must last as well: without the key, what was sealed with it is lost.
    match file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        Some(dir) if cfg!(unix) => std::fs::File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

/// The installation's organization, which owns its projects.
pub async fn organization(store: &dyn Store) -> Result<OrganizationRow, StoreError> {
    let template = OrganizationRow {
        id: ids::mint(ids::Kind::Organization),
        name: "default".to_owned(),
        created_at: now_micros(),
    };
    store.organization(&template).await
}

async fn first_start(store: &dyn Store, auth: &Auth) -> Result<Option<FirstStart>, StartError> {
    if store.first_tenant().await?.is_some() {
        return Ok(None);
    }
    let tenant = Tenant {
        id: ids::mint(ids::Kind::Project),
        name: "default".to_owned(),
        created_at: now_micros(),
    };
    store.create_tenant(&tenant).await?;
    let minted = auth
        .mint(Mint {
            tenant_id: tenant.id.clone(),
            scope: MintedScope::Admin,
            ttl_seconds: None,
            name: Some("first admin token".to_owned()),
        })
        .await
        .map_err(StartError::FirstToken)?;
    organization(store).await?;
    Ok(Some(FirstStart {
        tenant_id: tenant.id,
        admin_token: minted.token,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_written_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("master.key");
        write_private(&file, b"first").expect("written");
        write_private(&file, b"second").expect("written");
        assert_eq!(std::fs::read(&file).expect("read"), b"second");
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).expect("made");
        assert!(write_private(&taken, b"x").is_err());
        let names = std::fs::read_dir(dir.path()).expect("listed");
        assert_eq!(names.count(), 2, "what was not placed is gone");
    }
}
