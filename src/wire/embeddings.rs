//! `/v1/embeddings`: OpenAI's Embeddings API, for any provider that has embeddings. The body goes
//! on as it is where the provider speaks the same wire.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{named_smith, uses};
use crate::edge::extract::{Uses, object, sent};
use crate::edge::{self, AppState, COST, cost_value};
use crate::error::ApiError;
use crate::frame::Usage;
use crate::model::{ModelError, Route, answer_in_form, tokens_of_answer, vector_bytes};
use crate::wire::openai::rewrite::rewrite;
use crate::wire::routed::allowed;

/// Texts of one call (<https://platform.openai.com/docs/api-reference/embeddings/create>).
const MAX_INPUTS: usize = 2048;

#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbeddingsIn {
    pub input: EmbeddingInput,
    /// `<provider>/<model>`, an alias, or an id that tells its provider; absent: the configured
    /// one.
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>)]
    pub model: Option<Option<String>>,
    /// Numbers of a vector, for models that can shorten theirs.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 65536)]
    pub dimensions: Option<u32>,
    #[serde(default)]
    pub encoding_format: Option<EncodingFormat>,
}

/// What is said of its route.
pub fn routes() -> Vec<edge::Route> {
    vec![edge::Route::rest(Method::POST, "/v1/embeddings").begins_work()]
}

/// Its operation and route.
pub fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// What is to be embedded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EmbeddingInput {
    Text(String),
    Texts(Vec<String>),
    /// One text, as tokens of the model.
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    Float,
    /// Little-endian 32-bit floats.
    Base64,
}

/// The vectors, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingsOut {
    /// Always `list`.
    #[schema(example = "list")]
    pub object: &'static str,
    pub data: Vec<EmbeddingOut>,
    pub model: String,
    pub usage: EmbeddingUsage,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingOut {
    /// Always `embedding`.
    #[schema(example = "embedding")]
    pub object: &'static str,
    pub index: usize,
    /// Numbers, or base64 where that was asked for.
    pub embedding: Value,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingUsage {
    pub prompt_tokens: u64,
    pub total_tokens: u64,
}

impl EmbeddingInput {
    fn check(&self) -> Result<(), ApiError> {
        let (inputs, has_empty) = match self {
            Self::Text(text) => (1, text.is_empty()),
            Self::Texts(texts) => (texts.len(), texts.iter().any(String::is_empty)),
            Self::Tokens(tokens) => (tokens.len().min(1), false),
            Self::TokenLists(lists) => (lists.len(), lists.iter().any(Vec::is_empty)),
        };
        if inputs == 0 || has_empty {
            return Err(ApiError::invalid("input", "must not be empty"));
        }
        if inputs > MAX_INPUTS {
            let message = format!("a call takes at most {MAX_INPUTS} inputs");
            return Err(ApiError::bad_request("too_many_inputs", message).param("input"));
        }
        Ok(())
    }

    /// The texts; token lists mean nothing to a provider of another wire.
    fn into_texts(self) -> Result<Vec<String>, ApiError> {
        match self {
            Self::Text(text) => Ok(vec![text]),
            Self::Texts(texts) => Ok(texts),
            Self::Tokens(_) | Self::TokenLists(_) => Err(ApiError::invalid(
                "input",
                "this model's provider takes texts, not tokens",
            )),
        }
    }
}

fn unavailable(message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "embedding_unavailable",
        message,
    )
}

/// The body with the model as its provider knows it.
fn body_for(body: &Bytes, route: &Route, names_model: bool) -> Result<Bytes, ApiError> {
    if names_model {
        return Ok(rewrite(body, &route.model, false)?.body);
    }
    let brace = body.iter().position(|b| *b == b'{').unwrap_or(0);
    let mut with_model = body[..=brace].to_vec();
    with_model.extend_from_slice(b"\"model\":null,");
    with_model.extend_from_slice(&body[brace + 1..]);
    Ok(rewrite(&with_model, &route.model, false)?.body)
}

