//! Channels: smiths answer where their people already are.
//!
//! Lives here: what all channels share (accepting, binding, interpreting, sending) and one folder for
//! each. An arrival is verified and kept before it is answered, interpreted afterwards, and becomes a
//! turn in a lane; what the turn's run says is put into the outbox by the transaction that ends it.

mod accepting;
mod accounts;
mod arrivals;
mod bind;
mod call;
pub mod discord;
pub mod email;
mod fetch;
mod files;
pub mod forms;
mod held;
mod inbound;
mod live;
mod markdown;
mod multipart;
mod outbox;
mod outgoing;
mod report;
mod rest;
mod said;
mod setup;
pub mod slack;
mod split;
pub mod telegram;
mod tenants;
mod tools;
pub mod web;
pub mod whatsapp;

pub use accounts::Account;
pub use arrivals::Arrivals;
pub use bind::token_hash;
pub use call::{CallFault, Called, Platform};
pub use inbound::turn_of;
pub use outbox::Outbox;
pub use outgoing::Outgoing;
pub use rest::{documented, routes};
pub use said::{
    Arrival, Card, Command, Decision, Destination, Meaning, Question, Said, SendTool, Sender,
};

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{Notify, mpsc};

use crate::config;
use crate::error::ApiError;
use crate::lane::{Begun, Lanes};
use crate::metrics::Metrics;
use crate::run::{Runs, Smiths};
use crate::secrets::Vault;
use crate::store::{DeploymentRow, InboundRow, OutboundRow, Store};
use crate::untrusted::Sandbox;
use crate::upstream::Upstream;

/// Why an arrival cannot be interpreted, or a message not be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It may work later: not before so long, where the platform said so.
    #[error("{why}")]
    Later {
        why: String,
        after: Option<Duration>,
    },
    /// It never will.
    #[error("{0}")]
    Never(String),
    /// It may have been sent.
    #[error("{0}")]
    Unknown(String),
}

impl Fault {
    /// It may work later.
    pub fn later(why: impl Into<String>) -> Self {
        Self::Later {
            why: why.into(),
            after: None,
        }
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        let why = error.to_string();
        match error.status.is_client_error() && error.status.as_u16() != 429 {
            true => Self::Never(why),
            false => Self::later(why),
        }
    }
}

impl From<crate::store::StoreError> for Fault {
    fn from(error: crate::store::StoreError) -> Self {
        Self::later(ApiError::from(error).to_string())
    }
}

/// How a deployment is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// It shows a token once, by which conversations bind themselves.
    StartToken,
    /// Its address is made.
    Provision,
    /// Others install its app by a link, which every such deployment is made with.
    Install,
}

impl Setup {
    /// The mode that each channel knows.
    pub const START_TOKEN: &'static str = "start_token";
}

