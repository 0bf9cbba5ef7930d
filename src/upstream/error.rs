//! What can go wrong on the way to a server and back.

use pingora_core::{Error as PingoraError, ErrorType};

/// A request that was not answered, or whose answer could not be read. The words leave out which
/// server was asked: [`UpstreamError::about`] says it.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("the address is not allowed: {0}")]
    Forbidden(String),
    #[error("cannot be reached: {0}")]
    Connect(String),
    /// Which step took too long.
    #[error("no answer in time ({0})")]
    Timeout(&'static str),
    #[error("the answer was cut before its end")]
    Cut,
    #[error("the answer is not what HTTP allows: {0}")]
    Malformed(String),
    /// The most bytes that were allowed.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl UpstreamError {
    /// The same in a user's words; `who` says which server was asked.
    pub fn about(&self, who: &str) -> String {
        match self {
            Self::Forbidden(why) => format!("the address of {who} is not allowed: {why}"),
            Self::Connect(why) => format!("cannot reach {who}: {why}"),
            Self::Timeout(step) => format!("{who} did not answer in time ({step})"),
            Self::Cut => format!("the answer of {who} was cut before its end"),
            Self::Malformed(why) => format!("{who} sent what HTTP does not allow: {why}"),
            Self::TooLarge(limit) => format!("the answer of {who} is larger than {limit} bytes"),
        }
    }
}

/// What an error of a read means; `what` was waited for.
pub(super) fn read_error(error: &PingoraError, what: &'static str) -> UpstreamError {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => UpstreamError::Timeout(what),
        ErrorType::InvalidHTTPHeader => UpstreamError::Malformed("a bad HTTP header".to_owned()),
        _ => UpstreamError::Cut,
    }
}
