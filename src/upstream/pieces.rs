//! A request whose body is passed on as it arrives. It can be sent once: a server that has closed a
//! kept connection would be told of it only behind the body, so that a new one is made.

use bytes::Bytes;
use http::{Method, header};
use pingora_core::protocols::http::client::HttpSession;

use super::client::{Origin, Timeouts, Upstream, UpstreamRequest, head_of, read_head};
use super::endpoint::Endpoint;
use super::error::{UpstreamError, read_error};
use super::response::UpstreamResponse;

/// A body that arrives in pieces.
pub trait Source: Send {
    type Error: Send;
    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, Self::Error>> + Send;
}

/// Why a request was not answered.
#[derive(Debug)]
pub enum SendError<E> {
    Upstream(UpstreamError),
    /// The body's own error.
    Source(E),
}

impl<E> From<UpstreamError> for SendError<E> {
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(error)
    }
}

impl Upstream {
    /// Sends a request, but for its answer, whose body is `request.body`, then what `source` gives: `length` bytes together,
    /// where that is known. Each piece, and then the answer, may take what `timeouts` say.
    pub async fn send_pieces<S: Source>(
        &self,
        endpoint: &Endpoint,
        request: &UpstreamRequest<'_>,
        length: Option<u64>,
        source: &mut S,
        timeouts: Timeouts,
    ) -> Result<Unanswered, SendError<S::Error>> {
        let addresses = self.resolve(endpoint).await?;
        let mut last = UpstreamError::Connect(format!("{} has no address", endpoint.host));
        for address in addresses.iter() {
            let origin = self.origin(*address, endpoint, timeouts).anew();
            match origin.session(timeouts).await {
                Ok((session, _)) => {
                    let sent = send(
                        session,
                        origin,
                        endpoint,
                        (request, length),
                        source,
                        timeouts,
                    );
                    return Box::pin(sent).await;
                }
                Err(error @ UpstreamError::Connect(_)) => last = error,
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.into())
    }
}

async fn send<S: Source>(
    mut session: Box<HttpSession>,
    origin: Origin,
    endpoint: &Endpoint,
    (request, length): (&UpstreamRequest<'_>, Option<u64>),
    source: &mut S,
    timeouts: Timeouts,
) -> Result<Unanswered, SendError<S::Error>> {
    session.set_read_timeout(Some(timeouts.first_byte));
    session.set_write_timeout(Some(timeouts.first_byte));
    let failed = |error: Box<pingora_core::Error>| read_error(&error, "request body");
    let mut head = head_of(endpoint, request).map_err(failed)?;
    let framed = match (length, &*session) {
        (Some(length), _) => head.insert_header(header::CONTENT_LENGTH, length),
        (None, HttpSession::H1(_)) => head.insert_header(header::TRANSFER_ENCODING, "chunked"),
        // HTTP/2 frames a body by itself.
        (None, _) => Ok(()),
    };
    framed.map_err(failed)?;
    let written = session.write_request_header(Box::new(head)).await;
    written.map_err(failed)?;
    let mut piece = request.body.clone();
    loop {
        if !piece.is_empty() && session.write_request_body(piece, false).await.is_err() {
            break;
        }
        match source.next().await.map_err(SendError::Source)? {
            Some(next) => piece = next,
            None => {
                session.finish_request_body().await.map_err(failed)?;
                break;
            }
        }
    }
    Ok(Unanswered {
        session,
        origin,
        method: request.method.clone(),
        timeouts,
    })
}

/// A request that is sent, as far as the server took it.
pub struct Unanswered {
    session: Box<HttpSession>,
    origin: Origin,
    method: Method,
    timeouts: Timeouts,
}

impl Unanswered {
    /// Waits for the answer; of a body that was not taken to its end it says why.
    pub async fn answer(mut self) -> Result<UpstreamResponse, UpstreamError> {
        let answered = read_head(&mut self.session);
        let answered = tokio::time::timeout(self.timeouts.first_byte, answered).await;
        let answered = answered.map_err(|_| UpstreamError::Timeout("response header"))?;
        let (status, headers) = answered.map_err(|error| read_error(&error, "response header"))?;
        let body = self.origin.body(self.session, &self.method)?;
        let idle = self.timeouts.idle;
        Ok(UpstreamResponse::new(status, headers, body, idle))
    }
}
