//! Answers that appear while they are written, where a channel can show that.
//!
//! Whoever runs a turn shows it. What a channel notes of what it shows is kept with the turn, so that
//! whichever node sends the answer puts it in that place.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::outgoing::{before_unfinished, words_of};
use super::{Channel, Fault, Hub};
use crate::frame::Frame;
use crate::lane::Begun;
use crate::store::{OutboundRow, now_micros};

/// A platform has so long to show something.
const WITHIN: Duration = Duration::from_secs(10);
/// What was about to be shown for so long was not, or by a node that is gone, in microseconds.
const STALE: i64 = 15_000_000;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// An answer that is written within this is shown when it is whole.
const QUICK: Duration = Duration::from_millis(700);
/// Longest text that is shown while it is written, in bytes.
const MAX_SHOWN: usize = 256 * 1024;
/// Platforms forget within seconds that somebody types.
const TYPING_EVERY: Duration = Duration::from_secs(5);
/// A person is not shown for longer that they are answered.
const TYPING_FOR: Duration = Duration::from_secs(300);

/// Notes that a run's answer is on its way to be shown, as long as it is there.
struct Showing<'a> {
    hub: &'a Hub,
    run_id: String,
}

impl<'a> Showing<'a> {
    fn begin(hub: &'a Hub, run_id: &str) -> Self {
        let run_id = run_id.to_owned();
        hub.showing.lock().insert(run_id.clone());
        Self { hub, run_id }
    }
}

impl Drop for Showing<'_> {
    fn drop(&mut self) {
        self.hub.showing.lock().remove(&self.run_id);
    }
}

fn add_text(text: &mut String, frames: &mut Vec<Frame>) {
    for frame in frames.drain(..) {
        if let Frame::Text(piece) = frame {
            text.push_str(&piece.unescape());
        }
    }
    // Files are sent with the whole answer, and no place for words has room for them.
    if let Cow::Owned(words) = words_of(text) {
        *text = words;
    }
}

