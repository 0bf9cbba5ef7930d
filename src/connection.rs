//! Grants of smiths at OAuth providers: sealed credentials, and the two token requests of RFC 6749
//! (authorization code with PKCE, refresh).
//!
//! Lives here: [`Connections`]. May import `store`, `secrets`, `model`'s HTTP client (for its
//! address guard), `ids`, `error`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::secrets::Vault;
use crate::store::{ConnectionRow, OauthProviderRow, OauthStateRow, Store, now_micros};
use crate::upstream::{Endpoint, Timeouts, Upstream, UpstreamError, UpstreamRequest};

const PATIENCE: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 64 * 1024;

/// The tokens of a grant; never shown.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Credential {
    #[serde(default)]
    pub access_token: Option<String>,
    #[serde(default)]
    pub refresh_token: Option<String>,
    #[serde(default)]
    pub token_uri: Option<String>,
}

/// A token endpoint's answer (RFC 6749, 5.1).
#[derive(Deserialize)]
pub struct Granted {
    pub access_token: String,
    #[serde(default)]
    pub refresh_token: Option<String>,
    /// Seconds.
    #[serde(default)]
    pub expires_in: Option<i64>,
    /// Separated by spaces.
    #[serde(default)]
    pub scope: Option<String>,
}

/// Seals credentials and asks for tokens.
pub struct Connections {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    upstream: Arc<Upstream>,
}

fn refresh_failed(why: impl std::fmt::Display) -> ApiError {
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        "refresh_failed",
        format!("the provider gave no tokens: {why}"),
    )
}

/// What a connection's credential is sealed for.
fn owner(tenant_id: &str, connection_id: &str) -> String {
    format!("connection/{tenant_id}/{connection_id}")
}

fn provider_owner(tenant_id: &str, provider: &str) -> String {
    format!("oauth_provider/{tenant_id}/{provider}")
}

/// 32 random bytes as text that URLs take.
pub fn random_text() -> Result<String, ApiError> {
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ApiError::internal("no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// A page that a browser is sent to.
pub fn check_page(
    param: &'static str,
    code: &'static str,
    text: &str,
) -> Result<url::Url, ApiError> {
    let bad = |why: String| ApiError::bad_request(code, why).param(param);
    let url = url::Url::parse(text).map_err(|e| bad(e.to_string()))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(bad("must be an http(s) URL".to_owned())),
    }
}

/// An authorization that a person is to give.
pub struct Authorization<'a> {
    /// The tenant's client.
    pub provider: &'a OauthProviderRow,
    pub smith_id: &'a str,
    /// Where the provider sends the person's browser back to.
    pub callback: String,
    /// Where it goes then.
    pub return_url: Option<String>,
}

/// Begins an authorization (RFC 6749 4.1.1, with PKCE): the page that the person's browser is to go
/// to; `None` when the client does not say all that it takes.
pub async fn authorization(
    store: &dyn Store,
    vault: &Vault,
    begun: Authorization<'_>,
) -> Result<Option<String>, ApiError> {
    let row = begun.provider;
    let (Some(page), Some(client_id)) = (&row.authorize_url, &row.client_id) else {
        return Ok(None);
    };
    let mut url = check_page("provider", "invalid_url", page)?;
    let (state, verifier) = (random_text()?, random_text()?);
    let scopes: Vec<String> = serde_json::from_str(&row.scopes_allowed).unwrap_or_default();
    let pending = OauthStateRow {
        id: state.clone(),
        tenant_id: row.tenant_id.clone(),
        smith_id: begun.smith_id.to_owned(),
        provider: row.provider.clone(),
        return_url: begun.return_url,
        sealed: vault
            .seal(&format!("oauth_state/{state}"), verifier.as_bytes())
            .map_err(ApiError::internal)?,
        created_at: now_micros(),
    };
    store.insert_oauth_state(&pending).await?;
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", client_id)
        .append_pair("redirect_uri", &begun.callback)
        .append_pair("scope", &scopes.join(" "))
        .append_pair("state", &state)
        .append_pair("code_challenge", &challenge(&verifier))
        .append_pair("code_challenge_method", "S256");
    Ok(Some(url.into()))
}

/// The `S256` challenge of a PKCE verifier (RFC 7636).
pub fn challenge(verifier: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    URL_SAFE_NO_PAD.encode(digest.as_ref())
}

