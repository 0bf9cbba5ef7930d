//! `Idempotency-Key`: a replay returns the first answer; the same key with another body is 409,
//! and so is a replay while the first request is in flight.
//!
//! A key belongs to who sent it: the kind of token with its scopes, the smith that it acts as, the
//! method and the path. So an answer is only given again to whom it could have been given first.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use parking_lot::Mutex;

use super::Streamed;
use crate::auth::{Principal, Role, SMITH_HEADER, Scope, THREAD_HEADER};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::store::{Idempotency, now_micros};

const MAX_KEY: usize = 255;
/// What a replayed answer is marked with.
pub const REPLAYED: http::HeaderName = http::HeaderName::from_static("idempotent-replayed");
/// The longest answer that is kept, in bytes, where asking again costs no more than the asking.
const MAX_KEPT: usize = 1024 * 1024;
/// A route of the router that changes nothing here.
const ASKS_ONLY: &str = "/v1/embeddings";
/// The route whose body is not held in memory.
const UPLOADS: &str = "/v1/files";
/// How often a claim is renewed while its request is in flight; it lapses after a minute.
const RENEW_EVERY: Duration = Duration::from_secs(20);
const PRINT_BYTES: usize = 32;

/// A claimed key: finish or abandon it.
pub struct Mine {
    gateway: Arc<Gateway>,
    tenant_id: Arc<str>,
    key: String,
    /// What it stands for, where that is a run.
    run_id: Option<String>,
}

/// What a key stands for.
pub enum Claim {
    Mine(Mine),
    /// The run that the first request with this key started, which still has the key.
    Earlier(Mine, String),
}

/// What a key stands for whose request has no run.
pub enum OnceMore {
    Mine(Mine),
    /// What the first request kept.
    Done(StatusCode, Bytes),
}

impl Mine {
    /// First answers may hold secrets that are shown once, and what a model was asked.
    fn owner(&self) -> String {
        format!("idempotency/{}/{}", self.tenant_id, self.key)
    }

    /// Keeps the first answer, sealed.
    pub async fn finish(&self, status: StatusCode, body: &[u8]) -> Result<(), ApiError> {
        let sealed = self.gateway.vault.seal(&self.owner(), body);
        let sealed = sealed.map_err(ApiError::internal)?;
        let store = &self.gateway.store;
        let finished =
            store.finish_idempotent(&self.tenant_id, &self.key, status.as_u16(), &sealed);
        // What it stands for is done, and is answered.
        if let Err(error) = finished.await {
            tracing::warn!(%error, "cannot keep the answer of an idempotency key");
        }
        Ok(())
    }

    /// Keeps the answer of a call that changed nothing here; gives the key back where there is none,
    /// or one that is too long to be kept.
    pub async fn settle(&self, status: StatusCode, body: &[u8]) {
        if status.is_success() && body.len() <= MAX_KEPT {
            match self.finish(status, body).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "cannot seal an answer"),
            }
        }
        self.abandon().await;
    }

    /// Gives the key back: the request had no effect.
    pub async fn abandon(&self) {
        let store = &self.gateway.store;
        let abandoned =
            store.abandon_idempotent(&self.tenant_id, &self.key, self.run_id.as_deref());
        if let Err(error) = abandoned.await {
            tracing::warn!(%error, "cannot give an idempotency key back");
        }
    }

    /// Takes the key for its own run in place of one that no answer came from; 409 when another
    /// request was faster.
    pub async fn instead_of(self, first: &str) -> Result<Self, ApiError> {
        let store = &self.gateway.store;
        let (tenant_id, key) = (&self.tenant_id, &self.key);
        let run_id = self.run_id.as_deref().unwrap_or_default();
        let taken = store.retry_idempotent(tenant_id, key, first, run_id, now_micros());
        match taken.await? {
            true => Ok(self),
            false => Err(in_progress()),
        }
    }

    /// Renews the claim for as long as it is polled.
    pub async fn renew(&self) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            let store = &self.gateway.store;
            let renewed = store.renew_idempotent(&self.tenant_id, &self.key, now_micros());
            if let Err(error) = renewed.await {
                tracing::warn!(%error, "cannot renew the claim of an idempotency key");
            }
        }
    }
}

/// 409 `idempotency_in_progress`.
pub fn in_progress() -> ApiError {
    ApiError::conflict(
        "idempotency_in_progress",
        "the first request with this Idempotency-Key is under way",
    )
}

