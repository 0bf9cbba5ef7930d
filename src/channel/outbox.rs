//! What is to be sent, sent: in order within a conversation, as often as it takes, and never twice
//! knowingly.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::forms::{connection_link, decision_link};
use super::outgoing::{Answer, Outgoing, Piece, notes};
use super::{Card, Channel, Fault, Hub, Question, held};
use crate::error::ApiError;
use crate::lane::SORRY;
use crate::run::output_of;
use crate::store::{ApprovalStatus, EventRow, OutboundRow, RunStatus, now_micros};
use crate::work::{Claim, Due, Held, Lane, Rules, Work};

const SECOND: i64 = 1_000_000;
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

/// What is to be sent.
pub struct Outbox(pub Arc<Hub>);

#[async_trait]
impl Work for Outbox {
    type Item = OutboundRow;
    /// The message as it is from now on.
    type Outcome = OutboundRow;

    fn rules(&self) -> Rules {
        held::rules("outbox")
    }

    async fn due(&self, now: i64, limit: i64) -> Result<Due, ApiError> {
        let tenants = self.0.store.tenants_with_outbound(now, limit).await?;
        Ok(held::due(&tenants))
    }

    /// The first of each conversation.
    async fn claim(&self, lane: &Lane, claim: Claim) -> Result<Vec<OutboundRow>, ApiError> {
        let (now, until, limit) = (claim.now, claim.until, claim.limit);
        let claimed = self
            .0
            .store
            .claim_outbound(&lane.tenant_id, now, until, limit);
        Ok(claimed.await?)
    }

    fn ended_nodes(&self, message: &OutboundRow) -> i64 {
        message.takings - 1
    }

    fn name(&self, message: &OutboundRow) -> String {
        message.id.clone()
    }

    async fn renew(
        &self,
        all: &[Arc<Held<OutboundRow>>],
        until: i64,
    ) -> Result<Vec<bool>, ApiError> {
        held::renew(self.0.store.as_ref(), all, until).await
    }

    async fn perform(&self, held: &Held<OutboundRow>) -> OutboundRow {
        self.0.deliver(held).await
    }

    fn given_up(&self, message: &OutboundRow, times: i64) -> OutboundRow {
        let mut message = message.clone();
        message.last_error = Some(format!("to send it ended its node {times} times"));
        failed(&mut message, "unknown");
        message
    }

    async fn settle(
        &self,
        _item: &OutboundRow,
        until: i64,
        message: &OutboundRow,
    ) -> Result<bool, ApiError> {
        let mut message = message.clone();
        (message.takings, message.updated_at) = (0, now_micros());
        if !self.0.store.record_outbound(&message, Some(until)).await? {
            return Ok(false);
        }
        let outcome = match message.status.as_str() {
            "pending" => "later",
            status => status,
        };
        let labels = [message.channel.as_str(), outcome];
        let deliveries = &self.0.metrics.channel_deliveries;
        deliveries.with_label_values(&labels).inc();
        if outcome == "failed" || outcome == "unknown" {
            self.0.tell_failure(&message).await;
        }
        Ok(true)
    }

    async fn release(&self, row: &OutboundRow, until: i64, now: i64) -> Result<bool, ApiError> {
        held::release(self.0.store.as_ref(), row, until, now).await
    }

    async fn uncount(&self, row: &OutboundRow) -> Result<(), ApiError> {
        held::uncount(self.0.store.as_ref(), row).await
    }
}

