//! An agent's templates for MCP hosts (MCP Apps, SEP-1865), as its configuration holds them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::json::Object;

/// Where a template may load from, by kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Csp {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_domains: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_domains: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_domains: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_uri_domains: Option<Vec<String>>,
}

/// The tool that a template is bound to.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UiTool {
    pub description: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// Calls wait for an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutating: Option<bool>,
    /// `model`, `app`, or both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Vec<String>>,
}

/// What is said of a template beside its HTML.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UiMetadata {
    #[schema(pattern = "^[a-z0-9][a-z0-9_-]{0,62}$")]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csp: Option<Csp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<UiTool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefers_border: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UiResource {
    #[serde(flatten)]
    pub metadata: UiMetadata,
    /// SHA-256 of the bytes, in hex.
    pub content_hash: String,
}

/// The templates that a configuration holds.
pub fn resources(stored: &[Object]) -> Vec<UiResource> {
    stored
        .iter()
        .filter_map(|resource| serde_json::from_str(&resource.to_text()).ok())
        .collect()
}
