//! From what arrived to what is to be done.

use std::sync::Arc;

use serde_json::{Value, json};

use super::bind::{Answerer, context};
use super::{Arrival, Channel, Command, Decision, Fault, Hub, Meaning, Said};
use crate::error::ApiError;
use crate::ids;
use crate::model::{Part, Role, Turn};
use crate::run::Word;
use crate::store::{
    ArrivalEnd, BindingRow, EventRow, InboundRow, OutboundRow, QueuedTurnRow, now_micros,
};

/// Longest text of a message that becomes a turn, in bytes.
const MAX_TEXT: usize = 256 * 1024;

const HELP: &str = "Write to me, and I answer. /new begins a new conversation, /stop ends what I am \
    doing.";

impl Hub {
    /// Keeps an arrival, and has it interpreted; `false`: it was there already.
    pub async fn accept(
        &self,
        tenant_id: &str,
        source: &str,
        arrival: Arrival,
    ) -> Result<bool, ApiError> {
        let kept = self.accept_named(tenant_id, source, arrival).await?;
        Ok(kept.is_some())
    }

    /// The same; the arrival's id, when it is new.
    pub async fn accept_named(
        &self,
        tenant_id: &str,
        source: &str,
        arrival: Arrival,
    ) -> Result<Option<String>, ApiError> {
        let now = now_micros();
        let row = InboundRow {
            id: ids::mint(ids::Kind::InboundEvent),
            tenant_id: tenant_id.to_owned(),
            source: source.to_owned(),
            kind: arrival.kind,
            subject: arrival.subject,
            idempotency_key: arrival.key,
            smith_id: String::new(),
            data: arrival.data.to_string(),
            status: "accepted".to_owned(),
            reason: None,
            takings: 0,
            attempts: 0,
            due_at: Some(now),
            created_at: now,
        };
        let id = row.id.clone();
        let is_new = self.accepting.accept(&self.store, row).await?;
        let outcome = if is_new { "accepted" } else { "repeated" };
        self.metrics
            .channel_arrivals
            .with_label_values(&[source, outcome])
            .inc();
        self.arrived.notify_one();
        Ok(is_new.then_some(id))
    }

    pub(super) async fn led_to(
        &self,
        channel: &Arc<dyn Channel>,
        arrival: &InboundRow,
    ) -> Result<ArrivalEnd, Fault> {
        match channel.interpret(self, arrival).await? {
            Meaning::Nothing(why) => Ok(ArrivalEnd {
                reason: Some(why.to_owned()),
                ..ArrivalEnd::default()
            }),
            Meaning::Said(said) => self.said(arrival, *said).await,
            Meaning::Decided(press) => self.decided(channel, arrival, press).await,
            Meaning::TakenBack(chat, message) => {
                let (tenant_id, kind) = (&arrival.tenant_id, &arrival.source);
                let waits = self
                    .store
                    .waiting_message(tenant_id, kind, &chat, &message)
                    .await?;
                let Some((smith_id, thread)) = waits else {
                    return Ok(ArrivalEnd {
                        reason: Some("the message that was taken back does not wait".to_owned()),
                        ..ArrivalEnd::default()
                    });
                };
                Ok(ArrivalEnd {
                    taken_back: Some((smith_id.clone(), thread, message)),
                    smith_id,
                    ..ArrivalEnd::default()
                })
            }
        }
    }

