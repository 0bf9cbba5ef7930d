//! The installation of an app in workspaces
//! (<https://docs.slack.dev/authentication/installing-with-oauth>), and its end.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::api::{self, By, is_id};
use super::{Install, KIND, Secrets, install_kind, team_of};
use crate::channel::bind::chat_identity;
use crate::channel::{Account, Fault, Hub, Meaning};
use crate::connection::random_text;
use crate::error::ApiError;
use crate::ids;
use crate::store::{
    ArrivalEnd, BindingRow, DeploymentRow, EventRow, InboundRow, OauthStateRow, now_micros,
};

const SECOND: i64 = 1_000_000;
/// A token that runs out so soon is replaced.
const BEFOREHAND: i64 = 600 * SECOND;
/// A link to install lasts so long.
const PATIENCE: i64 = 7 * 24 * 3600 * SECOND;
/// Whose states they are; no provider of a smith's connections has such a name.
const PROVIDER: &str = "slack/install";
/// What an app needs for all that this channel does.
pub const SCOPES: &str = "app_mentions:read,assistant:write,channels:history,chat:write,commands,\
    files:read,files:write,groups:history,im:history,im:write,mpim:history,users:read";

/// Where Slack sends the person's browser back to.
pub fn redirect_url(hub: &Hub, tenant_id: &str) -> String {
    format!("{}/v1/slack/oauth/{tenant_id}", hub.public_url)
}

/// Whether a tenant's app can be installed by others.
pub fn is_ready(account: &Account<Secrets>) -> bool {
    account.settings["client_id"].is_string() && account.secrets.client_secret.is_some()
}

/// What is known of an installation that was begun.
#[derive(Serialize, Deserialize)]
struct Begun {
    deployment_id: String,
}

fn owner(state: &str) -> String {
    format!("slack_state/{state}")
}

/// What a new deployment shows once: a link by which a workspace installs the app.
pub async fn made(
    hub: &Hub,
    deployment: &DeploymentRow,
    start_token: Option<&str>,
) -> Result<Map<String, Value>, ApiError> {
    let mut shown = Map::new();
    if let Some(token) = start_token {
        shown.insert(
            "prefilled_message".to_owned(),
            json!(format!("start {token}")),
        );
    }
    let tenant_id = &deployment.tenant_id;
    let account: Option<Account<Secrets>> = hub.account(tenant_id, KIND).await?;
    let Some(account) = account.filter(is_ready) else {
        return Ok(shown);
    };
    let state = random_text()?;
    let begun = Begun {
        deployment_id: deployment.id.clone(),
    };
    let begun = serde_json::to_vec(&begun).map_err(ApiError::internal)?;
    let row = OauthStateRow {
        id: state.clone(),
        tenant_id: tenant_id.clone(),
        smith_id: String::new(),
        provider: PROVIDER.to_owned(),
        return_url: None,
        sealed: hub
            .vault
            .seal(&owner(&state), &begun)
            .map_err(ApiError::internal)?,
        created_at: now_micros(),
    };
    hub.store.insert_oauth_state(&row).await?;
    let base = hub.config.slack_url.trim_end_matches('/');
    let url = url::Url::parse(&format!("{base}/oauth/v2/authorize"));
    let mut url = url.map_err(ApiError::internal)?;
    let settings = &account.settings;
    let word = |name: &str| settings[name].as_str().unwrap_or_default();
    let scopes = match word("oauth_scopes") {
        "" => SCOPES,
        scopes => scopes,
    };
    url.query_pairs_mut()
        .append_pair("client_id", word("client_id"))
        .append_pair("scope", scopes)
        .append_pair("user_scope", word("oauth_user_scopes"))
        .append_pair("redirect_uri", &redirect_url(hub, tenant_id))
        .append_pair("state", &state);
    shown.insert("install_url".to_owned(), json!(url.as_str()));
    shown.insert("state".to_owned(), json!(state));
    Ok(shown)
}

/// How an installation ended, as its person is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Installed,
    /// The person did not want it.
    Denied,
    Failed,
}

