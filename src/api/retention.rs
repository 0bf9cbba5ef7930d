//! `/v1/tenant/retention`: how long a tenant keeps what its runs leave behind.

use axum::Json;
use axum::extract::State;

use crate::edge::AppState;
use crate::edge::extract::{Admin, Input};
use crate::error::ApiError;
use crate::retention::Days;

/// Tells for how many days things are kept; null is for ever.
#[utoipa::path(get, path = "/v1/tenant/retention", tag = "retention",
    responses((status = 200, body = Days)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<Days>, ApiError> {
    let own = gateway.store.retention(&caller.tenant_id).await?;
    let own = own.as_deref().map(serde_json::from_str::<Days>);
    let own = own.transpose().map_err(ApiError::internal)?;
    let operator = Days::of(&gateway.config.retention);
    Ok(Json(operator.and(&own.unwrap_or_default())))
}

/// Sets for how many days things are kept, at most as long as the operator keeps them; what is left
/// out or null is kept as long as that.
#[utoipa::path(put, path = "/v1/tenant/retention", tag = "retention", request_body = Days,
    responses((status = 200, body = Days)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(own): Input<Days>,
) -> Result<Json<Days>, ApiError> {
    let operator = Days::of(&gateway.config.retention);
    for ((name, days), (_, most)) in own.named().into_iter().zip(operator.named()) {
        let Some(days) = days else {
            continue;
        };
        let most = most.unwrap_or(u32::MAX);
        if !(1..=most).contains(&days) {
            let message = format!("must be 1 to {most} days: the operator keeps no more");
            return Err(ApiError::invalid(name, message));
        }
    }
    let document = serde_json::to_string(&own).map_err(ApiError::internal)?;
    gateway
        .store
        .put_retention(&caller.tenant_id, &document)
        .await?;
    Ok(Json(operator.and(&own)))
}
