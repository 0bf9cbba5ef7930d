//! `/v1/tenant/discord`: a tenant's application, and where Discord delivers to.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::place::{is_id, seal};
use super::receive::{Taken, taken};
use super::verify::{is_signed, key};
use super::{KIND, Secrets, api, commands};
use crate::channel::setup::needed;
use crate::channel::{Account, Fault, Hub};
use crate::edge::extract::{Admin, Input, check_text};
use crate::edge::{AppState, Route};
use crate::error::ApiError;
use crate::store::now_micros;

const MAX_TOKEN: usize = 256;

/// Its operations.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(one, put, remove))
        .routes(routes!(webhook))
}

/// What the edge must know of its routes.
pub fn routes() -> Vec<Route> {
    vec![Route::rest(Method::POST, "/v1/discord/webhook/{tenant}").open()]
}

#[derive(Deserialize, ToSchema)]
pub struct DiscordIn {
    /// All three are on the application's pages in Discord's developer portal.
    #[serde(default)]
    pub application_id: Option<String>,
    /// What Discord signs interactions for, in hexadecimal digits.
    #[serde(default)]
    pub public_key: Option<String>,
    #[serde(default)]
    pub bot_token: Option<String>,
    /// Whether messages to the bot are listened for, over Discord's Gateway; true when left out.
    #[serde(default)]
    pub gateway: Option<bool>,
}

/// A tenant's application; its token is never shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiscordOut {
    pub configured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub application_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub public_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub has_bot_token: Option<bool>,
    /// What to enter as the application's Interactions Endpoint URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub webhook_url: Option<String>,
}

fn shown(hub: &Hub, tenant_id: &str, account: Option<&Account<Secrets>>) -> DiscordOut {
    let settings = account.map(|account| &account.settings);
    let text = |name: &str| settings.and_then(|s| s[name].as_str()).map(str::to_owned);
    DiscordOut {
        configured: account.is_some(),
        application_id: text("application_id"),
        public_key: text("public_key"),
        has_bot_token: account.map(|_| true),
        webhook_url: account.map(|_| format!("{}/v1/discord/webhook/{tenant_id}", hub.public_url)),
    }
}

fn told(refused: api::Refused) -> ApiError {
    let status = match &refused.fault {
        Fault::Never(_) => StatusCode::BAD_REQUEST,
        Fault::Later { .. } | Fault::Unknown(_) => StatusCode::BAD_GATEWAY,
    };
    ApiError::new(status, "discord_api_error", refused.fault.to_string())
}

/// Has Discord offer these commands.
async fn offer(
    hub: &Hub,
    secrets: &Secrets,
    application: &str,
    commands: &Value,
) -> Result<(), api::Refused> {
    let path = format!("/applications/{application}/commands");
    let who = api::As::Bot(secrets);
    let body = Some(commands.into());
    api::call(hub, who, Method::PUT, &path, "the commands", body).await?;
    Ok(())
}

/// Reads a tenant's application.
#[utoipa::path(get, path = "/v1/tenant/discord", tag = "channels",
    responses((status = 200, body = DiscordOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<DiscordOut>, ApiError> {
    let hub = &gateway.hub;
    let account = hub.account(&caller.tenant_id, KIND).await?;
    Ok(Json(shown(hub, &caller.tenant_id, account.as_ref())))
}

/// Sets a tenant's application: asks Discord whether the three belong together, and has it offer the
/// commands.
#[utoipa::path(put, path = "/v1/tenant/discord", tag = "channels", request_body = DiscordIn,
    responses((status = 200, body = DiscordOut)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<DiscordIn>,
) -> Result<Json<DiscordOut>, ApiError> {
    let hub = &gateway.hub;
    let application = needed("application_id", input.application_id)?;
    let public_key = needed("public_key", input.public_key)?.to_ascii_lowercase();
    let bot_token = needed("bot_token", input.bot_token)?;
    if !is_id(&application) {
        return Err(ApiError::invalid("application_id", "must be digits alone"));
    }
    if key(&public_key).is_none() {
        return Err(ApiError::invalid(
            "public_key",
            "must be 64 hexadecimal digits",
        ));
    }
    check_text("bot_token", &bot_token, MAX_TOKEN)?;
    if !bot_token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(ApiError::invalid("bot_token", "is no token of a bot"));
    }
    let secrets = Secrets { bot_token };
    let who = api::As::Bot(&secrets);
    let path = "/applications/@me";
    let found = api::call(hub, who, Method::GET, path, "the application", None).await;
    let found = found.map_err(told)?;
    if found["id"] != json!(application) {
        return Err(ApiError::invalid(
            "application_id",
            "is not the application of this bot",
        ));
    }
    let known = found["verify_key"].as_str().unwrap_or_default();
    if !known.eq_ignore_ascii_case(&public_key) {
        return Err(ApiError::invalid(
            "public_key",
            "is not the key of this application",
        ));
    }
    offer(hub, &secrets, &application, &commands::all())
        .await
        .map_err(told)?;
    let account = Account {
        settings: json!({ "application_id": application, "public_key": public_key,
            "name": found["name"], "gateway": input.gateway.unwrap_or(true) }),
        secrets,
    };
    hub.keep_account(&caller.tenant_id, KIND, &account).await?;
    Ok(Json(shown(hub, &caller.tenant_id, Some(&account))))
}

/// Forgets a tenant's application; Discord offers its commands no more.
#[utoipa::path(delete, path = "/v1/tenant/discord", tag = "channels",
    responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<StatusCode, ApiError> {
    let hub = &gateway.hub;
    let found: Option<Account<Secrets>> = hub.account(&caller.tenant_id, KIND).await?;
    hub.forget_account(&caller.tenant_id, KIND).await?;
    if let Some(account) = found {
        let application = account.settings["application_id"]
            .as_str()
            .unwrap_or_default();
        let none = json!([]);
        if let Err(refused) = offer(hub, &account.secrets, application, &none).await {
            tracing::info!(error = %refused.fault, "Discord goes on to offer commands");
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Takes an interaction of Discord, and answers it as Discord asks for.
#[utoipa::path(post, path = "/v1/discord/webhook/{tenant}", tag = "channels", security(()),
    params(("tenant" = String, Path)), responses((status = 200, body = Object)))]
pub async fn webhook(
    State(gateway): State<AppState>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let hub = &gateway.hub;
    let account = hub.account_lately::<Secrets>(&tenant, KIND).await?;
    let public_key = account
        .as_ref()
        .and_then(|a| a.settings["public_key"].as_str());
    let now_s = now_micros() / 1_000_000;
    // Nobody is told which tenants there are. Discord tries a forged one itself, and wants this status.
    if !public_key.is_some_and(|key| is_signed(key, &headers, &body, now_s)) {
        let why = "the interaction is not signed for this application";
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "bad_signature",
            why,
        ));
    }
    let interaction: Value = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request("invalid_request", error.to_string()))?;
    let seal = |token: &str| seal(hub, &tenant, token);
    match taken(interaction, seal)? {
        Some(Taken::Kept(arrival, answer)) => {
            hub.accept(&tenant, KIND, *arrival).await?;
            Ok(Json(answer))
        }
        Some(Taken::Answered(answer)) => Ok(Json(answer)),
        None => {
            let why = "is of no kind that is known";
            Err(ApiError::bad_request("invalid_request", why).param("type"))
        }
    }
}
