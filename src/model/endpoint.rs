//! Where a server is: a base URL, taken apart once.

use std::net::IpAddr;
use std::sync::Arc;

/// A provider's base URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: Arc<str>,
    /// Without a trailing slash.
    pub(super) base_path: String,
    /// Named by the operator: the address guard does not apply.
    pub(super) trusted: bool,
}

impl Endpoint {
    /// From a base URL such as `https://api.openai.com/v1`; the message says what is wrong.
    pub fn parse(base_url: &str, trusted: bool) -> Result<Self, String> {
        let url = url::Url::parse(base_url).map_err(|e| e.to_string())?;
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(format!("'{other}' is no http(s) URL")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must hold no user name or password".to_owned());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("must hold no query and no fragment".to_owned());
        }
        let host = url.host_str().ok_or("names no host")?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Ok(Self {
            tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().ok_or("names no port")?,
            authority: authority.into(),
            base_path: url.path().trim_end_matches('/').to_owned(),
            trusted,
        })
    }

    /// The IP address, when the host is one.
    pub fn literal_address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_taken_apart() {
        let endpoint = Endpoint::parse("https://api.openai.com/v1/", false).expect("valid");
        assert_eq!(endpoint.base_path, "/v1");
        assert_eq!((endpoint.port, endpoint.tls), (443, true));
        assert_eq!(&*endpoint.authority, "api.openai.com");
        let endpoint = Endpoint::parse("http://[::1]:9000", false).expect("valid");
        assert_eq!(endpoint.literal_address(), "::1".parse().ok());
        assert_eq!(&*endpoint.authority, "[::1]:9000");
        for bad in [
            "ftp://x",
            "nope",
            "https://u:p@x/",
            "https://x/?a=b",
            "https://x/#f",
        ] {
            assert!(Endpoint::parse(bad, false).is_err(), "{bad}");
        }
    }
}
