//! Who uses a model, in which unit and on which day it is counted.

use std::sync::{Arc, LazyLock};

/// Nanos of the currency in one unit of it.
pub const NANOS: f64 = 1e9;

/// Who uses a model. Without a smith, all but the tenant are empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spender {
    pub tenant_id: Arc<str>,
    pub smith_id: Arc<str>,
    pub agent_id: Arc<str>,
    pub customer_id: Arc<str>,
}

impl Spender {
    /// A tenant that calls a model without a smith.
    pub fn tenant(tenant_id: &Arc<str>) -> Self {
        static NOBODY: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
        let nobody = NOBODY.clone();
        Self {
            tenant_id: tenant_id.clone(),
            smith_id: nobody.clone(),
            agent_id: nobody.clone(),
            customer_id: nobody,
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
