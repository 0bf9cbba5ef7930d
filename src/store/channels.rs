//! Channels: a tenant's accounts on platforms, what arrives there, who answers whom, and what is to be
//! sent.

use async_trait::async_trait;

use super::{EventRow, QueuedTurnRow, Result, Rows};

/// A tenant's account on a platform.
#[derive(Clone, sqlx::FromRow)]
pub struct IntegrationRow {
    pub tenant_id: String,
    pub kind: String,
    /// JSON: what may be shown.
    pub settings: String,
    pub sealed: Vec<u8>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// Something that arrived, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct InboundRow {
    pub id: String,
    pub tenant_id: String,
    /// The channel.
    pub source: String,
    #[sqlx(rename = "type")]
    pub kind: String,
    /// The conversation that it belongs to: arrivals of one are interpreted in order.
    pub subject: String,
    /// The platform's own name for it.
    pub idempotency_key: String,
    /// Who answers; empty: nobody does.
    pub smith_id: String,
    /// JSON.
    pub data: String,
    /// `accepted`, `done` or `failed`.
    pub status: String,
    /// Why it failed, or led to nothing.
    pub reason: Option<String>,
    /// How often it was taken up since something was heard of it.
    pub takings: i64,
    /// How often it could not be interpreted.
    pub attempts: i64,
    /// When it is to be interpreted; `None`: that is over.
    pub due_at: Option<i64>,
    pub created_at: i64,
}

/// Which arrivals are listed.
#[derive(Debug, Clone, Default)]
pub struct InboundFilter {
    pub source: Option<String>,
    pub smith_id: Option<String>,
    /// In microseconds.
    pub since: Option<i64>,
}

/// Who answers a sender or a conversation.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct BindingRow {
    pub tenant_id: String,
    pub kind: String,
    /// A sender or a conversation, as the channel names them.
    pub identity: String,
    pub smith_id: String,
    pub deployment_id: String,
    pub created_at: i64,
}

/// A way by which a smith reaches somebody.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct ReachRow {
    /// The channel.
    pub kind: String,
    pub deployment_id: String,
    /// As in [`BindingRow`], or a deployment's address.
    pub identity: Option<String>,
}

/// A message that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct OutboundRow {
    pub id: String,
    pub tenant_id: String,
    pub smith_id: String,
    pub deployment_id: String,
    pub channel: String,
    /// Messages of one conversation are sent in order.
    pub chat: String,
    pub run_id: Option<String>,
    /// `answer`, `approval`, `connection` (asks for a grant), `notice` or `message` (what a smith sends
    /// by a tool).
    pub kind: String,
    /// JSON: where to, as the channel wrote it.
    pub reply_to: String,
    /// Of an approval, its id; of an answer, `None`: it is the run's.
    pub content: Option<String>,
    /// `pending`, `sent`, `failed` or `unknown`.
    pub status: String,
    pub attempts: i64,
    pub takings: i64,
    /// JSON: how far it is sent.
    pub progress: String,
    pub last_error: Option<String>,
    /// When it is to be sent; `None`: that is over.
    pub due_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

impl OutboundRow {
    /// One that is to be sent at once; whose, where to and what is left to say.
    pub fn pending(now: i64) -> Self {
        Self {
            id: String::new(),
            tenant_id: String::new(),
            smith_id: String::new(),
            deployment_id: String::new(),
            channel: String::new(),
            chat: String::new(),
            run_id: None,
            kind: String::new(),
            reply_to: String::new(),
            content: None,
            status: "pending".to_owned(),
            attempts: 0,
            takings: 0,
            progress: "{}".to_owned(),
            last_error: None,
            due_at: Some(now),
            created_at: now,
            updated_at: now,
        }
    }
}

/// What nodes hold of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldKind {
    Arrival,
    Outbound,
}

/// Something that a node holds.
#[derive(Debug, Clone, Copy)]
pub struct HeldRow<'a> {
    pub tenant_id: &'a str,
    pub id: &'a str,
    /// As its row says.
    pub until: i64,
}

/// What an arrival leads to.
#[derive(Debug, Clone, Default)]
pub struct ArrivalEnd {
    pub smith_id: String,
    /// Why it led to nothing.
    pub reason: Option<String>,
    pub turns: Vec<QueuedTurnRow>,
    pub outbound: Vec<OutboundRow>,
    pub events: Vec<EventRow>,
    pub binding: Option<BindingRow>,
    /// Conversation, smith and the thread that it is in from now on.
    pub thread: Option<(String, String, String)>,
    /// Smith, thread and message of a turn that is taken back while it waits.
    pub taken_back: Option<(String, String, String)>,
}

