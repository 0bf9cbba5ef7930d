//! A response as a record: it is a run, and its id holds the run's; runs of other wires are shown in
//! the same shape.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::body_of;
use super::items::{Item, Numbering, approval_request};
use super::object::{Head, Status};
use super::tools::decode_tools;
use super::turns::{push_turn, turn_of};
use crate::auth::Principal;
use crate::error::ApiError;
use crate::frame::StopReason;
use crate::gateway::Gateway;
use crate::model::{Part, Role, Turn};
use crate::run::{ResponseRecord, usage_of};
use crate::store::{RunRow, RunStatus};

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
    pub fn input_items(&self) -> Vec<Item> {
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
