//! The loop: call the model, keep the frames, call the tools, close the record.
//!
//! A run's row is committed before its first frame goes out, and its end before its last, so that
//! no client ever knows more than the store does. Everything between goes to the journal behind
//! the stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::StatusCode;

use super::account::ModelSpan;
use super::finish::unbroken;
use super::frame_log::FrameLog;
use super::job::{End, Job};
use super::live::Cancelled;
use super::runs::Runs;
use super::tools::{Called, calls_of, lost, mark, mark_approved};
use super::transcript::{Collected, Collector};
use crate::error::ApiError;
use crate::frame::{Escaped, Frame, Room, StopReason};
use crate::store::{Op, now_micros};

/// Model calls of one run (`tools.md`).
const MAX_MODEL_CALLS: usize = 32;

/// Where a run stands when nothing more is to be done for now.
enum Turned {
    Answered(Box<Collected>),
    Waiting,
    Rejected,
}

impl Runs {
    pub(super) async fn run(self: Arc<Self>, mut job: Box<Job>) {
        let live = job.live.clone();
        let mut log = FrameLog::new(&live, self.node_id.clone(), &self.bus);
        let turned = tokio::select! {
            biased;
            why = live.cancelled() => Err(End::Cancelled(why)),
            turned = unbroken(self.turn(&mut job, &mut log)) => turned.map_err(End::Failed),
        };
        let turned = match turned {
            Ok(Turned::Waiting) => match Box::pin(self.pause(&mut job, &mut log)).await {
                Ok(()) => None,
                Err(error) => Some(End::Failed(error)),
            },
            Ok(Turned::Answered(answer)) => Some(End::Completed(answer)),
            Ok(Turned::Rejected) => Some(End::Rejected),
            Err(end) => Some(end),
        };
        let collector = match &turned {
            Some(End::Failed(_) | End::Cancelled(_)) => job.said(),
            _ => Collector::default(),
        };
        let calls = &mut job.progress.model_calls;
        if let (Some(call), Some(end)) =
            (calls.last_mut().filter(|call| call.ended_at == 0), &turned)
        {
            call.ended_at = now_micros();
            call.usage = call.usage.or(collector.usage);
            match end {
                End::Failed(error) => call.error = Some(error.code.to_string()),
                End::Cancelled(_) => call.error = Some("cancelled".to_owned()),
                End::Completed(_) | End::Rejected => {}
            }
        }
        if matches!(turned, Some(End::Cancelled(Cancelled::ClientGone))) {
            self.metrics.cancelled_calls.inc();
        }
        match turned {
            None => {}
            Some(End::Failed(error)) if error.code == lost().code => {
                self.is_alive(&live).await;
                let _ = live.failure.set(error);
                // The stream ends without a terminal frame: "unknown", which is the truth here.
                live.close(&mut Vec::new());
            }
            Some(end) => Box::pin(self.end(job, log, collector, end)).await,
        }
        self.live.write().remove(&live.run_id);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Model calls and tool calls in turn, until there is an answer or humans must decide.
    async fn turn(&self, job: &mut Job, log: &mut FrameLog) -> Result<Turned, ApiError> {
        loop {
            if !job.progress.pending.is_empty() {
                match Box::pin(self.call_tools(job, log)).await? {
                    Called::Waiting => return Ok(Turned::Waiting),
                    Called::Rejected => return Ok(Turned::Rejected),
                    Called::All => {}
                }
                let results = job.progress.results();
                if let Some(turn) = job.progress.steps.last_mut() {
                    mark_approved(&mut turn.parts, &job.progress.pending);
                }
                job.request().turns.push(results.clone());
                job.progress.steps.push(results);
                job.progress.pending.clear();
            }
            if job.progress.model_calls.len() >= MAX_MODEL_CALLS {
                return Err(ApiError::new(
                    StatusCode::BAD_GATEWAY,
                    "tool_loop_failed",
                    format!("no answer after {MAX_MODEL_CALLS} model calls"),
                ));
            }
            if !job.progress.model_calls.is_empty() {
                // What the calls before have cost is known by now, and of other runs as well.
                self.budgets.check(&job.effective.spender()).await?;
            }
            job.speaks_from = Some(log.count());
            let collector = self.model_call(job, log).await?;
            // Calls of an answer that was cut may be cut themselves, and are not made.
            let is_cut = collector.stop == Some(StopReason::MaxTokens);
            let is_last = job.tools.defs.is_empty() || !collector.has_calls() || is_cut;
            let answer = collector.finish();
            if is_last {
                return Ok(Turned::Answered(Box::new(answer)));
            }
            job.speaks_from = None;
            self.step(job, log, answer);
        }
    }

    /// Takes in a model's turn that calls the smith's own tools.
    fn step(&self, job: &mut Job, log: &mut FrameLog, mut answer: Collected) {
        let live = &job.live;
        self.models
            .continuity
            .remember(&live.tenant_id, &live.smith_id, &answer.parts);
        let text = answer.text();
        if !text.is_empty() {
            let content = Escaped::escape(&text);
            let mut said = vec![Frame::MessageCompleted { content }];
            log.add(&said);
            log.tell();
            live.write(&mut said);
        }
        job.progress.usage.add(&answer.usage);
        job.progress.pending = calls_of(&answer.parts);
        mark(&mut answer.parts, &job.tools);
        let turn = answer.into_turn();
        job.request().turns.push(turn.clone());
        job.progress.steps.push(turn);
        // What the caller forced was for the first call.
        job.request().tool_choice = None;
    }

    /// One model call, and what it said; before the first, the run's own first frame.
    async fn model_call(&self, job: &mut Job, log: &mut FrameLog) -> Result<Collector, ApiError> {
        let live = job.live.clone();
        let routes = job.routes.clone();
        if let Some(first) = routes.first() {
            job.progress.model_calls.reserve_exact(1);
            job.progress.model_calls.push(ModelSpan {
                started_at: now_micros(),
                ended_at: 0,
                provider: first.provider.to_string(),
                model: first.model.clone(),
                usage: None,
                cost: None,
                error: None,
            });
        }
        let asked = job.request.get_or_insert_default();
        let model_call =
            Box::pin(
                self.models
                    .stream(&live.tenant_id, &live.smith_id, routes, asked, &[]),
            );
        let mut frames = Vec::with_capacity(2);
        if log.count() == 0 {
            frames.push(Frame::RunStarted {
                smith_id: Bytes::copy_from_slice(live.smith_id.as_bytes()),
                thread_id: Bytes::copy_from_slice(live.thread_id.as_bytes()),
            });
        }
        let mut call = if job.committed {
            log.add(&frames);
            log.tell();
            live.write(&mut frames);
            model_call.await?
        } else {
            // The row is committed while the provider thinks: so it costs no time.
            let takes_writes = self.journal.health().took_lately();
            let announce = async {
                self.journal
                    .commit(Op::CreateRun(job.row.clone(), None))
                    .await?;
                log.add(&frames);
                log.tell();
                live.write(&mut frames);
                Ok::<_, ApiError>(())
            };
            if takes_writes {
                let (announced, call) = tokio::join!(announce, model_call);
                job.committed = announced.is_ok();
                announced?;
                call?
            } else {
                // A store that was not heard of for a while may take none, and then nobody is asked.
                announce.await?;
                job.committed = true;
                model_call.await?
            }
        };
        job.forget_request();
        job.forget_input();
        // What is kept for as long as the run, in memory of its own.
        let mut room = Room::default();
        loop {
            let more = call.frames(&mut frames).await;
            frames.iter_mut().for_each(|frame| frame.settle(&mut room));
            log.add(&frames);
            log.tell();
            live.write(&mut frames);
            log.flush_if_due(&self.journal);
            if !more? {
                break;
            }
            live.wait_for_client(self.limits.max_lead_bytes).await;
        }
        let collector = job.said();
        let usage = collector.usage.unwrap_or_default();
        let route = &call.route;
        let cost = self.accounting.add(
            &job.effective.spender(),
            &route.provider,
            &route.model,
            &usage,
        );
        if let Some(span) = job.progress.model_calls.last_mut() {
            span.ended_at = now_micros();
            span.provider = route.provider.to_string();
            span.model.clone_from(&route.model);
            span.usage = Some(usage);
            span.cost = cost;
        }
        Ok(collector)
    }
}
