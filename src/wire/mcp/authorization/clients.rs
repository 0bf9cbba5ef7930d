//! MCP hosts that register themselves (RFC 7591), and where they may send people back to.

use std::num::NonZeroU32;
use std::sync::LazyLock;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::{Host, Url};
use utoipa::ToSchema;

use super::metadata::scope_names;
use super::refusal::{OauthError, OauthRefusal};
use crate::edge::AppState;
use crate::edge::extract::{MAX_NAME, MAX_URL};
use crate::edge::html::no_store;
use crate::ids;
use crate::store::{ConnectorClientRow, now_micros};

const MAX_REDIRECTS: usize = 20;
const SECOND: i64 = 1_000_000;
/// A client that nobody let in within so long may be forgotten for a new one, in microseconds.
const LET_IN_WITHIN: i64 = 15 * 60 * SECOND;
/// Registrations that this node takes in a second: anybody may register, and each is a row.
const REGISTRATIONS: NonZeroU32 = NonZeroU32::new(10).unwrap();

static REGISTERING: LazyLock<DefaultDirectRateLimiter> =
    LazyLock::new(|| RateLimiter::direct(Quota::per_second(REGISTRATIONS)));

/// An MCP host that registers itself. Members of RFC 7591 that change nothing are ignored.
#[derive(Deserialize, ToSchema)]
pub struct RegisterIn {
    /// Where it is sent back to: https, or http on this machine.
    pub redirect_uris: Vec<String>,
    #[serde(default)]
    #[schema(max_length = 200)]
    pub client_name: Option<String>,
}

/// A registered MCP host; it has no secret.
#[derive(Serialize, ToSchema)]
pub struct RegisterOut {
    pub client_id: String,
    /// In seconds since 1970.
    pub client_id_issued_at: i64,
    pub client_name: String,
    pub redirect_uris: Vec<String>,
    pub grant_types: [&'static str; 2],
    pub response_types: [&'static str; 1],
    pub token_endpoint_auth_method: &'static str,
    pub scope: String,
}

/// Registers an MCP host (RFC 7591).
#[utoipa::path(post, path = "/oauth/register", tag = "connectors", security(()),
    request_body = RegisterIn, responses((status = 201, body = RegisterOut), (status = "default", body = OauthRefusal)))]
pub async fn register(
    State(gateway): State<AppState>,
    body: Bytes,
) -> Result<Response, OauthError> {
    if REGISTERING.check().is_err() {
        return Err(OauthError {
            status: StatusCode::TOO_MANY_REQUESTS,
            ..OauthError::new("temporarily_unavailable", "too many register at once")
        });
    }
    let bad = |why: String| OauthError::new("invalid_client_metadata", why);
    let input: RegisterIn = serde_json::from_slice(&body).map_err(|e| bad(e.to_string()))?;
    let name = input.client_name.unwrap_or_default();
    let name = if name.trim().is_empty() {
        "An MCP host".to_owned()
    } else {
        name.trim().to_owned()
    };
    if name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let why = format!("client_name must be at most {MAX_NAME} printable bytes");
        return Err(bad(why));
    }
    if !(1..=MAX_REDIRECTS).contains(&input.redirect_uris.len()) {
        let why = format!("1 to {MAX_REDIRECTS} redirect_uris are needed");
        return Err(OauthError::new("invalid_redirect_uri", why));
    }
    for uri in &input.redirect_uris {
        check_redirect(uri).map_err(|why| OauthError::new("invalid_redirect_uri", why))?;
    }
    let now = now_micros();
    let row = ConnectorClientRow {
        id: ids::mint(ids::Kind::ConnectorClient),
        name: name.clone(),
        redirect_uris: json!(input.redirect_uris).to_string(),
        created_at: now,
        used_at: None,
    };
    let most = i64::from(gateway.config.auth.max_unused_clients);
    let kept = gateway
        .store
        .insert_connector_client(&row, most, now - LET_IN_WITHIN);
    if !kept.await? {
        return Err(OauthError {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..OauthError::new("temporarily_unavailable", "too many have registered")
        });
    }
    let out = RegisterOut {
        client_id: row.id,
        client_id_issued_at: now / SECOND,
        client_name: name,
        redirect_uris: input.redirect_uris,
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        token_endpoint_auth_method: "none",
        scope: scope_names().join(" "),
    };
    Ok((StatusCode::CREATED, [no_store()], Json(out)).into_response())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn check_redirect(uri: &str) -> Result<(), String> {
    let url = Url::parse(uri).map_err(|e| format!("'{uri}' is no URL: {e}"))?;
    let secure = url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url);
    match (uri.len() <= MAX_URL, secure, url.fragment()) {
        (false, ..) => Err(format!("a redirect URI has at most {MAX_URL} bytes")),
        (_, false, _) => Err(format!("'{uri}' must be https, or http on this machine")),
        (.., Some(_)) => Err(format!("'{uri}' must have no fragment")),
        _ => Ok(()),
    }
}

/// Whether a client may be sent to `asked`: as registered, on this machine on any port (RFC 8252
/// 7.3).
pub(super) fn may_redirect(client: &ConnectorClientRow, asked: &str) -> bool {
    let known: Vec<String> = serde_json::from_str(&client.redirect_uris).unwrap_or_default();
    if known.iter().any(|uri| uri == asked) {
        return true;
    }
    let portless = |uri: &str| {
        let mut url = Url::parse(uri).ok()?;
        if url.scheme() != "http" || !is_loopback(&url) {
            return None;
        }
        url.set_port(None).ok()?;
        Some(url)
    };
    let asked = portless(asked);
    asked.is_some() && known.iter().any(|uri| portless(uri) == asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(uris: &[&str]) -> ConnectorClientRow {
        ConnectorClientRow {
            id: "occ_1".to_owned(),
            name: "host".to_owned(),
            redirect_uris: json!(uris).to_string(),
            created_at: 0,
            used_at: None,
        }
    }

    #[test]
    fn redirects_are_as_registered_and_on_this_machine_on_any_port() {
        let host = client(&["https://host.test/cb", "http://127.0.0.1:1/cb"]);
        assert!(may_redirect(&host, "https://host.test/cb"));
        assert!(may_redirect(&host, "http://127.0.0.1:4711/cb"));
        for bad in [
            "https://host.test/cb2",
            "https://host.test:444/cb",
            "http://127.0.0.1:1/other",
            "http://localhost:1/cb",
            "http://127.0.0.1.evil.test/cb",
            "",
        ] {
            assert!(!may_redirect(&host, bad), "{bad}");
        }
    }

    #[test]
    fn only_safe_redirects_are_registered() {
        for good in [
            "https://a.test/cb?x=1",
            "http://localhost:3/cb",
            "http://[::1]/",
        ] {
            assert!(check_redirect(good).is_ok(), "{good}");
        }
        for bad in [
            "http://a.test/cb",
            "javascript:alert(1)",
            "https://a.test/#x",
            "x",
            "http://localhost.evil.test/",
        ] {
            assert!(check_redirect(bad).is_err(), "{bad}");
        }
    }
}
