//! What handlers take out of a request: who calls, a JSON body.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::multipart::MultipartError;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use super::AppState;
use super::json::parse;
use crate::auth::{AsScope, AsUse, Principal, Scope, named_smith};
use crate::error::ApiError;
use crate::json::Object;
use crate::store::SmithRow;

// Who may call stands in a handler's signature: the verified caller comes out of a request as one of
// these five, and as nothing else. Of them only `Uses` takes a virtual key. They stand before the body, so that it is not read for others.

/// Whoever has a token of any kind: what each of them may see is for the handler to say.
pub struct Anyone(pub Arc<Principal>);

/// Whoever may use models so: as `May` with the use's scope, or a virtual key that is for it.
pub struct Uses<U>(pub Arc<Principal>, pub PhantomData<U>);

/// The tenant's admin.
pub struct Admin(pub Arc<Principal>);

/// An organization's key; its `tenant_id` is the organization's.
pub struct Organization(pub Arc<Principal>);

/// The tenant's admin, or a smith whose token has the scope.
pub struct May<S>(pub Arc<Principal>, pub PhantomData<S>);

fn caller(parts: &Parts) -> Result<Arc<Principal>, ApiError> {
    let caller = parts.extensions.get::<Arc<Principal>>().cloned();
    caller.ok_or_else(|| ApiError::unauthenticated("no token was verified"))
}

impl<S: Send + Sync> FromRequestParts<S> for Anyone {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let caller = caller(parts)?;
        caller.require_token()?;
        Ok(Self(caller))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let caller = caller(parts)?;
        caller.require_admin()?;
        Ok(Self(caller))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Organization {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let caller = caller(parts)?;
        caller.require_organization()?;
        Ok(Self(caller))
    }
}

impl<S: Send + Sync, P: AsScope> FromRequestParts<S> for May<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let caller = caller(parts)?;
        caller.require(P::SCOPE)?;
        Ok(Self(caller, PhantomData))
    }
}

impl<S: Send + Sync, U: AsUse> FromRequestParts<S> for Uses<U> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let caller = caller(parts)?;
        caller.require_use(U::USE)?;
        Ok(Self(caller, PhantomData))
    }
}

/// The smith that a call acts as: the token's, or the one of `IC-Smith-Id`.
pub struct Acting(pub Arc<str>);

impl<S: Send + Sync> FromRequestParts<S> for Acting {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Anyone(caller) = Anyone::from_request_parts(parts, state).await?;
        caller
            .acting_smith(named_smith(&parts.headers))?
            .map(Self)
            .ok_or_else(|| ApiError::bad_request("smith_required", "name a smith with IC-Smith-Id"))
    }
}

/// A JSON object as body; no body at all counts as `{}`.
pub struct Input<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|e| ApiError::bad_request("invalid_request", e.to_string()))?;
        object(&body).map(Self)
    }
}

/// Reads a body as a JSON object; none at all counts as `{}`.
pub fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return parse(b"{}");
    }
    // Structs may be written as arrays in serde's eyes; in the API's they are objects.
    if body.first() != Some(&b'{') {
        return Err(ApiError::bad_request(
            "invalid_request",
            "the body must be a JSON object",
        ));
    }
    if holds_nul(body) {
        return Err(ApiError::bad_request(
            "invalid_request",
            "the body holds the character NUL (\\u0000)",
        ));
    }
    parse(body)
}

/// Whether a JSON text has an escaped NUL, which PostgreSQL's text does not hold.
fn holds_nul(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, b"\\u0000").any(|at| {
        let slashes = body[..at].iter().rev().take_while(|b| **b == b'\\');
        slashes.count() % 2 == 0
    })
}

/// Keeps `null` apart from "not sent": for members where a null clears.
pub fn sent<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// The refusal of a multipart form that breaks off or is none.
pub fn bad_form(error: &MultipartError) -> ApiError {
    ApiError::bad_request("invalid_request", error.body_text())
}

/// Longest name, in characters, where no standard says less or more.
pub const MAX_NAME: usize = 200;
/// Longest URL, in bytes.
pub const MAX_URL: usize = 2048;
/// Longest word of a caller's own (a key, a kind, a reference), in bytes.
pub const MAX_WORD: usize = 512;

/// A name: trimmed, 1 to 200 characters.
pub fn name(text: &str) -> Result<String, ApiError> {
    let name = text.trim();
    if name.is_empty() {
        return Err(ApiError::bad_request("name_required", "the name is empty").param("name"));
    }
    if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(ApiError::bad_request(
            "invalid_name",
            format!("a name has at most {MAX_NAME} characters, none of them a control character"),
        )
        .param("name"));
    }
    Ok(name.to_owned())
}

/// Refuses what no store takes: PostgreSQL's text holds no NUL.
pub fn check_text(param: &str, text: &str, max_bytes: usize) -> Result<(), ApiError> {
    if text.len() > max_bytes {
        return Err(ApiError::invalid(
            param.to_owned(),
            format!("must be at most {max_bytes} bytes"),
        ));
    }
    if text.contains('\0') {
        return Err(ApiError::invalid(
            param.to_owned(),
            "must not hold the character NUL",
        ));
    }
    Ok(())
}

/// The most metadata a smith, customer or conversation has, in bytes of JSON.
const MAX_METADATA: usize = 64 * 1024;

/// Refuses metadata that is too large.
pub fn check_metadata(metadata: &Object) -> Result<(), ApiError> {
    if metadata.to_text().len() > MAX_METADATA {
        return Err(ApiError::invalid(
            "metadata",
            format!("must be at most {MAX_METADATA} bytes"),
        ));
    }
    Ok(())
}

/// The smith of the path, which must be the caller's own, or the tenant's.
pub async fn permitted(
    gateway: &AppState,
    caller: &Principal,
    id: &str,
    scope: Scope,
) -> Result<SmithRow, ApiError> {
    caller.require_smith(id)?;
    caller.require(scope)?;
    let smith = gateway.store.smith(&caller.tenant_id, id).await?;
    smith.ok_or_else(|| ApiError::not_found("smith", id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_nuls_are_found() {
        assert!(holds_nul(br#"{"a":"x\u0000"}"#));
        assert!(!holds_nul(br#"{"a":"x\\u0000"}"#));
        assert!(holds_nul(br#"{"a":"x\\\u0000"}"#));
    }

    #[test]
    fn names_are_checked() {
        assert_eq!(name(" a ").as_deref().ok(), Some("a"));
        assert_eq!(name("  ").expect_err("refused").code, "name_required");
        assert_eq!(
            name(&"a".repeat(201)).expect_err("refused").code,
            "invalid_name"
        );
        assert!(check_text("x", "a\0", 10).is_err());
        assert!(check_text("x", "abc", 2).is_err());
    }
}
