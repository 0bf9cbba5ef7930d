//! `GET /v1/conversations/{id}/items`: what was said, rebuilt from the runs' transcripts; a page is
//! found by what its items' ids are made of.

use axum::Json;
use axum::extract::{Path, State};

use super::conversations::found;
use super::items::{Item, Numbering, place_of};
use crate::auth::scope;
use crate::edge::AppState;
use crate::edge::extract::{Acting, May};
use crate::edge::page::{OaiList, SliceParams, SliceQuery};
use crate::error::ApiError;
use crate::ids;
use crate::model::Turn;
use crate::store::{ConversationRow, PAGE_BYTES, Rows, Slice};

/// Runs read in one step.
const STEP: i64 = 50;

/// The items of some turns that a conversation shows.
fn items_of(body: &str, turns: &[Turn]) -> Vec<Item> {
    let mut items = Numbering::new(body).items(turns);
    items.retain(|item| item.kind != "reasoning");
    items
}

/// Lists a conversation's items.
#[utoipa::path(get, path = "/v1/conversations/{id}/items", tag = "conversations",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header), SliceParams),
    responses((status = 200, body = OaiList<Item>)))]
pub async fn list(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::ConversationsRead>,
    Acting(smith): Acting,
    Path(id): Path<String>,
    query: SliceQuery,
) -> Result<Json<OaiList<Item>>, ApiError> {
    let conversation = found(&gateway, &caller, &smith, &id).await?;
    let items = gather(&gateway, &conversation, &query.slice).await?;
    Ok(Json(query.list(items, |item| item.id.clone(), |item| item)))
}

async fn gather(
    gateway: &AppState,
    conversation: &ConversationRow,
    slice: &Slice,
) -> Result<Rows<Item>, ApiError> {
    let own = ids::body(ids::Kind::Conversation, &conversation.id).unwrap_or(&conversation.id);
    let turns: Vec<Turn> = serde_json::from_str(&conversation.turns).map_err(ApiError::internal)?;
    let mut first = items_of(own, &turns);
    let after = slice.after.as_deref();
    let from = after.map(place_of).unwrap_or_default();
    if after.is_some() && from.is_none() {
        return Err(ApiError::invalid("after", "is no id of an item"));
    }
    let wanted = slice.limit as usize;
    let beyond = |found: &Item| match (from, place_of(&found.id)) {
        // Within the run of the cursor; whole runs are left out by the query.
        (Some((body, place)), Some((its_body, its_place))) if body == its_body => {
            if slice.ascending {
                its_place > place
            } else {
                its_place < place
            }
        }
        _ => true,
    };
    let mut bytes = 0;
    let mut items = Vec::new();
    if slice.ascending && from.is_none_or(|(body, _)| body == own) {
        items.extend(first.drain(..).filter(|item| beyond(item)));
    }
    let in_runs = slice.ascending || from.is_none_or(|(body, _)| body != own);
    // The cursor's own run is read again: the rest of it may be on this page.
    let mut cursor = from
        .filter(|(body, _)| *body != own)
        .map(|(body, _)| edge_of(body, slice.ascending));
    while in_runs && items.len() < wanted {
        let step = Slice {
            after: cursor.take(),
            before: None,
            ascending: slice.ascending,
            limit: STEP,
        };
        let runs = gateway
            .store
            .thread_runs(
                &conversation.tenant_id,
                &conversation.smith_id,
                &conversation.id,
                &step,
            )
            .await?;
        cursor = runs.last().map(|run| run.id.clone());
        let last = (runs.len() as i64) < STEP && !runs.is_cut();
        for run in runs {
            let body = ids::body(ids::Kind::Run, &run.id).unwrap_or(&run.id);
            let transcript = run.transcript.as_deref().unwrap_or("[]");
            bytes += transcript.len() as i64;
            let turns: Vec<Turn> = serde_json::from_str(transcript).map_err(ApiError::internal)?;
            let mut of_run = items_of(body, &turns);
            if !slice.ascending {
                of_run.reverse();
            }
            items.extend(of_run.into_iter().filter(|item| beyond(item)));
        }
        if last {
            break;
        }
        if bytes > PAGE_BYTES && !items.is_empty() {
            items.truncate(wanted);
            return Ok(Rows::new(items, true));
        }
    }
    if !slice.ascending && items.len() < wanted {
        first.reverse();
        items.extend(first.into_iter().filter(|item| beyond(item)));
    }
    items.truncate(wanted);
    Ok(items.into())
}

/// A run id just beside the one of `body`, so that a list which starts beyond it includes it.
fn edge_of(body: &str, ascending: bool) -> String {
    let run = format!("{}{body}", ids::Kind::Run.prefix());
    if ascending {
        // Ids have one length: cutting the last character gives something just below.
        run[..run.len() - run.chars().last().map_or(0, char::len_utf8)].to_owned()
    } else {
        format!("{run}~")
    }
}
