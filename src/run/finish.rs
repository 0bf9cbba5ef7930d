//! The end of a run: its record, its last frames, its event, trace and ledger, in one write.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::account;
use super::consolidation::said_in;
use super::frame_log::FrameLog;
use super::job::{End, Job, failed_frame};
use super::live::{Cancelled, LiveRun};
use super::runs::Runs;
use super::state::Progress;
use super::tools::lost;
use super::transcript::Collector;
use crate::error::ApiError;
use crate::frame::{self, Escaped, Frame, StopReason, Usage};
use crate::ids;
use crate::model::{Role, Turn, joined_text};
use crate::store::{JournalError, Op, RunEnd, RunRow, RunStatus, now_micros};

/// Longest title that a conversation is given.
const TITLE_CHARS: usize = 80;

impl Runs {
    /// A conversation is named after its first user turn.
    async fn touch_conversation(&self, job: &Job) {
        let thread = &job.row.thread_id;
        if ids::body(ids::Kind::Conversation, thread).is_none() {
            return;
        }
        let said = job.new_turns.iter().find(|turn| turn.role == Role::User);
        let text = said.map(|turn| joined_text(&turn.parts));
        let title: String = text
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(TITLE_CHARS)
            .collect();
        let touched = self
            .store
            .title_conversation(&job.row.tenant_id, thread, &title, now_micros())
            .await;
        if let Err(error) = touched {
            tracing::warn!(%error, "cannot name a conversation");
        }
    }

