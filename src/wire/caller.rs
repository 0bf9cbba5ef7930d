//! Who asks, and for whom.

use std::sync::Arc;

use crate::auth::{Principal, SMITH_HEADER, Scope, THREAD_HEADER, Use};
use crate::edge::Exchange;
use crate::error::ApiError;

/// What a call says of itself beside its body.
pub struct Caller {
    pub principal: Arc<Principal>,
    /// The smith that it acts as: the token's, or the one of `IC-Smith-Id`.
    pub smith: Option<Arc<str>>,
    /// `IC-Thread-Id`, unchecked.
    pub thread: Option<String>,
}

impl Caller {
    /// Of a call that needs `scope`.
    pub async fn of(exchange: &mut Exchange, scope: Scope) -> Result<Self, ApiError> {
        let principal = exchange.principal().await?;
        principal.require(scope)?;
        Self::acting(exchange, principal)
    }

    /// Of one that also a virtual key may make.
    pub async fn using(exchange: &mut Exchange, what: Use) -> Result<Self, ApiError> {
        let principal = exchange.principal().await?;
        principal.require_use(what)?;
        Self::acting(exchange, principal)
    }

    fn acting(exchange: &Exchange, principal: Arc<Principal>) -> Result<Self, ApiError> {
        let smith = principal.acting_smith(exchange.header(SMITH_HEADER))?;
        Ok(Self {
            principal,
            smith,
            thread: exchange.header(THREAD_HEADER).map(str::to_owned),
        })
    }

    /// The smith; 400 for a call that names none.
    pub fn smith_id(&self) -> Result<Arc<str>, ApiError> {
        let smith = self.smith.clone();
        smith
            .ok_or_else(|| ApiError::bad_request("smith_required", "name a smith with IC-Smith-Id"))
    }
}
