//! `/v1/tenant/slack`: a tenant's app, and where Slack delivers to.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderMap, Method, StatusCode};
use maud::html;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::{self, By};
use super::interact::{self, Sealer};
use super::{KIND, Secrets, oauth, receive, signature, slack_api_error};
use crate::channel::setup::unprocessable;
use crate::channel::{Account, Arrival};
use crate::config::parse_page;
use crate::edge::extract::{Admin, Input, check_text};
use crate::edge::html::document;
use crate::edge::{AppState, Route};
use crate::error::ApiError;
use crate::json::Json as Tree;
use crate::store::now_micros;

const MAX_SECRET: usize = 512;
const MAX_SCOPES: usize = 4096;
/// Of the handshake, which nothing is signed in.
const MAX_HANDSHAKE: usize = 4096;

/// Its operations.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(one, put, remove))
        .routes(routes!(events))
        .routes(routes!(interactivity))
        .routes(routes!(commands))
        .routes(routes!(installed))
}

/// What the edge must know of its routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::rest(Method::POST, "/v1/slack/events/{tenant}").open(),
        Route::rest(Method::POST, "/v1/slack/interactivity/{tenant}").open(),
        Route::rest(Method::POST, "/v1/slack/commands/{tenant}").open(),
        Route::rest(Method::GET, "/v1/slack/oauth/{tenant}").open(),
    ]
}

/// What is left out is kept from before; an empty text takes it away.
#[derive(Deserialize, ToSchema)]
pub struct SlackIn {
    /// Of the tenant's own workspace: `xoxb-…`.
    #[serde(default)]
    pub bot_token: Option<String>,
    /// What Slack signs its requests with.
    #[serde(default)]
    pub signing_secret: Option<String>,
    /// With `client_secret`: other workspaces can install the app.
    #[serde(default)]
    pub client_id: Option<String>,
    #[serde(default)]
    pub client_secret: Option<String>,
    /// For Socket Mode, `xapp-…`: Slack is listened to, and no public address is needed.
    #[serde(default)]
    pub app_token: Option<String>,
    /// What installations ask for: a text with commas, or a list.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub oauth_scopes: Option<Tree>,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub oauth_user_scopes: Option<Tree>,
    /// Where browsers go after an installation, with `?slack=installed`, `denied` or `failed`.
    #[serde(default)]
    pub return_url: Option<String>,
    /// Apps are not minted here.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub factory: Option<Tree>,
}

/// Whether apps are minted.
#[derive(Debug, Serialize, ToSchema)]
pub struct SlackFactory {
    /// Always false.
    pub configured: bool,
}

/// A tenant's app; its secrets are never shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct SlackOut {
    pub configured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub bot_user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub team_id: Option<String>,
    /// The request URL of the app's event subscriptions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub events_url: Option<String>,
    /// The request URL of the app's interactivity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub interactivity_url: Option<String>,
    /// The request URL of the app's slash commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub commands_url: Option<String>,
    /// Whether Slack is listened to by Socket Mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub socket_mode: Option<bool>,
    /// Whether other workspaces can install the app.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub oauth_ready: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub oauth_redirect_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub return_url: Option<String>,
    pub factory: SlackFactory,
}

fn shown(gateway: &AppState, tenant: &str, account: Option<&Account<Secrets>>) -> SlackOut {
    let hub = &gateway.hub;
    let word = |name: &str| {
        account
            .and_then(|a| a.settings[name].as_str())
            .map(str::to_owned)
    };
    let signs = account.is_some_and(|account| account.secrets.signing_secret.is_some());
    let url = |what: &str| signs.then(|| format!("{}/v1/slack/{what}/{tenant}", hub.public_url));
    let has_bot = account.is_some_and(|account| account.secrets.bot_token.is_some());
    SlackOut {
        configured: account.is_some(),
        bot_user_id: word("bot_user_id").filter(|_| has_bot),
        team_id: word("team_id").filter(|_| has_bot),
        events_url: url("events"),
        interactivity_url: url("interactivity"),
        commands_url: url("commands"),
        socket_mode: account.map(|account| account.secrets.app_token.is_some()),
        oauth_ready: account.map(oauth::is_ready),
        oauth_redirect_url: word("client_id").map(|_| oauth::redirect_url(hub, tenant)),
        return_url: word("return_url"),
        factory: SlackFactory { configured: false },
    }
}

