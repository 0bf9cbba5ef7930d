//! `/v1/tenant/whatsapp`: a tenant's number, and where Meta delivers to.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::verify::{is_same, is_signed};
use super::{KIND, Secrets, api, receive};
use crate::channel::setup::{needed, unprocessable};
use crate::channel::{Account, Arrival, Fault, Hub};
use crate::edge::extract::{Admin, Input, check_text};
use crate::edge::{AppState, Route};
use crate::error::ApiError;

const MAX_ID: usize = 32;
const MAX_SECRET: usize = 1024;

/// Its operations.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(one, put, remove))
        .routes(routes!(verify, webhook))
        .routes(routes!(verify_own, webhook_own))
}

/// What the edge must know of its routes.
pub fn routes() -> Vec<Route> {
    let mut routes = Vec::new();
    for path in ["/v1/whatsapp/webhook", "/v1/whatsapp/webhook/{tenant}"] {
        for method in [Method::GET, Method::POST] {
            routes.push(Route::rest(method, path).open());
        }
    }
    routes
}

#[derive(Deserialize, ToSchema)]
pub struct WhatsappIn {
    /// Meta's id of the number.
    #[serde(default)]
    pub phone_number_id: Option<String>,
    /// Of a system user, with `whatsapp_business_messaging` and `whatsapp_business_management`.
    #[serde(default)]
    pub access_token: Option<String>,
    /// Of the WhatsApp Business Account that the number is of.
    #[serde(default)]
    pub waba_id: Option<String>,
    /// Of a Meta app of the tenant's own; left out, the operator's delivers.
    #[serde(default)]
    pub app_secret: Option<String>,
    /// What Meta shows when it asks whether that app may deliver here; needed beside `app_secret`.
    #[serde(default)]
    pub verify_token: Option<String>,
}

/// A tenant's number; its secrets are never shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhatsappOut {
    pub configured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub phone_number_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub display_phone_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub waba_id: Option<String>,
    /// The callback URL of the app that delivers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub webhook_url: Option<String>,
}

fn shown(hub: &Hub, tenant_id: &str, account: Option<&Account<Secrets>>) -> WhatsappOut {
    let settings = account.map(|account| &account.settings);
    let text = |name: &str| settings.and_then(|s| s[name].as_str()).map(str::to_owned);
    let base = format!("{}/v1/whatsapp/webhook", hub.public_url);
    WhatsappOut {
        configured: account.is_some(),
        phone_number_id: text("phone_number_id"),
        display_phone_number: text("display_phone_number"),
        waba_id: text("waba_id"),
        webhook_url: account.map(|account| match &account.secrets.app_secret {
            Some(_) => format!("{base}/{tenant_id}"),
            None => base,
        }),
    }
}

/// An id of Meta's, which becomes a part of a path.
fn id(param: &'static str, value: Option<String>) -> Result<String, ApiError> {
    let id = needed(param, value)?;
    match id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_digit()) {
        true => Ok(id),
        false => Err(ApiError::invalid(
            param,
            "must be an id of Meta's: digits alone",
        )),
    }
}

fn secret(param: &'static str, value: Option<String>) -> Result<String, ApiError> {
    let secret = needed(param, value)?;
    check_text(param, &secret, MAX_SECRET)?;
    match secret.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(secret),
        false => Err(ApiError::invalid(
            param,
            "must be letters, digits and signs alone",
        )),
    }
}

fn told(fault: Fault) -> ApiError {
    let status = api::status_of(&fault);
    ApiError::new(status, "whatsapp_api_error", fault.to_string())
}

