//! Tokens and money used: the tenant's totals, groups, the ledger, custom meters.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{Date, Month, OffsetDateTime, Time as Clock};
use utoipa::ToSchema;

use crate::auth::scope;
use crate::edge::AppState;
use crate::edge::extract::check_metadata;
use crate::edge::extract::{Admin, Input, May, check_text};
use crate::edge::page::{Filters, Page, PageParams, PageQuery};
use crate::edge::time::{Time, parse_micros};
use crate::error::ApiError;
use crate::ids;
use crate::json::Object;
use crate::run::{NANOS, day_of};
use crate::store::{
    MeterRow, TOKENS_METER, UsageEventFilter, UsageEventRow, UsageFilter, UsageGroup,
    UsageGroupRow, now_micros, rfc3339,
};

const MAX_METER: usize = 128;

#[derive(Debug, Serialize, ToSchema)]
pub struct UsageTotals {
    pub runs: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub total_tokens: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UsageDay {
    /// `YYYY-MM-DD`, UTC.
    pub date: String,
    pub runs: i64,
    pub total_tokens: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TenantUsage {
    pub totals: UsageTotals,
    pub series: Vec<UsageDay>,
}

/// What was used in one group, or in all.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct UsageSum {
    pub tokens: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_tokens: i64,
    pub cost: f64,
    pub run_count: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UsageGroupOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub app: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub smith: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub customer: Option<String>,
    /// A virtual key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub key: Option<String>,
    #[serde(flatten)]
    pub sum: UsageSum,
}

/// The sum of a custom meter for one customer.
#[derive(Debug, Serialize, ToSchema)]
pub struct MeterOut {
    pub meter: String,
    pub customer: String,
    pub quantity: f64,
    pub events: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UsageGroups {
    pub group_by: String,
    pub totals: UsageSum,
    pub groups: Vec<UsageGroupOut>,
    pub meters: Vec<MeterOut>,
}

/// An entry of the ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageEventOut {
    pub id: String,
    /// `run` or `meter`.
    pub kind: String,
    pub run_id: Option<String>,
    /// Empty: no smith's.
    pub smith_id: String,
    pub app_id: Option<String>,
    pub customer_id: Option<String>,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_tokens: i64,
    pub cache_write_tokens: i64,
    pub cost: Option<f64>,
    /// Of a run: `tokens`.
    pub meter: String,
    /// Of a run: its tokens.
    pub quantity: f64,
    /// `YYYY-MM-DD`, UTC.
    pub day: String,
    pub metadata: Object,
    pub created_at: Time,
}

/// A count of the tenant's own making.
#[derive(Debug, Deserialize, ToSchema)]
pub struct MeterIn {
    #[schema(pattern = "^[a-z0-9][a-z0-9_.-]{0,127}$")]
    pub meter: String,
    #[schema(exclusive_minimum = 0, maximum = 1000000000000_i64)]
    pub quantity: f64,
    #[serde(default)]
    pub smith_id: Option<String>,
    #[serde(default)]
    pub customer_id: Option<String>,
    #[serde(default)]
    pub metadata: Option<Object>,
}

/// Tells what the tenant has used, by day.
#[utoipa::path(get, path = "/v1/tenant/usage", tag = "usage",
    responses((status = 200, body = TenantUsage)))]
pub async fn of_tenant(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<TenantUsage>, ApiError> {
    let rows = gateway.store.usage(&caller.tenant_id).await?;
    let mut days: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let (mut runs, mut input, mut output) = (0, 0, 0);
    for row in rows {
        runs += row.calls;
        input += row.input;
        output += row.output;
        let day = days.entry(row.day).or_default();
        day.0 += row.calls;
        day.1 += row.input + row.output;
    }
    let series = days
        .into_iter()
        .map(|(date, (runs, total_tokens))| UsageDay {
            date,
            runs,
            total_tokens,
        })
        .collect();
    Ok(Json(TenantUsage {
        totals: UsageTotals {
            runs,
            input_tokens: input,
            output_tokens: output,
            total_tokens: input + output,
        },
        series,
    }))
}

/// A day's first microsecond.
fn day_start(day: Date) -> i64 {
    OffsetDateTime::new_utc(day, Clock::MIDNIGHT).unix_timestamp() * 1_000_000
}

/// `YYYY-MM-DD`, or a whole time.
fn date_of(text: &str) -> Option<Date> {
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(at.to_offset(time::UtcOffset::UTC).date());
    }
    let mut parts = text.splitn(3, '-');
    let year = parts.next().filter(|y| y.len() == 4)?.parse().ok()?;
    let month: u8 = parts.next().filter(|m| m.len() == 2)?.parse().ok()?;
    let day = parts.next().filter(|d| d.len() == 2)?.parse().ok()?;
    Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()
}

