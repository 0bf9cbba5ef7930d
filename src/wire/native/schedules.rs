//! `/v1/smiths/{id}/schedules`: turns that a smith begins by the clock (`channels.md`, "Schedules").

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::decode::{InputMessage, decode_input};
use crate::auth::Scope;
use crate::cron::{Clock, ClockError};
use crate::edge::AppState;
use crate::edge::extract::{Anyone, Input, check_text, name, permitted, sent};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::ids;
use crate::store::{FireRow, MAX_SCHEDULES, ScheduleRow, now_micros};

const MAX_INPUT: usize = 64 * 1024;
const MAX_WORD: usize = 256;
const MAX_JITTER: i64 = 3600;

#[derive(Debug, Deserialize, ToSchema)]
pub struct ScheduleIn {
    /// Five fields: minute, hour, day, month, weekday. Names, steps and `@daily` are taken.
    #[schema(example = "0 9 * * MON-FRI")]
    pub cron: String,
    #[serde(default)]
    pub name: Option<String>,
    /// An IANA name; the default is `UTC`.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Messages that begin each turn. None: the smith is told that the schedule fired.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub input: Option<Vec<InputMessage>>,
    /// Where the turns go; without it each has a thread of its own.
    #[serde(default)]
    pub thread_id: Option<String>,
    /// The default is true.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Each fire is put off by up to so many seconds.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 3600)]
    pub jitter_seconds: Option<i64>,
}

/// What to change; a null clears.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SchedulePatch {
    #[serde(default)]
    pub cron: Option<String>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Option<String>>,
    #[serde(default)]
    pub timezone: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    pub input: Option<Vec<InputMessage>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub thread_id: Option<Option<String>>,
    #[serde(default)]
    pub enabled: Option<bool>,
    #[serde(default)]
    #[schema(minimum = 0, maximum = 3600)]
    pub jitter_seconds: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleOut {
    pub id: String,
    pub name: Option<String>,
    pub cron: String,
    pub timezone: String,
    pub input: Vec<Map<String, Value>>,
    pub thread_id: Option<String>,
    pub enabled: bool,
    pub jitter_seconds: i64,
    /// Null while it is not enabled.
    pub next_fire_at: Option<Time>,
    pub last_fire_at: Option<Time>,
    pub created_at: Time,
}

/// A turn that was put into its lane.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueuedOut {
    pub schedule_id: String,
    pub delivery_id: String,
    /// Always `queued`.
    pub status: &'static str,
}

/// What became of a fire.
#[derive(Debug, Serialize, ToSchema)]
pub struct FireOut {
    pub id: String,
    /// What the clock said.
    pub due_at: Time,
    /// `queued` or `skipped`.
    pub status: String,
    /// How many fires before it nobody was there for; of more than a thousand, a thousand.
    pub missed: i64,
    /// Why it was skipped.
    pub reason: Option<String>,
    pub delivery_id: Option<String>,
    /// The run that it becomes.
    pub run_id: Option<String>,
    pub thread_id: Option<String>,
    pub created_at: Time,
}

fn schedule_out(row: ScheduleRow) -> ScheduleOut {
    ScheduleOut {
        id: row.id,
        name: row.name,
        cron: row.cron,
        timezone: row.timezone,
        input: serde_json::from_str(&row.input).unwrap_or_default(),
        thread_id: row.thread_id,
        enabled: row.enabled,
        jitter_seconds: row.jitter_seconds,
        next_fire_at: row.next_fire_at.map(Time),
        last_fire_at: row.last_fire_at.map(Time),
        created_at: Time(row.created_at),
    }
}

fn fire_out(row: FireRow) -> FireOut {
    FireOut {
        id: row.id,
        due_at: Time(row.due_at),
        status: row.status,
        missed: row.missed,
        reason: row.reason,
        delivery_id: row.queued_turn_id,
        run_id: row.run_id,
        thread_id: row.thread_id,
        created_at: Time(row.created_at),
    }
}

fn clock(cron: &str, timezone: &str) -> Result<Clock, ApiError> {
    check_text("cron", cron, MAX_WORD)?;
    check_text("timezone", timezone, MAX_WORD)?;
    Clock::new(cron, timezone).map_err(|error| {
        let (code, param) = match error {
            ClockError::Cron(_) => ("invalid_cron", "cron"),
            ClockError::Zone(_) => ("invalid_timezone", "timezone"),
        };
        ApiError::bad_request(code, error.to_string()).param(param)
    })
}

