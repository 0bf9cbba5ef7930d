//! A tenant's accounts on platforms: what they show, and their secrets, which are sealed.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Hub;
use crate::error::ApiError;
use crate::store::{DeploymentRow, IntegrationRow, now_micros};

/// An account, opened.
#[derive(Debug, Clone)]
pub struct Account<T> {
    pub settings: Value,
    pub secrets: T,
}

fn owner(tenant_id: &str, kind: &str) -> String {
    format!("integration/{tenant_id}/{kind}")
}

fn owner_of_deployment(tenant_id: &str, id: &str) -> String {
    format!("deployment/{tenant_id}/{id}")
}

impl Hub {
    /// Seals what is kept of a deployment's secrets; `None`: there are none.
    pub fn seal_secrets(
        &self,
        tenant_id: &str,
        deployment_id: &str,
        secrets: &Map<String, Value>,
    ) -> Result<Option<Vec<u8>>, ApiError> {
        if secrets.is_empty() {
            return Ok(None);
        }
        let text = serde_json::to_vec(secrets).map_err(ApiError::internal)?;
        let owner = owner_of_deployment(tenant_id, deployment_id);
        let sealed = self.vault.seal(&owner, &text).map_err(ApiError::internal)?;
        Ok(Some(sealed))
    }

    /// What is kept of a deployment's secrets.
    pub fn secrets_of(&self, deployment: &DeploymentRow) -> Result<Map<String, Value>, ApiError> {
        let Some(sealed) = &deployment.sealed else {
            return Ok(Map::new());
        };
        let owner = owner_of_deployment(&deployment.tenant_id, &deployment.id);
        let opened = self
            .vault
            .open(&owner, sealed)
            .map_err(ApiError::internal)?;
        serde_json::from_slice(&opened).map_err(ApiError::internal)
    }

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
