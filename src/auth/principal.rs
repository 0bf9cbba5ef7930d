//! The verified caller and what it may do.

use std::sync::Arc;

use http::HeaderMap;

use super::{Rights, Scope, ScopeSet, Use};
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
    /// Models, without a smith.
    VirtualKey(Rights),
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
            Role::TenantAdmin | Role::Organization | Role::VirtualKey(_) => None,
            Role::Smith { smith_id, .. } => Some(smith_id),
        }
    }

    /// What this key may do, if it is a virtual one.
    pub fn rights(&self) -> Option<&Rights> {
        match &self.role {
            Role::VirtualKey(rights) => Some(rights),
            _ => None,
        }
    }

    /// Its id, if it is a virtual key.
    pub fn key_id(&self) -> Option<&Arc<str>> {
        self.rights().map(|_| &self.token_id)
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
            Role::VirtualKey(_) => Err(models_only()),
        }
    }

    /// 403 `virtual_key_not_allowed` for a virtual key: it has no part in what is not a use of models.
    pub fn require_token(&self) -> Result<(), ApiError> {
        match &self.role {
            Role::VirtualKey(_) => Err(models_only()),
            _ => Ok(()),
        }
    }

    /// 403 `route_not_allowed` for a virtual key that is not made for `what`; of all others what its
    /// scope asks.
    pub fn require_use(&self, what: Use) -> Result<(), ApiError> {
        match &self.role {
            Role::VirtualKey(rights) if rights.allows(what) => Ok(()),
            Role::VirtualKey(_) => Err(ApiError::forbidden(
                "route_not_allowed",
                format!("this key may not be used for {}", what.as_str()),
            )),
            _ => self.require(what.scope()),
        }
    }

    /// 403 `tenant_token_required` for a smith token.
    pub fn require_admin(&self) -> Result<(), ApiError> {
        match &self.role {
            Role::TenantAdmin => Ok(()),
            Role::Smith { .. } | Role::Organization => Err(tenant_token_required()),
            Role::VirtualKey(_) => Err(models_only()),
        }
    }

    /// The organization; 403 `organization_required` for all but its keys.
    pub fn require_organization(&self) -> Result<&str, ApiError> {
        match &self.role {
            Role::Organization => Ok(&self.tenant_id),
            Role::VirtualKey(_) => Err(models_only()),
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
            Role::VirtualKey(_) => match header {
                Some(_) => Err(models_only()),
                None => Ok(None),
            },
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
            Role::VirtualKey(_) => Err(models_only()),
            _ => Ok(()),
        }
    }

    /// The `actor` member of records that this caller makes.
    pub fn actor(&self) -> serde_json::Value {
        let (kind, id) = match &self.role {
            Role::TenantAdmin => ("tenant", &self.tenant_id),
            Role::Smith { smith_id, .. } => ("smith", smith_id),
            Role::Organization => ("organization", &self.tenant_id),
            Role::VirtualKey(_) => ("key", &self.token_id),
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

fn models_only() -> ApiError {
    ApiError::forbidden(
        "virtual_key_not_allowed",
        "a virtual key calls models without a smith; this operation needs a token",
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
