//! `/v1/tenant/email`: a tenant's domain, and where its mail is posted to.

use axum::Json;
use axum::extract::State;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::relay::Route as Way;
use super::{KIND, Secrets, Settings, sign, suppressions};
use crate::channel::setup::unprocessable;
use crate::channel::{Account, Hub};
use crate::config::RelayTls;
use crate::connection::random_text;
use crate::edge::extract::{Admin, Input, check_text};
use crate::edge::{AppState, Route};
use crate::error::ApiError;
use crate::store::now_micros;
use crate::untrusted::mail;

const MAX_SECRET: usize = 256;
const MAX_HOST: usize = 253;
const MAX_NAME: usize = 200;

/// Its operations.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(one, put, remove))
        .routes(routes!(super::post::inbound))
        .merge(suppressions::documented())
}

/// What the edge must know of its routes.
pub fn routes() -> Vec<Route> {
    vec![Route::rest(Method::POST, "/v1/email/inbound/{tenant}").open()]
}

#[derive(Deserialize, ToSchema)]
pub struct EmailIn {
    /// The domain that mail is sent from and comes to.
    #[serde(default)]
    pub from_domain: Option<String>,
    /// The name beside the address.
    #[serde(default)]
    pub display_name: Option<String>,
    /// The part before the `@` of what no deployment's own address sends; `smith` when left out.
    #[serde(default)]
    pub mailbox: Option<String>,
    /// What deliveries over HTTP show or are signed with; made when left out.
    #[serde(default)]
    pub inbound_secret: Option<String>,
    /// The name of the server whose `Authentication-Results` are believed, when it stands at the top of
    /// mail that is posted. Without it the mail's own signatures are looked at.
    #[serde(default)]
    pub authserv_id: Option<String>,
    /// Whether only mail is answered whose sender is verified.
    #[serde(default)]
    pub require_verified: Option<bool>,
    /// A mail server that mail leaves by; left out: Cloudflare's with its token, else the operator's.
    #[serde(default)]
    pub smtp_host: Option<String>,
    #[serde(default)]
    pub smtp_port: Option<u16>,
    #[serde(default)]
    pub smtp_username: Option<String>,
    #[serde(default)]
    pub smtp_password: Option<String>,
    /// `starttls` (the default), `tls` or `none`.
    #[serde(default)]
    #[schema(pattern = "^(starttls|tls|none)$")]
    pub smtp_tls: Option<String>,
    /// The name under which the DNS has our key; `smithgate` when left out.
    #[serde(default)]
    pub dkim_selector: Option<String>,
    #[serde(default)]
    pub cloudflare_account_id: Option<String>,
    /// With the permission to send e-mail.
    #[serde(default)]
    pub cloudflare_api_token: Option<String>,
}

/// A record of the DNS.
#[derive(Debug, Serialize, ToSchema)]
pub struct DnsRecord {
    pub name: String,
    /// Always `TXT`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub value: String,
}

/// A tenant's e-mail; its secrets are not shown again.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct EmailOut {
    pub configured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub from_domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub mailbox: Option<String>,
    /// Whether there is a token of Cloudflare or a password of a mail server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub has_token: Option<bool>,
    /// Where mail is posted to, as it came (`message/rfc822`) or as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub inbound_url: Option<String>,
    /// Shown by PUT alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub inbound_secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub authserv_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub require_verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub smtp_host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub smtp_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub smtp_username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub smtp_tls: Option<String>,
    /// What the DNS is to say, so that others see that mail is signed by this domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub dkim_record: Option<DnsRecord>,
}

