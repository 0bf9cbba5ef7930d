//! The page's script and styles: written by hand, sent compressed, under names that change with what
//! is in them.

use std::io::Write;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::connection::challenge;
use crate::error::ApiError;

const WEEK: &str = "public, max-age=31536000, immutable";

struct Asset {
    name: String,
    media_type: &'static str,
    plain: &'static str,
    brotli: Bytes,
    gzip: Bytes,
}

impl Asset {
    fn new(stem: &str, end: &str, media_type: &'static str, plain: &'static str) -> Self {
        let hash = challenge(plain);
        let mut packed = Vec::new();
        {
            let mut to = brotli::CompressorWriter::new(&mut packed, 4096, 9, 20);
            // Writing to memory does not fail.
            let _ = to.write_all(plain.as_bytes());
        }
        Self {
            name: format!("{stem}-{}.{end}", &hash[..12]),
            media_type,
            plain,
            brotli: packed.into(),
            gzip: gzipped(plain.as_bytes()).into(),
        }
    }
}

static PAGE_SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let plain = include_str!("assets/page.js");
    Asset::new("page", "js", "text/javascript; charset=utf-8", plain)
});
static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let plain = include_str!("assets/page.css");
    Asset::new("page", "css", "text/css; charset=utf-8", plain)
});

fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), Compression::new(6));
    let _ = to.write_all(plain);
    to.finish().unwrap_or_default()
}

/// Where the script is.
pub fn script_url() -> String {
    format!("/hosted/assets/{}", PAGE_SCRIPT.name)
}

/// Where the style is, of the page and of the pages that ask for a decision.
pub fn style_url() -> String {
    format!("/hosted/assets/{}", STYLE.name)
}

/// Whether a client takes a coding: named, and not with a weight of 0.
fn takes(headers: &HeaderMap, coding: &str) -> bool {
    let said = headers.get(header::ACCEPT_ENCODING);
    let said = said
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    said.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(coding));
        let is_refused = parts.any(|part| {
            let weight = part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
            weight.is_some_and(|weight| weight <= 0.0)
        });
        is_named && !is_refused
    })
}

/// A script or a style of the pages for people.
#[utoipa::path(get, path = "/hosted/assets/{name}", tag = "web page", security(()),
    params(("name" = String, Path)),
    responses((status = 200, content_type = "text/javascript", body = String)))]
pub async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let known = [&*PAGE_SCRIPT, &*STYLE];
    let found = known.into_iter().find(|asset| asset.name == name);
    let asset = found.ok_or_else(|| ApiError::not_found("asset", &name))?;
    let (coding, body) = match () {
        () if takes(&headers, "br") => (Some("br"), asset.brotli.clone()),
        () if takes(&headers, "gzip") => (Some("gzip"), asset.gzip.clone()),
        () => (None, Bytes::from_static(asset.plain.as_bytes())),
    };
    let mut answer = body.into_response();
    let mut set = |name: HeaderName, value: &'static str| {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    };
    set(header::CONTENT_TYPE, asset.media_type);
    set(header::CACHE_CONTROL, WEEK);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::VARY, "accept-encoding");
    if let Some(coding) = coding {
        set(header::CONTENT_ENCODING, coding);
    }
    Ok(answer)
}

/// A page with the headers of its own, compressed where the client takes that. Nothing secret is in
/// these pages beside what their visitor wrote nowhere.
pub fn answered_html(
    status: StatusCode,
    headers: &HeaderMap,
    page: String,
    policy: &str,
) -> Result<Response, ApiError> {
    let packs = takes(headers, "gzip");
    let body = match packs {
        true => gzipped(page.as_bytes()),
        false => page.into_bytes(),
    };
    let mut answer = (status, body).into_response();
    let mut set = |name: HeaderName, value: HeaderValue| answer.headers_mut().insert(name, value);
    let policy = HeaderValue::try_from(policy).map_err(ApiError::internal)?;
    set(header::CONTENT_SECURITY_POLICY, policy);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::VARY, "accept-encoding"),
        (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        set(name, HeaderValue::from_static(value));
    }
    if packs {
        set(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_takes_is_understood() {
        let of = |said: &'static str| {
            HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(said))])
        };
        assert!(takes(&of("gzip, deflate, br;q=0.9"), "br"));
        assert!(!takes(&of("br;q=0, gzip"), "br") && !takes(&HeaderMap::new(), "br"));
        assert!(PAGE_SCRIPT.brotli.len() < PAGE_SCRIPT.plain.len() / 2);
    }
}
