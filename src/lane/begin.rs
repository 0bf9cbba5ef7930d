//! What a turn in a lane asks of its run, and what is told of one that becomes none.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Lanes;
use crate::error::ApiError;
use crate::json::Object;
use crate::model::Turn;
use crate::run::{RunRequest, Thread};
use crate::store::{EventRow, QueuedTurnRow, TurnEnd, now_micros};

/// What a sender is told whose turn becomes no run, or whose run fails.
pub const SORRY: &str = "Something went wrong, and I could not answer. Please try again.";

impl Lanes {
    /// Begins the one run of some turns.
    pub(super) async fn start(&self, group: &[&QueuedTurnRow]) -> Result<(), ApiError> {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            return Ok(());
        };
        let mut input: Vec<Turn> = Vec::new();
        let mut record: Vec<Value> = Vec::new();
        for turn in group {
            let more: Vec<Turn> = read(&turn.turns)?;
            input.extend(more);
            let more: Vec<Value> = read(&turn.input)?;
            record.extend(more);
        }
        let (tenant_id, smith_id): (Arc<str>, Arc<str>) = (
            first.tenant_id.as_str().into(),
            first.smith_id.as_str().into(),
        );
        let permit = self.gate.begin_lane_run(&tenant_id, &smith_id)?;
        let metadata = last.metadata.as_deref().map(Object::parse_or_empty);
        let (channel, actor) = (first.channel.as_str(), read(&last.actor)?);
        let request = RunRequest {
            run_id: first.run_id.clone(),
            thread: Thread::Kept(first.thread_id.clone()),
            input,
            input_record: Value::Array(record).to_string(),
            extra_instructions: last.context.clone(),
            metadata,
            detached: true,
            ..RunRequest::of_nobody(tenant_id, smith_id, channel, actor, permit)
        };
        let started = self.runs.start(request).await?;
        self.has_begun(last, started.reader.run());
        Ok(())
    }

    /// Ends a turn that becomes no run, and says so in the feed.
    pub(super) async fn fail(
        &self,
        turn: &QueuedTurnRow,
        error: &ApiError,
    ) -> Result<(), ApiError> {
        tracing::info!(delivery_id = %turn.id, %error, "a queued turn becomes no run");
        let data = json!({
            "delivery_id": turn.id,
            "source_id": turn.source_id,
            "channel": turn.channel,
            "thread_id": turn.thread_id,
            "code": error.code,
            "error": error.message,
        });
        let actor: Option<Value> = serde_json::from_str(&turn.actor).ok();
        let smith_id = Some(turn.smith_id.as_str());
        let event = EventRow::new(
            &turn.tenant_id,
            "turn.failed",
            smith_id,
            &data,
            actor.as_ref(),
        );
        self.metrics
            .lane_failures
            .with_label_values(&[turn.channel.as_str()])
            .inc();
        let why = format!("{}: {}", error.code, error.message);
        let (end, now) = (TurnEnd::Failed, now_micros());
        self.store
            .end_turn(
                &turn.tenant_id,
                &turn.id,
                end,
                Some(&why),
                Some((&event, SORRY)),
                now,
            )
            .await?;
        self.runs.answers_due.notify_one();
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    serde_json::from_str(text).map_err(ApiError::internal)
}