/// Turns texts into vectors.
#[utoipa::path(post, path = "/v1/embeddings", tag = "embeddings",
    params(("IC-Smith-Id" = Option<String>, Header)), request_body = EmbeddingsIn,
    responses((status = 200, body = EmbeddingsOut)))]
pub async fn create(
    State(gateway): State<AppState>,
    Uses(caller, _): Uses<uses::Embeddings>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let smith = caller.acting_smith(named_smith(&headers))?;
    let input: EmbeddingsIn = object(&body)?;
    input.input.check()?;
    if input.dimensions == Some(0) {
        return Err(ApiError::invalid("dimensions", "must be at least 1"));
    }
    let spender = gateway.spender(&caller, smith.as_ref()).await?;
    let routing = &gateway.models.routing;
    let asked = input.model.as_ref().and_then(Option::as_deref);
    let model = match (asked, routing.embedding_model()) {
        (Some(model), _) => model,
        (None, Some(default)) => default,
        (None, None) => return Err(ApiError::invalid("model", "name a model")),
    };
    gateway.budgets.check(&spender).await?;
    let _permit = gateway.admission.begin_run(&caller, smith.as_ref())?;
    let routes = routing
        .resolve(&caller.tenant_id, smith.as_ref(), model)
        .await
        .map_err(|error| match error {
            ModelError::NoKey(_) if asked.is_none() => unavailable(error.to_string()),
            other => other.into(),
        })?;
    let routes = allowed(&caller, model, routes)?;
    let routes: Vec<Route> = routes.into_iter().filter(Route::embeds).collect();
    if routes.is_empty() {
        let message = format!("the provider of '{model}' has no embeddings");
        return Err(unavailable(message).param("model"));
    }
    if routes.iter().all(Route::embeds_as_openai) {
        let mut bodies = Vec::with_capacity(routes.len());
        for route in &routes {
            bodies.push(body_for(&body, route, input.model.is_some())?);
        }
        let sent = gateway.models.forward_embeddings(&routes, &bodies);
        let (at, answer) = sent.await?;
        let route = &routes[at];
        let usage = input_only(tokens_of_answer(&answer));
        let accounting = &gateway.accounting;
        let cost = accounting.add(&spender, &route.provider, &route.model, &usage);
        let base64 = input.encoding_format == Some(EncodingFormat::Base64);
        let answer = answer_in_form(answer, base64);
        let json = HeaderValue::from_static("application/json");
        return Ok(with_cost(cost, ([(header::CONTENT_TYPE, json)], answer)));
    }
    let texts = input.input.into_texts()?;
    let (route, embedded) = gateway
        .models
        .embed(routes, &texts, input.dimensions)
        .await?;
    let cost = gateway.accounting.add(
        &spender,
        &route.provider,
        &route.model,
        &input_only(embedded.tokens),
    );
    let base64 = input.encoding_format == Some(EncodingFormat::Base64);
    let data = embedded.vectors.iter().enumerate();
    let data = data.map(|(index, vector)| EmbeddingOut {
        object: "embedding",
        index,
        embedding: match base64 {
            true => STANDARD.encode(vector_bytes(vector)).into(),
            false => json!(vector),
        },
    });
    let out = Json(EmbeddingsOut {
        object: "list",
        data: data.collect(),
        model: model.to_owned(),
        usage: EmbeddingUsage {
            prompt_tokens: embedded.tokens,
            total_tokens: embedded.tokens,
        },
    });
    Ok(with_cost(cost, out))
}

/// An answer that tells what it cost, in nanos.
fn with_cost(cost: Option<i64>, answer: impl IntoResponse) -> Response {
    let cost = cost.map(|cost| [(COST, cost_value(cost))]);
    (cost, answer).into_response()
}

fn input_only(input: u64) -> Usage {
    Usage {
        input,
        ..Usage::default()
    }
}
