//! Where a browser may be sent back to after an authorization: a page on an origin that the operator
//! or the tenant has registered, and on no other, or every link of ours could lead anywhere.

use url::Url;

use crate::config::{parse_origin, parse_page};
use crate::error::ApiError;
use crate::gateway::Gateway;

/// The page, when a browser of this tenant's people may be sent there; else 400
/// `invalid_return_url`.
pub async fn check(gateway: &Gateway, tenant_id: &str, text: &str) -> Result<Url, ApiError> {
    let bad = |why: String| ApiError::bad_request("invalid_return_url", why).param("return_url");
    let url = parse_page(text).map_err(bad)?;
    let origin = url.origin().ascii_serialization();
    let same = |known: &String| parse_origin(known).is_ok_and(|known| known == origin);
    let server = &gateway.config.server;
    if server.return_origins.iter().any(same) {
        return Ok(url);
    }
    let here = server
        .public_url
        .as_deref()
        .and_then(|u| Url::parse(u).ok());
    if here.is_some_and(|here| here.origin() == url.origin()) {
        return Ok(url);
    }
    let consent = gateway.store.consent(tenant_id).await?;
    let origins = consent.map(|row| row.return_origins).unwrap_or_default();
    let registered: Vec<String> = serde_json::from_str(&origins).unwrap_or_default();
    match registered.iter().any(same) {
        true => Ok(url),
        false => Err(bad(format!(
            "'{origin}' is no registered origin: register it with PUT /v1/tenant/consent \
             {{\"return_origins\": [\"{origin}\"]}}"
        ))),
    }
}
