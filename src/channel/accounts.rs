//! A tenant's accounts on platforms: what they show, and their secrets, which are sealed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Hub;
use crate::error::ApiError;
use crate::store::{IntegrationRow, now_micros};

/// An account, opened.
#[derive(Debug, Clone)]
pub struct Account<T> {
    pub settings: Value,
    pub secrets: T,
}

fn owner(tenant_id: &str, kind: &str) -> String {
    format!("integration/{tenant_id}/{kind}")
}

impl Hub {
    /// Keeps an account.
    pub async fn keep_account<T: Serialize + Sync>(
        &self,
        tenant_id: &str,
        kind: &str,
        account: &Account<T>,
    ) -> Result<(), ApiError> {
        let secrets = serde_json::to_vec(&account.secrets).map_err(ApiError::internal)?;
        let owner = owner(tenant_id, kind);
        let sealed = self
            .vault
            .seal(&owner, &secrets)
            .map_err(ApiError::internal)?;
        let now = now_micros();
        let row = IntegrationRow {
            tenant_id: tenant_id.to_owned(),
            kind: kind.to_owned(),
            settings: account.settings.to_string(),
            sealed,
            created_at: now,
            updated_at: now,
        };
        Ok(self.store.put_integration(&row).await?)
    }

    /// A tenant's account of a kind.
    pub async fn account<T: DeserializeOwned>(
        &self,
        tenant_id: &str,
        kind: &str,
    ) -> Result<Option<Account<T>>, ApiError> {
        let Some(row) = self.store.integration(tenant_id, kind).await? else {
            return Ok(None);
        };
        let owner = owner(tenant_id, kind);
        let opened = self
            .vault
            .open(&owner, &row.sealed)
            .map_err(ApiError::internal)?;
        Ok(Some(Account {
            settings: serde_json::from_str(&row.settings).unwrap_or_default(),
            secrets: serde_json::from_slice(&opened).map_err(ApiError::internal)?,
        }))
    }
}
