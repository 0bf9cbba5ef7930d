//! Pages and origins as a browser and a server read alike.

use url::{Host, Url};

const MAX_URL: usize = 2048;

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// A URL that browsers and servers read alike: https, or http on this machine, without user name,
/// backslash or anything that cannot be seen.
pub fn parse_page(text: &str) -> Result<Url, String> {
    if text.len() > MAX_URL {
        return Err(format!("must be at most {MAX_URL} bytes"));
    }
    if text.contains('\\') || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("holds a backslash, a space or a control character".to_owned());
    }
    let url = Url::parse(text).map_err(|e| format!("is no URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user name or password".to_owned());
    }
    // What the parser mends, a browser may mend otherwise.
    let authority = text.split_once("://").map(|(_, rest)| rest);
    let authority = authority.ok_or("must begin with https://")?;
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return Err("names no host".to_owned());
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_this_machine(&url) => Ok(url),
        _ => Err("must be https, or http on this machine".to_owned()),
    }
}

/// An origin: scheme, host and port, and nothing behind them.
pub fn parse_origin(text: &str) -> Result<String, String> {
    let url = parse_page(text)?;
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("an origin is scheme, host and port, nothing more".to_owned());
    }
    Ok(url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_pages_are_sent_to() {
        for good in [
            "https://app.test/done?x=1#y",
            "https://app.test",
            "https://app.test:8443/a%20b",
            "http://localhost:3000/cb",
            "http://127.0.0.1/",
        ] {
            assert!(parse_page(good).is_ok(), "{good}");
        }
        for bad in [
            "http://app.test/",
            "javascript:alert(1)",
            "data:text/html,x",
            "//evil.test/",
            "https:evil.test",
            "https:/evil.test",
            "https:///evil.test",
            "https://user@evil.test/",
            "https://app.test@evil.test/",
            "https://app.test:x@evil.test/",
            "https://@evil.test/",
            "https://app.test\\@evil.test/",
            "https:\\\\evil.test",
            "https://evil.test\\.app.test/",
            "https://app.test/\r\nSet-Cookie: a=b",
            "https://app.test/\u{9}",
            " https://app.test/",
            "https://app.test/\u{2028}",
            "ftp://app.test/",
            "http://localhost.evil.test/",
            "",
        ] {
            assert!(parse_page(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn origins_have_nothing_behind_them() {
        assert_eq!(
            parse_origin("https://App.test/").as_deref(),
            Ok("https://app.test")
        );
        assert_eq!(
            parse_origin("https://a.test:443").as_deref(),
            Ok("https://a.test")
        );
        assert!(parse_origin("https://a.test/x").is_err());
    }
}