impl Outcome {
    /// Of the query that a browser is sent back with.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// Ends an installation. `state` counts once, and for its own tenant alone; `None`: it is none.
pub async fn ended(
    hub: &Hub,
    tenant_id: &str,
    state: &str,
    code: Option<&str>,
) -> Result<Option<Outcome>, ApiError> {
    let row = hub.store.take_oauth_state(state).await?;
    let row = row.filter(|row| {
        row.tenant_id == tenant_id
            && row.provider == PROVIDER
            && row.created_at > now_micros() - PATIENCE
    });
    let Some(row) = row else {
        return Ok(None);
    };
    let Some(code) = code else {
        return Ok(Some(Outcome::Denied));
    };
    let begun = hub
        .vault
        .open(&owner(state), &row.sealed)
        .map_err(ApiError::internal)?;
    let begun: Begun = serde_json::from_slice(&begun).map_err(ApiError::internal)?;
    match install(hub, tenant_id, &begun.deployment_id, code).await {
        Ok(()) => Ok(Some(Outcome::Installed)),
        Err(fault) => {
            tracing::warn!(%fault, tenant_id, "an app is not installed");
            Ok(Some(Outcome::Failed))
        }
    }
}

async fn install(hub: &Hub, tenant_id: &str, deployment_id: &str, code: &str) -> Result<(), Fault> {
    let account: Option<Account<Secrets>> = hub.account(tenant_id, KIND).await?;
    let account = account.filter(is_ready);
    let account = account.ok_or_else(|| Fault::Never("the tenant has no app".to_owned()))?;
    let id = account.settings["client_id"].as_str().unwrap_or_default();
    let secret = account.secrets.client_secret.as_deref().unwrap_or_default();
    let redirect = redirect_url(hub, tenant_id);
    let fields = [("code", code), ("redirect_uri", redirect.as_str())];
    let granted = api::form(hub, By::App(id, secret), "oauth.v2.access", &fields).await?;
    let is_whole = granted["is_enterprise_install"] == json!(true);
    let place = match is_whole {
        true => &granted["enterprise"],
        false => &granted["team"],
    };
    let team = place["id"].as_str().filter(|team| is_id(team));
    let token = granted["access_token"].as_str();
    let (Some(team), Some(token)) = (team, token) else {
        return Err(Fault::Never("Slack names no workspace or token".to_owned()));
    };
    let now = now_micros();
    let install = Account {
        settings: json!({ "team_id": team, "team_name": place["name"], "app_id": granted["app_id"],
            "bot_user_id": granted["bot_user_id"], "scope": granted["scope"],
            "deployment_id": deployment_id, "installed_at": now,
            "expires_at": expiry(&granted) }),
        secrets: Install {
            bot_token: token.to_owned(),
            refresh_token: granted["refresh_token"].as_str().map(str::to_owned),
        },
    };
    hub.keep_account(tenant_id, &install_kind(team), &install)
        .await?;
    let told = json!({ "team_id": team, "team_name": place["name"], "app_id": granted["app_id"],
        "bot_user_id": granted["bot_user_id"], "deployment_id": deployment_id,
        "installed_by": granted["authed_user"]["id"] });
    let deployment = hub.store.deployment(tenant_id, deployment_id).await?;
    let deployment = deployment.filter(|found| found.status == "active");
    let smith = deployment.filter(|found| found.target_type == "smith");
    let smith_id = smith.map(|found| found.target_id);
    let event = EventRow::new(tenant_id, "slack.install", smith_id.as_deref(), &told, None);
    // A fixed smith answers in all of the workspace.
    let binding = smith_id.clone().map(|smith_id| BindingRow {
        tenant_id: tenant_id.to_owned(),
        kind: KIND.to_owned(),
        identity: chat_identity(team),
        smith_id,
        deployment_id: deployment_id.to_owned(),
        created_at: now,
    });
    let held = now + 60 * SECOND;
    // It is an arrival as any other: kept, and with what it leads to in one transaction.
    let arrival = InboundRow {
        id: ids::mint(ids::Kind::InboundEvent),
        tenant_id: tenant_id.to_owned(),
        source: KIND.to_owned(),
        kind: "install".to_owned(),
        subject: team.to_owned(),
        idempotency_key: format!("install:{team}:{now}"),
        smith_id: String::new(),
        data: told.to_string(),
        status: "accepted".to_owned(),
        reason: None,
        takings: 0,
        attempts: 0,
        due_at: Some(held),
        created_at: now,
    };
    hub.store.accept(std::slice::from_ref(&arrival)).await?;
    let end = ArrivalEnd {
        smith_id: smith_id.unwrap_or_default(),
        events: vec![event],
        binding,
        ..ArrivalEnd::default()
    };
    hub.store.end_arrival(&arrival, held, &end, now).await?;
    Ok(())
}

/// When a granted token runs out, in microseconds; `None`: never.
fn expiry(granted: &Value) -> Option<i64> {
    let seconds = granted["expires_in"].as_i64()?;
    Some(now_micros().saturating_add(seconds.saturating_mul(SECOND)))
}

/// An installation whose token is good for a while: of an app with token rotation
/// (<https://docs.slack.dev/authentication/using-token-rotation>) another one is fetched.
pub async fn fresh(
    hub: &Hub,
    tenant_id: &str,
    team: &str,
    app: &Account<Secrets>,
    mut install: Account<Install>,
) -> Result<Account<Install>, Fault> {
    let now = now_micros();
    let expires_at = install.settings["expires_at"].as_i64().unwrap_or(i64::MAX);
    let Some(refresh_token) = install.secrets.refresh_token.clone() else {
        return Ok(install);
    };
    if expires_at - now > BEFOREHAND {
        return Ok(install);
    }
    let lease = format!("slack/{tenant_id}/{team}");
    let (node_id, until) = (hub.runs.node_id(), now + 30 * SECOND);
    if !hub.store.take_lease(&lease, node_id, now, until).await? {
        return match expires_at > now {
            true => Ok(install),
            false => Err(Fault::later("another node fetches a token")),
        };
    }
    let id = app.settings["client_id"].as_str().unwrap_or_default();
    let secret = app.secrets.client_secret.as_deref().unwrap_or_default();
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token.as_str()),
    ];
    let granted = api::form(hub, By::App(id, secret), "oauth.v2.access", &fields).await;
    let kind = install_kind(team);
    let granted = match api::asked(granted) {
        Ok(granted) => granted,
        Err(fault) => {
            // Its token counts once: somebody else may have been first.
            let kept: Option<Account<Install>> = hub.account(tenant_id, &kind).await?;
            let is_other = |kept: &Account<Install>| {
                kept.secrets.refresh_token.as_deref() != Some(refresh_token.as_str())
            };
            return match kept.filter(is_other) {
                Some(kept) => Ok(kept),
                None if expires_at > now => Ok(install),
                None => Err(fault),
            };
        }
    };
    let token = granted["access_token"].as_str();
    let token = token.ok_or_else(|| Fault::later("Slack gave no token"))?;
    token.clone_into(&mut install.secrets.bot_token);
    let next = granted["refresh_token"].as_str().map(str::to_owned);
    install.secrets.refresh_token = next.or(Some(refresh_token));
    install.settings["expires_at"] = json!(expiry(&granted));
    hub.keep_account(tenant_id, &kind, &install).await?;
    Ok(install)
}

