//! `/v1/deployments/{id}/mcp`: a smith as an MCP server (Streamable HTTP, on `rmcp`). Lives here:
//! who a call is for, and that a session is used by whom it was opened for. What the server offers
//! is in [`super::server`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::{Extension, Router};
use http::{HeaderMap, Method, StatusCode};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tower::Service;

use super::caller::McpCaller;
use super::deployment::{check_smith, deployment};
use super::server::SmithServer;
use crate::auth::{Principal, named_smith, scope};
use crate::edge::AppState;
use crate::edge::Streamed;
use crate::edge::extract::May;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::store::DeploymentRow;

/// The header that carries a session's id (MCP, "Transports").
const SESSION: &str = "mcp-session-id";
const MAX_SESSIONS: u64 = 100_000;
/// A session that nobody uses for so long is forgotten.
const SESSION_IDLE: Duration = Duration::from_secs(3600);

/// The MCP server of all deployments.
pub struct McpHost {
    service: StreamableHttpService<SmithServer, LocalSessionManager>,
    /// By session: the deployment and the smith that it was opened for.
    owners: moka::sync::Cache<String, Arc<str>>,
}

impl McpHost {
    /// Over `gateway`.
    pub fn new(gateway: Arc<Gateway>) -> Arc<Self> {
        let config = StreamableHttpServerConfig::default()
            .with_max_request_body_bytes(gateway.config.server.max_body_bytes);
        let config = match local_hosts(&gateway.config.server) {
            Some(hosts) => config.with_allowed_hosts(hosts),
            None => config.disable_allowed_hosts(),
        };
        let make = move || Ok::<_, std::io::Error>(SmithServer::new(gateway.clone()));
        Arc::new(Self {
            service: StreamableHttpService::new(make, Arc::default(), config),
            owners: moka::sync::Cache::builder()
                .max_capacity(MAX_SESSIONS)
                .time_to_idle(SESSION_IDLE)
                .build(),
        })
    }
}

/// The names that a gateway of this machine alone answers to, so that no page reaches it by a name
/// of its own making (DNS rebinding). Under other addresses its names are not known here, and its
/// tokens guard it.
fn local_hosts(server: &crate::config::Server) -> Option<Vec<String>> {
    if !server.listen.ip().is_loopback() {
        return None;
    }
    let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let public = server.public_url.as_deref();
    let public = public.and_then(|url| url::Url::parse(url).ok());
    hosts.extend(public.and_then(|url| url.host_str().map(str::to_owned)));
    Some(hosts)
}

/// The smith that a call is answered by.
async fn smith_of(
    gateway: &Gateway,
    caller: &Principal,
    deployment: &DeploymentRow,
    headers: &HeaderMap,
) -> Result<Arc<str>, ApiError> {
    let smith_id = match caller.acting_smith(named_smith(headers))? {
        None if deployment.target_type == "smith" => {
            return Ok(deployment.target_id.as_str().into());
        }
        acting => acting.ok_or_else(|| {
            ApiError::bad_request("smith_required", "name a smith with IC-Smith-Id")
        })?,
    };
    check_smith(gateway, deployment, &smith_id).await?;
    Ok(smith_id)
}

/// The endpoint's route.
pub fn router(gateway: &AppState) -> Router<AppState> {
    Router::new().route(
        "/v1/deployments/{id}/mcp",
        axum::routing::any(serve).layer(Extension(McpHost::new(gateway.clone()))),
    )
}

/// Serves the endpoint, whatever the method.
async fn serve(
    State(gateway): State<AppState>,
    May(caller, _): May<scope::RunsWrite>,
    Extension(host): Extension<Arc<McpHost>>,
    Path(id): Path<String>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let deployment = deployment(&gateway, &caller.tenant_id, &id).await?;
    let smith_id = smith_of(&gateway, &caller, &deployment, request.headers()).await?;
    let owner: Arc<str> = format!("{id}/{smith_id}").into();
    let session = |headers: &HeaderMap| {
        let id = headers.get(SESSION)?.to_str().ok()?;
        Some(id.to_owned())
    };
    let used = session(request.headers());
    if let Some(used) = &used {
        match host.owners.get(used) {
            Some(opened) if opened == owner => {}
            Some(_) => {
                return Err(ApiError::forbidden(
                    "session_mismatch",
                    "this session was opened for another smith",
                ));
            }
            // The host opens a new one then (MCP, "Session management").
            None => {
                return Err(ApiError::new(
                    StatusCode::NOT_FOUND,
                    "session_not_found",
                    "there is no such session",
                ));
            }
        }
    }
    let closes = request.method() == Method::DELETE;
    request.extensions_mut().insert(Arc::new(McpCaller {
        principal: caller,
        smith_id,
        deployment_id: id,
        is_own: deployment.target_type == "smith",
    }));
    let answered: Result<_, Infallible> = host.service.clone().call(request).await;
    let Ok(response) = answered;
    match (session(response.headers()), used) {
        (Some(opened), None) => host.owners.insert(opened, owner),
        (_, Some(used)) if closes => host.owners.invalidate(&used),
        _ => {}
    }
    let mut response: http::Response<Body> = response.map(Body::new);
    if closes && response.status() == StatusCode::ACCEPTED {
        // Published hosts know 200 and 204 as the end of a session.
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    response.extensions_mut().insert(Streamed);
    Ok(response)
}