    async fn finish(
        self: &Arc<Self>,
        mut job: Box<Job>,
        mut log: FrameLog,
        collector: Collector,
        end: End,
    ) {
        let live = job.live.clone();
        if !job.committed {
            // The run failed or was cancelled while its row was on its way.
            let created = Op::CreateRun(job.row.clone(), None);
            if let Err(error) = self.journal.commit(created).await {
                tracing::error!(run_id = %live.run_id, %error, "a run was not kept");
                refuse(&live, error.into());
                return;
            }
            job.committed = true;
        }
        self.touch_conversation(&job).await;
        let end = match end {
            End::Completed(answer) => {
                let checked = self.check_answer(&live.tenant_id, job.format(), &answer);
                match Box::pin(checked).await {
                    Ok(()) => End::Completed(answer),
                    Err(error) => End::Failed(error),
                }
            }
            other => other,
        };
        let warnings = Value::Array(std::mem::take(&mut job.warnings)).to_string();
        let mut row = RunEnd {
            tenant_id: job.row.tenant_id.clone(),
            id: job.row.id.clone(),
            node_id: self.node_id.clone(),
            has_state: job.has_state,
            status: RunStatus::Completed,
            transcript: None,
            output: None,
            stop_reason: None,
            error_code: None,
            error: None,
            warnings: warnings.clone(),
            token_usage: None,
            frames: None,
            event: None,
            trace: None,
            ledger: None,
            of_lane: job.row.may_be_of_lane(),
            updated_at: now_micros(),
        };
        let mut used = job.progress.usage;
        let mut last = Vec::new();
        let mut to_note = None;
        match end {
            End::Completed(answer) => {
                self.models
                    .continuity
                    .remember(&live.tenant_id, &live.smith_id, &answer.parts);
                let said = Escaped::escape(&answer.said());
                if !said.is_empty() {
                    last.push(Frame::MessageCompleted {
                        content: said.clone(),
                    });
                }
                used.add(&answer.usage);
                last.push(Frame::RunCompleted {
                    stop: answer.stop,
                    usage: used,
                    warnings: Bytes::from(warnings),
                });
                let mut turns = std::mem::take(&mut job.new_turns);
                turns.append(&mut job.progress.steps);
                let is_json = job.format().is_some();
                let replies = job.progress.suggested_replies.take();
                row.output = Some(answer.output(&said, true, is_json, replies.as_deref()));
                row.stop_reason = Some(answer.stop.as_str());
                turns.push(answer.into_turn());
                if job.effective.config.memory_consolidation == Some(true) {
                    to_note = Some(said_in(&turns));
                }
                row.transcript = transcript(&turns, said.as_bytes().len());
            }
            End::Rejected => {
                let stop = StopReason::ApprovalRejected;
                last.push(Frame::RunCompleted {
                    stop,
                    usage: used,
                    warnings: Bytes::from(warnings),
                });
                let said = job.progress.steps.last();
                let text = said
                    .map(|turn| joined_text(&turn.parts).into_owned())
                    .unwrap_or_default();
                let mut turns = std::mem::take(&mut job.new_turns);
                let results = job.progress.results();
                turns.append(&mut job.progress.steps);
                turns.push(results);
                row.transcript = transcript(&turns, 0);
                let output = json!({ "content": text, "content_type": "text/plain" });
                row.output = Some(output.to_string());
                row.stop_reason = Some(stop.as_str());
            }
            End::Failed(error) => {
                tracing::info!(run_id = %live.run_id, code = %error.code, message = %error.message,
                    "run failed");
                last.push(failed_frame(&error));
                let _ = live.failure.set(error.clone());
                row.status = RunStatus::Failed;
                row.stop_reason = Some(StopReason::Error.as_str());
                row.output = partial_output(collector, &mut used);
                row.error_code = Some(error.code.into_owned());
                row.error = Some(error.message.into_owned());
            }
            End::Cancelled(why) => {
                let reason = match &why {
                    Cancelled::Asked(reason) => reason.clone().unwrap_or_default(),
                    Cancelled::ClientGone => "the client left".to_owned(),
                    Cancelled::Shutdown => "the node is shutting down".to_owned(),
                };
                last.push(Frame::RunCancelled {
                    reason: Bytes::from(reason),
                });
                row.status = RunStatus::Cancelled;
                row.stop_reason = Some(StopReason::Cancelled.as_str());
                row.output = partial_output(collector, &mut used);
            }
        }
        log.add_last(&last);
        row.frames = Some(log.take());
        let used = (used != Usage::default() || row.status == RunStatus::Completed).then_some(used);
        row.token_usage = used.as_ref().map(|usage| job.used(usage));
        row.event = account::event(&job.row, &row, used.as_ref());
        let Progress {
            model_calls,
            tool_calls,
            pending,
            ..
        } = &job.progress;
        row.trace = Some(account::trace(&job.row, &row, model_calls, tool_calls));
        row.ledger = account::ledger(&job.row, &job.effective.spender(), model_calls);
        for approval in pending.iter().filter_map(|call| call.approval_id.as_ref()) {
            self.held.lock().remove(approval);
        }
        match self.journal.try_commit(Op::EndRun(Box::new(row))).await {
            Ok(true) => {
                log.tell();
                if job.row.may_be_of_lane() {
                    self.lane_due.notify_one();
                    self.answers_due.notify_one();
                }
                if let Some(said) = to_note.filter(|said| !said.is_empty()) {
                    self.consolidate(&job, said);
                }
            }
            Ok(false) => {
                self.is_alive(&live).await;
                let _ = live.failure.set(lost());
                // How it ends is told by the node that has it.
                last.clear();
            }
            // The client must not take for kept what is not.
            Err((error, op)) => {
                tracing::error!(run_id = %live.run_id, %error, "the end of a run was not kept");
                let error = ApiError::from(error);
                if let Op::EndRun(row) = op {
                    self.settle_later(row, &job.row, &error, last.len());
                }
                refuse(&live, error);
                return;
            }
        }
        live.close(&mut last);
    }

    /// Ends a run, whatever breaks off meanwhile: nobody may wait for it for ever.
    pub(super) async fn end(
        self: &Arc<Self>,
        job: Box<Job>,
        log: FrameLog,
        collector: Collector,
        end: End,
    ) {
        let (live, row) = (job.live.clone(), job.row.clone());
        let finished = Box::pin(self.finish(job, log, collector, end)).map(Ok);
        let Err(error) = unbroken(finished).await else {
            return;
        };
        if let Err(error) = self.fail(&row, &error).await {
            tracing::error!(%error, run_id = %live.run_id, "a run is not ended");
        }
        if !live.is_closed() {
            refuse(&live, error);
        }
    }