/// Reads a tenant's app.
#[utoipa::path(get, path = "/v1/tenant/slack", tag = "channels",
    responses((status = 200, body = SlackOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<SlackOut>, ApiError> {
    let account = gateway.hub.account(&caller.tenant_id, KIND).await?;
    Ok(Json(shown(&gateway, &caller.tenant_id, account.as_ref())))
}

/// A secret as it becomes: that which is given, or that from before.
fn secret(
    param: &'static str,
    given: Option<String>,
    kept: &mut Option<String>,
) -> Result<bool, ApiError> {
    let Some(given) = given else {
        return Ok(false);
    };
    let given = given.trim();
    check_text(param, given, MAX_SECRET)?;
    if !given.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ApiError::invalid(
            param,
            "holds a space or a letter of no secret",
        ));
    }
    let given = Some(given.to_owned()).filter(|given| !given.is_empty());
    let is_changed = *kept != given;
    *kept = given;
    Ok(is_changed)
}

/// Scopes as one text with commas.
fn scopes(param: &'static str, given: &Tree) -> Result<String, ApiError> {
    let given: Value = serde_json::to_value(given).unwrap_or_default();
    let bad = || ApiError::invalid(param, "must be a text or a list of texts");
    let all: Vec<&str> = match &given {
        Value::Null => Vec::new(),
        Value::String(text) => text.split([',', ' ']).collect(),
        Value::Array(all) => {
            let words = all.iter().map(|one| one.as_str().ok_or_else(bad));
            words.collect::<Result<_, _>>()?
        }
        _ => return Err(bad()),
    };
    let all: Vec<&str> = all
        .into_iter()
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .collect();
    let text = all.join(",");
    let is_scope = |c: char| c.is_ascii_alphanumeric() || ":._,-".contains(c);
    if text.len() > MAX_SCOPES || !text.chars().all(is_scope) {
        return Err(ApiError::invalid(param, "holds what is no scope"));
    }
    Ok(text)
}

/// Sets a tenant's app: asks Slack who it is.
#[utoipa::path(put, path = "/v1/tenant/slack", tag = "channels", request_body = SlackIn,
    responses((status = 200, body = SlackOut)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<SlackIn>,
) -> Result<Json<SlackOut>, ApiError> {
    let hub = &gateway.hub;
    if input.factory.is_some_and(|factory| {
        serde_json::to_value(factory).is_ok_and(|factory| !factory.is_null())
    }) {
        let why = "apps are not minted here: make one at api.slack.com/apps";
        return Err(ApiError::bad_request("unsupported", why).param("factory"));
    }
    let kept: Option<Account<Secrets>> = hub.account(&caller.tenant_id, KIND).await?;
    let mut account = kept.unwrap_or_else(|| Account {
        settings: json!({}),
        secrets: Secrets::default(),
    });
    let secrets = &mut account.secrets;
    let asks = input.bot_token.is_some();
    secret("bot_token", input.bot_token, &mut secrets.bot_token)?;
    secret(
        "signing_secret",
        input.signing_secret,
        &mut secrets.signing_secret,
    )?;
    secret(
        "client_secret",
        input.client_secret,
        &mut secrets.client_secret,
    )?;
    let is_other_app = secret("app_token", input.app_token, &mut secrets.app_token)?;
    let mut settings = match account.settings {
        Value::Object(settings) => settings,
        _ => Map::new(),
    };
    let mut client_id = settings
        .get("client_id")
        .and_then(Value::as_str)
        .map(str::to_owned);
    secret("client_id", input.client_id, &mut client_id)?;
    let mut set = |name: &str, value: Option<String>| match value.filter(|text| !text.is_empty()) {
        Some(value) => drop(settings.insert(name.to_owned(), json!(value))),
        None => drop(settings.shift_remove(name)),
    };
    if let Some(given) = &input.oauth_scopes {
        set("oauth_scopes", Some(scopes("oauth_scopes", given)?));
    }
    if let Some(given) = &input.oauth_user_scopes {
        set(
            "oauth_user_scopes",
            Some(scopes("oauth_user_scopes", given)?),
        );
    }
    if let Some(url) = input.return_url {
        if !url.is_empty() {
            // The tenant's own word, and the only page that browsers are sent to.
            parse_page(&url).map_err(|why| {
                ApiError::bad_request("invalid_return_url", why).param("return_url")
            })?;
        }
        set("return_url", Some(url));
    }
    let has_app = client_id.is_some() && account.secrets.client_secret.is_some();
    set("client_id", client_id);
    let incomplete =
        |param: &'static str, why: &'static str| Err(unprocessable("empty_config", param, why));
    let secrets = &account.secrets;
    if secrets.bot_token.is_none() && !has_app {
        let why = "give the bot's token, or client_id and client_secret for installations";
        return incomplete("bot_token", why);
    }
    if secrets.signing_secret.is_none() && secrets.app_token.is_none() {
        let why = "give the signing secret, or an app token for Socket Mode";
        return incomplete("signing_secret", why);
    }
    if let (true, Some(token)) = (asks, &secrets.bot_token) {
        let bot = api::call(hub, token, "auth.test", &json!({})).await;
        let bot = bot.map_err(|fault| slack_api_error(&fault, "bot_token"))?;
        settings.insert("bot_user_id".to_owned(), bot["user_id"].clone());
        settings.insert("checked_at".to_owned(), json!(now_micros()));
        for name in ["team_id", "bot_id", "team", "is_enterprise_install"] {
            settings.insert(name.to_owned(), bot[name].clone());
        }
    }
    if let (true, Some(token)) = (is_other_app, &secrets.app_token) {
        if !token.starts_with("xapp-") {
            return Err(ApiError::invalid(
                "app_token",
                "is no token of an app: xapp-…",
            ));
        }
        let opened = api::form(hub, By::Token(token), "apps.connections.open", &[]).await;
        opened.map_err(|fault| slack_api_error(&fault, "app_token"))?;
    }
    let account = Account {
        settings: Value::Object(settings),
        secrets: account.secrets,
    };
    hub.keep_account(&caller.tenant_id, KIND, &account).await?;
    Ok(Json(shown(&gateway, &caller.tenant_id, Some(&account))))
}

