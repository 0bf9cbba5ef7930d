//! `GET /v1/models` (OpenAI's shape) and `GET /v1/tenant/usage`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::{AppState, Caller};
use crate::auth::Scope;
use crate::error::ApiError;

/// The catalogue holds no dates; OpenAI's clients only need a number.
const CREATED: i64 = 0;

fn model_out(id: &str, owned_by: &str) -> Value {
    json!({ "id": id, "object": "model", "created": CREATED, "owned_by": owned_by })
}

/// `GET /v1/models`: what the tenant has keys for.
pub async fn list(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
) -> Result<Json<Value>, ApiError> {
    caller.require(Scope::RunsRead)?;
    let models = gateway
        .models
        .routing
        .usable_models(&caller.tenant_id)
        .await?;
    let data: Vec<Value> = models
        .iter()
        .map(|(id, owner)| model_out(id, owner))
        .collect();
    Ok(Json(json!({ "object": "list", "data": data })))
}

/// `GET /v1/models/{id}`; the id may hold slashes.
pub async fn one(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.require(Scope::RunsRead)?;
    let models = gateway
        .models
        .routing
        .usable_models(&caller.tenant_id)
        .await?;
    models
        .iter()
        .find(|(known, owner)| *known == id || format!("{owner}/{known}") == id)
        .map(|(_, owner)| Json(model_out(&id, owner)))
        .ok_or_else(|| ApiError::not_found("model", &id).param("model"))
}

/// `GET /v1/tenant/usage`.
pub async fn usage(
    State(gateway): State<AppState>,
    Caller(caller): Caller,
) -> Result<Json<Value>, ApiError> {
    caller.require_admin()?;
    let rows = gateway.store.usage(&caller.tenant_id).await?;
    let mut days: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let (mut calls, mut input, mut output) = (0, 0, 0);
    for row in &rows {
        calls += row.calls;
        input += row.input;
        output += row.output;
        let day = days.entry(&row.day).or_default();
        day.0 += row.calls;
        day.1 += row.input + row.output;
    }
    let series: Vec<Value> = days
        .iter()
        .map(|(date, (runs, tokens))| json!({ "date": date, "runs": runs, "total_tokens": tokens }))
        .collect();
    Ok(Json(json!({
        "totals": {
            "runs": calls,
            "input_tokens": input,
            "output_tokens": output,
            "total_tokens": input + output,
        },
        "series": series,
    })))
}