    async fn said(&self, arrival: &InboundRow, said: Said) -> Result<ArrivalEnd, Fault> {
        if let Some(Command::Start(Some(token))) = &said.command
            && let Some((answerer, binding)) = self.bind_by_token(arrival, &said, token).await?
        {
            return Ok(self.bound_by_token(arrival, &said, answerer, binding));
        }
        let Some((answerer, binding)) = self.answerer(arrival, &said).await? else {
            let data = json!({ "inbound_event_id": arrival.id, "channel": arrival.source,
                "sender": said.sender.to_json(&arrival.source), "chat": said.chat });
            let event = EventRow::new(&arrival.tenant_id, "unbound_message", None, &data, None);
            return Ok(ArrivalEnd {
                reason: Some("nobody is bound to this sender".to_owned()),
                events: vec![event],
                ..ArrivalEnd::default()
            });
        };
        let smith_id = answerer.smith_id.clone();
        let thread = self.thread(arrival, &said.chat, &smith_id).await?;
        let mut end = ArrivalEnd {
            smith_id: smith_id.clone(),
            binding,
            ..ArrivalEnd::default()
        };
        let notice = |text: &str| notice(arrival, &said, &answerer, text);
        match &said.command {
            None => {}
            Some(Command::Start(_) | Command::Help) => {
                end.outbound.push(notice(HELP));
                return Ok(end);
            }
            Some(Command::New) => {
                end.thread = Some((said.chat.clone(), smith_id, ids::mint(ids::Kind::Thread)));
                end.outbound.push(notice("A new conversation begins here."));
                return Ok(end);
            }
            Some(Command::Stop) => {
                let stopped = self.stop_run(arrival, &smith_id, &thread).await?;
                let text = match stopped {
                    true => "Stopped.",
                    false => "There is nothing to stop.",
                };
                end.outbound.push(notice(text));
                return Ok(end);
            }
        }
        if said.is_edit {
            // What still waits is replaced; what was answered is not answered again.
            let waits = self
                .store
                .waits_in_lane(&arrival.tenant_id, &smith_id, &thread, &said.message)
                .await?;
            if !waits {
                end.reason = Some("the message was answered before it was changed".to_owned());
                return Ok(end);
            }
            end.taken_back = Some((smith_id, thread.clone(), said.message.clone()));
        }
        let data = json!({ "inbound_event_id": arrival.id, "channel": arrival.source,
            "deployment_id": answerer.deployment.id, "thread_id": thread,
            "sender": said.sender.to_json(&arrival.source) });
        let smith = Some(answerer.smith_id.as_str());
        end.events.push(EventRow::new(
            &arrival.tenant_id,
            "deployment.inbound",
            smith,
            &data,
            None,
        ));
        end.turns.push(turn(arrival, said, &answerer, thread)?);
        Ok(end)
    }

    fn bound_by_token(
        &self,
        arrival: &InboundRow,
        said: &Said,
        answerer: Answerer,
        binding: BindingRow,
    ) -> ArrivalEnd {
        let data = json!({ "deployment_id": answerer.deployment.id, "channel": arrival.source,
            "chat": said.chat, "sender": said.sender.to_json(&arrival.source) });
        let smith = Some(answerer.smith_id.as_str());
        let event = EventRow::new(&arrival.tenant_id, "deployment.bound", smith, &data, None);
        ArrivalEnd {
            outbound: vec![notice(
                arrival,
                said,
                &answerer,
                "We are connected. Write to me.",
            )],
            smith_id: answerer.smith_id,
            binding: Some(binding),
            events: vec![event],
            ..ArrivalEnd::default()
        }
    }

    /// Ends the run that is under way in a thread; `false` when there is none.
    async fn stop_run(
        &self,
        arrival: &InboundRow,
        smith_id: &str,
        thread: &str,
    ) -> Result<bool, Fault> {
        let tenant_id = &arrival.tenant_id;
        let turn = self.store.running_turn(tenant_id, smith_id, thread).await?;
        let Some(turn) = turn else {
            return Ok(false);
        };
        let Some(run) = self.store.run(tenant_id, &turn.run_id).await? else {
            return Ok(false);
        };
        self.runs
            .ask_to_end(&run, Some("the person stopped it".to_owned()))
            .await?;
        Ok(true)
    }

    /// Writes a human's decision. Only who was asked may decide: the sender of the turn that asks, in
    /// the conversation that was asked.
    async fn decided(
        &self,
        channel: &Arc<dyn Channel>,
        arrival: &InboundRow,
        press: Decision,
    ) -> Result<ArrivalEnd, Fault> {
        let tenant_id = &arrival.tenant_id;
        let nothing = |why: &str| ArrivalEnd {
            reason: Some(why.to_owned()),
            ..ArrivalEnd::default()
        };
        let approval = self.store.approval(tenant_id, &press.approval_id).await?;
        let run_id = approval.as_ref().and_then(|found| found.run_id.clone());
        let Some((approval, run_id)) = approval.zip(run_id) else {
            channel
                .decided(self, arrival, "This question is gone.", true)
                .await;
            return Ok(nothing("there is no such approval"));
        };
        let turns = self.store.turns_of_run(tenant_id, &run_id).await?;
        let asked = turns.iter().any(|turn| {
            let actor: Value = serde_json::from_str(&turn.actor).unwrap_or_default();
            turn.channel == arrival.source
                && turn.chat.as_deref() == Some(&press.chat)
                && actor["id"] == json!(press.sender.id)
        });
        if !asked {
            let why = "Only the person who asked may decide this.";
            channel.decided(self, arrival, why, false).await;
            return Ok(nothing("the press is not of who was asked"));
        }
        let Some(run) = self.store.run(tenant_id, &run_id).await? else {
            return Ok(nothing("there is no such run"));
        };
        let word = Word {
            approval_id: Some(approval.id.clone()),
            approve: press.approve,
            content: press.content,
            actor: Some(actor_of(arrival, &press.sender.id)),
            ..Word::default()
        };
        let tool = approval.tool.as_deref().unwrap_or("the question");
        let text = match self.runs.decide(&run, &word).await {
            Ok(_) if press.approve => format!("✅ Approved: {}", tool),
            Ok(_) => format!("❌ Rejected: {}", tool),
            Err(error) if error.status.as_u16() == 409 => {
                let now = self.store.approval(tenant_id, &approval.id).await?;
                let status = now.map_or("over", |now| now.status.as_str());
                format!("This is {status} already: {}", tool)
            }
            // What was entered is not what was asked for: whoever entered it can do so again.
            Err(error) if error.status.as_u16() == 400 => {
                channel.decided(self, arrival, &error.message, false).await;
                return Ok(nothing("what was entered does not answer the question"));
            }
            Err(error) => return Err(error.into()),
        };
        channel.decided(self, arrival, &text, true).await;
        Ok(ArrivalEnd {
            smith_id: run.smith_id,
            ..ArrivalEnd::default()
        })
    }
}