impl Hub {
    /// Shows the answers of turns that begin on this node, for ever.
    pub async fn show_answers(self: Arc<Self>) {
        let mut begun = self.begun.lock().await;
        while let Some(begun) = begun.recv().await {
            let Some(channel) = self.channel(&begun.channel).cloned() else {
                continue;
            };
            let hub = self.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = hub.show_answer(&channel, &begun) => {}
                    () = hub.show_typing(&channel, &begun) => {}
                }
            });
        }
    }

    /// Tells again and again that somebody is answered; never ends before the answer.
    async fn show_typing(&self, channel: &Arc<dyn Channel>, begun: &Begun) {
        let began = tokio::time::Instant::now();
        while began.elapsed() < TYPING_FOR && !begun.live.is_closed() {
            channel
                .typing(self, &begun.tenant_id, &begun.reply_to)
                .await;
            tokio::time::sleep(TYPING_EVERY).await;
        }
        std::future::pending::<()>().await;
    }

    async fn show_answer(&self, channel: &Arc<dyn Channel>, begun: &Begun) {
        let mut draft = Value::Null;
        self.show_words(channel, begun, &mut draft).await;
        if draft.is_null() {
            return;
        }
        // What was said before a human was asked stays where it is: the answer comes below that, and
        // is told as new.
        let run = self.store.run(&begun.tenant_id, &begun.live.run_id).await;
        if run.is_ok_and(|run| run.is_some_and(|run| run.status.is_paused())) {
            self.note_draft(begun, &Value::Null).await;
        }
    }

    async fn show_words(&self, channel: &Arc<dyn Channel>, begun: &Begun, draft: &mut Value) {
        let every = channel.shows_every();
        let mut reader = begun.live.reader();
        let (mut text, mut shown) = (String::new(), 0);
        let mut frames = Vec::new();
        while reader.next(&mut frames).await {
            add_text(&mut text, &mut frames);
            let Some(every) = every else {
                continue;
            };
            if shown == 0 && !text.trim().is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(QUICK) => {}
                    () = self.until_closed(begun) => return,
                }
                while !self.is_next(begun).await {
                    tokio::select! {
                        () = tokio::time::sleep(every) => {}
                        () = self.until_closed(begun) => return,
                    }
                }
                reader.take(&mut frames);
                add_text(&mut text, &mut frames);
            }
            let words = before_unfinished(&text);
            if words.len() > MAX_SHOWN || words.len() == shown || words.trim().is_empty() {
                continue;
            }
            let showing = Showing::begin(self, &begun.live.run_id);
            if begun.live.is_closed() {
                return;
            }
            if draft.is_null() && !self.note_draft(begun, &json!({})).await {
                return;
            }
            let before = draft.clone();
            let (tenant, to) = (&begun.tenant_id, &begun.reply_to);
            let show = channel.show(self, tenant, to, draft, words);
            let outcome = tokio::time::timeout(WITHIN, show).await;
            // That nothing is shown is noted, too: who sends the answer waits for what is meant to be.
            let is_news = *draft != before || draft.is_null();
            if is_news && !self.note_draft(begun, draft).await {
                return;
            }
            drop(showing);
            shown = words.len();
            let pause = match outcome {
                Ok(Ok(())) => every,
                Ok(Err(Fault::Later { why, after })) => {
                    tracing::debug!(why, "an answer is shown later");
                    after.unwrap_or(every).max(every)
                }
                Ok(Err(Fault::Never(why) | Fault::Unknown(why))) => {
                    tracing::info!(
                        why,
                        channel = channel.kind(),
                        "an answer is not shown as it is written"
                    );
                    return self.until_closed(begun).await;
                }
                Err(_) => return self.until_closed(begun).await,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.until_closed(begun) => return,
            }
        }
    }

    /// Whether all that comes before an answer in its conversation is sent: what is shown earlier would
    /// stand above it for ever.
    async fn is_next(&self, begun: &Begun) -> bool {
        let (tenant, channel) = (&begun.tenant_id, &begun.channel);
        let waits = self.store.has_outbound(tenant, channel, &begun.chat).await;
        matches!(waits, Ok(false))
    }

    async fn until_closed(&self, begun: &Begun) {
        begun.live.reader().ready(usize::MAX / 2).await;
    }

    /// Keeps what a channel notes; `false`: it is not kept, and nothing more is shown.
    async fn note_draft(&self, begun: &Begun, draft: &Value) -> bool {
        let text = draft.to_string();
        let (tenant, turn) = (&begun.tenant_id, &begun.turn_id);
        let noted = self.store.note_draft(tenant, turn, &text, now_micros());
        match noted.await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, turn, "what is shown of an answer is not noted");
                false
            }
        }
    }

    /// What is shown of the answer that a message is; waits until that changes no more.
    async fn draft_of(&self, message: &OutboundRow) -> Result<Option<Value>, Fault> {
        let Some(run_id) = message.run_id.as_ref().filter(|_| message.kind == "answer") else {
            return Ok(None);
        };
        loop {
            let turns = self.store.turns_of_run(&message.tenant_id, run_id).await?;
            let turn = turns.into_iter().rev().find(|turn| turn.draft.is_some());
            let Some((text, since)) = turn.and_then(|t| t.draft.map(|d| (d, t.updated_at))) else {
                // It may be about to be noted.
                if self.showing.lock().contains(run_id) {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                return Ok(None);
            };
            let is_here = self.showing.lock().contains(run_id);
            let draft: Value = serde_json::from_str(&text).unwrap_or_default();
            if draft.is_null() && !is_here {
                return Ok(None);
            }
            let is_meant = draft == json!({});
            if is_here || (is_meant && now_micros() - since < STALE) {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            return Ok(Some(draft).filter(|_| !is_meant));
        }
    }

    /// Puts the first message of an answer where it was shown as it was written; `None`: it is to be
    /// sent as any other.
    pub(super) async fn settle(
        &self,
        channel: &Arc<dyn Channel>,
        message: &OutboundRow,
        piece: &str,
    ) -> Result<Option<String>, Fault> {
        let Some(draft) = self.draft_of(message).await? else {
            return Ok(None);
        };
        match channel.settle(self, message, &draft, piece).await {
            // The same place takes the same words again.
            Err(Fault::Unknown(why)) => Err(Fault::later(why)),
            Err(Fault::Never(why)) => {
                tracing::info!(
                    why,
                    channel = channel.kind(),
                    "what was shown is no place for the answer"
                );
                Ok(None)
            }
            settled => settled,
        }
    }
}
