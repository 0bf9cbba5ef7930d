//! What a caller must be before the edge reads its body.

use crate::auth::{Principal, Scope, Use};
use crate::error::ApiError;

/// Who may send a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    Admin,
    Organization,
    Scope(Scope),
    /// A token with the use's scope, or a virtual key that is for it.
    Use(Use),
    /// For this smith.
    SmithScope(&'a str, Scope),
}

impl Need<'_> {
    /// Refuses who is not what it needs, as the route's handler would.
    pub fn check(self, caller: &Principal) -> Result<(), ApiError> {
        match self {
            Self::Admin => caller.require_admin(),
            Self::Organization => caller.require_organization().map(|_| ()),
            Self::Scope(scope) => caller.require(scope),
            Self::Use(what) => caller.require_use(what),
            Self::SmithScope(smith, scope) => {
                caller.require_smith(smith)?;
                caller.require(scope)
            }
        }
    }
}
