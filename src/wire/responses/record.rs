//! `/v1/responses/{id}`: responses as records. Making and streaming them is the edge's. A response
//! is a run, and its id holds the run's; runs of other wires are shown in the same shape.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::AppState;
use super::conversations::Deleted;
use super::extract::May;
use super::page::{OaiList, SliceParams, SliceQuery};
use super::runs::cancel_run;
use crate::auth::{Principal, named_smith, scope};
use crate::error::ApiError;
use crate::frame::StopReason;
use crate::gateway::Gateway;
use crate::model::{Part, Role, Turn};
use crate::run::{ResponseRecord, usage_of};
use crate::store::{RunRow, RunStatus};
use crate::wire::responses::items::{Item, Numbering, approval_request, push_turn, turn_of};
use crate::wire::responses::tools::decode_tools;
use crate::wire::responses::{Head, Status, body_of};

/// A run with what the Responses wire shows of its request.
pub struct Stored {
    pub run: RunRow,
    pub record: ResponseRecord,
    turns: Vec<Turn>,
}

impl Stored {
    /// The response of a run; `None` when there is none, or when it was not to be kept.
    pub async fn load(
        gateway: &Gateway,
        tenant_id: &Arc<str>,
        run_id: &str,
    ) -> Result<Option<Self>, ApiError> {
        let found = Self::of_run(gateway, tenant_id, run_id).await?;
        Ok(found.filter(|stored| stored.record.store))
    }

    /// The response of a run, whether it was to be kept or not.
    pub async fn of_run(
        gateway: &Gateway,
        tenant_id: &Arc<str>,
        run_id: &str,
    ) -> Result<Option<Self>, ApiError> {
        let Some(run) = gateway.store.run(tenant_id, run_id).await? else {
            return Ok(None);
        };
        let turns: Vec<Turn> = match &run.transcript {
            Some(text) => serde_json::from_str(text).map_err(ApiError::internal)?,
            None => Vec::new(),
        };
        let record = match &run.response {
            Some(text) => serde_json::from_str(text).map_err(ApiError::internal)?,
            None => of_other_wire(&run, &turns),
        };
        Ok(Some(Self { run, record, turns }))
    }

    /// The response that a caller names, when it may see it.
    pub async fn find(
        gateway: &Gateway,
        caller: &Principal,
        named_smith: Option<&str>,
        id: &str,
    ) -> Result<Self, ApiError> {
        let missing = || ApiError::not_found("response", id);
        let smith = caller.acting_smith(named_smith)?;
        let run_id = body_of(id).map(|body| format!("run_{body}"));
        let run_id = run_id.ok_or_else(missing)?;
        let stored = Self::load(gateway, &caller.tenant_id, &run_id).await?;
        let is_own = |stored: &Self| smith.is_none_or(|smith| *smith == *stored.run.smith_id);
        stored.filter(is_own).ok_or_else(missing)
    }

    fn body(&self) -> &str {
        body_of(&self.run.id).unwrap_or(&self.run.id)
    }

    /// What the object repeats at each stage.
    pub fn head(&self) -> Head {
        Head {
            id: format!("resp_{}", self.body()),
            created_at: self.run.created_at / 1_000_000,
            echo: self.record.echo.clone(),
        }
    }

    /// Behind the input's items.
    pub fn answer_numbering(&self) -> Numbering {
        self.numbering_at(self.record.places)
    }

    /// Behind the items before these places.
    pub fn numbering_at(&self, places: [usize; 2]) -> Numbering {
        Numbering::at(self.body(), places)
            .with_tools(self.record.echo.get("tools"))
            .with_results(self.record.results)
    }

    /// Behind all items so far, for a run that goes on.
    pub fn next_places(&self) -> [usize; 2] {
        let mut numbering = self.answer_numbering();
        numbering.items(self.said());
        numbering.places()
    }

    fn said(&self) -> &[Turn] {
        let said = self.turns.get(self.record.input_turns..);
        said.unwrap_or_default()
    }

    /// Whether the run's tools are those of its smith.
    pub fn has_own_tools(&self) -> bool {
        let tools = self.record.echo.get("tools").and_then(Value::as_array);
        let tools = tools.map(|tools| decode_tools(tools).unwrap_or_default().defs);
        let is_callers =
            |part: &Part| matches!(part, Part::ToolCall { server, .. } if server.is_none());
        tools.is_none_or(|tools| tools.is_empty())
            && !self
                .said()
                .iter()
                .flat_map(|turn| &turn.parts)
                .any(is_callers)
    }

    /// What humans must decide before the run goes on.
    fn requests(&self) -> Vec<Value> {
        let output = self.run.output.as_deref().unwrap_or_default();
        let output: Value = serde_json::from_str(output).unwrap_or_default();
        let waiting = output["tool_calls"].as_array();
        let waiting = waiting.filter(|_| self.run.status == RunStatus::PausedForApproval);
        let request = |call: &Value| {
            let text = |name: &str| call[name].as_str().unwrap_or_default();
            let id = format!("{}::{}", self.run.id, text("tool_call_id"));
            let arguments = call["args"].to_string();
            approval_request(&id, text("server"), text("tool"), &arguments)
        };
        waiting.into_iter().flatten().map(request).collect()
    }