/// Forgets a tenant's app, with all of its installations.
#[utoipa::path(delete, path = "/v1/tenant/slack", tag = "channels",
    responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<StatusCode, ApiError> {
    let hub = &gateway.hub;
    hub.forget_account(&caller.tenant_id, KIND).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses what is not signed by the tenant's app.
async fn check(
    gateway: &AppState,
    tenant: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), ApiError> {
    let account: Option<Account<Secrets>> = gateway.hub.account_lately(tenant, KIND).await?;
    let secret = account.and_then(|account| account.secrets.signing_secret);
    signature::check(secret.as_deref(), headers, body, now_micros() / 1_000_000)
}

fn no_json(error: serde_json::Error) -> ApiError {
    ApiError::bad_request("invalid_request", error.to_string())
}

/// Keeps what arrived with which delivery Slack said that it is.
pub(super) async fn keep(
    gateway: &crate::channel::Hub,
    tenant: &str,
    mut arrival: Arrival,
    retry: Option<Value>,
) -> Result<(), ApiError> {
    if let Some(retry) = retry {
        arrival.data["retry"] = retry;
    }
    gateway.accept(tenant, KIND, arrival).await?;
    Ok(())
}

/// Takes an event of Slack.
#[utoipa::path(post, path = "/v1/slack/events/{tenant}", tag = "channels", security(()),
    params(("tenant" = String, Path)), responses((status = 200, body = Object)))]
pub async fn events(
    State(gateway): State<AppState>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    // Whoever sets the URL in Slack may not have set the secret here yet.
    let is_small = body.len() <= MAX_HANDSHAKE;
    let handshake: Option<Value> = is_small
        .then(|| serde_json::from_slice(&body).ok())
        .flatten();
    if let Some(handshake) = &handshake
        && handshake["type"] == json!("url_verification")
    {
        let challenge = handshake["challenge"].as_str().unwrap_or_default();
        check_text("challenge", challenge, MAX_SECRET)?;
        return Ok(Json(json!({ "challenge": challenge })));
    }
    check(&gateway, &tenant, &headers, &body).await?;
    let payload: Value = serde_json::from_slice(&body).map_err(no_json)?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let retry = header("x-slack-retry-num").map(|number| {
        let number: Option<u64> = number.parse().ok();
        json!({ "num": number, "reason": header("x-slack-retry-reason") })
    });
    if let Some(arrival) = receive::arrival(payload) {
        keep(&gateway.hub, &tenant, arrival, retry).await?;
    }
    Ok(Json(json!({ "ok": true })))
}

