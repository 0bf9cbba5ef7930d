//! A human's decisions on a run that waits, and what comes of them. With an `Idempotency-Key` they are
//! answered again with what the run said since, and are not taken a second time.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::turn::RunTurn;
use crate::auth::{Principal, Scope};
use crate::edge::Exchange;
use crate::edge::idempotency::{OnceMore, in_progress, key_of};
use crate::error::ApiError;
use crate::frame::{Frame, Usage};
use crate::gateway::Gateway;
use crate::run::{LiveRun, Word, that_count};
use crate::store::{ApprovalStatus, RunRow, RunStatus, now_seconds};
use crate::wire::keyed::keyed;

/// What a call decides.
pub struct Asked<'a> {
    pub run_id: &'a str,
    pub words: Vec<Word>,
    /// The places of the items that the answer begins with, where a wire numbers them.
    pub places: [usize; 2],
    /// What a key is held to.
    pub body: &'a Bytes,
}

/// Where the answer to decisions begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// In Unix seconds.
    pub at: i64,
    pub places: [usize; 2],
    /// The first frame of the answer; none when others must still decide.
    from: Option<usize>,
    /// Approvals that others must still decide.
    waiting: Vec<String>,
}

/// The answer to decisions.
pub struct Decided {
    pub turn: RunTurn,
    pub begun: Begun,
}

/// Writes decisions on a run that waits, and follows what comes of them; with a key, once.
pub async fn decide(
    exchange: &Exchange,
    principal: &Arc<Principal>,
    smith_id: &str,
    asked: Asked<'_>,
) -> Result<Decided, ApiError> {
    principal.require(Scope::ApprovalsWrite)?;
    let gateway = &exchange.gateway;
    let run = gateway
        .store
        .run(&principal.tenant_id, asked.run_id)
        .await?
        .filter(|run| run.smith_id == smith_id)
        .ok_or_else(|| ApiError::not_found("run", asked.run_id))?;
    let Some(key) = key_of(&exchange.request().headers)? else {
        return first(gateway, principal, &run, asked).await;
    };
    let claimed = keyed(exchange, principal, key).claim(asked.body).await?;
    let mine = match claimed {
        OnceMore::Mine(mine) => mine,
        OnceMore::Done(_, begun) => {
            let begun: Begun = serde_json::from_slice(&begun).map_err(ApiError::internal)?;
            return again(gateway, &run, begun).await;
        }
    };
    match first(gateway, principal, &run, asked).await {
        Ok(decided) => {
            let begun = serde_json::to_vec(&decided.begun).map_err(ApiError::internal)?;
            mine.finish(StatusCode::OK, &begun).await?;
            Ok(decided)
        }
        Err(error) => {
            mine.abandon().await;
            Err(error)
        }
    }
}

async fn first(
    gateway: &Gateway,
    principal: &Principal,
    run: &RunRow,
    asked: Asked<'_>,
) -> Result<Decided, ApiError> {
    let mut words = that_count(asked.words);
    for word in &mut words {
        word.actor = Some(principal.actor());
    }
    let mut begun = Begun {
        at: now_seconds(),
        places: asked.places,
        from: None,
        waiting: Vec::new(),
    };
    if let Some(live) = gateway.runs.decide_all(run, &words).await? {
        begun.from = Some(live.resumed_at());
        let turn = RunTurn::new(live.later_reader());
        return Ok(Decided { turn, begun });
    }
    let approvals = gateway.store.run_approvals(&run.tenant_id, &run.id).await?;
    let waiting = approvals
        .into_iter()
        .filter(|row| row.status == ApprovalStatus::Pending);
    begun.waiting = waiting.map(|row| row.id).collect();
    let frames = gateway.runs.logged_frames(&run.tenant_id, &run.id).await?;
    Ok(still_asked(run, frames, begun))
}

/// Others are still to be decided: they are asked for once more.
fn still_asked(run: &RunRow, mut frames: Vec<Frame>, begun: Begun) -> Decided {
    frames.retain(|frame| match frame {
        Frame::ApprovalRequired(asked) => {
            let mut waiting = begun.waiting.iter();
            waiting.any(|id| id.as_bytes() == &asked.approval_id[..])
        }
        _ => false,
    });
    frames.push(Frame::RunPaused {
        status: Bytes::from_static(RunStatus::PausedForApproval.as_str().as_bytes()),
        usage: Usage::default(),
    });
    said(run, frames, begun)
}

/// What the run said since, up to where it rested.
async fn again(gateway: &Gateway, run: &RunRow, begun: Begun) -> Result<Decided, ApiError> {
    gateway.runs.check_frames(run).await?;
    let mut frames = gateway.runs.logged_frames(&run.tenant_id, &run.id).await?;
    let Some(from) = begun.from else {
        return Ok(still_asked(run, frames, begun));
    };
    let mut since = frames.split_off(from.min(frames.len()));
    let rest = since.iter().position(Frame::is_rest);
    since.truncate(rest.ok_or_else(in_progress)? + 1);
    Ok(said(run, since, begun))
}

fn said(run: &RunRow, mut frames: Vec<Frame>, begun: Begun) -> Decided {
    let live = LiveRun::resumed(run, true, Vec::new());
    live.close(&mut frames);
    Decided {
        turn: RunTurn::new(live.reader()),
        begun,
    }
}
