//! How the gateway is reached: listeners, their limits, metrics.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Listeners and their limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Plain HTTP/1.1 and h2c.
    pub listen: SocketAddr,
    pub tls: Option<Tls>,
    /// Where clients and browsers reach this gateway, for links that lead back to it.
    pub public_url: Option<String>,
    /// Whether `X-Forwarded-Proto` and `X-Forwarded-Host` are believed: only behind a proxy that
    /// sets both itself.
    pub trust_forwarded: bool,
    /// Origins that browsers may be sent back to after an OAuth authorization, beside those that a
    /// tenant registers.
    pub return_origins: Vec<String>,
    /// Worker threads; 0 means one for each core.
    pub workers: usize,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// What all request bodies together may take of this node's memory, in bytes; more wait a
    /// little, then are answered 503 `service_overloaded`.
    pub max_bytes_in_flight: usize,
    /// Connections at once; more are closed. 0: three quarters of the files that this process may
    /// have open.
    pub max_connections: usize,
    /// Time for a whole request header to arrive, from its first byte on, in seconds.
    pub header_timeout_s: u64,
    /// Time for a whole request body to arrive, in seconds.
    pub body_timeout_s: u64,
    /// How fast an uploaded file must arrive at least, in bytes a second, after that time.
    pub min_upload_rate: u64,
    /// Time a client may take to accept one write, in seconds.
    pub write_timeout_s: u64,
    /// Silence of a stream after which a comment is written, in milliseconds.
    pub keep_alive_ms: u64,
    /// Time between two requests on one connection, in seconds.
    pub keepalive_timeout_s: u64,
    /// After SIGTERM: the process ends within this time, in seconds; streams in flight may go on for
    /// three quarters of it, or until five seconds before its end.
    pub drain_timeout_s: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            public_url: None,
            trust_forwarded: false,
            return_origins: Vec::new(),
            workers: 0,
            max_body_bytes: 32 * 1024 * 1024,
            max_bytes_in_flight: 256 * 1024 * 1024,
            max_connections: 0,
            header_timeout_s: 20,
            body_timeout_s: 60,
            min_upload_rate: 8 * 1024,
            write_timeout_s: 60,
            keep_alive_ms: 15_000,
            keepalive_timeout_s: 75,
            drain_timeout_s: 30,
        }
    }
}

/// A TLS listener with HTTP/2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    pub listen: SocketAddr,
    /// PEM certificate chain.
    pub cert: PathBuf,
    /// PEM private key.
    pub key: PathBuf,
}

/// The Prometheus listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Absent: no metrics listener.
    pub listen: Option<SocketAddr>,
    /// When set, scrapes need it as a bearer token.
    pub token: Option<String>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 9090))),
            token: None,
        }
    }
}
