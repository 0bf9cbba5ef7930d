//! What a page's script calls: messages, decisions, the password.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::pace::{MAX_TEXT, allow};
use super::visitor::{Visit, Visitor, cookie};
use super::{KIND, assets, files, history, hosted, page, password};
use crate::channel::{Arrival, Fault, Hub, Meaning, Said, Sender, turn_of};
use crate::edge::extract::Input;
use crate::edge::html::no_store;
use crate::edge::{AppState, Route};
use crate::error::ApiError;
use crate::model::Part;
use crate::run::Word;
use crate::store::InboundRow;

const MAX_FILES: usize = 10;
const MAX_ID: usize = 64;
/// Its operations.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(page::page))
        .routes(routes!(page::embed))
        .routes(routes!(assets::asset))
        .routes(routes!(hosted::about))
        .routes(routes!(unlock))
        .routes(routes!(messages))
        .routes(routes!(files::take))
        .routes(routes!(read))
        .routes(routes!(state))
        .routes(routes!(decide))
        .routes(routes!(stop))
        .routes(routes!(begin_anew))
}

/// What the edge must know of its routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::rest(Method::GET, "/hosted/{id}").open(),
        Route::rest(Method::GET, "/hosted/{id}/embed.js").open(),
        Route::rest(Method::GET, "/hosted/assets/{name}").open(),
        Route::rest(Method::GET, "/v1/hosted/{id}").open(),
        Route::rest(Method::POST, "/hosted/{id}/unlock").open(),
        Route::rest(Method::POST, "/hosted/{id}/messages")
            .open()
            .begins_work(),
        Route::rest(Method::POST, "/hosted/{id}/files")
            .open()
            .upload(),
        Route::rest(Method::GET, "/hosted/{id}/messages").open(),
        Route::rest(Method::GET, "/hosted/{id}/state").open(),
        Route::rest(Method::POST, "/hosted/{id}/decide").open(),
        Route::rest(Method::POST, "/hosted/{id}/stop").open(),
        Route::rest(Method::POST, "/hosted/{id}/new").open(),
    ]
}

/// What a visitor writes.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MessageIn {
    /// The page's own name for it: the same one sent again is answered once.
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub text: String,
    /// What the files were named when they were taken.
    #[serde(default)]
    pub files: Vec<String>,
}

/// A message that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct MessageKept {
    /// What to follow; null when the message was there already.
    #[schema(required)]
    pub turn: Option<String>,
}

#[derive(Deserialize, ToSchema)]
pub struct PasswordIn {
    #[serde(default)]
    pub password: String,
}

/// What a visitor decides.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DecisionIn {
    #[serde(default)]
    pub approval_id: String,
    #[serde(default)]
    #[schema(required, nullable = false)]
    pub approve: Option<bool>,
    /// What answers a question.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub content: Option<Value>,
}

/// A body as a message; `None`: it is none.
pub fn decode(body: &[u8]) -> Option<MessageIn> {
    let said: MessageIn = crate::edge::parse(body).ok()?;
    check(&said).ok().map(|()| said)
}

fn check(said: &MessageIn) -> Result<(), ApiError> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if said.id.is_empty() || said.id.len() > MAX_ID || !said.id.bytes().all(is_word) {
        let why = "must be 1 to 64 letters, digits, - or _";
        return Err(ApiError::invalid("id", why));
    }
    if said.text.len() > MAX_TEXT {
        return Err(ApiError::invalid("text", "is too long"));
    }
    if said.text.trim().is_empty() && said.files.is_empty() {
        return Err(ApiError::invalid("text", "says nothing"));
    }
    if said.files.len() > MAX_FILES {
        return Err(ApiError::invalid("files", "are too many"));
    }
    Ok(())
}

/// Takes a message of a visitor: it is kept, and answered afterwards.
#[utoipa::path(post, path = "/hosted/{id}/messages", tag = "web page", security(()),
    params(("id" = String, Path)), request_body = MessageIn,
    responses((status = 202, body = MessageKept)))]
pub async fn messages(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Input(said): Input<MessageIn>,
) -> Result<(StatusCode, Json<MessageKept>), ApiError> {
    let hub = &gateway.hub;
    let visit = Visit::of(hub, &id, &headers).await?;
    check(&said)?;
    allow(&visit)?;
    let parts: Option<Vec<Part>> = said
        .files
        .iter()
        .map(|word| files::part(hub, &visit, word))
        .collect();
    let unknown = || ApiError::invalid("files", "names a file that this visitor did not send");
    let parts = parts.ok_or_else(unknown)?;
    let arrival = Arrival {
        key: format!("{}/{}", visit.visitor.id, said.id),
        kind: "message".to_owned(),
        subject: visit.chat(),
        data: json!({ "id": said.id, "text": said.text, "parts": parts }),
    };
    let kept = hub
        .accept_named(&visit.deployment.tenant_id, KIND, arrival)
        .await?;
    let turn = kept.as_deref().map(turn_of);
    Ok((StatusCode::ACCEPTED, Json(MessageKept { turn })))
}

/// What a message that was kept means.
pub async fn interpret(_hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
    let never = |error: serde_json::Error| Fault::Never(error.to_string());
    let mut data: Value = serde_json::from_str(&arrival.data).map_err(never)?;
    let parts: Vec<Part> = serde_json::from_value(data["parts"].take()).map_err(never)?;
    let Some(visitor) = arrival.subject.split('/').nth(1) else {
        return Ok(Meaning::Nothing("it is of no conversation"));
    };
    let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
    Ok(Meaning::Said(Box::new(Said {
        sender: Sender {
            id: visitor.to_owned(),
            name: None,
            // Anybody may open the page.
            is_verified: false,
        },
        chat: arrival.subject.clone(),
        is_private: true,
        text: text("text"),
        parts,
        message: text("id"),
        reply_to: json!({}),
        command: None,
        is_edit: false,
    })))
}