/// The time that was asked for: its begin, and its end that is no part of it.
fn span_of(filters: &Filters) -> Result<(Option<i64>, Option<i64>), ApiError> {
    if filters.get("period").is_some() {
        let (first, last) = days(filters)?;
        return Ok((Some(day_start(first)), last.next_day().map(day_start)));
    }
    let moment = |name: &str, is_end: bool| -> Result<Option<i64>, ApiError> {
        let Some(text) = filters.get(name) else {
            return Ok(None);
        };
        if let Some(at) = parse_micros(&text) {
            return Ok(Some(at));
        }
        let day = date_of(&text).ok_or_else(|| no_day(name))?;
        Ok(match is_end {
            true => day.next_day().map(day_start),
            false => Some(day_start(day)),
        })
    };
    Ok((moment("from", false)?, moment("to", true)?))
}

fn no_day(name: &str) -> ApiError {
    ApiError::bad_request("invalid_period", "must be a day (YYYY-MM-DD) or a time")
        .param(name.to_owned())
}

/// The first and the last day that were asked for; this month when nothing was.
fn days(filters: &Filters) -> Result<(Date, Date), ApiError> {
    let today = OffsetDateTime::now_utc().date();
    if let Some(period) = filters.get("period") {
        let first = (period.len() == 7)
            .then(|| date_of(&format!("{period}-01")))
            .flatten()
            .ok_or_else(|| {
                ApiError::bad_request("invalid_period", "must be YYYY-MM").param("period")
            })?;
        let last = first.month().length(first.year());
        return Ok((first, first.replace_day(last).unwrap_or(first)));
    }
    let day = |name: &str, default: Date| match filters.get(name) {
        None => Ok(default),
        Some(text) => date_of(&text).ok_or_else(|| no_day(name)),
    };
    let first = today.replace_day(1).unwrap_or(today);
    Ok((day("from", first)?, day("to", today)?))
}

fn sum_of(row: &UsageGroupRow) -> UsageSum {
    UsageSum {
        tokens: row.input + row.output,
        input_tokens: row.input,
        output_tokens: row.output,
        cache_read_tokens: row.cache_read,
        cache_write_tokens: row.cache_write,
        cost: row.cost as f64 / NANOS,
        run_count: row.calls,
    }
}

fn group_out(row: UsageGroupRow, group: UsageGroup) -> UsageGroupOut {
    let sum = sum_of(&row);
    let name = |wanted| (wanted == group).then(|| row.name.clone());
    UsageGroupOut {
        app: name(UsageGroup::App),
        smith: name(UsageGroup::Smith),
        model: name(UsageGroup::Model),
        customer: name(UsageGroup::Customer),
        key: name(UsageGroup::Key),
        sum,
    }
}

fn meter_out(row: MeterRow) -> MeterOut {
    MeterOut {
        meter: row.meter,
        customer: row.customer,
        quantity: row.quantity,
        events: row.events,
    }
}

/// A field of a CSV file (RFC 4180). What a spreadsheet would run is made a text.
fn csv_field(text: &str) -> String {
    let text = match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

/// Breaks usage down. With a smith token, it is that smith's.
#[utoipa::path(get, path = "/v1/usage", tag = "usage",
    params(("group_by" = Option<String>, Query, description = "`app`, `smith`, `model` (the default), `customer`, or `key` for calls with virtual keys"),
        ("from" = Option<String>, Query), ("to" = Option<String>, Query),
        ("period" = Option<String>, Query, description = "`YYYY-MM`"),
        ("smith_id" = Option<String>, Query), ("customer_id" = Option<String>, Query),
        ("key_id" = Option<String>, Query, description = "Calls with this virtual key"),
        ("format" = Option<String>, Query, description = "`csv` for a table")),
    responses((status = 200, content(
        (UsageGroups = "application/json"), (String = "text/csv")))))]