    /// Remembers, for when the store takes writes again, that a run's client was told of a failure:
    /// of `end`, its `last` frames were not shown.
    fn settle_later(&self, mut end: Box<RunEnd>, run: &RunRow, error: &ApiError, last: usize) {
        end.status = RunStatus::Failed;
        end.stop_reason = Some(StopReason::Error.as_str());
        end.transcript = None;
        end.error_code = Some(error.code.to_string());
        end.error = Some(error.message.to_string());
        if let Some((first, bytes)) = end.frames.take() {
            let mut frames = frame::decode_all(bytes.into()).unwrap_or_default();
            frames.truncate(frames.len().saturating_sub(last));
            frames.push(failed_frame(error));
            let mut bytes = BytesMut::new();
            frame::encode_all(&frames, &mut bytes);
            end.frames = Some((first, bytes.into()));
        }
        end.event = account::event(run, &end, None);
        if let Some(record) = &mut end.trace {
            let root = record.spans.first_mut().map(|span| &mut span.status);
            for status in root.into_iter().chain([&mut record.trace.status]) {
                "error".clone_into(status);
            }
        }
        let mut unsettled = self.unsettled.lock();
        if unsettled.len() < MAX_UNSETTLED {
            unsettled.push(*end);
        }
    }

    /// Writes the ends of runs that the store did not take, and ends those of this node that nobody
    /// knows of any more.
    pub async fn settle(&self) -> Result<(), ApiError> {
        if self.journal.check().is_err() {
            return Ok(());
        }
        let unsettled = std::mem::take(&mut *self.unsettled.lock());
        let mut left = unsettled.into_iter();
        for end in left.by_ref() {
            if let Err((error, Op::EndRun(end))) =
                self.journal.try_commit(Op::EndRun(Box::new(end))).await
            {
                let mut unsettled = self.unsettled.lock();
                unsettled.push(*end);
                unsettled.extend(left);
                return Err(error.into());
            }
        }
        if !self.journal.health().has_lost_within(2 * FORGOTTEN) {
            return Ok(());
        }
        let error = ApiError::from(JournalError::Unavailable);
        let before = now_micros() - FORGOTTEN.as_micros() as i64;
        for run in self.store.idle_runs(&self.node_id, before).await? {
            if self.live(&run.tenant_id, &run.id).is_none() {
                self.fail(&run, &error).await?;
            }
        }
        Ok(())
    }
}

/// Ends of runs that are remembered for a store that takes none.
const MAX_UNSETTLED: usize = 10_000;
/// A run that its node has not, and was not touched for so long, was forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// A fault of ours in a turn fails it, as any other does: what panics must not leave a run that is
/// under way for ever.
pub(super) fn unbroken<T>(
    turn: impl Future<Output = Result<T, ApiError>>,
) -> impl Future<Output = Result<T, ApiError>> {
    let caught = std::panic::AssertUnwindSafe(turn).catch_unwind();
    caught.map(|done| done.unwrap_or_else(|_| Err(ApiError::internal("a turn panicked"))))
}

/// Ends a run's stream with an error: its client must not take for kept what is not.
fn refuse(live: &LiveRun, error: ApiError) {
    let mut last = vec![failed_frame(&error)];
    let _ = live.failure.set(error);
    live.close(&mut last);
}

/// What was said before a run failed or was cancelled, whose tokens are added to `used`.
fn partial_output(collector: Collector, used: &mut Usage) -> Option<String> {
    if let Some(usage) = &collector.usage {
        used.add(usage);
    }
    let answer = collector.finish();
    let said = Escaped::escape(&answer.said());
    (!said.is_empty()).then(|| answer.output(&said, false, false, None))
}

/// The turns of a run as JSON text, of which `about` bytes are known of.
fn transcript(turns: &[Turn], about: usize) -> Option<String> {
    let mut text = Vec::with_capacity(about + 512);
    serde_json::to_writer(&mut text, turns).ok()?;
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_panics_has_failed() {
        let done = unbroken(async { Ok(1) }).await;
        assert_eq!(done.expect("done"), 1);
        let error = unbroken(async {
            tokio::task::yield_now().await;
            let none: Option<u8> = std::hint::black_box(None);
            Ok(none.expect("a fault of ours"))
        });
        let error = error.await.expect_err("failed");
        assert_eq!(error.status, http::StatusCode::INTERNAL_SERVER_ERROR);
    }
}
