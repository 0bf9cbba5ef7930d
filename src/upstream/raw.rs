//! Bare connections, for protocols that begin as HTTP and go on as something else (WebSocket). They
//! are held against the address guard as requests are.

use std::sync::OnceLock;
use std::time::Duration;

use pingora_core::connectors::TransportConnector;
use pingora_core::protocols::{ALPN, Stream};
use pingora_core::upstreams::peer::HttpPeer;

use super::client::Upstream;
use super::endpoint::Endpoint;
use super::error::UpstreamError;

/// One for the process: it holds the system's certificates.
fn connector() -> &'static TransportConnector {
    static CONNECTOR: OnceLock<TransportConnector> = OnceLock::new();
    CONNECTOR.get_or_init(|| TransportConnector::new(None))
}

impl Upstream {
    /// A new connection to `endpoint`, with TLS where it has that.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        patience: Duration,
    ) -> Result<Stream, UpstreamError> {
        let addresses = self.resolve(endpoint).await?;
        let mut last = UpstreamError::Connect(format!("{} has no address", endpoint.host));
        for address in addresses.iter() {
            let mut peer = HttpPeer::new(*address, endpoint.tls, endpoint.host.clone());
            peer.options.connection_timeout = Some(patience);
            peer.options.total_connection_timeout = Some(patience * 2);
            peer.options.alpn = ALPN::H1;
            match Box::pin(connector().new_stream(&peer)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = UpstreamError::Connect(error.to_string()),
            }
        }
        Err(last)
    }
}
