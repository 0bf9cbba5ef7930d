//! Pages for people. Lives here: the frame that all of them share, and the headers without which no
//! HTML leaves.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:4rem auto;\
    padding:0 1rem}input[type=password]{width:100%;font:inherit;padding:.5rem;\
    box-sizing:border-box}button{font:inherit;padding:.5rem 1rem;margin:1rem .5rem 0 0}\
    .error{color:#a00}code{word-break:break-all}";

/// What HTML may do and where it may be shown. No `form-action`: browsers hold redirects after the
/// consent page's form to it as well.
const GUARDS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Of an answer that nobody may keep.
pub fn no_store() -> (HeaderName, &'static str) {
    (header::CACHE_CONTROL, "no-store")
}

/// A page.
pub fn document(status: StatusCode, body: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Smithgate" }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    (status, Html(page.into_string())).into_response()
}

/// Puts the headers on every answer that is HTML, unless its handler has set others.
pub async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_html = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_html {
        for (name, value) in GUARDS {
            let value = HeaderValue::from_static(value);
            response.headers_mut().entry(name).or_insert(value);
        }
    }
    response
}