fn shown(hub: &Hub, tenant_id: &str, account: Option<&Account<Secrets>>) -> EmailOut {
    let Some(account) = account else {
        return EmailOut::default();
    };
    let settings = Settings::of(&account.settings);
    let secrets = &account.secrets;
    let tls = settings.smtp_tls.map(|tls| match tls {
        RelayTls::Starttls => "starttls",
        RelayTls::Tls => "tls",
        RelayTls::None => "none",
    });
    EmailOut {
        configured: true,
        has_token: Some(secrets.cloudflare_api_token.is_some() || secrets.smtp_password.is_some()),
        inbound_url: Some(format!("{}/v1/email/inbound/{tenant_id}", hub.public_url)),
        inbound_secret: None,
        dkim_record: Some(DnsRecord {
            name: format!(
                "{}._domainkey.{}",
                settings.dkim_selector, settings.from_domain
            ),
            kind: "TXT",
            value: settings.dkim_record,
        }),
        from_domain: Some(settings.from_domain),
        display_name: settings.display_name,
        mailbox: Some(settings.mailbox),
        authserv_id: settings.authserv_id,
        require_verified: Some(settings.require_verified),
        smtp_tls: tls
            .map(str::to_owned)
            .filter(|_| settings.smtp_host.is_some()),
        smtp_host: settings.smtp_host,
        smtp_port: settings.smtp_port,
        smtp_username: settings.smtp_username,
    }
}

/// A word of a tenant's, trimmed; an empty one counts as none.
fn word(
    param: &'static str,
    text: Option<String>,
    most: usize,
) -> Result<Option<String>, ApiError> {
    let text = text.map(|text| text.trim().to_owned());
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    check_text(param, &text, most)?;
    if text.chars().any(char::is_control) {
        return Err(ApiError::invalid(param, "must be one line"));
    }
    Ok(Some(text))
}

fn host(param: &'static str, text: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(text) = word(param, text, MAX_HOST)? else {
        return Ok(None);
    };
    let text = text.trim_end_matches('.').to_ascii_lowercase();
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
    match text.chars().all(is_host) && !text.starts_with(['.', '-']) && !text.contains("..") {
        true => Ok(Some(text)),
        false => Err(ApiError::invalid(param, "is no name of a host")),
    }
}

/// Checks what was sent.
fn settings(input: &EmailIn) -> Result<Settings, ApiError> {
    let empty = |param: &'static str, why: &'static str| unprocessable("empty_config", param, why);
    let from_domain = host("from_domain", input.from_domain.clone())?.ok_or_else(|| {
        empty(
            "from_domain",
            "the domain that mail is sent from is missing",
        )
    })?;
    if !from_domain.contains('.') || from_domain.contains(':') {
        return Err(ApiError::invalid("from_domain", "is no domain"));
    }
    let mailbox = word("mailbox", input.mailbox.clone(), 64)?;
    let mailbox = mailbox.map_or_else(|| "smith".to_owned(), |text| text.to_lowercase());
    if mail::address_of(&format!("{mailbox}@{from_domain}")).is_none() {
        let why = "is not what stands before the @ of an address";
        return Err(ApiError::invalid("mailbox", why));
    }
    let dkim_selector = host("dkim_selector", input.dkim_selector.clone())?;
    let smtp_tls = match input.smtp_tls.as_deref() {
        None | Some("") => None,
        Some("starttls") => Some(RelayTls::Starttls),
        Some("tls") => Some(RelayTls::Tls),
        Some("none") => Some(RelayTls::None),
        Some(_) => {
            return Err(ApiError::invalid(
                "smtp_tls",
                "must be starttls, tls or none",
            ));
        }
    };
    let smtp_username = word("smtp_username", input.smtp_username.clone(), MAX_SECRET)?;
    let smtp_password = word("smtp_password", input.smtp_password.clone(), 1024)?;
    if smtp_username.is_some() != smtp_password.is_some() {
        let param = match smtp_username {
            Some(_) => "smtp_password",
            None => "smtp_username",
        };
        return Err(ApiError::invalid(
            param,
            "a name and a password go together",
        ));
    }
    if smtp_tls == Some(RelayTls::None) && smtp_password.is_some() {
        return Err(ApiError::invalid(
            "smtp_tls",
            "a password is not sent in the clear",
        ));
    }
    if input.smtp_port == Some(0) {
        return Err(ApiError::invalid("smtp_port", "must be 1 to 65535"));
    }
    Ok(Settings {
        from_domain,
        display_name: word("display_name", input.display_name.clone(), MAX_NAME)?,
        mailbox,
        authserv_id: word("authserv_id", input.authserv_id.clone(), MAX_HOST)?,
        require_verified: input.require_verified.unwrap_or_default(),
        smtp_host: host("smtp_host", input.smtp_host.clone())?,
        smtp_port: input.smtp_port,
        smtp_username,
        smtp_tls,
        dkim_selector: dkim_selector.unwrap_or_else(|| "smithgate".to_owned()),
        dkim_record: String::new(),
        cloudflare_account_id: word(
            "cloudflare_account_id",
            input.cloudflare_account_id.clone(),
            MAX_SECRET,
        )?,
    })
}

