//! Structured answers: the schema that was asked for, and the answer held against it.

use http::StatusCode;
use serde_json::Value;

use super::transcript::Collected;
use crate::error::ApiError;
use crate::frame::StopReason;
use crate::model::ResponseFormat;

/// Refuses a schema that is none.
pub(super) fn check_format(format: Option<&ResponseFormat>) -> Result<(), ApiError> {
    if let Some(ResponseFormat::JsonSchema { schema, .. }) = format {
        jsonschema::validator_for(schema).map_err(|e| {
            ApiError::bad_request("invalid_response_format", format!("not a JSON Schema: {e}"))
                .param("response_format")
        })?;
    }
    Ok(())
}

/// Holds a structured answer to its schema: conforming JSON or an error.
pub(super) fn check_answer(
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
            let validator =
                jsonschema::validator_for(schema).map_err(|e| refused(e.to_string()))?;
            validator
                .validate(&value)
                .map_err(|e| refused(format!("the model's answer does not conform: {e}")))
        }
    }
}