fn reused() -> ApiError {
    ApiError::conflict(
        "idempotency_key_reused",
        "this Idempotency-Key was used with another request",
    )
}

/// The key of a request, if it has one.
pub fn key_of(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match key.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key)),
        _ => Err(ApiError::invalid(
            "Idempotency-Key",
            format!("must be 1 to {MAX_KEY} printable ASCII characters"),
        )),
    }
}

/// A digest of texts, each of which stays apart from the next.
struct Digest(Context);

impl Digest {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.0.update(&(text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    fn hex(self) -> String {
        hex::encode(self.0.finish())
    }
}

/// Who asks for what: the part of the key that its sender does not choose.
fn place(principal: &Principal, headers: &HeaderMap, method: &Method, path: &str) -> String {
    let mut digest = Digest::new();
    match &principal.role {
        Role::TenantAdmin => digest.text("tenant"),
        Role::Organization => digest.text("organization"),
        // With what it may do: an answer of a model that was taken from it is not given again.
        Role::VirtualKey(rights) => {
            digest.text("key").text(&principal.token_id);
            digest.text(&format!("{rights:?}"))
        }
        Role::Smith { smith_id, scopes } => {
            digest.text("smith").text(smith_id);
            let held = Scope::ALL.iter().filter(|scope| scopes.contains(**scope));
            held.fold(&mut digest, |digest, scope| digest.text(scope.as_str()))
        }
    };
    digest.text(&header(headers, SMITH_HEADER));
    digest.text(method.as_str()).text(path);
    digest.hex()
}

fn header(headers: &HeaderMap, name: &str) -> String {
    let value = headers.get(name).map(|value| value.as_bytes());
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

/// The fingerprint of a request, whose body is told apart by `body`.
fn fingerprint(headers: &HeaderMap, query: &str, body: &str) -> String {
    let mut digest = Digest::new();
    digest.text(query);
    digest.text(&header(headers, THREAD_HEADER));
    digest.text(body);
    digest.hex()
}

/// The digest of a body as it passes. What separates the parts of a form is made up anew each time
/// that the form is sent, and is left out.
struct Print {
    context: Context,
    boundary: Vec<u8>,
    /// What may be the beginning of a boundary.
    held: Vec<u8>,
}

impl Print {
    fn new(headers: &HeaderMap) -> Self {
        let kind = header(headers, "content-type");
        let boundary = match kind.split_once("boundary=") {
            Some((form, rest)) if form.trim_start().starts_with("multipart/") => {
                let end = rest.find(';').unwrap_or(rest.len());
                rest[..end].trim().trim_matches('"').as_bytes().to_vec()
            }
            _ => Vec::new(),
        };
        Self {
            context: Context::new(&SHA256),
            boundary,
            held: Vec::new(),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.boundary.is_empty() {
            return self.context.update(bytes);
        }
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = memchr::memmem::find(&self.held[from..], &self.boundary) {
            self.context.update(&self.held[from..from + at]);
            from += at + self.boundary.len();
        }
        let kept = (self.boundary.len() - 1).min(self.held.len() - from);
        let upto = self.held.len() - kept;
        self.context.update(&self.held[from..upto]);
        self.held.drain(..upto);
    }

    fn finish(mut self) -> Vec<u8> {
        self.context.update(&self.held);
        self.context.finish().as_ref().to_vec()
    }
}

fn print_of(headers: &HeaderMap, body: &[u8]) -> String {
    let mut print = Print::new(headers);
    print.add(body);
    hex::encode(print.finish())
}

/// A request that has a key, without its body.
pub struct Keyed<'a> {
    pub gateway: &'a Arc<Gateway>,
    pub principal: &'a Principal,
    pub headers: &'a HeaderMap,
    pub method: &'a Method,
    pub path: &'a str,
    pub query: &'a str,
    pub key: &'a str,
}

impl Keyed<'_> {
    async fn begin(
        &self,
        body: &str,
        run_id: Option<&str>,
    ) -> Result<(Mine, Idempotency), ApiError> {
        let print = fingerprint(self.headers, self.query, body);
        let place = place(self.principal, self.headers, self.method, self.path);
        let key = format!("{place} {}", self.key);
        let tenant_id = &self.principal.tenant_id;
        let store = &self.gateway.store;
        let state = store.begin_idempotent(tenant_id, &key, &print, run_id, now_micros());
        let state = state.await?;
        let mine = Mine {
            gateway: self.gateway.clone(),
            tenant_id: tenant_id.clone(),
            key,
            run_id: run_id.map(str::to_owned),
        };
        Ok((mine, state))
    }

    /// Claims the key for what keeps an answer; one that does not soon loses it.
    pub async fn claim(&self, body: &[u8]) -> Result<OnceMore, ApiError> {
        let (mine, state) = self.begin(&print_of(self.headers, body), None).await?;
        match state {
            Idempotency::New => Ok(OnceMore::Mine(mine)),
            Idempotency::Mismatch => Err(reused()),
            Idempotency::InProgress { .. } => Err(in_progress()),
            Idempotency::Done { status, body, .. } => {
                let opened = self.gateway.vault.open(&mine.owner(), &body);
                let opened = opened.map_err(ApiError::internal)?;
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
                Ok(OnceMore::Done(status, opened.to_vec().into()))
            }
        }
    }

    /// Claims the key for a new run.
    pub async fn claim_run(&self, body: &[u8], run_id: &str) -> Result<Claim, ApiError> {
        let body = print_of(self.headers, body);
        let (mine, state) = self.begin(&body, Some(run_id)).await?;
        match state {
            Idempotency::New => Ok(Claim::Mine(mine)),
            Idempotency::Mismatch => Err(reused()),
            Idempotency::InProgress { run_id } | Idempotency::Done { run_id, .. } => {
                let run_id = run_id.ok_or_else(reused)?;
                Ok(Claim::Earlier(mine, run_id))
            }
        }
    }
}

/// Answers a creating POST once for each key. What has an effect of its own (runs) claims its key
/// itself and does not come through here.
pub async fn layer(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let principal = request.extensions().get::<Arc<Principal>>().cloned();
    let (parts, body) = request.into_parts();
    // What a host says to an MCP server has ids of its own.
    let creates = parts.method == Method::POST && !parts.uri.path().ends_with("/mcp");
    let (Some(principal), true) = (principal, creates) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let answered = match key_of(&parts.headers).map(|key| key.map(str::to_owned)) {
        Ok(None) => return next.run(Request::from_parts(parts, body)).await,
        Ok(Some(key)) => once(&gateway, &principal, &key, parts, body, next).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(IntoResponse::into_response)
}

async fn once(
    gateway: &Arc<Gateway>,
    principal: &Principal,
    key: &str,
    parts: Parts,
    body: Body,
    next: Next,
) -> Result<Response, ApiError> {
    let keyed = Keyed {
        gateway,
        principal,
        headers: &parts.headers,
        method: &parts.method,
        path: parts.uri.path(),
        query: parts.uri.query().unwrap_or_default(),
        key,
    };
    // A file is not held in memory to be compared: it is told apart by what passes, afterwards.
    let passing = keyed.path == UPLOADS;
    let (print, body) = match passing {
        true => (String::new(), body),
        false => {
            let body = whole(body).await?;
            (print_of(&parts.headers, &body), Body::from(body))
        }
    };
    let (mine, state) = keyed.begin(&print, None).await?;
    match state {
        Idempotency::Mismatch => Err(reused()),
        Idempotency::InProgress { .. } => Err(in_progress()),
        Idempotency::Done {
            status, body: kept, ..
        } => {
            let opened = gateway.vault.open(&mine.owner(), &kept);
            let opened = opened.map_err(ApiError::internal)?;
            let mut answer = &opened[..];
            if passing {
                let mut print = Print::new(&parts.headers);
                let mut pieces = body.into_data_stream();
                while let Some(piece) = pieces.next().await {
                    print.add(&piece.map_err(broken)?);
                }
                match answer.split_at_checked(PRINT_BYTES) {
                    Some((first, rest)) if *first == print.finish() => answer = rest,
                    _ => return Err(reused()),
                }
            }
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let heads = [
                (header::CONTENT_TYPE, "application/json"),
                (REPLAYED, "true"),
            ];
            Ok((status, heads, answer.to_vec()).into_response())
        }
        Idempotency::New => {
            let asks_only = keyed.path == ASKS_ONLY;
            let print = Arc::new(Mutex::new(Some(Print::new(&parts.headers))));
            let body = match passing {
                true => watched(body, print.clone()),
                false => body,
            };
            let answering = next.run(Request::from_parts(parts, body));
            let response = tokio::select! {
                response = answering => response,
                () = mine.renew() => return Err(in_progress()),
            };
            if !response.status().is_success() || response.extensions().get::<Streamed>().is_some()
            {
                mine.abandon().await;
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            let body = whole(body).await?;
            if asks_only {
                mine.settle(parts.status, &body).await;
                return Ok(Response::from_parts(parts, Body::from(body)));
            }
            let mut kept = match print.lock().take() {
                Some(print) if passing => print.finish(),
                _ => Vec::new(),
            };
            kept.extend_from_slice(&body);
            mine.finish(parts.status, &kept).await?;
            Ok(Response::from_parts(parts, Body::from(body)))
        }
    }
}

/// A body whose pieces are looked at as they pass.
fn watched(body: Body, print: Arc<Mutex<Option<Print>>>) -> Body {
    Body::from_stream(body.into_data_stream().inspect(move |piece| {
        if let (Ok(piece), Some(print)) = (piece, &mut *print.lock()) {
            print.add(piece);
        }
    }))
}

fn broken(error: axum::Error) -> ApiError {
    ApiError::bad_request("invalid_request", error.to_string())
}

async fn whole(body: Body) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, usize::MAX).await.map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            let name = http::HeaderName::from_static(name);
            (name, http::HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn forms_are_the_same_whatever_separates_their_parts() {
        let form = |boundary: &str, content: &str, step: usize| {
            let kind = format!("multipart/form-data; boundary=\"{boundary}\"; charset=x");
            let headers = headers(&[("content-type", &kind)]);
            let body = format!("--{boundary}\r\nA: b\r\n\r\n{content}\r\n--{boundary}--\r\n");
            let mut print = Print::new(&headers);
            body.as_bytes()
                .chunks(step)
                .for_each(|piece| print.add(piece));
            print.finish()
        };
        let first = form("abc", "12345", 1000);
        for step in 1..20 {
            assert_eq!(form("abc", "12345", step), first);
            assert_eq!(form("--------x1y2", "12345", step), first);
            assert_ne!(form("abc", "12346", step), first);
        }
    }

    #[test]
    fn a_key_belongs_to_who_may_have_its_answer() {
        let smith = |id: &str, scopes: &[Scope]| Principal {
            tenant_id: "proj_1".into(),
            role: Role::Smith {
                smith_id: id.into(),
                scopes: scopes.iter().copied().collect(),
            },
            token_id: "tok_1".into(),
            expires_at: None,
        };
        let admin = Principal {
            role: Role::TenantAdmin,
            ..smith("", &[])
        };
        let none = HeaderMap::new();
        let named = |id: &str| headers(&[("ic-smith-id", id)]);
        let (a, b) = (named("smt_a"), named("smt_b"));
        let all = [
            place(&admin, &none, &Method::POST, "/v1/x"),
            place(&admin, &a, &Method::POST, "/v1/x"),
            place(&admin, &b, &Method::POST, "/v1/x"),
            place(&admin, &none, &Method::PUT, "/v1/x"),
            place(&admin, &none, &Method::POST, "/v1/y"),
            place(
                &smith("smt_a", &[Scope::RunsRead]),
                &none,
                &Method::POST,
                "/v1/x",
            ),
            place(
                &smith("smt_b", &[Scope::RunsRead]),
                &none,
                &Method::POST,
                "/v1/x",
            ),
            place(
                &smith("smt_a", &[Scope::RunsWrite]),
                &none,
                &Method::POST,
                "/v1/x",
            ),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn requests_are_told_apart() {
        let none = HeaderMap::new();
        let first = fingerprint(&none, "", "body");
        assert_eq!(fingerprint(&none, "", "body"), first);
        assert_ne!(fingerprint(&none, "", "other"), first);
        assert_ne!(fingerprint(&none, "a=1", "body"), first);
        let thread = headers(&[("ic-thread-id", "t")]);
        assert_ne!(fingerprint(&thread, "", "body"), first);
    }

    #[test]
    fn keys_are_bounded() {
        assert!(key_of(&HeaderMap::new()).expect("none").is_none());
        let (long, longer) = ("k".repeat(MAX_KEY), "k".repeat(MAX_KEY + 1));
        assert!(key_of(&headers(&[("idempotency-key", &long)])).is_ok());
        for key in ["", longer.as_str(), "é"] {
            assert!(key_of(&headers(&[("idempotency-key", key)])).is_err());
        }
    }
}