/// A platform.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Its name, which runs, deployments and events have.
    fn kind(&self) -> &'static str;

    /// What an arrival means. What it needs of the platform (files) is fetched here.
    async fn interpret(&self, hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault>;

    /// A model's words as the messages that they are sent in, each within the platform's limits. The
    /// same words are always the same messages.
    fn messages(&self, text: &str) -> Vec<String>;

    /// Sends one of those messages, and answers the platform's name for it. `key` is the same for the
    /// same message, for platforms that take one twice only once.
    async fn send(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        message: &str,
        key: &str,
    ) -> Result<String, Fault>;

    /// Sends the message that ends an answer, with short replies to choose from, where they have a place.
    async fn offer(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        message: &str,
        _replies: &[String],
        key: &str,
    ) -> Result<String, Fault> {
        self.send(hub, to, message, key).await
    }

    /// How large a file may be that is sent, in bytes, as the platform says; `None`: none is sent.
    fn largest_file(&self, _media_type: &str) -> Option<usize> {
        None
    }

    /// Whether an answer's files leave together with its words. They may then be as large together as
    /// one may be.
    fn sends_files_within(&self) -> bool {
        false
    }

    /// Sends files: one without words, or all with one of the messages, see
    /// [`Channel::sends_files_within`].
    async fn send_files(
        &self,
        _hub: &Hub,
        _to: &OutboundRow,
        _words: &str,
        _files: &[Outgoing],
        _key: &str,
    ) -> Result<String, Fault> {
        Err(Fault::Never("no files are sent there".to_owned()))
    }

    /// Whether a message that is sent again under its key is shown once.
    fn is_idempotent(&self) -> bool {
        false
    }

    /// Asks a human for a decision.
    async fn ask(&self, hub: &Hub, to: &OutboundRow, card: &Card) -> Result<String, Fault>;

    /// Answers a press: with what was decided, which the card shows from then on (`is_settled`), or why
    /// it did nothing. What fails here costs nothing.
    async fn decided(&self, hub: &Hub, arrival: &InboundRow, text: &str, is_settled: bool);

    /// What a new deployment shows once beside its token: members of the contract's
    /// DeploymentCreatedOut (`prefilled_message`, `install_url`, `state`, …).
    async fn made(
        &self,
        _hub: &Hub,
        _deployment: &DeploymentRow,
        _start_token: Option<&str>,
    ) -> Result<Map<String, Value>, ApiError> {
        Ok(Map::new())
    }

    /// How a deployment is set up by `mode`; `None`: not in this way.
    fn setup(&self, mode: &str) -> Option<Setup> {
        (mode == Setup::START_TOKEN).then_some(Setup::StartToken)
    }

    /// The code of the refusal to a deployment that has no account to go with.
    fn unconfigured(&self) -> String {
        format!("{}_unconfigured", self.kind())
    }

    /// The address of a new deployment, checked; `is_made`: one is made when none is given.
    async fn address(
        &self,
        _hub: &Hub,
        _tenant_id: &str,
        address: Option<String>,
        _is_made: bool,
    ) -> Result<Option<String>, ApiError> {
        Ok(address)
    }

    /// Whether deployments need an account of the tenant's on the platform.
    fn needs_account(&self) -> bool {
        true
    }

    /// The deployment that a message came by, where its conversation says that.
    fn deployment_of<'a>(&self, _said: &'a Said) -> Option<&'a str> {
        None
    }

    /// The address of a smith's own that a message was sent to, where smiths have some.
    fn addressee<'a>(&self, _said: &'a Said) -> Option<&'a str> {
        None
    }

    /// Checks what a deployment is made with: its `provider_metadata`.
    fn check_settings(&self, _settings: &Value) -> Result<(), ApiError> {
        Ok(())
    }

    /// What is kept, sealed, of the `secrets` that a deployment is made with: their names stay.
    async fn kept_secrets(&self, _secrets: &Value) -> Result<Map<String, Value>, ApiError> {
        Ok(Map::new())
    }

    /// The page that a deployment is.
    fn page_url(&self, _hub: &Hub, _deployment_id: &str) -> Option<String> {
        None
    }

    /// The link by which a person binds their conversation to a deployment.
    fn deep_link(&self, _settings: &Value, _token: &str) -> Option<String> {
        None
    }

    /// Tells a sender that their message is being answered. What fails here costs nothing.
    async fn typing(&self, _hub: &Hub, _tenant_id: &str, _reply_to: &Value) {}

    /// How often an answer that is being written is shown anew; `None`: it is shown when it is whole.
    fn shows_every(&self) -> Option<Duration> {
        None
    }

    /// Shows what a run has said so far: `text`, the model's words from their beginning. `draft` is what
    /// this channel notes of what it shows (null at first); it is kept in the store, and whoever sends
    /// the answer has it. What fails here costs nothing.
    async fn show(
        &self,
        _hub: &Hub,
        _tenant_id: &str,
        _reply_to: &Value,
        _draft: &mut Value,
        _text: &str,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Makes what was shown the first message of the answer, and answers the platform's name for it.
    /// `None`: nothing of it is there any more, and the message is sent as any other.
    async fn settle(
        &self,
        _hub: &Hub,
        _to: &OutboundRow,
        _draft: &Value,
        _message: &str,
    ) -> Result<Option<String>, Fault> {
        Ok(None)
    }

    /// How the send tool's `to` names whoever is bound as `identity`: a sender (`sender:…`), a
    /// conversation (`chat:…`), or a deployment's address. `None`: it names nobody.
    fn addressed(&self, identity: &str) -> Option<String> {
        let bare = identity.strip_prefix("sender:");
        let bare = bare.or_else(|| identity.strip_prefix("chat:"));
        Some(bare.unwrap_or(identity).to_owned())
    }

    /// The tool that bound smiths get.
    fn send_tool(&self) -> Option<SendTool> {
        None
    }

    /// Where the send tool's `to` is; an error is told to the model.
    fn destination(&self, _to: &str) -> Result<Destination, String> {
        Err("nothing can be sent there".to_owned())
    }

    /// Asks the platform for what it does not deliver by itself, or listens for it, for ever.
    async fn poll(&self, _hub: Arc<Hub>) {}
}