/// Forgets the token of a workspace that took the app away
/// (<https://docs.slack.dev/reference/events/app_uninstalled>).
pub async fn uninstalled(hub: &Hub, tenant_id: &str, payload: &Value) -> Result<Meaning, Fault> {
    let event = &payload["event"];
    let bots = event["tokens"]["bot"].as_array();
    if event["type"] == json!("tokens_revoked") && bots.is_none_or(Vec::is_empty) {
        return Ok(Meaning::Nothing("no token of the bot is revoked"));
    }
    let team = team_of(payload);
    if team.is_empty() {
        return Ok(Meaning::Nothing("it names no workspace"));
    }
    // What comes late says nothing of an installation that came after it.
    let at = payload["event_time"]
        .as_i64()
        .unwrap_or(i64::MAX / SECOND - 1);
    let is_older = |settings: &Value, name: &str| {
        settings[name]
            .as_i64()
            .is_none_or(|made| made < (at + 1) * SECOND)
    };
    let kind = install_kind(team);
    let installed: Option<Account<Install>> = hub.account(tenant_id, &kind).await?;
    let mut is_gone = false;
    if installed.is_some_and(|found| is_older(&found.settings, "installed_at")) {
        is_gone = hub.forget_account(tenant_id, &kind).await?;
    }
    let account: Option<Account<Secrets>> = hub.account(tenant_id, KIND).await?;
    if let Some(mut account) = account
        && account.secrets.bot_token.is_some()
        && account.settings["team_id"] == json!(team)
        && is_older(&account.settings, "checked_at")
    {
        account.secrets.bot_token = None;
        hub.keep_account(tenant_id, KIND, &account).await?;
        is_gone = true;
    }
    if is_gone {
        let data = json!({ "team_id": team, "reason": event["type"] });
        let event = EventRow::new(tenant_id, "slack.uninstalled", None, &data, None);
        hub.runs.tell(event).await?;
    }
    Ok(Meaning::Nothing("the app is not installed there any more"))
}