impl Hub {
    /// Sends a message; answers it as it is from now on.
    async fn deliver(&self, held: &Held<OutboundRow>) -> OutboundRow {
        let mut message = held.item.clone();
        let sent = match self.channel(&message.channel) {
            Some(channel) => self.pieces(channel, held, &mut message).await,
            None => Err(Fault::Never("there is no such channel here".to_owned())),
        };
        match sent {
            Ok(()) => {
                "sent".clone_into(&mut message.status);
                (message.due_at, message.last_error) = (None, None);
            }
            Err(Fault::Later { why, after }) => {
                let pause = usize::try_from(message.attempts).ok();
                let pause = pause.and_then(|at| PAUSES_S.get(at)).copied();
                message.attempts += 1;
                message.last_error = Some(why);
                match pause {
                    Some(seconds) => {
                        let asked = after.map_or(0, |after| after.as_secs() as i64);
                        message.due_at = Some(now_micros() + seconds.max(asked) * SECOND);
                    }
                    None => failed(&mut message, "failed"),
                }
            }
            Err(Fault::Never(why)) => {
                message.attempts += 1;
                message.last_error = Some(why);
                failed(&mut message, "failed");
            }
            Err(Fault::Unknown(why)) => {
                message.attempts += 1;
                message.last_error = Some(why);
                failed(&mut message, "unknown");
            }
        }
        message
    }

    pub(super) async fn tell_failure(&self, message: &OutboundRow) {
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
        held: &Held<OutboundRow>,
        message: &mut OutboundRow,
    ) -> Result<(), Fault> {
        let mut progress: Progress = serde_json::from_str(&message.progress).unwrap_or_default();
        if message.kind == "approval" {
            return self.card(channel, held, message, &mut progress).await;
        }
        let answer = self.answer(message).await?;
        let pieces = answer.pieces(channel.as_ref(), self.config.max_file_bytes);
        let is_new = progress.sent.is_empty() && progress.sending.is_none();
        if let (true, Some(Piece::Words(first, _))) = (is_new, pieces.first())
            && let Some(name) = self.settle(channel, message, first).await?
        {
            progress.sent.push(name);
            self.note(held, message, &progress).await?;
        }
        for (at, piece) in pieces.iter().enumerate().skip(progress.sent.len()) {
            self.begin(channel, held, message, &mut progress, at)
                .await?;
            let key = format!("{}-{at}", message.id);
            let sent = match piece {
                Piece::Words(words, replies) if replies.is_empty() => {
                    channel.send(self, message, words, &key).await
                }
                Piece::Words(words, replies) => {
                    channel.offer(self, message, words, replies, &key).await
                }
                Piece::Files(words, files) => {
                    self.send_files(channel, message, words, files, &key).await
                }
            };
            self.end(held, message, &mut progress, sent).await?;
        }
        Ok(())
    }

    /// Sends files; those that the platform refuses are told of in their place.
    async fn send_files(
        &self,
        channel: &Arc<dyn Channel>,
        message: &OutboundRow,
        words: &str,
        files: &[Outgoing],
        key: &str,
    ) -> Result<String, Fault> {
        match channel.send_files(self, message, words, files, key).await {
            Err(Fault::Never(why)) => {
                let (id, kind) = (&message.id, channel.kind());
                tracing::warn!(why, message = %id, channel = kind, "files are refused");
                let told = notes(files);
                let told = match words.is_empty() {
                    true => channel.messages(&told).concat(),
                    false => format!("{words}\n\n{told}"),
                };
                channel.send(self, message, &told, key).await
            }
            sent => sent,
        }
    }

    async fn card(
        &self,
        channel: &Arc<dyn Channel>,
        held: &Held<OutboundRow>,
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
        self.begin(channel, held, message, progress, 0).await?;
        let arguments: Value = serde_json::from_str(&approval.args).unwrap_or_default();
        let card = Card {
            approval_id: approval.id,
            tool: approval.tool.unwrap_or_default(),
            arguments: serde_json::to_string_pretty(&arguments).unwrap_or_default(),
            question: approval.elicitation.as_deref().and_then(Question::of),
            link: Some(self.link_of(message, &id).await?),
        };
        let sent = channel.ask(self, message, &card).await;
        self.end(held, message, progress, sent).await
    }

    /// The page on which whoever asked for a turn decides what it waits for.
    async fn link_of(&self, message: &OutboundRow, approval_id: &str) -> Result<String, Fault> {
        let run_id = message.run_id.as_deref().unwrap_or_default();
        let turns = self.store.turns_of_run(&message.tenant_id, run_id).await?;
        let actor = turns.last().map(|turn| turn.actor.as_str());
        let actor: Value = serde_json::from_str(actor.unwrap_or_default()).unwrap_or_default();
        let sender = actor["id"].as_str().unwrap_or_default();
        let (tenant, channel) = (&message.tenant_id, &message.channel);
        Ok(decision_link(self, tenant, approval_id, channel, sender)?)
    }