pub async fn groups(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::UsageRead>,
    filters: Filters,
) -> Result<Response, ApiError> {
    let named = filters
        .get("group_by")
        .unwrap_or_else(|| "model".to_owned());
    let group = match named.as_str() {
        "app" => UsageGroup::App,
        "smith" => UsageGroup::Smith,
        "model" => UsageGroup::Model,
        "customer" => UsageGroup::Customer,
        "key" => UsageGroup::Key,
        other => {
            return Err(
                ApiError::bad_request("invalid_group_by", format!("no group '{other}'"))
                    .param("group_by"),
            );
        }
    };
    let (from, to) = days(&filters)?;
    let smith = filters.get("smith_id");
    if let Some(smith) = &smith {
        caller.require_smith(smith)?;
    }
    let customer_id = filters.get("customer_id");
    let key_id = filters.get("key_id");
    if key_id.is_some() || group == UsageGroup::Key {
        // Calls with keys are the tenant's, of no smith and no customer.
        if caller.smith_id().is_some() {
            return Err(ApiError::forbidden(
                "tenant_token_required",
                "the usage of keys needs a tenant-admin token",
            ));
        }
        if smith.is_some() || customer_id.is_some() {
            let message = "calls with keys have no smith and no customer";
            return Err(ApiError::invalid("key_id", message));
        }
    }
    let whole_day = |date: Date| day_of(OffsetDateTime::new_utc(date, Clock::MIDNIGHT));
    let filter = UsageFilter {
        from: whole_day(from),
        to: whole_day(to),
        smith_id: caller.smith_id().map(|id| id.to_string()).or(smith),
        customer_id: customer_id.clone(),
        key_id,
    };
    let csv = filters.one_of("format", &["csv", "json"])?.as_deref() == Some("csv");
    let rows = gateway
        .store
        .usage_groups(&caller.tenant_id, &filter, group)
        .await?;
    let of_keys = filter.key_id.is_some() || group == UsageGroup::Key;
    let meters = match of_keys {
        true => Vec::new(),
        false => {
            let until = to.next_day().map_or(i64::MAX, day_start);
            let (smith, customer) = (filter.smith_id.as_deref(), customer_id.as_deref());
            let (tenant, from) = (&caller.tenant_id, day_start(from));
            let found = gateway.store.meters(tenant, from, until, smith, customer);
            found.await?
        }
    };
    let mut all = UsageGroupRow {
        name: String::new(),
        calls: 0,
        input: 0,
        output: 0,
        cache_read: 0,
        cache_write: 0,
        cost: 0,
    };
    for row in &rows {
        all.calls += row.calls;
        all.input += row.input;
        all.output += row.output;
        all.cache_read += row.cache_read;
        all.cache_write += row.cache_write;
        all.cost += row.cost;
    }
    if csv {
        return Ok(table(&named, &rows));
    }
    let out = UsageGroups {
        group_by: named,
        totals: sum_of(&all),
        groups: rows.into_iter().map(|row| group_out(row, group)).collect(),
        meters: meters.into_iter().map(meter_out).collect(),
    };
    Ok(Json(out).into_response())
}

fn table(group: &str, rows: &[UsageGroupRow]) -> Response {
    let mut text = format!(
        "{group},tokens,input_tokens,output_tokens,cache_read_tokens,cache_write_tokens,cost,\
         run_count\r\n"
    );
    for row in rows {
        let sum = sum_of(row);
        text.push_str(&format!(
            "{},{},{},{},{},{},{},{}\r\n",
            csv_field(&row.name),
            sum.tokens,
            sum.input_tokens,
            sum.output_tokens,
            sum.cache_read_tokens,
            sum.cache_write_tokens,
            sum.cost,
            sum.run_count
        ));
    }
    ([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response()
}

fn event_out(row: UsageEventRow) -> UsageEventOut {
    let tokens = row.input.saturating_add(row.output);
    UsageEventOut {
        day: rfc3339(row.created_at).chars().take(10).collect(),
        id: row.id,
        kind: row.kind,
        run_id: row.run_id,
        smith_id: row.smith_id.unwrap_or_default(),
        app_id: row.agent_id,
        customer_id: row.customer_id,
        provider: row.provider,
        model: row.model,
        input_tokens: row.input,
        output_tokens: row.output,
        cache_read_tokens: row.cache_read,
        cache_write_tokens: row.cache_write,
        cost: row.cost.map(|cost| cost as f64 / NANOS),
        meter: row.meter.unwrap_or_else(|| TOKENS_METER.to_owned()),
        quantity: row.quantity.unwrap_or(tokens as f64),
        metadata: Object::parse_or_empty(&row.metadata),
        created_at: Time(row.created_at),
    }
}

/// Lists the ledger, newest first; with a smith token, that smith's entries.
#[utoipa::path(get, path = "/v1/usage/events", tag = "usage",
    params(PageParams, ("smith_id" = Option<String>, Query),
        ("customer_id" = Option<String>, Query),
        ("meter" = Option<String>, Query, description = "A custom meter, or `tokens`"),
        ("from" = Option<String>, Query, description = "A day (`YYYY-MM-DD`) or a time"),
        ("to" = Option<String>, Query, description = "A day, included, or a time, not included"),
        ("period" = Option<String>, Query, description = "`YYYY-MM`")),
    responses((status = 200, body = Page<UsageEventOut>)))]
