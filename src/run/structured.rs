//! Structured answers: the schema that was asked for, and the answer held against it.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::runs::Runs;
use super::transcript::Collected;
use crate::error::ApiError;
use crate::frame::StopReason;
use crate::model::{Part, ResponseFormat};
use crate::untrusted::Schema;

impl Runs {
    /// Refuses a schema that is none, or more than a schema may be.
    pub(super) async fn check_format(
        &self,
        tenant_id: &Arc<str>,
        format: Option<&ResponseFormat>,
    ) -> Result<(), ApiError> {
        let Some(ResponseFormat::JsonSchema { schema, .. }) = format else {
            return Ok(());
        };
        let read = Schema::read_whole(schema, &self.sandbox, tenant_id).await;
        read.map(drop).map_err(|error| {
            let message = format!("not a JSON Schema that can be used: {error}");
            ApiError::bad_request("invalid_response_format", message).param("response_format")
        })
    }

    /// Holds an answer without a smith to the form that its target was not held to. One that was cut
    /// short or refused says so itself, and a schema that cannot be read here is the provider's
    /// concern.
    pub async fn check_routed(
        &self,
        tenant_id: &Arc<str>,
        format: &ResponseFormat,
        answer: &Collected,
    ) -> Result<(), ApiError> {
        let is_refusal = |part: &Part| matches!(part, Part::Refusal { .. });
        let is_readable = match format {
            ResponseFormat::JsonObject => true,
            ResponseFormat::JsonSchema { schema, .. } => Schema::read(schema).is_ok(),
        };
        if answer.stop != StopReason::EndTurn || answer.parts.iter().any(is_refusal) || !is_readable
        {
            return Ok(());
        }
        self.check_answer(tenant_id, Some(format), answer).await
    }

    /// Holds a structured answer to its schema: conforming JSON or an error.
    pub(super) async fn check_answer(
        &self,
        tenant_id: &Arc<str>,
        format: Option<&ResponseFormat>,
        answer: &Collected,
    ) -> Result<(), ApiError> {
        let Some(format) = format else {
            return Ok(());
        };
        if matches!(answer.stop, StopReason::ToolCalls) {
            return Ok(());
        }
        let refused =
            |why: String| ApiError::new(StatusCode::BAD_GATEWAY, "structured_output_failed", why);
        let value: Value = serde_json::from_str(answer.text().trim())
            .map_err(|e| refused(format!("the model's answer is no JSON: {e}")))?;
        match format {
            ResponseFormat::JsonObject if value.is_object() => Ok(()),
            ResponseFormat::JsonObject => {
                Err(refused("the model's answer is no JSON object".to_owned()))
            }
            ResponseFormat::JsonSchema { schema, .. } => {
                let schema = Schema::read(schema).map_err(|e| refused(e.to_string()))?;
                let checked = schema.check(&value, &self.sandbox, tenant_id).await;
                checked.map_err(|fault| {
                    refused(format!("the model's answer does not conform: {fault}"))
                })
            }
        }
    }
}