fn checked_name(text: Option<String>) -> Result<Option<String>, ApiError> {
    text.map(|text| name(&text)).transpose()
}

fn checked_thread(thread: Option<String>) -> Result<Option<String>, ApiError> {
    match thread {
        Some(thread) if !ids::is_sane_thread_id(&thread) => Err(ApiError::invalid(
            "thread_id",
            "must be 1 to 256 printable characters",
        )),
        other => Ok(other),
    }
}

fn checked_jitter(seconds: i64) -> Result<i64, ApiError> {
    match (0..=MAX_JITTER).contains(&seconds) {
        true => Ok(seconds),
        false => Err(ApiError::invalid(
            "jitter_seconds",
            format!("must be 0 to {MAX_JITTER}"),
        )),
    }
}

/// The messages as turns and as they were sent, both as JSON.
fn decoded(input: Vec<InputMessage>) -> Result<(String, String), ApiError> {
    if input.is_empty() {
        return Ok(("[]".to_owned(), "[]".to_owned()));
    }
    let (turns, record) = decode_input(input)?;
    let record = record.to_string();
    check_text("input", &record, MAX_INPUT)?;
    let turns = serde_json::to_string(&turns).map_err(ApiError::internal)?;
    Ok((turns, record))
}

async fn found(
    gateway: &AppState,
    tenant_id: &str,
    smith_id: &str,
    id: &str,
) -> Result<ScheduleRow, ApiError> {
    let row = gateway.store.schedule(tenant_id, smith_id, id).await?;
    row.ok_or_else(|| ApiError::not_found("schedule", id))
}

/// Makes a schedule of a smith.
#[utoipa::path(post, path = "/v1/smiths/{id}/schedules", tag = "schedules",
    params(("id" = String, Path)), request_body = ScheduleIn,
    responses((status = 201, body = ScheduleOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(id): Path<String>,
    Input(input): Input<ScheduleIn>,
) -> Result<(StatusCode, Json<ScheduleOut>), ApiError> {
    permitted(&gateway, &caller, &id, Scope::SchedulesWrite).await?;
    let timezone = input.timezone.filter(|zone| !zone.is_empty());
    let timezone = timezone.unwrap_or_else(|| "UTC".to_owned());
    let clock = clock(&input.cron, &timezone)?;
    let (turns, record) = decoded(input.input.unwrap_or_default())?;
    let mut row = ScheduleRow {
        id: ids::mint(ids::Kind::Schedule),
        tenant_id: caller.tenant_id.to_string(),
        smith_id: id,
        name: checked_name(input.name)?,
        cron: input.cron,
        timezone,
        turns,
        input: record,
        thread_id: checked_thread(input.thread_id)?,
        enabled: input.enabled.unwrap_or(true),
        jitter_seconds: checked_jitter(input.jitter_seconds.unwrap_or(0))?,
        next_fire_at: None,
        due_at: None,
        last_fire_at: None,
        created_at: now_micros(),
    };
    clock.set_next(&mut row, now_micros());
    if !gateway.store.insert_schedule(&row, MAX_SCHEDULES).await? {
        return Err(ApiError::conflict(
            "too_many_schedules",
            format!("a smith has at most {MAX_SCHEDULES} schedules"),
        ));
    }
    Ok((StatusCode::CREATED, Json(schedule_out(row))))
}

/// Lists a smith's schedules.
#[utoipa::path(get, path = "/v1/smiths/{id}/schedules", tag = "schedules",
    params(PageParams, ("id" = String, Path)),
    responses((status = 200, body = Page<ScheduleOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path(id): Path<String>,
    page: PageQuery,
) -> Result<Json<Page<ScheduleOut>>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::SchedulesRead).await?;
    let (before, limit) = (page.before.as_deref(), page.fetch());
    let rows = gateway
        .store
        .schedules(&caller.tenant_id, &id, before, limit)
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), schedule_out)))
}

/// Reads a schedule.
#[utoipa::path(get, path = "/v1/smiths/{id}/schedules/{schedule}", tag = "schedules",
    params(("id" = String, Path), ("schedule" = String, Path)),
    responses((status = 200, body = ScheduleOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((id, schedule)): Path<(String, String)>,
) -> Result<Json<ScheduleOut>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::SchedulesRead).await?;
    let row = found(&gateway, &caller.tenant_id, &id, &schedule).await?;
    Ok(Json(schedule_out(row)))
}

