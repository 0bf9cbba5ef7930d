//! Which server a session is with.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

/// Which server, and with whose secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerKey {
    pub tenant_id: Arc<str>,
    pub name: Arc<str>,
    pub url: Arc<str>,
    pub bearer: Option<Arc<str>>,
    /// What else is sent with each request, which may be secret.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
}
