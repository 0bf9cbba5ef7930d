//! What is to be sent, sent: in order within a conversation, as often as it takes, and never twice
//! knowingly.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Card, Channel, Fault, Hub};
use crate::error::ApiError;
use crate::lane::SORRY;
use crate::run::output_of;
use crate::store::{ApprovalStatus, EventRow, OutboundRow, RunStatus, now_micros};

const SECOND: i64 = 1_000_000;
const LOOK_EVERY: Duration = Duration::from_millis(500);
const BREATH: Duration = Duration::from_millis(5);
/// A message that was taken is nobody else's for so long: longer than a call to a platform may take.
/// It is prolonged with each of its pieces.
const HOLD: i64 = 60 * SECOND;
const TENANTS: i64 = 200;
const OF_ONE: i64 = 16;
/// Pauses between attempts, in seconds; after the last the message has failed.
const PAUSES_S: [i64; 8] = [1, 3, 10, 30, 120, 600, 1_800, 3_600];

/// How far a message is sent.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Progress {
    /// The platform's names for what is sent.
    sent: Vec<String>,
    /// The number of the piece that is on its way.
    sending: Option<usize>,
}

impl Hub {
    /// Sends what is due, for ever.
    pub async fn send_outbound(self: Arc<Self>) {
        loop {
            let _ = tokio::time::timeout(LOOK_EVERY, self.outgoing.notified()).await;
            match self.look_for_outbound().await {
                Ok(taken) if taken > 0 => self.outgoing.notify_one(),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot look for messages to send"),
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn look_for_outbound(self: &Arc<Self>) -> Result<usize, ApiError> {
        let (mut after, mut taken) = (String::new(), 0);
        loop {
            let tenants = self.store.tenants_with_outbound(&after, TENANTS).await?;
            for tenant in &tenants {
                let now = now_micros();
                let free = self.working.available_permits() as i64;
                if free == 0 || self.working.is_closed() {
                    return Ok(taken);
                }
                let limit = OF_ONE.min(free);
                let rows = self
                    .store
                    .claim_outbound(tenant, now, now + HOLD, limit)
                    .await?;
                taken += rows.len();
                for row in rows {
                    let Ok(permit) = self.working.clone().acquire_owned().await else {
                        return Ok(taken);
                    };
                    let hub = self.clone();
                    tokio::spawn(async move {
                        hub.deliver(row).await;
                        drop(permit);
                        hub.outgoing.notify_one();
                    });
                }
            }
            match tenants.last() {
                Some(last) if tenants.len() as i64 == TENANTS => after.clone_from(last),
                _ => return Ok(taken),
            }
        }
    }

    /// Sends a message, and writes what became of it.
    async fn deliver(&self, mut message: OutboundRow) {
        let sent = match self.channel(&message.channel) {
            Some(channel) => self.pieces(channel, &mut message).await,
            None => Err(Fault::Never("there is no such channel here".to_owned())),
        };
        let (now, held) = (now_micros(), message.due_at);
        message.updated_at = now;
        message.takings = 0;
        let outcome = match sent {
            Ok(()) => {
                "sent".clone_into(&mut message.status);
                (message.due_at, message.last_error) = (None, None);
                "sent"
            }
            Err(Fault::Later { why, after }) => {
                let pause = usize::try_from(message.attempts).ok();
                let pause = pause.and_then(|at| PAUSES_S.get(at)).copied();
                message.attempts += 1;
                message.last_error = Some(why);
                match pause {
                    Some(seconds) => {
                        let asked = after.map_or(0, |after| after.as_secs() as i64);
                        message.due_at = Some(now + seconds.max(asked) * SECOND);
                        "later"
                    }
                    None => failed(&mut message, "failed"),
                }
            }
            Err(Fault::Never(why)) => {
                message.attempts += 1;
                message.last_error = Some(why);
                failed(&mut message, "failed")
            }
            Err(Fault::Unknown(why)) => {
                message.attempts += 1;
                message.last_error = Some(why);
                failed(&mut message, "unknown")
            }
        };
        self.metrics
            .channel_deliveries
            .with_label_values(&[message.channel.as_str(), outcome])
            .inc();
        match self.store.record_outbound(&message, held).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, message = %message.id, "what became of a message is not kept");
            }
        }
        if outcome == "failed" || outcome == "unknown" {
            self.tell_failure(&message).await;
        }
    }

    async fn tell_failure(&self, message: &OutboundRow) {
        let data = json!({ "message_id": message.id, "deployment_id": message.deployment_id,
            "channel": message.channel, "run_id": message.run_id, "status": message.status,
            "error": message.last_error });
        let kind = format!("{}.send_failed", message.channel);
        let smith = Some(message.smith_id.as_str());
        let event = EventRow::new(&message.tenant_id, &kind, smith, &data, None);
        let kept = self.runs.tell(event).await;
        if let Err(error) = kept {
            tracing::warn!(%error, message = %message.id, "a failed message is not told");
        }
    }

