//! Who did something, as events and runs name them.

use serde::Serialize;
use utoipa::ToSchema;

/// Who caused something.
#[derive(Debug, Serialize, ToSchema)]
pub struct Actor {
    /// `tenant` or `smith`.
    pub kind: String,
    pub id: String,
    /// Empty: no token acted.
    pub token_id: String,
    /// Empty: nobody is named.
    pub email: String,
}