impl Connections {
    /// Puts the parts together.
    pub fn new(store: Arc<dyn Store>, vault: Arc<Vault>, upstream: Arc<Upstream>) -> Self {
        Self {
            store,
            vault,
            upstream,
        }
    }

    /// Seals a connection's credential.
    pub fn seal(
        &self,
        tenant: &str,
        id: &str,
        credential: &Credential,
    ) -> Result<Vec<u8>, ApiError> {
        let text = serde_json::to_vec(credential).map_err(ApiError::internal)?;
        self.vault
            .seal(&owner(tenant, id), &text)
            .map_err(ApiError::internal)
    }

    /// Opens a connection's credential.
    pub fn open(&self, row: &ConnectionRow) -> Result<Credential, ApiError> {
        let text = self
            .vault
            .open(&owner(&row.tenant_id, &row.id), &row.sealed)
            .map_err(ApiError::internal)?;
        serde_json::from_slice(&text).map_err(ApiError::internal)
    }

    /// Seals an OAuth client's secret.
    pub fn seal_secret(
        &self,
        tenant: &str,
        provider: &str,
        secret: &str,
    ) -> Result<Vec<u8>, ApiError> {
        self.vault
            .seal(&provider_owner(tenant, provider), secret.as_bytes())
            .map_err(ApiError::internal)
    }

    fn secret(&self, row: &OauthProviderRow) -> Result<Option<String>, ApiError> {
        let Some(sealed) = &row.sealed else {
            return Ok(None);
        };
        let opened = self
            .vault
            .open(&provider_owner(&row.tenant_id, &row.provider), sealed)
            .map_err(ApiError::internal)?;
        Ok(Some(String::from_utf8_lossy(&opened).into_owned()))
    }

