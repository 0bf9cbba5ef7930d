//! Who uses a model, in which unit and on which day it is counted.

use std::sync::{Arc, LazyLock};

use crate::auth::Principal;

/// Nanos of the currency in one unit of it.
pub const NANOS: f64 = 1e9;

/// Who uses a model. Without a smith, all but the tenant and the key are empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spender {
    pub tenant_id: Arc<str>,
    pub smith_id: Arc<str>,
    pub agent_id: Arc<str>,
    pub customer_id: Arc<str>,
    /// The virtual key that called.
    pub key_id: Arc<str>,
}

impl Spender {
    /// What stands where there is none.
    pub fn nobody() -> Arc<str> {
        static NOBODY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
        NOBODY.clone()
    }

    /// A tenant that calls a model without a smith.
    pub fn tenant(tenant_id: &Arc<str>) -> Self {
        Self {
            tenant_id: tenant_id.clone(),
            smith_id: Self::nobody(),
            agent_id: Self::nobody(),
            customer_id: Self::nobody(),
            key_id: Self::nobody(),
        }
    }

    /// Whoever calls a model without a smith.
    pub fn caller(principal: &Principal) -> Self {
        let tenant = Self::tenant(&principal.tenant_id);
        match principal.key_id() {
            Some(key_id) => Self {
                key_id: key_id.clone(),
                ..tenant
            },
            None => tenant,
        }
    }
}

/// The day, `YYYY-MM-DD`, UTC.
pub fn today() -> String {
    day_of(time::OffsetDateTime::now_utc())
}

/// A time's day, `YYYY-MM-DD`.
pub fn day_of(at: time::OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}",
        at.year(),
        u8::from(at.month()),
        at.day()
    )
}
