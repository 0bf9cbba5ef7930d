//! Schemas of tools, as `rmcp` takes them.

use std::sync::Arc;

use rmcp::model::JsonObject;
use serde_json::Value;

/// A schema of a tool.
pub fn schema(value: Value) -> Arc<JsonObject> {
    match value {
        Value::Object(object) => Arc::new(object),
        _ => Arc::default(),
    }
}
