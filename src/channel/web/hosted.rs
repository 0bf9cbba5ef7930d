//! `/v1/hosted/{id}`: the page for programs (`observed.md` 4.8), which name their visitors themselves.
//!
//! What a program calls a visitor is all that tells them apart, so that it should be hard to guess. It
//! shares nothing with the visitors of the page, whom their cookie names.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::follow::{Awaited, run_of_turn};
use super::pace::{MAX_TEXT, allow};
use super::settings::Settings;
use super::visitor::{Visit, Visitor, page};
use super::{KIND, password};
use crate::channel::{Arrival, Hub, turn_of};
use crate::connection::random_text;
use crate::edge::AppState;
use crate::error::ApiError;
use crate::model::Part;

const MAX_VISITOR: usize = 128;

/// What anybody may know of a page.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostedOut {
    pub id: String,
    pub title: String,
    pub greeting: String,
    pub requires_password: bool,
    pub status: String,
}

/// A message of a visitor.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct HostedIn {
    /// Whoever has one has one smith; hard to guess, as nothing else tells visitors apart.
    #[schema(min_length = 1, max_length = 128)]
    pub visitor_id: String,
    #[schema(min_length = 1)]
    pub message: String,
    /// Of a conversation that goes on; the visitor's first one when left out.
    pub thread_id: Option<String>,
    pub password: Option<String>,
}

/// Reads what a page is called, and whether it asks for a password.
#[utoipa::path(get, path = "/v1/hosted/{id}", tag = "web page", security(()),
    params(("id" = String, Path)), responses((status = 200, body = HostedOut)))]
pub async fn about(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<HostedOut>, ApiError> {
    let deployment = page(&gateway.hub, &id).await?;
    let settings = Settings::of(&deployment.provider_metadata)?;
    Ok(Json(HostedOut {
        requires_password: deployment.sealed.is_some(),
        id: deployment.id,
        title: settings.title,
        greeting: settings.greeting,
        status: deployment.status,
    }))
}

/// Takes a message of a visitor, and waits for the run that answers it.
pub async fn hosted(hub: &Hub, id: &str, said: HostedIn) -> Result<Awaited, ApiError> {
    let deployment = page(hub, id).await?;
    let length = said.visitor_id.chars().count();
    if !(1..=MAX_VISITOR).contains(&length) {
        return Err(ApiError::invalid(
            "visitor_id",
            "must have 1 to 128 characters",
        ));
    }
    if said.message.trim().is_empty() || said.message.len() > MAX_TEXT {
        return Err(ApiError::invalid(
            "message",
            "must be a text of at most 32 KiB",
        ));
    }
    if let Some(hash) = hub
        .secrets_of(&deployment)?
        .get("password")
        .and_then(Value::as_str)
        && !password::is_right(&deployment.id, hash, said.password.unwrap_or_default()).await?
    {
        return Err(password::wrong());
    }
    let visitor = Visitor::named(&deployment.id, &said.visitor_id, said.thread_id.as_deref());
    let visit = Visit {
        settings: Settings::of(&deployment.provider_metadata)?,
        deployment,
        visitor,
        is_framed: false,
    };
    allow(&visit)?;
    let no_parts: [Part; 0] = [];
    let key = random_text()?;
    let arrival = Arrival {
        key: format!("{}/{key}", visit.visitor.id),
        kind: "message".to_owned(),
        subject: visit.chat(),
        data: json!({ "id": key, "text": said.message, "parts": no_parts }),
    };
    let tenant_id = visit.deployment.tenant_id.clone();
    let kept = hub.accept_named(&tenant_id, KIND, arrival).await?;
    let kept = kept.ok_or_else(|| ApiError::internal("a random key was there already"))?;
    let (run_id, run) = run_of_turn(hub, &visit, &turn_of(&kept)).await?;
    Ok(Awaited {
        tenant_id,
        run_id,
        run,
        settings: visit.settings,
    })
}
