//! Which run a page follows: that of a turn which may still have to wait, or one that it names.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use super::settings::Settings;
use super::visitor::Visit;
use crate::channel::Hub;
use crate::error::ApiError;
use crate::store::{RunRow, now_micros};

/// How often is looked for what becomes of a turn: at first, and once it has waited for a while.
const LOOK_EVERY: Duration = Duration::from_millis(25);
const LATER: Duration = Duration::from_millis(250);
const SOON: i64 = 2_000_000;
/// How long an arrival may take to become a turn.
const TURN_WITHIN: i64 = 90_000_000;
/// How often is looked whether a page is still there.
const STILL_THERE: Duration = Duration::from_secs(2);

/// What a page may follow.
pub struct Awaited {
    pub tenant_id: String,
    pub run_id: String,
    /// As the store has it, if it has it by now.
    pub run: Option<RunRow>,
    pub settings: Settings,
}

fn named(query: &str, name: &str) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// Waits for the run that `query` names, by `turn` or by `run`, which must be of the visitor's own
/// conversation.
pub async fn awaited(
    hub: &Hub,
    id: &str,
    headers: &HeaderMap,
    query: &str,
) -> Result<Awaited, ApiError> {
    let visit = Visit::of(hub, id, headers).await?;
    let tenant_id = visit.deployment.tenant_id.clone();
    let (run_id, run) = match (named(query, "turn"), named(query, "run")) {
        (Some(turn), _) => run_of_turn(hub, &visit, &turn).await?,
        (None, Some(run)) => {
            let found = hub.store.run(&tenant_id, &run).await?;
            let found = found.filter(|found| found.thread_id == visit.thread());
            let found = found.ok_or_else(|| ApiError::not_found("run", &run))?;
            (run, Some(found))
        }
        (None, None) => return Err(ApiError::invalid("run", "is missing")),
    };
    Ok(Awaited {
        tenant_id,
        run_id,
        run,
        settings: visit.settings,
    })
}

pub(super) async fn run_of_turn(
    hub: &Hub,
    visit: &Visit,
    turn_id: &str,
) -> Result<(String, Option<RunRow>), ApiError> {
    let (tenant_id, chat) = (&visit.deployment.tenant_id, visit.chat());
    let missing = || ApiError::not_found("turn", turn_id);
    let begun = now_micros();
    loop {
        let waited = now_micros() - begun;
        match hub.store.queued_turn(tenant_id, turn_id).await? {
            Some(turn) if turn.chat.as_ref() != Some(&chat) => return Err(missing()),
            Some(turn) if turn.status == "failed" || turn.status == "dropped" => {
                let why = turn.reason.as_deref().unwrap_or_default();
                tracing::info!(turn_id, why, "a page's message became no run");
                let status = StatusCode::CONFLICT;
                return Err(ApiError::new(status, "turn_failed", crate::lane::SORRY));
            }
            Some(turn) if turn.status != "queued" => {
                let run = hub.store.run(tenant_id, &turn.run_id).await?;
                if run.is_some() || hub.runs.live(tenant_id, &turn.run_id).is_some() {
                    return Ok((turn.run_id, run));
                }
            }
            Some(_) => {}
            None if waited > TURN_WITHIN => return Err(missing()),
            None => {}
        }
        let pause = if waited < SOON { LOOK_EVERY } else { LATER };
        tokio::time::sleep(pause).await;
    }
}

/// Returns when a page is there no more.
pub async fn until_gone(hub: &Hub, id: &str) {
    loop {
        tokio::time::sleep(STILL_THERE).await;
        if let Ok(None) = hub.store.web_page(id).await {
            return;
        }
    }
}
