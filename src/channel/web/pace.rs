//! How much visitors may say.

use super::buckets::Buckets;
use super::visitor::Visit;
use crate::error::ApiError;

/// Of a message, in bytes.
pub const MAX_TEXT: usize = 32 * 1024;
/// Messages of one visitor: so many in a minute, and so many at once.
const PER_MINUTE: u32 = 20;
const AT_ONCE: u32 = 10;

static SAID: Buckets = Buckets::new();

/// Counts a message of a visitor; 429 when there are too many.
pub fn allow(visit: &Visit) -> Result<(), ApiError> {
    SAID.take(&visit.visitor.id, PER_MINUTE, AT_ONCE)?;
    let per_minute = visit.settings.per_minute;
    SAID.take(&visit.deployment.id, per_minute, per_minute)
}