    /// Refuses a connection's own `token_uri` where the tenant's OAuth client has a secret, which is
    /// sent to that client's own alone.
    pub async fn check_token_uri(
        &self,
        tenant_id: &str,
        provider: &str,
        token_uri: &str,
    ) -> Result<(), ApiError> {
        let client = self.store.oauth_provider(tenant_id, provider).await?;
        let keeps_secret = client.filter(|client| client.sealed.is_some());
        match keeps_secret {
            Some(client) if client.token_uri.as_deref() != Some(token_uri) => {
                Err(ApiError::bad_request(
                    "invalid_url",
                    format!("the tokens of '{provider}' are refreshed where its OAuth client says"),
                )
                .param("credential.token_uri"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a URL that is none, or that leads to an address which tenants may not reach.
    pub async fn check_url(&self, param: &'static str, url: &str) -> Result<(), ApiError> {
        let bad = |why: String| ApiError::bad_request("invalid_url", why).param(param);
        let endpoint = Endpoint::parse(url, false).map_err(bad)?;
        match self.upstream.check(&endpoint).await {
            Err(UpstreamError::Forbidden(why)) => Err(bad(why)),
            _ => Ok(()),
        }
    }

    async fn post(
        &self,
        url: &str,
        media_type: &'static str,
        body: String,
    ) -> Result<(StatusCode, bytes::Bytes), String> {
        let endpoint = Endpoint::parse(url, false)?;
        let headers: [(HeaderName, HeaderValue); 2] = [
            (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
        ];
        let request = UpstreamRequest {
            method: Method::POST,
            path: "",
            headers: &headers,
            body: body.into(),
            repeatable: true,
        };
        let timeouts = Timeouts {
            connect: PATIENCE / 2,
            first_byte: PATIENCE,
            idle: PATIENCE,
        };
        let answered = async {
            let sent = self.upstream.send(&endpoint, &request, timeouts);
            let told = |error: UpstreamError| error.about("the OAuth provider");
            let mut response = sent.await.map_err(told)?;
            let status = response.status;
            let body = response.body(MAX_ANSWER).await.map_err(told)?;
            Ok((status, body))
        };
        tokio::time::timeout(PATIENCE, answered)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    fn form(
        &self,
        provider: Option<&OauthProviderRow>,
        form: &[(&str, &str)],
    ) -> Result<String, ApiError> {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        if let Some(row) = provider {
            if let Some(client_id) = &row.client_id {
                body.append_pair("client_id", client_id);
            }
            if let Some(secret) = self.secret(row)? {
                body.append_pair("client_secret", &secret);
            }
        }
        Ok(body.finish())
    }

    /// Asks a token endpoint, with `client_secret_post` when there is a secret.
    pub async fn token(
        &self,
        token_uri: &str,
        provider: Option<&OauthProviderRow>,
        form: &[(&str, &str)],
    ) -> Result<Granted, ApiError> {
        let body = self.form(provider, form)?;
        let media_type = "application/x-www-form-urlencoded";
        let (status, answer) = self
            .post(token_uri, media_type, body)
            .await
            .map_err(refresh_failed)?;
        if !status.is_success() {
            // The answer may repeat what was sent, so only its error code is passed on.
            let code = serde_json::from_slice::<serde_json::Value>(&answer).unwrap_or_default();
            let code = code["error"].as_str().unwrap_or_default().to_owned();
            let code: String = code.chars().take(100).collect();
            return Err(refresh_failed(format!("{} {code}", status.as_u16())));
        }
        serde_json::from_slice(&answer).map_err(|_| refresh_failed("an answer without tokens"))
    }

    /// Refreshes a grant: here, or by asking the tenant's own service when only that can.
    pub async fn refresh(&self, mut row: ConnectionRow) -> Result<ConnectionRow, ApiError> {
        let provider = self
            .store
            .oauth_provider(&row.tenant_id, &row.provider)
            .await?;
        let delegate = provider
            .as_ref()
            .filter(|p| p.sealed.is_none())
            .and_then(|p| p.refresh_webhook.clone());
        if let Some(url) = delegate {
            let body = serde_json::json!({ "connection_id": row.id }).to_string();
            let answered = self.post(&url, "application/json", body).await;
            return match answered.map_err(refresh_failed)? {
                (status, _) if status.is_success() => Ok(row),
                (status, _) => Err(refresh_failed(status)),
            };
        }
        let mut credential = self.open(&row)?;
        let refresh_token = credential
            .refresh_token
            .clone()
            .ok_or_else(|| refresh_failed("the connection has no refresh token"))?;
        let own = provider.as_ref().and_then(|p| p.token_uri.clone());
        let token_uri = match (own, credential.token_uri.clone()) {
            (Some(own), _) => own,
            // A secret goes only where its owner said, not where a connection says.
            (None, Some(_)) if provider.as_ref().is_some_and(|p| p.sealed.is_some()) => {
                return Err(refresh_failed(
                    "the provider's OAuth client has a secret but no token_uri to send it to",
                ));
            }
            (None, Some(named)) => named,
            (None, None) => return Err(refresh_failed("no token_uri is known")),
        };
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.as_str()),
        ];
        let granted = self.token(&token_uri, provider.as_ref(), &form).await?;
        self.grant(&mut row, &mut credential, granted)?;
        if !self.store.update_connection(&row).await? {
            return Err(ApiError::not_found("connection", &row.id));
        }
        Ok(row)
    }

    /// The access token of a smith's active grant, refreshed when it is about to expire; `None`
    /// when there is none.
    pub async fn access_token(
        &self,
        tenant_id: &str,
        smith_id: &str,
        provider: &str,
    ) -> Result<Option<String>, ApiError> {
        const SOON_MICROS: i64 = 60 * 1_000_000;
        let rows = self
            .store
            .connections(tenant_id, smith_id, Some(provider), None, 10)
            .await?;
        let Some(mut row) = rows.into_iter().find(|row| row.status == "active") else {
            return Ok(None);
        };
        let expires = row.expires_at.unwrap_or(i64::MAX);
        if expires < now_micros() + SOON_MICROS {
            row = self.refresh(row).await?;
        }
        Ok(self.open(&row)?.access_token)
    }

    /// Puts new tokens into a connection.
    pub fn grant(
        &self,
        row: &mut ConnectionRow,
        credential: &mut Credential,
        granted: Granted,
    ) -> Result<(), ApiError> {
        let now = now_micros();
        credential.access_token = Some(granted.access_token);
        if granted.refresh_token.is_some() {
            credential.refresh_token = granted.refresh_token;
        }
        if let Some(scope) = granted.scope {
            let scopes: Vec<&str> = scope.split_whitespace().collect();
            row.scopes = serde_json::json!(scopes).to_string();
        }
        row.expires_at = granted
            .expires_in
            .map(|seconds| now.saturating_add(seconds.saturating_mul(1_000_000)));
        row.status = "active".to_owned();
        row.sealed = self.seal(&row.tenant_id, &row.id, credential)?;
        row.updated_at = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_challenge_is_the_one_of_rfc_7636() {
        assert_eq!(
            super::challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }
}
