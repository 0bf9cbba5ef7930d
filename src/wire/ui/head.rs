//! What all answers of this wire begin with.

use http::{HeaderName, HeaderValue};

use super::Encoder;
use crate::edge::Extra;
use crate::ids;

/// The wire's name in metrics.
pub(super) const WIRE: &str = "ui";

pub(super) fn headers() -> [Extra; 1] {
    [(
        HeaderName::from_static("x-vercel-ai-ui-message-stream"),
        HeaderValue::from_static("v1"),
    )]
}

pub(super) fn encoder(run_id: &str) -> Encoder {
    let message_id = ids::beside(ids::Kind::Message, ids::Kind::Run, run_id);
    Encoder::new(run_id, message_id)
}
