//! Where a server is: a base URL, taken apart once.

use std::net::IpAddr;
use std::sync::Arc;

/// A base URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port, as the `Host` header has them.
    pub authority: Arc<str>,
    /// Without a trailing slash.
    pub(super) base_path: String,
    /// Comes with every request, as Azure's `api-version`.
    pub(super) query: Option<Arc<str>>,
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
        if url.fragment().is_some() {
            return Err("must hold no fragment".to_owned());
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
            query: url.query().filter(|query| !query.is_empty()).map(Arc::from),
            trusted,
        })
    }

    /// The target of a request for `path`, which may hold a query of its own.
    pub(super) fn target(&self, path: &str) -> String {
        let Some(own) = &self.query else {
            return format!("{}{path}", self.base_path);
        };
        match path.split_once('?') {
            Some((path, query)) => format!("{}{path}?{own}&{query}", self.base_path),
            None => format!("{}{path}?{own}", self.base_path),
        }
    }

    /// Whether both are one server.
    pub fn is_same_server(&self, other: &Self) -> bool {
        (self.tls, self.host.as_str(), self.port) == (other.tls, other.host.as_str(), other.port)
    }

    /// Whether it is the server `other` or one whose name is below that one's, on the same port.
    pub fn is_of(&self, other: &Self) -> bool {
        let is_below = other.literal_address().is_none()
            && self
                .host
                .strip_suffix(other.host.as_str())
                .is_some_and(|rest| rest.ends_with('.'));
        (self.tls, self.port) == (other.tls, other.port) && (self.host == other.host || is_below)
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
        let endpoint = Endpoint::parse("https://x/v1?api-version=1&a", false).expect("valid");
        assert_eq!(endpoint.target("/chat"), "/v1/chat?api-version=1&a");
        assert_eq!(
            endpoint.target("/m:s?alt=sse"),
            "/v1/m:s?api-version=1&a&alt=sse"
        );
        let of = |a: &str, b: &str| {
            let parse = |url: &str| Endpoint::parse(url, false).expect("valid");
            parse(a).is_of(&parse(b))
        };
        assert!(of("https://files.slack.com/a", "https://slack.com"));
        assert!(of("https://slack.com/a", "https://slack.com"));
        assert!(!of("https://evilslack.com/a", "https://slack.com"));
        assert!(!of("http://files.slack.com/a", "https://slack.com"));
        assert!(!of("https://slack.com:8443/a", "https://slack.com"));
        let endpoint = Endpoint::parse("https://x/v1?", false).expect("valid");
        assert_eq!(endpoint.target("/chat?b"), "/v1/chat?b");
        for bad in ["ftp://x", "nope", "https://u:p@x/", "https://x/#f"] {
            assert!(Endpoint::parse(bad, false).is_err(), "{bad}");
        }
    }
}