/// Changes a schedule. What it changes holds from now on: no earlier fire is made up for.
#[utoipa::path(patch, path = "/v1/smiths/{id}/schedules/{schedule}", tag = "schedules",
    params(("id" = String, Path), ("schedule" = String, Path)), request_body = SchedulePatch,
    responses((status = 200, body = ScheduleOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((id, schedule)): Path<(String, String)>,
    Input(input): Input<SchedulePatch>,
) -> Result<Json<ScheduleOut>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::SchedulesWrite).await?;
    let mut row = found(&gateway, &caller.tenant_id, &id, &schedule).await?;
    let before = (
        row.cron.clone(),
        row.timezone.clone(),
        row.enabled,
        row.jitter_seconds,
    );
    if let Some(cron) = input.cron {
        row.cron = cron;
    }
    if let Some(zone) = input.timezone {
        row.timezone = zone;
    }
    if let Some(name) = input.name {
        row.name = checked_name(name)?;
    }
    if let Some(input) = input.input {
        (row.turns, row.input) = decoded(input)?;
    }
    if let Some(thread) = input.thread_id {
        row.thread_id = checked_thread(thread)?;
    }
    if let Some(enabled) = input.enabled {
        row.enabled = enabled;
    }
    if let Some(seconds) = input.jitter_seconds {
        row.jitter_seconds = checked_jitter(seconds)?;
    }
    let clock = clock(&row.cron, &row.timezone)?;
    let after = (&row.cron, &row.timezone, row.enabled, row.jitter_seconds);
    if after != (&before.0, &before.1, before.2, before.3) {
        clock.set_next(&mut row, now_micros());
    }
    if !gateway.store.update_schedule(&row).await? {
        return Err(ApiError::not_found("schedule", &schedule));
    }
    Ok(Json(schedule_out(row)))
}

/// Deletes a schedule with its history. Turns that it put into a lane already still run.
#[utoipa::path(delete, path = "/v1/smiths/{id}/schedules/{schedule}", tag = "schedules",
    params(("id" = String, Path), ("schedule" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((id, schedule)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    permitted(&gateway, &caller, &id, Scope::SchedulesWrite).await?;
    let store = &gateway.store;
    match store
        .delete_schedule(&caller.tenant_id, &id, &schedule)
        .await?
    {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("schedule", &schedule)),
    }
}

/// Fires once, beside the clock; also a schedule that is not enabled.
#[utoipa::path(post, path = "/v1/smiths/{id}/schedules/{schedule}/run_now", tag = "schedules",
    params(("id" = String, Path), ("schedule" = String, Path)),
    responses((status = 202, body = QueuedOut)))]
pub async fn run_now(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((id, schedule)): Path<(String, String)>,
) -> Result<(StatusCode, Json<QueuedOut>), ApiError> {
    permitted(&gateway, &caller, &id, Scope::SchedulesWrite).await?;
    let row = found(&gateway, &caller.tenant_id, &id, &schedule).await?;
    let delivery_id = gateway.schedules.run_now(&row, caller.actor()).await?;
    let queued = QueuedOut {
        schedule_id: row.id,
        delivery_id,
        status: "queued",
    };
    Ok((StatusCode::ACCEPTED, Json(queued)))
}

/// What became of a schedule's fires.
#[utoipa::path(get, path = "/v1/smiths/{id}/schedules/{schedule}/fires", tag = "schedules",
    params(PageParams, ("id" = String, Path), ("schedule" = String, Path)),
    responses((status = 200, body = Page<FireOut>)))]
pub async fn fires(
    State(gateway): State<AppState>,
    Anyone(caller): Anyone,
    Path((id, schedule)): Path<(String, String)>,
    page: PageQuery,
) -> Result<Json<Page<FireOut>>, ApiError> {
    permitted(&gateway, &caller, &id, Scope::SchedulesRead).await?;
    let row = found(&gateway, &caller.tenant_id, &id, &schedule).await?;
    let (before, limit) = (page.before.as_deref(), page.fetch());
    let rows = gateway
        .store
        .fires(&caller.tenant_id, &row.id, before, limit)
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), fire_out)))
}
