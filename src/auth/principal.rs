//! The verified caller and what it may do.

use std::sync::Arc;

use http::HeaderMap;

use super::{Scope, ScopeSet};
use crate::error::ApiError;

/// Names the smith that a call acts as.
pub const SMITH_HEADER: &str = "ic-smith-id";
/// Names the thread of a turn.
pub const THREAD_HEADER: &str = "ic-thread-id";

/// The smith that a call names; what is no text names none.
pub fn named_smith(headers: &HeaderMap) -> Option<&str> {
    let named = headers.get(SMITH_HEADER)?;
    named.to_str().ok()
}

/// What kind of caller it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Every operation in its own tenant.
    TenantAdmin,
    /// One smith's data, within its scopes.
    Smith {
        smith_id: Arc<str>,
        scopes: ScopeSet,
    },
    /// Projects and keys of one organization, and nothing inside a project.
    Organization,
}

/// A verified caller.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The organization's id, for [`Role::Organization`].
    pub tenant_id: Arc<str>,
    pub role: Role,
    pub token_id: Arc<str>,
    /// Unix seconds.
    pub expires_at: Option<i64>,
}

impl Principal {
    /// The smith that this token is, if it is one.
    pub fn smith_id(&self) -> Option<&Arc<str>> {
        match &self.role {
            Role::TenantAdmin | Role::Organization => None,
            Role::Smith { smith_id, .. } => Some(smith_id),
        }
    }

    /// 403 `insufficient_scope` without `scope`; an admin has all.
    pub fn require(&self, scope: Scope) -> Result<(), ApiError> {
        match &self.role {
            Role::TenantAdmin => Ok(()),
            Role::Smith { scopes, .. } if scopes.contains(scope) => Ok(()),
            Role::Smith { .. } => Err(ApiError::forbidden(
                "insufficient_scope",
                format!("this token lacks the scope {}", scope.as_str()),
            )),
            Role::Organization => Err(tenant_token_required()),
        }
    }

    /// 403 `tenant_token_required` for a smith token.
    pub fn require_admin(&self) -> Result<(), ApiError> {
        match &self.role {
            Role::TenantAdmin => Ok(()),
            Role::Smith { .. } | Role::Organization => Err(tenant_token_required()),
        }
    }

    /// The organization; 403 `organization_required` for all but its keys.
    pub fn require_organization(&self) -> Result<&str, ApiError> {
        match &self.role {
            Role::Organization => Ok(&self.tenant_id),
            _ => Err(ApiError::forbidden(
                "organization_required",
                "this operation needs an organization key",
            )),
        }
    }

    /// The acting smith, given `IC-Smith-Id`; `None` for an admin that names none.
    pub fn acting_smith(&self, header: Option<&str>) -> Result<Option<Arc<str>>, ApiError> {
        match &self.role {
            Role::TenantAdmin => Ok(header.map(Arc::from)),
            Role::Organization => Err(tenant_token_required()),
            Role::Smith { smith_id, .. } => match header {
                Some(named) if named != &**smith_id => Err(smith_mismatch()),
                _ => Ok(Some(smith_id.clone())),
            },
        }
    }

    /// 403 `smith_mismatch` when a smith token names another smith in a path.
    pub fn require_smith(&self, named: &str) -> Result<(), ApiError> {
        match &self.role {
            Role::Smith { smith_id, .. } if &**smith_id != named => Err(smith_mismatch()),
            Role::Organization => Err(tenant_token_required()),
            _ => Ok(()),
        }
    }

    /// The `actor` member of records that this caller makes.
    pub fn actor(&self) -> serde_json::Value {
        let (kind, id) = match &self.role {
            Role::TenantAdmin => ("tenant", &self.tenant_id),
            Role::Smith { smith_id, .. } => ("smith", smith_id),
            Role::Organization => ("organization", &self.tenant_id),
        };
        serde_json::json!({ "kind": kind, "id": &**id, "token_id": &*self.token_id, "email": "" })
    }
}

fn tenant_token_required() -> ApiError {
    ApiError::forbidden(
        "tenant_token_required",
        "this operation needs a tenant-admin token",
    )
}

fn smith_mismatch() -> ApiError {
    ApiError::forbidden("smith_mismatch", "this token belongs to another smith")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smith() -> Principal {
        Principal {
            tenant_id: "proj_a".into(),
            role: Role::Smith {
                smith_id: "smt_a".into(),
                scopes: [Scope::RunsWrite].into_iter().collect(),
            },
            token_id: "tok_a".into(),
            expires_at: None,
        }
    }

    #[test]
    fn a_smith_token_is_its_smith_and_no_other() {
        let smith = smith();
        assert_eq!(smith.acting_smith(None).unwrap().as_deref(), Some("smt_a"));
        assert!(smith.acting_smith(Some("smt_a")).is_ok());
        assert_eq!(
            smith.acting_smith(Some("smt_b")).unwrap_err().code,
            "smith_mismatch"
        );
        assert_eq!(
            smith.require(Scope::RunsRead).unwrap_err().code,
            "insufficient_scope"
        );
        assert_eq!(
            smith.require_admin().unwrap_err().code,
            "tenant_token_required"
        );
        assert!(smith.require_smith("smt_b").is_err());
    }
}