/// A sender as the actor of what they do.
fn actor_of(arrival: &InboundRow, sender: &str) -> Value {
    json!({ "kind": arrival.source, "id": sender, "token_id": "", "email": "" })
}

/// A message of the gateway's own.
fn notice(arrival: &InboundRow, said: &Said, answerer: &Answerer, text: &str) -> OutboundRow {
    let now = now_micros();
    OutboundRow {
        id: ids::beside(ids::Kind::Outbound, ids::Kind::InboundEvent, &arrival.id),
        tenant_id: arrival.tenant_id.clone(),
        smith_id: answerer.smith_id.clone(),
        deployment_id: answerer.deployment.id.clone(),
        channel: arrival.source.clone(),
        chat: said.chat.clone(),
        kind: "notice".to_owned(),
        reply_to: said.reply_to.to_string(),
        content: Some(text.to_owned()),
        ..OutboundRow::pending(now)
    }
}

/// The turn that an arrival becomes.
pub fn turn_of(arrival_id: &str) -> String {
    ids::beside(ids::Kind::QueuedTurn, ids::Kind::InboundEvent, arrival_id)
}

fn turn(
    arrival: &InboundRow,
    said: Said,
    answerer: &Answerer,
    thread: String,
) -> Result<QueuedTurnRow, Fault> {
    let now = now_micros();
    let mut text = said.text.clone();
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str("\n(The rest of this message is too long.)");
    }
    let mut parts = Vec::with_capacity(said.parts.len() + 1);
    let mut content = Vec::with_capacity(said.parts.len() + 1);
    if !text.is_empty() || said.parts.is_empty() {
        content.push(json!({ "type": "text", "text": text }));
        parts.push(Part::Text { text });
    }
    for part in &said.parts {
        content.push(shown(part));
    }
    let context = context(&arrival.source, &said);
    let metadata = json!({
        "channel": arrival.source,
        "sender": said.sender.to_json(&arrival.source),
        "chat": said.chat,
        "deployment_id": answerer.deployment.id,
        "inbound_event_id": arrival.id,
    });
    parts.extend(said.parts);
    let turns = [Turn {
        role: Role::User,
        parts,
    }];
    let turns = serde_json::to_string(&turns).map_err(|error| Fault::Never(error.to_string()))?;
    Ok(QueuedTurnRow {
        // Of the arrival, so that it never becomes two.
        id: turn_of(&arrival.id),
        tenant_id: arrival.tenant_id.clone(),
        smith_id: answerer.smith_id.clone(),
        thread_id: thread,
        place: 0,
        channel: arrival.source.clone(),
        source_id: answerer.deployment.id.clone(),
        turns,
        input: json!([{ "role": "user", "content": content }]).to_string(),
        context: Some(context),
        metadata: Some(metadata.to_string()),
        actor: actor_of(arrival, &said.sender.id).to_string(),
        reply_to: Some(said.reply_to.to_string()),
        chat: Some(said.chat),
        message: Some(said.message),
        rule: answerer.rule().as_str().to_owned(),
        run_id: ids::mint(ids::Kind::Run),
        status: "queued".to_owned(),
        reason: None,
        draft: None,
        created_at: now,
        updated_at: now,
    })
}

/// A part as the run's record shows it.
fn shown(part: &Part) -> Value {
    use crate::model::Source;
    let source = |source: &Source| match source {
        Source::FileId { id } => json!({ "file_id": id }),
        _ => json!({}),
    };
    let (kind, mut value) = match part {
        Part::Image { source: from, .. } => ("image", source(from)),
        Part::File { source: from, name } => {
            let mut value = source(from);
            value["filename"] = json!(name);
            ("file", value)
        }
        Part::Text { text } => ("text", json!({ "text": text })),
        _ => ("file", json!({})),
    };
    value["type"] = json!(kind);
    value
}