/// Reads a tenant's e-mail.
#[utoipa::path(get, path = "/v1/tenant/email", tag = "channels",
    responses((status = 200, body = EmailOut)))]
pub async fn one(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<Json<EmailOut>, ApiError> {
    let hub = &gateway.hub;
    let account = hub.account(&caller.tenant_id, KIND).await?;
    Ok(Json(shown(hub, &caller.tenant_id, account.as_ref())))
}

/// Sets a tenant's e-mail; the answer alone shows the secret of deliveries.
#[utoipa::path(put, path = "/v1/tenant/email", tag = "channels", request_body = EmailIn,
    responses((status = 200, body = EmailOut)))]
pub async fn put(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
    Input(input): Input<EmailIn>,
) -> Result<Json<EmailOut>, ApiError> {
    let hub = &gateway.hub;
    let tenant_id = &caller.tenant_id;
    let mut settings = settings(&input)?;
    if let Some(host) = &settings.smtp_host
        && let Ok(address) = host.parse()
        && let Err(refused) = hub.upstream.guard().check(address)
    {
        return Err(ApiError::invalid("smtp_host", refused.to_string()));
    }
    let secret = word("inbound_secret", input.inbound_secret, MAX_SECRET)?;
    if secret.as_deref().is_some_and(|secret| !secret.is_ascii()) {
        let why = "must be ASCII: it is sent in a header";
        return Err(ApiError::invalid("inbound_secret", why));
    }
    let before: Option<Account<Secrets>> = hub.account(tenant_id, KIND).await?;
    let key = before.as_ref().and_then(|before| {
        let old = Settings::of(&before.settings);
        let is_same =
            old.from_domain == settings.from_domain && old.dkim_selector == settings.dkim_selector;
        is_same.then(|| (before.secrets.dkim_key.clone(), old.dkim_record))
    });
    // Of a domain that stays, so does the key: the DNS has it already.
    let (dkim_key, dkim_record) = match key {
        Some(found) => found,
        None => {
            let made = sign::make().await.map_err(ApiError::internal)?;
            (made.key, made.record)
        }
    };
    settings.dkim_record = dkim_record;
    let secrets = Secrets {
        inbound_secret: match (secret, &before) {
            (Some(secret), _) => secret,
            (None, Some(before)) => before.secrets.inbound_secret.clone(),
            (None, None) => random_text()?,
        },
        smtp_password: word("smtp_password", input.smtp_password, 1024)?,
        cloudflare_api_token: word("cloudflare_api_token", input.cloudflare_api_token, 1024)?,
        dkim_key,
    };
    if Way::of(&settings, &secrets, &hub.config.email).is_none() {
        let why = "mail has no way to leave by: name a mail server";
        return Err(unprocessable("empty_config", "smtp_host", why));
    }
    let domain = &settings.from_domain;
    if !hub
        .store
        .claim_email_domain(domain, tenant_id, now_micros())
        .await?
    {
        let why = "another tenant has this domain";
        return Err(ApiError::conflict("address_in_use", why).param("from_domain"));
    }
    let account = Account {
        settings: serde_json::to_value(&settings).map_err(ApiError::internal)?,
        secrets,
    };
    hub.keep_account(tenant_id, KIND, &account).await?;
    let mut out = shown(hub, tenant_id, Some(&account));
    out.inbound_secret = Some(account.secrets.inbound_secret);
    Ok(Json(out))
}

/// Forgets a tenant's e-mail: nothing is taken for its domain any more.
#[utoipa::path(delete, path = "/v1/tenant/email", tag = "channels",
    responses((status = 204)))]
pub async fn remove(
    State(gateway): State<AppState>,
    Admin(caller): Admin,
) -> Result<StatusCode, ApiError> {
    let hub = &gateway.hub;
    hub.store.release_email_domains(&caller.tenant_id).await?;
    hub.forget_account(&caller.tenant_id, KIND).await?;
    Ok(StatusCode::NO_CONTENT)
}
