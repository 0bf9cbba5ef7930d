//! The response object.

use serde_json::{Map, Value, json};

use super::{incomplete_reason, usage_out};
use crate::error::ApiError;
use crate::frame::{StopReason, Usage};

/// What a response's object repeats at each of its stages.
#[derive(Debug, Clone)]
pub struct Head {
    /// `resp_…`.
    pub id: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Members of the request, and the model.
    pub echo: Map<String, Value>,
}

/// How far a response is.
#[derive(Debug, Clone)]
pub enum Status {
    Queued,
    InProgress,
    Ended(StopReason, Usage),
    Failed(ApiError),
    /// With what is told of it.
    Cancelled(String),
}

impl Head {
    /// The object, with the items that are complete.
    pub fn response(&self, status: &Status, output: Vec<Value>) -> Value {
        let mut object = self.echo.clone();
        let (mut error, mut incomplete, mut usage) = (Value::Null, Value::Null, Value::Null);
        let word = match status {
            Status::Queued => "queued",
            Status::InProgress => "in_progress",
            Status::Ended(stop, used) => {
                usage = usage_out(used);
                match incomplete_reason(*stop) {
                    None => "completed",
                    Some(reason) => {
                        incomplete = json!({ "reason": reason });
                        "incomplete"
                    }
                }
            }
            Status::Failed(why) => {
                error = json!({ "code": why.code, "message": why.message });
                "failed"
            }
            Status::Cancelled(why) => {
                error = json!({ "code": "run_cancelled", "message": why });
                "cancelled"
            }
        };
        for (name, value) in [
            ("id", json!(self.id)),
            ("object", json!("response")),
            ("created_at", json!(self.created_at)),
            ("status", json!(word)),
            ("error", error),
            ("incomplete_details", incomplete),
            ("output", Value::Array(output)),
            ("usage", usage),
        ] {
            object.insert(name.to_owned(), value);
        }
        Value::Object(object)
    }
}
