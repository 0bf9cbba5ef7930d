//! Why a session or a call failed, in words for people: no type's name, no secret.

use std::error::Error;
use std::sync::Arc;

use parking_lot::Mutex;
use rmcp::service::{ClientInitializeError, ServiceError};
use rmcp::transport::DynamicTransportError;
use rmcp::transport::streamable_http_client::StreamableHttpError;

use super::error::HttpError;

/// The longest reason, in characters.
const LONGEST: usize = 500;

/// What went wrong last in a session's transport, which ends without telling its peer.
#[derive(Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// Notes what went wrong.
    pub fn note(&self, why: String) {
        *self.0.lock() = Some(why);
    }

    fn or(&self, otherwise: &str) -> String {
        let why = self.0.lock().clone();
        why.unwrap_or_else(|| otherwise.to_owned())
    }
}

fn short(text: &str) -> String {
    let text = text.chars().filter(|c| !c.is_control());
    text.take(LONGEST).collect()
}

/// Why a session did not begin.
pub fn of_beginning(error: &ClientInitializeError, trouble: &Trouble) -> String {
    short(&match error {
        ClientInitializeError::TransportError { error, .. } => of_transport(error, trouble),
        ClientInitializeError::JsonRpcError(error) => {
            format!("the server refused to begin a session: {}", error.message)
        }
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => {
            of_beginning(fallback, trouble)
        }
        ClientInitializeError::NoCompatibleProtocolVersion {
            server_supported, ..
        } => {
            let theirs: Vec<&str> = server_supported.iter().map(|v| v.as_str()).collect();
            format!(
                "the server speaks only revisions of MCP that are not known here: {}",
                theirs.join(", ")
            )
        }
        ClientInitializeError::ConnectionClosed(_) | ClientInitializeError::Cancelled => {
            trouble.or("the server ended the connection before the session had begun")
        }
        _ => "the server's answer to 'initialize' is none that begins a session".to_owned(),
    })
}

/// Why a request gave no result.
pub fn of_request(error: &ServiceError, trouble: &Trouble) -> String {
    short(&match error {
        ServiceError::McpError(error) => error.message.to_string(),
        ServiceError::TransportSend(error) => of_transport(error, trouble),
        ServiceError::TransportClosed => trouble.or("the server closed the connection"),
        ServiceError::UnexpectedResponse => {
            "the server answered with what is no result of this request".to_owned()
        }
        ServiceError::Timeout { timeout } => {
            let seconds = timeout.as_secs();
            format!("the server gave no answer in time ({seconds} s)")
        }
        ServiceError::Cancelled { reason } => match reason {
            Some(reason) => format!("the server cancelled the request: {reason}"),
            None => "the server cancelled the request".to_owned(),
        },
        ServiceError::InputRequiredRoundsExceeded { max_rounds } => {
            format!("the server asked more than {max_rounds} times for more input")
        }
        _ => trouble.or("the session with the server failed"),
    })
}

/// The transport's own error among the causes of `error`.
pub fn cause<T: Error + 'static>(error: &DynamicTransportError) -> Option<&T> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error.error.as_ref());
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The HTTP client's error behind one of the transport.
pub fn http_error(error: &DynamicTransportError) -> Option<&HttpError> {
    match cause::<StreamableHttpError<HttpError>>(error) {
        Some(StreamableHttpError::Client(http)) => Some(http),
        _ => cause(error),
    }
}

fn of_transport(error: &DynamicTransportError, trouble: &Trouble) -> String {
    if let Some(http) = http_error(error) {
        return http.to_string();
    }
    match cause::<StreamableHttpError<HttpError>>(error) {
        Some(StreamableHttpError::AuthRequired(asked)) => {
            wants_authorization(&asked.www_authenticate_header)
        }
        Some(StreamableHttpError::SessionExpired) => {
            "the server forgot the session, and a new one too".to_owned()
        }
        Some(StreamableHttpError::ReinitializationFailed(error)) => {
            format!(
                "the server refused to begin a new session: {}",
                error.message
            )
        }
        Some(StreamableHttpError::SessionRecoveryTimeout) => {
            "the server forgot the session, and began no new one in time".to_owned()
        }
        _ => trouble.or("the connection to the server failed"),
    }
}

/// That a server wants to know who asks, with what its header says of it.
pub fn wants_authorization(header: &str) -> String {
    let mut said =
        "the server wants authorization (401): give it a secret or a connection".to_owned();
    if !header.is_empty() {
        said.push_str("; it asks for ");
        said.extend(header.chars().filter(|c| !c.is_control()).take(200));
    }
    said
}