/// What channels work with.
pub struct Hub {
    pub store: Arc<dyn Store>,
    pub vault: Arc<Vault>,
    pub upstream: Arc<Upstream>,
    pub sandbox: Arc<Sandbox>,
    pub runs: Arc<Runs>,
    pub smiths: Arc<Smiths>,
    pub lanes: Arc<Lanes>,
    pub config: config::Channels,
    /// Where platforms reach this gateway.
    pub public_url: String,
    metrics: Metrics,
    kinds: Vec<Arc<dyn Channel>>,
    accepting: Arc<accepting::Accepting>,
    lately: accounts::Lately,
    arrived: Arc<Notify>,
    outgoing: Arc<Notify>,
    /// Turns that begin on this node, whose answers are shown.
    begun: tokio::sync::Mutex<mpsc::Receiver<Begun>>,
    /// Runs whose answer is being shown right now.
    showing: Mutex<HashSet<String>>,
    sending: tools::Remembered,
}

/// The parts of a hub.
pub struct HubParts {
    pub store: Arc<dyn Store>,
    pub vault: Arc<Vault>,
    pub upstream: Arc<Upstream>,
    pub sandbox: Arc<Sandbox>,
    pub runs: Arc<Runs>,
    pub smiths: Arc<Smiths>,
    pub lanes: Arc<Lanes>,
    pub config: config::Channels,
    pub public_url: String,
    pub metrics: Metrics,
}

/// Turns that have begun and wait to be shown; more are answered all the same.
const SHOWN_AT_ONCE: usize = 1024;

/// All channels: the line of registration.
fn kinds() -> Vec<Arc<dyn Channel>> {
    vec![
        Arc::new(telegram::Telegram),
        Arc::<whatsapp::WhatsApp>::default(),
        Arc::new(discord::Discord),
        Arc::new(web::WebPage),
        Arc::new(slack::Slack::default()),
        Arc::new(email::Email::default()),
    ]
}

impl Hub {
    /// Puts the parts together.
    pub fn new(parts: HubParts) -> Arc<Self> {
        let (tell, begun) = mpsc::channel(SHOWN_AT_ONCE);
        parts.lanes.tell_begun(tell);
        Arc::new(Self {
            outgoing: parts.runs.answers_due.clone(),
            store: parts.store,
            vault: parts.vault,
            upstream: parts.upstream,
            sandbox: parts.sandbox,
            runs: parts.runs,
            smiths: parts.smiths,
            lanes: parts.lanes,
            config: parts.config,
            public_url: parts.public_url,
            metrics: parts.metrics,
            kinds: kinds(),
            accepting: Arc::default(),
            lately: accounts::Lately::default(),
            arrived: Arc::default(),
            begun: tokio::sync::Mutex::new(begun),
            showing: Mutex::default(),
            sending: tools::Remembered::default(),
        })
    }

    /// Asks platforms for what they do not deliver by themselves, for ever.
    pub async fn poll(self: Arc<Self>) {
        let polls = self.kinds.iter().map(|channel| channel.poll(self.clone()));
        futures_util::future::join_all(polls).await;
    }

    /// Says that something has arrived.
    pub fn arrived(&self) -> Arc<Notify> {
        self.arrived.clone()
    }

    /// A channel by its name.
    pub fn channel(&self, kind: &str) -> Option<&Arc<dyn Channel>> {
        self.kinds.iter().find(|channel| channel.kind() == kind)
    }
}
