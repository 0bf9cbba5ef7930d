//! `Idempotency-Key` on the wires that answer with a smith's turn: the key stands for the run, and a
//! replay is answered once more from the run's frames, in the wire's own words.
//!
//! A run from which no answer came (it failed, or was cancelled when its client left) gives its key
//! to the next request. A call that decides on a run that waits is `decision`'s.
//!
//! Without a smith, the key stands for the provider's answer: a whole one is kept, up to a bound, and
//! given again as it was. What is not kept gives its key back: an error, an answer that is too long,
//! and a stream, when it ends. Until then, a replay is 409.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::turn::RunTurn;
use crate::auth::Principal;
use crate::edge::Exchange;
use crate::edge::idempotency::{Claim, Keyed, Mine, OnceMore, in_progress, key_of};
use crate::error::ApiError;
use crate::frame::Frame;
use crate::run::LiveRun;
use crate::store::RunRow;

/// What a call is to do.
pub enum Key {
    /// Its turn begins; with a key it is settled what became of that.
    New(Option<Mine>),
    /// Its turn was run.
    Again(Box<Again>),
}

/// A run that was begun with the key before.
pub struct Again {
    pub run: RunRow,
    /// Up to where its first answer ended.
    frames: Vec<Frame>,
}

/// A call that has a key.
pub fn keyed<'a>(exchange: &'a Exchange, principal: &'a Arc<Principal>, key: &'a str) -> Keyed<'a> {
    let head = exchange.request();
    Keyed {
        gateway: &exchange.gateway,
        principal,
        headers: &head.headers,
        method: &head.method,
        path: head.uri.path(),
        query: head.uri.query().unwrap_or_default(),
        key,
    }
}

/// The first answer to a call without a smith that is sent again. For one that is not, the exchange
/// holds its key, if it has one, until it is answered.
pub async fn first_answer(
    exchange: &mut Exchange,
    principal: &Arc<Principal>,
    body: &Bytes,
) -> Result<Option<(StatusCode, Bytes)>, ApiError> {
    let Some(key) = key_of(&exchange.request().headers)? else {
        return Ok(None);
    };
    let keyed = keyed(exchange, principal, key);
    // Boxed: most calls have no key.
    let claimed = Box::pin(keyed.claim(body)).await?;
    match claimed {
        OnceMore::Mine(mine) => {
            exchange.hold_key(mine);
            Ok(None)
        }
        OnceMore::Done(status, body) => {
            exchange.is_replay = true;
            Ok(Some((status, body)))
        }
    }
}

impl Key {
    /// Looks whether the call has a key, and claims it for the run `run_id`. For a call that only
    /// begins its run (`in_background`), that is the answer; else it is what the run said.
    pub async fn claim(
        exchange: &mut Exchange,
        principal: &Arc<Principal>,
        body: &Bytes,
        run_id: &str,
        in_background: bool,
    ) -> Result<Self, ApiError> {
        let Some(key) = key_of(&exchange.request().headers)? else {
            return Ok(Self::New(None));
        };
        let gateway = &exchange.gateway;
        let keyed = keyed(exchange, principal, key);
        let (mine, first) = match keyed.claim_run(body, run_id).await? {
            Claim::Mine(mine) => return Ok(Self::New(Some(mine))),
            Claim::Earlier(mine, first) => (mine, first),
        };
        let run = gateway.store.run(&principal.tenant_id, &first).await?;
        let run = run.ok_or_else(in_progress)?;
        let mut frames = Vec::new();
        if !in_background {
            gateway.runs.check_frames(&run).await?;
            frames = gateway.runs.logged_frames(&run.tenant_id, &run.id).await?;
            let rest = frames.iter().position(Frame::is_rest);
            frames.truncate(rest.ok_or_else(in_progress)? + 1);
            if let Some(Frame::RunFailed { .. } | Frame::RunCancelled { .. }) = frames.last() {
                return Ok(Self::New(Some(mine.instead_of(&first).await?)));
            }
        }
        exchange.is_replay = true;
        Ok(Self::Again(Box::new(Again { run, frames })))
    }

    /// Gives the key back when nothing came of the call.
    pub async fn settle<T>(mine: Option<Mine>, begun: Result<T, ApiError>) -> Result<T, ApiError> {
        let error = match begun {
            Ok(begun) => return Ok(begun),
            Err(error) => error,
        };
        if let Some(mine) = mine {
            mine.abandon().await;
        }
        Err(error)
    }
}

impl Again {
    /// The run once more, as if it had just said all that.
    pub fn turn(self) -> RunTurn {
        let live = LiveRun::resumed(&self.run, true, Vec::new());
        let mut frames = self.frames;
        live.close(&mut frames);
        RunTurn::new(live.reader())
    }
}