pub async fn events(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::UsageRead>,
    page: PageQuery,
) -> Result<Json<Page<UsageEventOut>>, ApiError> {
    let named = page.filter("smith_id");
    if let Some(named) = &named {
        caller.require_smith(named)?;
    }
    let (from, until) = span_of(&page.filters)?;
    let filter = UsageEventFilter {
        smith_id: caller.smith_id().map(|id| id.to_string()).or(named),
        customer_id: page.filter("customer_id"),
        meter: page.filter("meter"),
        from,
        until,
    };
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .usage_events(&caller.tenant_id, &filter, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), event_out)))
}

/// Counts something of the tenant's own making.
#[utoipa::path(post, path = "/v1/usage/events", tag = "usage", request_body = MeterIn,
    responses((status = 201, body = UsageEventOut)))]
pub async fn meter(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::UsageWrite>,
    Input(input): Input<MeterIn>,
) -> Result<(StatusCode, Json<UsageEventOut>), ApiError> {
    check_text("meter", &input.meter, MAX_METER)?;
    let mut bytes = input.meter.bytes();
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.next().is_some_and(word) || !bytes.all(|b| word(b) || b"_.-".contains(&b)) {
        return Err(ApiError::bad_request(
            "invalid_meter",
            "a meter's name is [a-z0-9][a-z0-9_.-]*",
        )
        .param("meter"));
    }
    if !input.quantity.is_finite() || input.quantity <= 0.0 || input.quantity > 1e12 {
        return Err(
            ApiError::bad_request("invalid_quantity", "must be above 0 and at most 1e12")
                .param("quantity"),
        );
    }
    let metadata = input.metadata.unwrap_or_default();
    check_metadata(&metadata)?;
    let named = input.smith_id.filter(|id| !id.is_empty());
    if let Some(named) = &named {
        caller.require_smith(named)?;
    }
    let smith_id = caller.smith_id().map(|id| id.to_string()).or(named);
    let mut customer_id = input.customer_id.filter(|id| !id.is_empty());
    let mut agent_id = None;
    if let Some(id) = &smith_id {
        let smith = gateway.store.smith(&caller.tenant_id, id).await?;
        let smith = smith.ok_or_else(|| ApiError::not_found("smith", id).param("smith_id"))?;
        // A smith's own token counts for its own customer.
        customer_id = match caller.smith_id() {
            Some(_) => smith.customer_id,
            None => customer_id.or(smith.customer_id),
        };
        agent_id = Some(smith.agent_id);
    }
    if let Some(id) = &customer_id
        && gateway
            .store
            .customer(&caller.tenant_id, id)
            .await?
            .is_none()
    {
        return Err(ApiError::not_found("customer", id).param("customer_id"));
    }
    let event = UsageEventRow {
        id: ids::mint(ids::Kind::UsageEvent),
        tenant_id: caller.tenant_id.to_string(),
        kind: "meter".to_owned(),
        run_id: None,
        smith_id,
        agent_id,
        customer_id,
        provider: None,
        model: None,
        input: 0,
        output: 0,
        cache_read: 0,
        cache_write: 0,
        reasoning: 0,
        cost: None,
        meter: Some(input.meter),
        quantity: Some(input.quantity),
        metadata: metadata.to_text(),
        created_at: now_micros(),
    };
    gateway.store.insert_usage_event(&event).await?;
    Ok((StatusCode::CREATED, Json(event_out(event))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read() {
        assert!(date_of("2026-11-24").is_some());
        assert!(date_of("2026-11-24T10:00:00Z").is_some());
        for bad in ["2026-13-01", "2026-1-1", "x", "2026-02-30"] {
            assert!(date_of(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn csv_fields_are_inert() {
        assert_eq!(csv_field("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(csv_field("=1+1"), "'=1+1");
    }
}