/// Takes a press of a button or a form of Slack.
#[utoipa::path(post, path = "/v1/slack/interactivity/{tenant}", tag = "channels", security(()),
    params(("tenant" = String, Path)),
    responses((status = 200, description = "Taken; the body is empty")))]
pub async fn interactivity(
    State(gateway): State<AppState>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    check(&gateway, &tenant, &headers, &body).await?;
    let mut fields = url::form_urlencoded::parse(&body);
    let payload = fields.find(|(name, _)| name == "payload");
    let payload = payload.map(|(_, value)| value).unwrap_or_default();
    let payload: Value = serde_json::from_str(&payload).map_err(no_json)?;
    let sealer = Sealer {
        hub: &gateway.hub,
        tenant_id: &tenant,
    };
    if let Some(arrival) = interact::arrival(Some(&sealer), payload) {
        keep(&gateway.hub, &tenant, arrival, None).await?;
    }
    // Anything in the body of an answer to a form would be taken for its errors.
    Ok(StatusCode::OK)
}

/// Takes a slash command of Slack.
#[utoipa::path(post, path = "/v1/slack/commands/{tenant}", tag = "channels", security(()),
    params(("tenant" = String, Path)),
    responses((status = 200, description = "Taken; the answer comes by itself")))]
pub async fn commands(
    State(gateway): State<AppState>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    check(&gateway, &tenant, &headers, &body).await?;
    let fields: Map<String, Value> = url::form_urlencoded::parse(&body)
        .map(|(name, value)| (name.into_owned(), json!(value)))
        .collect();
    let sealer = Sealer {
        hub: &gateway.hub,
        tenant_id: &tenant,
    };
    match interact::command_arrival(Some(&sealer), Value::Object(fields)) {
        Some(arrival) => {
            keep(&gateway.hub, &tenant, arrival, None).await?;
            // The command is shown to the others, as what it leads to is.
            Ok(Json(json!({ "response_type": "in_channel" })).into_response())
        }
        // Slack asks so whether the certificate is good.
        None => Ok(StatusCode::OK.into_response()),
    }
}

/// What Slack sends a person's browser back with.
#[derive(Debug, Deserialize)]
pub struct Back {
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    code: Option<String>,
}

/// Ends an installation: Slack has sent the person's browser back.
#[utoipa::path(get, path = "/v1/slack/oauth/{tenant}", tag = "channels", security(()),
    params(("tenant" = String, Path), ("state" = Option<String>, Query),
        ("code" = Option<String>, Query), ("error" = Option<String>, Query)),
    responses((status = 200, content_type = "text/html", body = String),
        (status = 303, description = "To the tenant's `return_url`")))]
pub async fn installed(
    State(gateway): State<AppState>,
    Path(tenant): Path<String>,
    Query(back): Query<Back>,
) -> Result<Response, ApiError> {
    let state = back.state.unwrap_or_default();
    check_text("state", &state, MAX_SECRET)?;
    let code = back.code.filter(|code| !code.is_empty());
    check_text("code", code.as_deref().unwrap_or_default(), MAX_SECRET)?;
    let hub = &gateway.hub;
    let Some(outcome) = oauth::ended(hub, &tenant, &state, code.as_deref()).await? else {
        let why = "this installation is unknown, was used, or took too long";
        return Err(ApiError::bad_request("invalid_state", why).param("state"));
    };
    let account: Option<Account<Secrets>> = hub.account(&tenant, KIND).await?;
    let page = account.and_then(|account| account.settings["return_url"].as_str().map(parse_page));
    if let Some(Ok(mut page)) = page {
        page.query_pairs_mut()
            .append_pair("slack", outcome.as_str());
        return Ok(Redirect::to(page.as_str()).into_response());
    }
    let (status, words) = match outcome {
        oauth::Outcome::Installed => (
            StatusCode::OK,
            "The app is installed. Write to it in Slack.",
        ),
        oauth::Outcome::Denied => (StatusCode::OK, "The app was not installed."),
        oauth::Outcome::Failed => (
            StatusCode::BAD_GATEWAY,
            "Slack did not install the app. Please try again.",
        ),
    };
    Ok(document(status, &html! { h1 { "Slack" } p { (words) } }))
}
