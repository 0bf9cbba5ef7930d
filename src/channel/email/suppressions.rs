//! `/v1/tenant/email/suppressions`: addresses that are not written to, since mail to them came back or
//! because somebody says so.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::edge::AppState;
use crate::edge::extract::{Admin, Input, check_text};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::store::{SuppressionRow, now_micros};
use crate::untrusted::mail;

const MAX_DETAIL: usize = 500;

/// Its operations.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(remove))
}

#[derive(Deserialize, ToSchema)]
pub struct SuppressionIn {
    #[serde(default)]
    pub address: Option<String>,
    /// Why, in words of your own.
    #[serde(default)]
    pub detail: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SuppressionOut {
    pub address: String,
    /// `bounce` or `manual`.
    pub reason: String,
    pub detail: Option<String>,
    pub created_at: Time,
}

fn out(row: SuppressionRow) -> SuppressionOut {
    SuppressionOut {
        address: row.address,
        reason: row.reason,
        detail: row.detail,
        created_at: Time(row.created_at),
    }
}

/// Lists the addresses that are not written to, in their order.
#[utoipa::path(get, path = "/v1/tenant/email/suppressions", tag = "channels", params(PageParams),
    responses((status = 200, body = Page<SuppressionOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<SuppressionOut>>, ApiError> {
    let (after, limit) = (page.before.as_deref(), page.fetch());
    let found = gateway
        .store
        .suppressions(&caller.tenant_id, after, limit)
        .await?;
    Ok(Json(page.page(found, |row| row.address.clone(), out)))
}

/// Has an address not written to.
#[utoipa::path(post, path = "/v1/tenant/email/suppressions", tag = "channels",
    request_body = SuppressionIn, responses((status = 201, body = SuppressionOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<SuppressionIn>,
) -> Result<(StatusCode, Json<SuppressionOut>), ApiError> {
    let address = input.address.as_deref().and_then(mail::address_of);
    let address = address.ok_or_else(|| {
        ApiError::bad_request("invalid_address", "is no e-mail address").param("address")
    })?;
    let detail = input.detail.filter(|detail| !detail.trim().is_empty());
    check_text("detail", detail.as_deref().unwrap_or_default(), MAX_DETAIL)?;
    let row = SuppressionRow {
        tenant_id: caller.tenant_id.to_string(),
        address,
        reason: "manual".to_owned(),
        detail,
        created_at: now_micros(),
    };
    gateway.store.put_suppression(&row).await?;
    Ok((StatusCode::CREATED, Json(out(row))))
}

/// Lets an address be written to again.
#[utoipa::path(delete, path = "/v1/tenant/email/suppressions/{address}", tag = "channels",
    params(("address" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(address): Path<String>,
) -> Result<StatusCode, ApiError> {
    let lower = address.to_lowercase();
    match gateway
        .store
        .delete_suppression(&caller.tenant_id, &lower)
        .await?
    {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("suppression", &address)),
    }
}
