//! `/v1/tenant/telegram`: a tenant's bot, and where Telegram delivers to.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::poll::{is_reachable, subscribe};
use super::{KIND, Secrets, api, receive, telegram_api_error};
use crate::channel::Account;
use crate::channel::setup::unprocessable;
use crate::connection::random_text;
use crate::edge::extract::{Admin, Input, check_text};
use crate::edge::{AppState, Route};
use crate::error::ApiError;

const MAX_TOKEN: usize = 256;

/// Its operations.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(one, put, remove))
        .routes(routes!(webhook))
}

/// What the edge must know of its routes.
pub fn routes() -> Vec<Route> {
    vec![Route::rest(Method::POST, "/v1/telegram/webhook/{tenant}").open()]
}

#[derive(Deserialize, ToSchema)]
pub struct TelegramIn {
    /// As BotFather gave it.
    #[serde(default)]
    pub bot_token: Option<String>,
    /// What Telegram shows with each delivery; made when left out. Letters, digits, `_` and `-`.
    #[serde(default)]
    pub webhook_secret: Option<String>,
}

/// A tenant's bot; its token is never shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct TelegramOut {
    pub configured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub bot_username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub bot_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub has_token: Option<bool>,
    /// Where Telegram delivers to; absent while this gateway has no public address with TLS: then
    /// Telegram is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub webhook_url: Option<String>,
}

fn shown(account: Option<&Account<Secrets>>) -> TelegramOut {
    let settings = account.map(|account| &account.settings);
    let text = |name: &str| settings.and_then(|s| s[name].as_str()).map(str::to_owned);
    TelegramOut {
        configured: account.is_some(),
        bot_username: text("bot_username"),
        bot_id: settings.and_then(|s| s["bot_id"].as_i64()),
        has_token: account.map(|_| true),
        webhook_url: text("webhook_url"),
    }
}

/// Reads a tenant's bot.
#[utoipa::path(get, path = "/v1/tenant/telegram", tag = "channels",
    responses((status = 200, body = TelegramOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<TelegramOut>, ApiError> {
    let account = gateway.hub.account(&caller.tenant_id, KIND).await?;
    Ok(Json(shown(account.as_ref())))
}

/// Sets a tenant's bot: asks Telegram who it is, and has it deliver here.
#[utoipa::path(put, path = "/v1/tenant/telegram", tag = "channels", request_body = TelegramIn,
    responses((status = 200, body = TelegramOut)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<TelegramIn>,
) -> Result<Json<TelegramOut>, ApiError> {
    let token = input.bot_token.map(|token| token.trim().to_owned());
    let token = token.filter(|token| !token.is_empty()).ok_or_else(|| {
        unprocessable("empty_bot_token", "bot_token", "the bot's token is missing")
    })?;
    check_text("bot_token", &token, MAX_TOKEN)?;
    // It becomes a part of a path.
    let is_token = |c: char| c.is_ascii_alphanumeric() || ":_-".contains(c);
    if !token.chars().all(is_token) {
        let why = "is no token of a bot: digits, a colon, and letters";
        return Err(ApiError::invalid("bot_token", why));
    }
    let secret = match input.webhook_secret.filter(|secret| !secret.is_empty()) {
        Some(secret) => secret,
        None => random_text()?,
    };
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if secret.len() > 256 || !secret.chars().all(is_word) {
        let why = "must be 1 to 256 letters, digits, _ or -";
        return Err(ApiError::invalid("webhook_secret", why));
    }
    let secrets = Secrets {
        bot_token: token,
        webhook_secret: secret,
    };
    let hub = &gateway.hub;
    let refused = |fault: crate::channel::Fault| telegram_api_error(fault.to_string());
    let bot = api::call(hub, &secrets, "getMe", &json!({}))
        .await
        .map_err(refused)?;
    let url = is_reachable(&hub.public_url).then(|| {
        format!(
            "{}/v1/telegram/webhook/{}",
            hub.public_url, caller.tenant_id
        )
    });
    subscribe(hub, &secrets, url.as_deref())
        .await
        .map_err(refused)?;
    let account = Account {
        settings: json!({ "bot_username": bot["username"], "bot_id": bot["id"],
            "webhook_url": url }),
        secrets,
    };
    hub.keep_account(&caller.tenant_id, KIND, &account).await?;
    Ok(Json(shown(Some(&account))))
}

/// Forgets a tenant's bot; Telegram delivers here no more.
#[utoipa::path(delete, path = "/v1/tenant/telegram", tag = "channels",
    responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<StatusCode, ApiError> {
    let hub = &gateway.hub;
    let found: Option<Account<Secrets>> = hub.account(&caller.tenant_id, KIND).await?;
    hub.forget_account(&caller.tenant_id, KIND).await?;
    if let Some(account) = found
        && let Err(error) = subscribe(hub, &account.secrets, None).await
    {
        tracing::info!(%error, "Telegram was not told that its deliveries end");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a delivery of Telegram.
#[utoipa::path(post, path = "/v1/telegram/webhook/{tenant}", tag = "channels", security(()),
    params(("tenant" = String, Path)), responses((status = 200, body = Object)))]
pub async fn webhook(
    State(gateway): State<AppState>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let taken = || Ok(Json(json!({ "ok": true })));
    let hub = &gateway.hub;
    // Nobody is told which tenants there are.
    let Some(account) = hub.account_lately::<Secrets>(&tenant, KIND).await? else {
        return taken();
    };
    let said = headers.get("x-telegram-bot-api-secret-token");
    let said = said.map(|value| value.as_bytes()).unwrap_or_default();
    let known = account.secrets.webhook_secret.as_bytes();
    if aws_lc_rs::constant_time::verify_slices_are_equal(said, known).is_err() {
        let why = "the delivery does not show this bot's secret";
        return Err(ApiError::forbidden("bad_webhook_secret", why));
    }
    let update: Value = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request("invalid_request", error.to_string()))?;
    if let Some(arrival) = receive::arrival(update) {
        hub.accept(&tenant, KIND, arrival).await?;
    }
    taken()
}