/// What was said so far.
#[utoipa::path(get, path = "/hosted/{id}/messages", tag = "web page", security(()),
    params(("id" = String, Path)), responses((status = 200, body = Object)))]
pub async fn read(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let visit = Visit::of(&gateway.hub, &id, &headers).await?;
    let said = history::of(&gateway.hub, &visit, true).await?;
    Ok(([no_store()], Json(said)).into_response())
}

/// What waits: turns and decisions.
#[utoipa::path(get, path = "/hosted/{id}/state", tag = "web page", security(()),
    params(("id" = String, Path)), responses((status = 200, body = Object)))]
pub async fn state(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let visit = Visit::of(&gateway.hub, &id, &headers).await?;
    let said = history::of(&gateway.hub, &visit, false).await?;
    Ok(([no_store()], Json(said)).into_response())
}

/// Decides what the smith asks, in the visitor's own conversation.
#[utoipa::path(post, path = "/hosted/{id}/decide", tag = "web page", security(()),
    params(("id" = String, Path)), request_body = DecisionIn,
    responses((status = 200, body = Object)))]
pub async fn decide(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Input(decision): Input<DecisionIn>,
) -> Result<Json<Value>, ApiError> {
    let hub = &gateway.hub;
    let visit = Visit::of(hub, &id, &headers).await?;
    let tenant_id = &visit.deployment.tenant_id;
    let missing = || ApiError::not_found("approval", &decision.approval_id).param("approval_id");
    let approval = hub.store.approval(tenant_id, &decision.approval_id).await?;
    let run_id = approval.as_ref().and_then(|found| found.run_id.clone());
    let run = match run_id {
        Some(run_id) => hub.store.run(tenant_id, &run_id).await?,
        None => None,
    };
    let run = run.filter(|run| run.thread_id == visit.thread() && run.channel == KIND);
    let run = run.ok_or_else(missing)?;
    let said = decision.approve;
    let approve = said.ok_or_else(|| ApiError::invalid("approve", "must be true or false"))?;
    let word = Word {
        approval_id: Some(decision.approval_id.clone()),
        approve,
        content: decision.content,
        actor: Some(visit.actor()),
        ..Word::default()
    };
    hub.runs.decide(&run, &word).await?;
    Ok(Json(json!({ "run": run.id })))
}

/// Ends what is under way in the visitor's conversation.
#[utoipa::path(post, path = "/hosted/{id}/stop", tag = "web page", security(()),
    params(("id" = String, Path)), responses((status = 200, body = Object)))]
pub async fn stop(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let hub = &gateway.hub;
    let visit = Visit::of(hub, &id, &headers).await?;
    let (tenant_id, thread) = (&visit.deployment.tenant_id, visit.thread());
    let Some(smith_id) = visit.smith(hub).await? else {
        return Ok(Json(json!({ "stopped": false })));
    };
    let turn = hub
        .store
        .running_turn(tenant_id, &smith_id, &thread)
        .await?;
    let run = match turn {
        Some(turn) => hub.store.run(tenant_id, &turn.run_id).await?,
        None => None,
    };
    if let Some(run) = &run {
        let why = Some("the visitor stopped it".to_owned());
        hub.runs.ask_to_end(run, why).await?;
    }
    Ok(Json(json!({ "stopped": run.is_some() })))
}

/// Begins a conversation in which nothing has been said.
#[utoipa::path(post, path = "/hosted/{id}/new", tag = "web page", security(()),
    params(("id" = String, Path)), responses((status = 204)))]
pub async fn begin_anew(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let hub = &gateway.hub;
    let visit = Visit::of(hub, &id, &headers).await?;
    let visitor = visit.visitor.anew()?;
    let cookie = cookie(hub, &visit.deployment, &headers, &visitor, visit.is_framed)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Lets a visitor in who knows the password.
#[utoipa::path(post, path = "/hosted/{id}/unlock", tag = "web page", security(()),
    params(("id" = String, Path)), request_body = PasswordIn, responses((status = 204)))]
pub async fn unlock(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Input(said): Input<PasswordIn>,
) -> Result<Response, ApiError> {
    let hub = &gateway.hub;
    let visit = Visit::at_the_door(hub, &id, &headers).await?;
    let secrets = hub.secrets_of(&visit.deployment)?;
    let hash = secrets.get("password").and_then(Value::as_str);
    if let Some(hash) = hash
        && !password::is_right(&visit.deployment.id, hash, said.password).await?
    {
        return Err(password::wrong());
    }
    // Whoever had the cookie before knows nothing of the one that is let in.
    let visitor = Visitor::let_in()?;
    let cookie = cookie(hub, &visit.deployment, &headers, &visitor, visit.is_framed)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_checked() {
        for (body, is_one) in [
            (r#"{"id":"a-1","text":"hi"}"#, true),
            (r#"{"id":"a","text":"","files":["x"]}"#, true),
            (r#"{"id":"","text":"hi"}"#, false),
            (r#"{"id":"a/b","text":"hi"}"#, false),
            (r#"{"id":"a","text":"  "}"#, false),
            (r#"{"id":"a","text":7}"#, false),
            ("[]", false),
            ("", false),
        ] {
            assert_eq!(decode(body.as_bytes()).is_some(), is_one, "{body}");
        }
    }
}