    /// The response object as it stands.
    pub fn response(&self) -> Value {
        let run = &self.run;
        let message = || run.error.clone().unwrap_or_default();
        let status = match run.status {
            RunStatus::Queued => Status::Queued,
            RunStatus::Running => Status::InProgress,
            RunStatus::Failed => {
                let code = run.error_code.clone().unwrap_or_default();
                Status::Failed(ApiError::new(
                    http::StatusCode::BAD_GATEWAY,
                    code,
                    message(),
                ))
            }
            RunStatus::Cancelled => Status::Cancelled("the response was cancelled".to_owned()),
            _ => {
                let stop = json!(run.stop_reason);
                let stop = serde_json::from_value(stop).unwrap_or(StopReason::EndTurn);
                Status::Ended(stop, usage_of(run).unwrap_or_default())
            }
        };
        let mut numbering = self.answer_numbering();
        let mut items = numbering.listed(&self.record.listed);
        items.extend(numbering.items(self.said()));
        let mut output = answer_items(items, self.record.encrypted);
        output.extend(self.requests());
        self.head().response(&status, output)
    }

    /// The items that were answered.
    fn input_items(&self) -> Vec<Item> {
        let mut numbering = Numbering::new(self.body());
        if let Some(said) = self.turns.get(..self.record.input_turns)
            && !said.is_empty()
        {
            return numbering.items(said);
        }
        // A run that has not ended well has no transcript: its record tells what was asked.
        let record: Vec<Map<String, Value>> =
            serde_json::from_str(&self.run.input).unwrap_or_default();
        let mut turns = Vec::new();
        for turn in record
            .iter()
            .filter_map(|item| turn_of(item).ok().flatten())
        {
            push_turn(&mut turns, turn);
        }
        numbering.items(&turns)
    }
}

/// A run that came over another wire, in the shape of a response.
fn of_other_wire(run: &RunRow, turns: &[Turn]) -> ResponseRecord {
    let last_asked = turns.iter().rposition(|turn| turn.role == Role::User);
    let input_turns = last_asked.map_or(0, |at| at + 1);
    let mut numbering = Numbering::new(body_of(&run.id).unwrap_or(&run.id));
    numbering.items(&turns[..input_turns]);
    let metadata: Value =
        serde_json::from_str(run.metadata.as_deref().unwrap_or("{}")).unwrap_or_else(|_| json!({}));
    let echo = json!({
        "background": false, "conversation": null, "instructions": null, "metadata": metadata,
        "model": "", "parallel_tool_calls": true, "previous_response_id": null, "store": true,
        "temperature": 1.0, "text": { "format": { "type": "text" } }, "tool_choice": "auto",
        "tools": [], "top_p": 1.0, "truncation": "disabled",
    });
    ResponseRecord {
        store: true,
        input_turns,
        places: numbering.places(),
        echo: echo.as_object().cloned().unwrap_or_default(),
        ..ResponseRecord::default()
    }
}

/// Items of an answer, as `output` shows them.
pub fn answer_items(items: Vec<Item>, encrypted: bool) -> Vec<Value> {
    let shown = |mut item: Item| {
        if item.kind == "reasoning" && !encrypted {
            item.members.insert("encrypted_content".into(), Value::Null);
        }
        item.to_value()
    };
    items.into_iter().map(shown).collect()
}

/// Reads a response. With `stream=true` its events are sent, those behind `starting_after`.
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header),
        ("stream" = Option<bool>, Query), ("starting_after" = Option<i64>, Query, minimum = 0)),
    responses((status = 200, content(
        (Object = "application/json"), (String = "text/event-stream")))))]
pub async fn one(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsRead>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    Ok(Json(stored.response()))
}

/// Deletes a response: it can be read and continued no more. The run's record stays.
#[utoipa::path(delete, path = "/v1/responses/{id}", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header)),
    responses((status = 200, body = Deleted)))]
pub async fn remove(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsWrite>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Deleted>, ApiError> {
    let mut stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    stored.record.store = false;
    let record = serde_json::to_string(&stored.record).map_err(ApiError::internal)?;
    let run = &stored.run;
    let kept = gateway.store.set_response(&run.tenant_id, &run.id, &record);
    if !kept.await? {
        return Err(ApiError::not_found("response", &id));
    }
    Ok(Json(Deleted {
        id,
        object: "response",
        deleted: true,
    }))
}

/// Cancels a response that is under way; one that has ended is shown as it is.
#[utoipa::path(post, path = "/v1/responses/{id}/cancel", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header)),
    responses((status = 200, body = Object)))]
pub async fn cancel(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsWrite>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    if !stored.run.is_under_way() {
        return Ok(Json(stored.response()));
    }
    cancel_run(&gateway, &stored.run, None).await?;
    let stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    Ok(Json(stored.response()))
}

/// Lists what a response answers.
#[utoipa::path(get, path = "/v1/responses/{id}/input_items", tag = "wires",
    params(("id" = String, Path), ("IC-Smith-Id" = Option<String>, Header), SliceParams),
    responses((status = 200, body = OaiList<Item>)))]
pub async fn input_items(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsRead>,
    headers: HeaderMap,
    Path(id): Path<String>,
    query: SliceQuery,
) -> Result<Json<OaiList<Item>>, ApiError> {
    let stored = Stored::find(&gateway, &caller, named_smith(&headers), &id).await?;
    let mut items = stored.input_items();
    if !query.slice.ascending {
        items.reverse();
    }
    let place = |id: &str| items.iter().position(|item| item.id == id);
    let unknown = |param: &'static str| ApiError::invalid(param, "is no item of this response");
    let from = match query.slice.after.as_deref() {
        Some(id) => place(id).ok_or_else(|| unknown("after"))? + 1,
        None => 0,
    };
    let to = match query.slice.before.as_deref() {
        Some(id) => place(id).ok_or_else(|| unknown("before"))?,
        None => items.len(),
    };
    let wanted = items.get(from..to).unwrap_or_default();
    let page = wanted.iter().take(query.slice.limit as usize).cloned();
    let page: Vec<Item> = page.collect();
    Ok(Json(query.list(page, |item| item.id.clone(), |item| item)))
}
