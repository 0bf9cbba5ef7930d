//! E-mail: the relay that mail leaves by, and the listener that takes it in.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How mail is sent and taken in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Email {
    /// What this gateway calls itself to other mail servers.
    pub hostname: String,
    /// Where mail of tenants without a server of their own is sent by; absent: they need one.
    pub relay: Option<Relay>,
    /// Where other mail servers deliver to; absent: mail comes by HTTP alone.
    pub listen: Option<SocketAddr>,
    /// PEM certificate chain for STARTTLS; absent: it is not offered.
    pub tls_cert: Option<PathBuf>,
    /// PEM private key.
    pub tls_key: Option<PathBuf>,
    /// Name server that SPF, DKIM and DMARC are looked up at; absent: the system's.
    pub name_server: Option<SocketAddr>,
    /// The largest message that is taken, in bytes.
    pub max_message_bytes: usize,
    /// Messages that are being received take at most so much memory together, in bytes.
    pub max_bytes_in_flight: usize,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one address.
    pub max_connections_per_address: usize,
    /// Messages a minute from one address.
    pub max_messages_per_minute: u32,
    /// Recipients of one message.
    pub max_recipients: usize,
    /// How long the other side may be silent, in seconds.
    pub timeout_s: u64,
    /// Messages an hour that one sender is answered; more are kept and not answered, which ends
    /// loops that nothing else shows.
    pub max_per_sender_hour: u32,
}

/// A mail server that takes mail on.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    pub host: String,
    #[serde(default = "submission")]
    pub port: u16,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub password: Option<String>,
    #[serde(default)]
    pub tls: RelayTls,
    /// PEM certificate of an authority that is trusted beside the public ones.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

/// How the connection to a relay is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayTls {
    /// The connection begins in the clear and must become TLS.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// In the clear: for a relay on the same machine.
    None,
}

fn submission() -> u16 {
    587
}

impl Default for Email {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            relay: None,
            listen: None,
            tls_cert: None,
            tls_key: None,
            name_server: None,
            max_message_bytes: 25 * 1024 * 1024,
            max_bytes_in_flight: 256 * 1024 * 1024,
            max_connections: 100,
            max_connections_per_address: 10,
            max_messages_per_minute: 60,
            max_recipients: 100,
            timeout_s: 300,
            max_per_sender_hour: 60,
        }
    }
}

// Without the relay's password.
impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Email")
            .field("hostname", &self.hostname)
            .field("relay", &self.relay)
            .field("listen", &self.listen)
            .field("max_message_bytes", &self.max_message_bytes)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

impl Email {
    /// Checks what types cannot say: the key at fault, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || ".-[]:".contains(c);
        if self.hostname.is_empty() || !self.hostname.chars().all(is_name) {
            return Err(("hostname", "is no name of a host".to_owned()));
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            let why = "tls_cert and tls_key go together".to_owned();
            return Err(("tls_cert", why));
        }
        let files = [
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
            ("relay.ca", &self.relay.as_ref().and_then(|r| r.ca.clone())),
        ];
        for (key, path) in files {
            if let Some(path) = path
                && !path.is_file()
            {
                return Err((key, format!("{} does not exist", path.display())));
            }
        }
        if !(1024..=64 * 1024 * 1024).contains(&self.max_message_bytes) {
            let why = "must be 1024 to 67108864".to_owned();
            return Err(("max_message_bytes", why));
        }
        if self.max_bytes_in_flight < self.max_message_bytes
            || self.max_bytes_in_flight > 64 * 1024 * 1024 * 1024
        {
            let why = "must be at least max_message_bytes, and at most 64 GiB".to_owned();
            return Err(("max_bytes_in_flight", why));
        }
        let counts = [
            ("max_connections", self.max_connections),
            (
                "max_connections_per_address",
                self.max_connections_per_address,
            ),
            ("max_recipients", self.max_recipients),
            ("max_per_sender_hour", self.max_per_sender_hour as usize),
            (
                "max_messages_per_minute",
                self.max_messages_per_minute as usize,
            ),
        ];
        for (key, count) in counts {
            if !(1..=1_000_000).contains(&count) {
                return Err((key, "must be 1 to 1000000".to_owned()));
            }
        }
        if !(1..=3600).contains(&self.timeout_s) {
            return Err(("timeout_s", "must be 1 to 3600".to_owned()));
        }
        Ok(())
    }
}