/// Channels.
#[async_trait]
pub trait ChannelStore: Send + Sync {
    async fn put_integration(&self, integration: &IntegrationRow) -> Result<()>;
    async fn integration(&self, tenant_id: &str, kind: &str) -> Result<Option<IntegrationRow>>;
    /// Tenants above `after` that have an account of a kind, at most `limit`.
    async fn integrated(&self, kind: &str, after: &str, limit: i64) -> Result<Vec<String>>;
    /// Deletes an account, and those below it (`slack/T1` is below `slack`).
    async fn delete_integration(&self, tenant_id: &str, kind: &str) -> Result<bool>;
    /// Makes an address of a platform that of the tenant's account, instead of any other it had, until
    /// the account is deleted; `false` when it is another tenant's.
    async fn claim_address(&self, tenant_id: &str, kind: &str, address: &str) -> Result<bool>;
    /// The tenant that what is sent to an address of a platform is for.
    async fn tenant_of_address(&self, kind: &str, address: &str) -> Result<Option<String>>;

    /// Keeps arrivals, all or none; `false` for each that is there already.
    async fn accept(&self, arrivals: &[InboundRow]) -> Result<Vec<bool>>;
    /// Tenants with arrivals that are due, at most `limit`.
    async fn tenants_with_arrivals(&self, now: i64, limit: i64) -> Result<Vec<String>>;
    /// Takes arrivals of a tenant that are due, the first of each conversation.
    async fn claim_arrivals(
        &self,
        tenant_id: &str,
        now: i64,
        hold_until: i64,
        limit: i64,
    ) -> Result<Vec<InboundRow>>;
    /// Writes what an arrival led to that is held until `held`; `false` when it is not.
    async fn end_arrival(
        &self,
        arrival: &InboundRow,
        held: i64,
        end: &ArrivalEnd,
        now: i64,
    ) -> Result<bool>;
    /// Puts an arrival off that is held until `held`, or with no time, gives it up; `event` says so.
    /// `false` when it is not held.
    async fn put_off_arrival(
        &self,
        arrival: &InboundRow,
        held: i64,
        due_at: Option<i64>,
        reason: &str,
        event: Option<&EventRow>,
    ) -> Result<bool>;
    /// Prolongs what is held; answers of each whether it is.
    async fn renew_held(
        &self,
        what: HeldKind,
        held: &[HeldRow<'_>],
        until: i64,
    ) -> Result<Vec<bool>>;
    /// Makes something due at once, its taking uncounted; `false` when it is not held.
    async fn release_held(&self, what: HeldKind, held: HeldRow<'_>, now: i64) -> Result<bool>;
    /// Uncounts a taking.
    async fn uncount_held(&self, what: HeldKind, tenant_id: &str, id: &str) -> Result<()>;
    async fn inbound_event(&self, tenant_id: &str, id: &str) -> Result<Option<InboundRow>>;
    async fn inbound_events(
        &self,
        tenant_id: &str,
        filter: &InboundFilter,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<InboundRow>>;

    async fn binding(
        &self,
        tenant_id: &str,
        kind: &str,
        identity: &str,
    ) -> Result<Option<BindingRow>>;
    /// The thread that a conversation of a smith is in, when it is not the one named after it.
    async fn channel_thread(
        &self,
        tenant_id: &str,
        kind: &str,
        chat: &str,
        smith_id: &str,
    ) -> Result<Option<String>>;

    /// Whether a tenant has a deployment on any channel.
    async fn has_channels(&self, tenant_id: &str) -> Result<bool>;
    /// Whom a smith reaches over active deployments, the latest first.
    async fn reached(&self, tenant_id: &str, smith_id: &str, limit: i64) -> Result<Vec<ReachRow>>;
    /// Puts a message into the outbox; `false` when it is there already.
    async fn insert_outbound(&self, message: &OutboundRow) -> Result<bool>;
    /// Tenants with messages that are due, at most `limit`.
    async fn tenants_with_outbound(&self, now: i64, limit: i64) -> Result<Vec<String>>;
    /// Takes messages of a tenant that are due, the first of each conversation.
    async fn claim_outbound(
        &self,
        tenant_id: &str,
        now: i64,
        hold_until: i64,
        limit: i64,
    ) -> Result<Vec<OutboundRow>>;
    /// Writes how far a message is: all that changes. `held`: until when whoever writes it has it, or
    /// `None` for one that nobody sends any more; `false` when it is another's by now.
    async fn record_outbound(&self, message: &OutboundRow, held: Option<i64>) -> Result<bool>;
    async fn outbound(&self, tenant_id: &str, id: &str) -> Result<Option<OutboundRow>>;
    async fn outbound_of(
        &self,
        tenant_id: &str,
        deployment_id: &str,
        before: Option<&str>,
        limit: i64,
    ) -> Result<Rows<OutboundRow>>;
    /// Whether anything waits to be sent to a conversation, or is on its way.
    async fn has_outbound(&self, tenant_id: &str, channel: &str, chat: &str) -> Result<bool>;
}