    /// Sends the pieces that are not sent yet.
    async fn pieces(
        &self,
        channel: &Arc<dyn Channel>,
        message: &mut OutboundRow,
    ) -> Result<(), Fault> {
        let mut progress: Progress = serde_json::from_str(&message.progress).unwrap_or_default();
        if message.kind == "approval" {
            return self.card(channel, message, &mut progress).await;
        }
        let Some(text) = self.text(message).await? else {
            return Ok(());
        };
        let pieces = channel.messages(&text);
        let is_new = progress.sent.is_empty() && progress.sending.is_none();
        if let (true, Some(first)) = (is_new, pieces.first())
            && let Some(name) = self.settle(channel, message, first).await?
        {
            progress.sent.push(name);
            self.note(message, &progress).await?;
        }
        for (at, piece) in pieces.iter().enumerate().skip(progress.sent.len()) {
            self.begin(channel, message, &mut progress, at).await?;
            let key = format!("{}-{at}", message.id);
            let sent = channel.send(self, message, piece, &key).await;
            self.end(message, &mut progress, sent).await?;
        }
        Ok(())
    }

    async fn card(
        &self,
        channel: &Arc<dyn Channel>,
        message: &mut OutboundRow,
        progress: &mut Progress,
    ) -> Result<(), Fault> {
        let id = message.content.clone().unwrap_or_default();
        let approval = self.store.approval(&message.tenant_id, &id).await?;
        // Decided elsewhere before it was asked here.
        let Some(approval) = approval.filter(|approval| approval.status == ApprovalStatus::Pending)
        else {
            return Ok(());
        };
        if !progress.sent.is_empty() {
            return Ok(());
        }
        self.begin(channel, message, progress, 0).await?;
        let arguments: Value = serde_json::from_str(&approval.args).unwrap_or_default();
        let card = Card {
            approval_id: approval.id,
            tool: approval.tool.unwrap_or_default(),
            arguments: serde_json::to_string_pretty(&arguments).unwrap_or_default(),
            question: None,
            link: None,
        };
        let sent = channel.ask(self, message, &card).await;
        self.end(message, progress, sent).await
    }

    /// Notes that a piece is on its way: whoever finds that later does not know whether it came there.
    async fn begin(
        &self,
        channel: &Arc<dyn Channel>,
        message: &mut OutboundRow,
        progress: &mut Progress,
        at: usize,
    ) -> Result<(), Fault> {
        if progress.sending == Some(at) && !channel.is_idempotent() {
            let why = "the node that sent it stopped before it knew what became of it";
            return Err(Fault::Unknown(why.to_owned()));
        }
        progress.sending = Some(at);
        self.note(message, progress).await
    }

    async fn end(
        &self,
        message: &mut OutboundRow,
        progress: &mut Progress,
        sent: Result<String, Fault>,
    ) -> Result<(), Fault> {
        match sent {
            Ok(name) => {
                progress.sent.push(name);
                progress.sending = None;
                self.note(message, progress).await
            }
            Err(Fault::Unknown(why)) => Err(Fault::Unknown(why)),
            Err(fault) => {
                // It was refused, so it is on its way no more.
                progress.sending = None;
                message.progress = serde_json::to_string(progress).unwrap_or_default();
                Err(fault)
            }
        }
    }

    async fn note(&self, message: &mut OutboundRow, progress: &Progress) -> Result<(), Fault> {
        message.progress = serde_json::to_string(progress).unwrap_or_default();
        message.updated_at = now_micros();
        let held = message.due_at;
        message.due_at = Some(message.updated_at + HOLD);
        match self.store.record_outbound(message, held).await? {
            true => Ok(()),
            false => Err(Fault::Unknown("another node has taken it".to_owned())),
        }
    }

    /// What a message says; `None`: nothing.
    async fn text(&self, message: &OutboundRow) -> Result<Option<String>, Fault> {
        if message.kind != "answer" {
            return Ok(message.content.clone());
        }
        let Some(run_id) = &message.run_id else {
            return Ok(None);
        };
        let Some(run) = self.store.run(&message.tenant_id, run_id).await? else {
            return Ok(None);
        };
        let output = output_of(&run);
        let said = output["content"].as_str().unwrap_or_default();
        Ok(match run.status {
            RunStatus::Failed => Some(SORRY.to_owned()),
            _ if said.trim().is_empty() => None,
            _ => Some(said.to_owned()),
        })
    }
}

fn failed(message: &mut OutboundRow, status: &'static str) -> &'static str {
    status.clone_into(&mut message.status);
    message.due_at = None;
    status
}
