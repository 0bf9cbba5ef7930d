//! `/v1/customers`: the tenant's own billable parties.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::bus::Notice;
use crate::edge::AppState;
use crate::edge::extract::check_metadata;
use crate::edge::extract::{Admin, Input, check_text, name};
use crate::edge::page::{Page, PageParams, PageQuery};
use crate::edge::time::Time;
use crate::error::ApiError;
use crate::ids;
use crate::json::{Entries, Object};
use crate::store::{CustomerRow, ExternalIds, Metadata, now_micros};

const MAX_EXTERNAL_IDS: usize = 64;
const MAX_EXTERNAL_ID: usize = 512;

#[derive(Debug, Deserialize, ToSchema)]
pub struct CustomerIn {
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// Ids elsewhere, by the other system's name.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub external_ids: Option<Entries<String>>,
    #[serde(default)]
    pub metadata: Option<Object>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct CustomerPatch {
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    pub name: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub external_ids: Option<Entries<String>>,
    #[serde(default)]
    pub metadata: Option<Object>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CustomerOut {
    pub id: String,
    pub name: String,
    #[schema(value_type = BTreeMap<String, String>)]
    pub external_ids: Entries<String>,
    pub metadata: Object,
    /// On single reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub smith_count: Option<i64>,
    pub created_at: Time,
}

fn customer_out(customer: CustomerRow) -> CustomerOut {
    CustomerOut {
        id: customer.id,
        name: customer.name,
        external_ids: customer.external_ids.0,
        metadata: customer.metadata.0,
        smith_count: None,
        created_at: Time(customer.created_at),
    }
}

async fn counted(gateway: &AppState, customer: CustomerRow) -> Result<CustomerOut, ApiError> {
    let smiths = gateway
        .store
        .customer_smith_count(&customer.tenant_id, &customer.id)
        .await?;
    let mut out = customer_out(customer);
    out.smith_count = Some(smiths);
    Ok(out)
}

fn checked(external_ids: Option<Entries<String>>) -> Result<Option<ExternalIds>, ApiError> {
    if let Some(ids) = &external_ids {
        if ids.len() > MAX_EXTERNAL_IDS {
            return Err(ApiError::invalid(
                "external_ids",
                format!("must have at most {MAX_EXTERNAL_IDS} entries"),
            ));
        }
        for (system, id) in ids.iter() {
            check_text("external_ids", system, MAX_EXTERNAL_ID)?;
            check_text("external_ids", id, MAX_EXTERNAL_ID)?;
        }
    }
    Ok(external_ids.map(ExternalIds))
}

async fn found(gateway: &AppState, tenant: &str, id: &str) -> Result<CustomerRow, ApiError> {
    let customer = gateway.store.customer(tenant, id).await?;
    customer.ok_or_else(|| ApiError::not_found("customer", id))
}

/// Lists the customers.
#[utoipa::path(get, path = "/v1/customers", tag = "customers", params(PageParams),
    responses((status = 200, body = Page<CustomerOut>)))]
pub async fn list(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    page: PageQuery,
) -> Result<Json<Page<CustomerOut>>, ApiError> {
    let before = page.before.as_deref();
    let rows = gateway
        .store
        .customers(&caller.tenant_id, before, page.fetch())
        .await?;
    Ok(Json(page.page(rows, |row| row.id.clone(), customer_out)))
}

/// Makes a customer.
#[utoipa::path(post, path = "/v1/customers", tag = "customers", request_body = CustomerIn,
    responses((status = 201, body = CustomerOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<CustomerIn>,
) -> Result<(StatusCode, Json<CustomerOut>), ApiError> {
    let metadata = input.metadata.unwrap_or_default();
    check_metadata(&metadata)?;
    let customer = CustomerRow {
        id: ids::mint(ids::Kind::Customer),
        tenant_id: caller.tenant_id.to_string(),
        name: name(&input.name)?,
        external_ids: checked(input.external_ids)?.unwrap_or_default(),
        metadata: Metadata(metadata),
        created_at: now_micros(),
    };
    gateway.store.insert_customer(&customer).await?;
    let out = counted(&gateway, customer).await?;
    Ok((StatusCode::CREATED, Json(out)))
}

/// Reads a customer.
#[utoipa::path(get, path = "/v1/customers/{id}", tag = "customers",
    params(("id" = String, Path)), responses((status = 200, body = CustomerOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<Json<CustomerOut>, ApiError> {
    let customer = found(&gateway, &caller.tenant_id, &id).await?;
    Ok(Json(counted(&gateway, customer).await?))
}

/// Changes a customer.
#[utoipa::path(patch, path = "/v1/customers/{id}", tag = "customers",
    params(("id" = String, Path)), request_body = CustomerPatch,
    responses((status = 200, body = CustomerOut)))]
pub async fn update(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
    Input(input): Input<CustomerPatch>,
) -> Result<Json<CustomerOut>, ApiError> {
    let mut customer = found(&gateway, &caller.tenant_id, &id).await?;
    if let Some(given) = &input.name {
        customer.name = name(given)?;
    }
    if let Some(external_ids) = checked(input.external_ids)? {
        customer.external_ids = external_ids;
    }
    if let Some(metadata) = input.metadata {
        check_metadata(&metadata)?;
        customer.metadata = Metadata(metadata);
    }
    if !gateway.store.update_customer(&customer).await? {
        return Err(ApiError::not_found("customer", &id));
    }
    Ok(Json(counted(&gateway, customer).await?))
}

/// Deletes a customer; its smiths lose the assignment.
#[utoipa::path(delete, path = "/v1/customers/{id}", tag = "customers",
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    if !gateway
        .store
        .delete_customer(&caller.tenant_id, &id)
        .await?
    {
        return Err(ApiError::not_found("customer", &id));
    }
    gateway.changed(Notice::Smiths).await;
    Ok(StatusCode::NO_CONTENT)
}
