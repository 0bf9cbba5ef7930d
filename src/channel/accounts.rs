//! A tenant's accounts on platforms: what they show, and their secrets, which are sealed.

use std::sync::Arc;
use std::time::Duration;

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

/// How old what work looks at may be: what another node changes or forgets holds here so soon.
const LATELY: Duration = Duration::from_secs(1);
/// Accounts that are remembered.
const REMEMBERED: u64 = 10_000;

/// An account as it is kept, opened.
struct Opened {
    settings: String,
    secrets: zeroize::Zeroizing<Vec<u8>>,
}

impl Opened {
    fn read<T: DeserializeOwned>(&self) -> Result<Account<T>, ApiError> {
        Ok(Account {
            settings: serde_json::from_str(&self.settings).unwrap_or_default(),
            secrets: serde_json::from_slice(&self.secrets).map_err(ApiError::internal)?,
        })
    }
}

/// Accounts that were looked at lately, by tenant and kind; also those that are not there.
pub(super) struct Lately(moka::future::Cache<(String, String), Option<Arc<Opened>>>);

impl Default for Lately {
    fn default() -> Self {
        let cache = moka::future::Cache::builder()
            .max_capacity(REMEMBERED)
            .time_to_live(LATELY);
        Self(cache.build())
    }
}

impl Lately {
    async fn forget(&self, tenant_id: &str, kind: &str) {
        let key = (tenant_id.to_owned(), kind.to_owned());
        self.0.invalidate(&key).await;
    }
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
        self.store.put_integration(&row).await?;
        self.lately.forget(tenant_id, kind).await;
        Ok(())
    }

    /// Forgets an account, and what was installed with it; `false`: there was none.
    pub async fn forget_account(&self, tenant_id: &str, kind: &str) -> Result<bool, ApiError> {
        let was_there = self.store.delete_integration(tenant_id, kind).await?;
        self.lately.forget(tenant_id, kind).await;
        Ok(was_there)
    }

    async fn opened(&self, tenant_id: &str, kind: &str) -> Result<Option<Opened>, ApiError> {
        let Some(row) = self.store.integration(tenant_id, kind).await? else {
            return Ok(None);
        };
        let owner = owner(tenant_id, kind);
        let secrets = self
            .vault
            .open(&owner, &row.sealed)
            .map_err(ApiError::internal)?;
        Ok(Some(Opened {
            settings: row.settings,
            secrets,
        }))
    }

    /// A tenant's account of a kind, as the store has it.
    pub async fn account<T: DeserializeOwned>(
        &self,
        tenant_id: &str,
        kind: &str,
    ) -> Result<Option<Account<T>>, ApiError> {
        let found = self.opened(tenant_id, kind).await?;
        found.map(|opened| opened.read()).transpose()
    }

    /// A tenant's account of a kind as it was at most [`LATELY`] ago, for what comes often and changes
    /// nothing of it.
    pub async fn account_lately<T: DeserializeOwned>(
        &self,
        tenant_id: &str,
        kind: &str,
    ) -> Result<Option<Account<T>>, ApiError> {
        let key = (tenant_id.to_owned(), kind.to_owned());
        let open = async { Ok(self.opened(tenant_id, kind).await?.map(Arc::new)) };
        let found = self.lately.0.try_get_with(key, open).await;
        let found = found.map_err(|error: Arc<ApiError>| ApiError::clone(&error))?;
        found.map(|opened| opened.read()).transpose()
    }
}