    /// Notes that a piece is on its way: whoever finds that later does not know whether it came there.
    async fn begin(
        &self,
        channel: &Arc<dyn Channel>,
        held: &Held<OutboundRow>,
        message: &mut OutboundRow,
        progress: &mut Progress,
        at: usize,
    ) -> Result<(), Fault> {
        if progress.sending == Some(at) && !channel.is_idempotent() {
            let why = "the node that sent it stopped before it knew what became of it";
            return Err(Fault::Unknown(why.to_owned()));
        }
        progress.sending = Some(at);
        let noted = self.note(held, message, progress).await;
        if matches!(noted, Err(Fault::Later { .. })) {
            // Nothing was sent, and what is written next says so: else the store's fault would leave it
            // as one of which nobody knows.
            progress.sending = None;
            message.progress = serde_json::to_string(progress).unwrap_or_default();
        }
        noted
    }

    async fn end(
        &self,
        held: &Held<OutboundRow>,
        message: &mut OutboundRow,
        progress: &mut Progress,
        sent: Result<String, Fault>,
    ) -> Result<(), Fault> {
        match sent {
            Ok(name) => {
                progress.sent.push(name);
                progress.sending = None;
                self.note(held, message, progress).await
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

    async fn note(
        &self,
        held: &Held<OutboundRow>,
        message: &mut OutboundRow,
        progress: &Progress,
    ) -> Result<(), Fault> {
        message.progress = serde_json::to_string(progress).unwrap_or_default();
        message.updated_at = now_micros();
        let fence = held.fence().await;
        message.due_at = Some(fence.until);
        let noted = self.store.record_outbound(message, Some(fence.until));
        match noted.await? {
            true => Ok(()),
            false => Err(Fault::Unknown("another node has taken it".to_owned())),
        }
    }

    /// What one of a message's pieces says; of files, that they could not be sent.
    pub(super) async fn words_at(
        &self,
        channel: &dyn Channel,
        message: &OutboundRow,
        at: usize,
    ) -> Result<Option<String>, Fault> {
        let answer = self.answer(message).await?;
        let pieces = answer.pieces(channel, self.config.max_file_bytes);
        Ok(pieces.into_iter().nth(at).map(|piece| match piece {
            Piece::Words(words, _) => words,
            Piece::Files(_, files) => channel.messages(&notes(&files)).concat(),
        }))
    }

    /// What a message says and carries.
    async fn answer(&self, message: &OutboundRow) -> Result<Answer, Fault> {
        if message.kind == "connection" {
            let provider = message.content.as_deref().unwrap_or_default();
            let link = connection_link(self, &message.tenant_id, &message.smith_id, provider)?;
            let asked = format!(
                "I need your leave to use {provider} for this. Please connect it here, then ask me again:\n\n{link}"
            );
            return Ok(Answer::of(&asked, None));
        }
        if message.kind != "answer" {
            let said = message.content.as_deref().unwrap_or_default();
            return Ok(Answer::of(said, None));
        }
        let Some(run_id) = &message.run_id else {
            return Ok(Answer::default());
        };
        let Some(run) = self.store.run(&message.tenant_id, run_id).await? else {
            return Ok(Answer::default());
        };
        let output = output_of(&run);
        let said = output["content"].as_str().unwrap_or_default();
        Ok(match run.status {
            RunStatus::Failed => Answer::of(SORRY, None),
            _ => {
                let mut answer = Answer::of(said, run.transcript.as_deref());
                let replies = output["suggested_replies"].as_array().into_iter().flatten();
                let replies = replies.filter_map(|reply| reply.as_str().map(str::to_owned));
                answer.replies = replies.collect();
                answer
            }
        })
    }
}

fn failed(message: &mut OutboundRow, status: &str) {
    status.clone_into(&mut message.status);
    message.due_at = None;
}