/// Reads a tenant's number.
#[utoipa::path(get, path = "/v1/tenant/whatsapp", tag = "channels",
    responses((status = 200, body = WhatsappOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<WhatsappOut>, ApiError> {
    let hub = &gateway.hub;
    let account = hub.account(&caller.tenant_id, KIND).await?;
    Ok(Json(shown(hub, &caller.tenant_id, account.as_ref())))
}

/// Sets a tenant's number: asks Meta whether the token may use it, and has the app hear what arrives.
#[utoipa::path(put, path = "/v1/tenant/whatsapp", tag = "channels", request_body = WhatsappIn,
    responses((status = 200, body = WhatsappOut)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<WhatsappIn>,
) -> Result<Json<WhatsappOut>, ApiError> {
    let hub = &gateway.hub;
    let number = id("phone_number_id", input.phone_number_id)?;
    let access_token = secret("access_token", input.access_token)?;
    let waba = id("waba_id", input.waba_id)?;
    let is_own = [&input.app_secret, &input.verify_token]
        .into_iter()
        .flatten()
        .any(|text| !text.trim().is_empty());
    let (app_secret, verify_token) = match is_own {
        true => (
            Some(secret("app_secret", input.app_secret)?),
            Some(secret("verify_token", input.verify_token)?),
        ),
        false if hub.config.whatsapp_app_secret.is_none() => {
            let why = "is needed: the operator has set no app that delivers for all tenants";
            return Err(unprocessable("empty_config", "app_secret", why));
        }
        false => (None, None),
    };
    let secrets = Secrets {
        access_token,
        app_secret,
        verify_token,
    };
    let path = format!("/{number}?fields=id,display_phone_number,verified_name");
    let found = api::call(hub, &secrets, Method::GET, &path, None).await;
    let found = found.map_err(|refused| told(refused.fault))?;
    if found["id"] != json!(number) {
        let why = "Meta knows no such number";
        return Err(ApiError::bad_request("whatsapp_api_error", why).param("phone_number_id"));
    }
    let path = format!("/{waba}/subscribed_apps");
    api::call(hub, &secrets, Method::POST, &path, None)
        .await
        .map_err(|refused| told(refused.fault))?;
    let taken = || {
        let why = "the number is another tenant's on this gateway";
        ApiError::conflict("phone_number_taken", why).param("phone_number_id")
    };
    let owner = hub.store.tenant_of_address(KIND, &number).await?;
    if owner.is_some_and(|owner| *owner != *caller.tenant_id) {
        return Err(taken());
    }
    let account = Account {
        settings: json!({ "phone_number_id": number, "waba_id": waba,
            "display_phone_number": found["display_phone_number"],
            "verified_name": found["verified_name"] }),
        secrets,
    };
    hub.keep_account(&caller.tenant_id, KIND, &account).await?;
    if !hub
        .store
        .claim_address(&caller.tenant_id, KIND, &number)
        .await?
    {
        // Another was faster.
        hub.forget_account(&caller.tenant_id, KIND).await?;
        return Err(taken());
    }
    Ok(Json(shown(hub, &caller.tenant_id, Some(&account))))
}

/// Forgets a tenant's number. Meta may deliver on, for other numbers of the account; what is for this
/// one leads to nothing.
#[utoipa::path(delete, path = "/v1/tenant/whatsapp", tag = "channels",
    responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<StatusCode, ApiError> {
    let hub = &gateway.hub;
    hub.forget_account(&caller.tenant_id, KIND).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Answers the challenge of whoever knows the token.
fn challenge(query: Option<String>, known: Option<&str>) -> Result<Response, ApiError> {
    let query = query.unwrap_or_default();
    let member = |name: &str| {
        let mut members = url::form_urlencoded::parse(query.as_bytes());
        members.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    };
    let is_subscription = member("hub.mode").as_deref() == Some("subscribe");
    let token = member("hub.verify_token").unwrap_or_default();
    let challenge = member("hub.challenge").unwrap_or_default();
    if !is_subscription || !known.is_some_and(|known| is_same(&token, known)) {
        let why = "the verify token is not the one that was set";
        return Err(ApiError::forbidden("bad_verify_token", why));
    }
    Ok(([(header::CONTENT_TYPE, "text/plain")], challenge).into_response())
}

fn check(secret: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<(), ApiError> {
    let given = headers
        .get("x-hub-signature-256")
        .map(|value| value.as_bytes());
    match secret.is_some_and(|secret| is_signed(secret, given, body)) {
        true => Ok(()),
        false => {
            let why = "the delivery is not signed with the app's secret";
            Err(ApiError::forbidden("bad_signature", why))
        }
    }
}

fn arrivals(body: &[u8]) -> Result<Vec<(String, Arrival)>, ApiError> {
    let delivery: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request("invalid_request", error.to_string()))?;
    Ok(receive::arrivals(&delivery))
}

/// Answers Meta's question whether the operator's app may deliver here.
#[utoipa::path(get, path = "/v1/whatsapp/webhook", tag = "channels", security(()),
    params(("hub.mode" = String, Query), ("hub.verify_token" = String, Query),
        ("hub.challenge" = String, Query)),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn verify(
    State(gateway): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    challenge(query, gateway.hub.config.whatsapp_verify_token.as_deref())
}

/// Takes a delivery of the operator's app, for the tenants whose numbers it names.
#[utoipa::path(post, path = "/v1/whatsapp/webhook", tag = "channels", security(()),
    responses((status = 200, body = Object)))]
pub async fn webhook(
    State(gateway): State<AppState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let hub = &gateway.hub;
    check(hub.config.whatsapp_app_secret.as_deref(), &headers, &body)?;
    for (number, arrival) in arrivals(&body)? {
        let Some(tenant) = hub.store.tenant_of_address(KIND, &number).await? else {
            continue;
        };
        let account = hub.account_lately::<Secrets>(&tenant, KIND).await?;
        // A tenant with an app of its own hears that alone.
        if account.is_some_and(|account| account.secrets.app_secret.is_none()) {
            hub.accept(&tenant, KIND, arrival).await?;
        }
    }
    Ok(Json(json!({ "ok": true })))
}

/// Answers Meta's question whether a tenant's own app may deliver here.
#[utoipa::path(get, path = "/v1/whatsapp/webhook/{tenant}", tag = "channels", security(()),
    params(("tenant" = String, Path), ("hub.mode" = String, Query),
        ("hub.verify_token" = String, Query), ("hub.challenge" = String, Query)),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn verify_own(
    State(gateway): State<AppState>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let account = gateway.hub.account_lately::<Secrets>(&tenant, KIND).await?;
    let known = account.and_then(|account| account.secrets.verify_token);
    challenge(query, known.as_deref())
}

/// Takes a delivery of a tenant's own app.
#[utoipa::path(post, path = "/v1/whatsapp/webhook/{tenant}", tag = "channels", security(()),
    params(("tenant" = String, Path)), responses((status = 200, body = Object)))]
pub async fn webhook_own(
    State(gateway): State<AppState>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let hub = &gateway.hub;
    let account = hub.account_lately::<Secrets>(&tenant, KIND).await?;
    let secret = account
        .as_ref()
        .and_then(|found| found.secrets.app_secret.as_deref());
    check(secret, &headers, &body)?;
    let own = account.map(|account| account.settings["phone_number_id"].clone());
    for (number, arrival) in arrivals(&body)? {
        if own == Some(json!(number)) {
            hub.accept(&tenant, KIND, arrival).await?;
        }
    }
    Ok(Json(json!({ "ok": true })))
}
