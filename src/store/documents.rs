//! Documents: columns of JSON text on both engines.

use serde::{Deserialize, Serialize};

use super::{AgentConfig, ExternalIds, Overrides, SmithProfile, SmithSnapshot};
use crate::json::Object;

/// Documents are columns of JSON text on both engines.
macro_rules! from_json_text {
    ($($document:ty),+) => {$(
        impl TryFrom<String> for $document {
            type Error = serde_json::Error;

            fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
                serde_json::from_str(&text)
            }
        }
    )+};
}

from_json_text!(
    AgentConfig,
    SmithProfile,
    Overrides,
    SmithSnapshot,
    ExternalIds,
    Metadata
);

/// Free JSON of the caller's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(pub Object);
