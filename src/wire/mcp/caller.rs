//! Whom a host's call is for, which the endpoint finds out and the server's tools read.

use std::sync::Arc;

use crate::auth::Principal;

/// Whom a call is for.
pub struct McpCaller {
    pub principal: Arc<Principal>,
    pub smith_id: Arc<str>,
    pub deployment_id: String,
    /// Whether the deployment is this smith's alone.
    pub is_own: bool,
}
