//! The Prometheus listener: `GET /metrics`, and nothing else.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Response, StatusCode};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

use crate::gateway::Gateway;

/// Serves the exposition text, behind a bearer when one is configured.
pub struct MetricsApp {
    pub gateway: Arc<Gateway>,
}

fn plain(status: StatusCode, text: impl Into<Vec<u8>>) -> Response<Vec<u8>> {
    let body = text.into();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let length = response.body().len();
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    headers.insert(http::header::CONTENT_LENGTH, length.into());
    response
}

#[async_trait]
impl ServeHttp for MetricsApp {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let header = session.req_header();
        if header.uri.path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "not found\n");
        }
        if let Some(token) = &self.gateway.config.metrics.token {
            let expected = format!("Bearer {token}");
            let given = session.get_header_bytes("authorization");
            let equal =
                aws_lc_rs::constant_time::verify_slices_are_equal(given, expected.as_bytes());
            if equal.is_err() {
                return plain(StatusCode::UNAUTHORIZED, "unauthorized\n");
            }
        }
        match self.gateway.metrics.render() {
            Ok(text) => plain(StatusCode::OK, text),
            Err(error) => {
                tracing::error!(%error, "cannot render metrics");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "error\n")
            }
        }
    }
}
