//! `generationConfig`: sampling, limits, the form of the answer, and thinking.

use serde::Deserialize;
use serde_json::{Value, json};

use super::schema::json_schema;
use super::{member, unsupported};
use crate::error::ApiError;
use crate::lenient::given;
use crate::model::{Effort, Params, ResponseFormat};
use crate::wire::openai::choice::{decode_effort, decode_format, effort_beside};

/// `generationConfig`, as sent. `mediaResolution` and other members that tell Google how are
/// not read here: no other has a place for them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GenerationConfig {
    #[serde(deserialize_with = "given::number")]
    temperature: Option<f64>,
    #[serde(alias = "top_p", deserialize_with = "given::number")]
    top_p: Option<f64>,
    #[serde(alias = "top_k", deserialize_with = "given::limit")]
    top_k: Option<u32>,
    #[serde(alias = "max_output_tokens", deserialize_with = "given::limit")]
    max_output_tokens: Option<u32>,
    #[serde(alias = "stop_sequences")]
    stop_sequences: Value,
    #[serde(alias = "candidate_count", deserialize_with = "given::limit")]
    candidate_count: Option<u32>,
    #[serde(alias = "response_mime_type", deserialize_with = "given::text")]
    response_mime_type: Option<String>,
    #[serde(alias = "response_schema")]
    response_schema: Value,
    #[serde(alias = "response_json_schema")]
    response_json_schema: Value,
    #[serde(deserialize_with = "given::whole")]
    seed: Option<i64>,
    #[serde(alias = "presence_penalty", deserialize_with = "given::number")]
    presence_penalty: Option<f64>,
    #[serde(alias = "frequency_penalty", deserialize_with = "given::number")]
    frequency_penalty: Option<f64>,
    #[serde(alias = "response_logprobs", deserialize_with = "given::flag")]
    response_logprobs: Option<bool>,
    #[serde(alias = "thinking_config")]
    thinking_config: Value,
    #[serde(alias = "response_modalities")]
    response_modalities: Value,
    #[serde(alias = "speech_config")]
    speech_config: Value,
}

impl GenerationConfig {
    /// Whether thoughts are shown.
    pub fn shows_thoughts(&self) -> bool {
        let shown = member(&self.thinking_config, "includeThoughts", "include_thoughts");
        shown == true
    }

    /// What others have a place for.
    pub fn params(&self) -> Result<Params, ApiError> {
        self.check()?;
        Ok(Params {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_output_tokens,
            stop: stop(&self.stop_sequences)?,
            seed: self.seed,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            effort: self.effort()?,
            ..Params::default()
        })
    }

    /// Members without which the answer would be another.
    fn check(&self) -> Result<(), ApiError> {
        let refused = |name: &str, why: &'static str| {
            let field = format!("generationConfig.{name}");
            Err(unsupported(field, why))
        };
        if self.candidate_count > Some(1) {
            return refused(
                "candidateCount",
                "only Google itself makes several candidates",
            );
        }
        if self.response_logprobs == Some(true) {
            return refused("responseLogprobs", "only Google itself tells logprobs here");
        }
        if !self.speech_config.is_null() {
            return refused("speechConfig", "only models of Google itself speak");
        }
        let asked = match &self.response_modalities {
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            one => Vec::from_iter(one.as_str()),
        };
        let is_text = |kind: &&str| {
            kind.eq_ignore_ascii_case("TEXT") || kind.eq_ignore_ascii_case("MODALITY_UNSPECIFIED")
        };
        if !asked.is_empty() && !asked.iter().any(is_text) {
            let why = "an answer without text can only be asked of models of Google itself";
            return refused("responseModalities", why);
        }
        Ok(())
    }

    /// How hard to think. Who wants to see thoughts wants them thought.
    fn effort(&self) -> Result<Option<Effort>, ApiError> {
        let thinking = &self.thinking_config;
        let level = member(thinking, "thinkingLevel", "thinking_level").as_str();
        let level = level.filter(|level| *level != "THINKING_LEVEL_UNSPECIFIED");
        if let Some(effort) = decode_effort(level, "generationConfig.thinkingConfig.thinkingLevel")?
        {
            return Ok(Some(effort));
        }
        let budget = member(thinking, "thinkingBudget", "thinking_budget");
        match budget.as_i64() {
            // It is left to the model how much.
            Some(..=-1) => Ok(Some(Effort::Medium)),
            Some(budget) => effort_beside(&Value::Null, &json!({ "budget_tokens": budget })),
            None => Ok(self.shows_thoughts().then_some(Effort::Medium)),
        }
    }

    /// The form of the answer.
    pub fn format(&self) -> Result<Option<ResponseFormat>, ApiError> {
        let plain = &self.response_json_schema;
        let schema = match (plain, &self.response_schema) {
            (Value::Null, Value::Null) => Value::Null,
            (Value::Null, schema) => json_schema(schema),
            (schema, _) => schema.clone(),
        };
        let field = "generationConfig.responseSchema";
        match self.response_mime_type.as_deref().unwrap_or_default() {
            "" | "application/json" if !schema.is_null() => {
                decode_format(&json!({ "type": "json_schema", "schema": schema }), field)
            }
            "application/json" => Ok(Some(ResponseFormat::JsonObject)),
            "" | "text/plain" => Ok(None),
            other => Err(unsupported(
                "generationConfig.responseMimeType",
                format!("only models of Google itself answer as '{other}'"),
            )),
        }
    }
}

fn stop(stop: &Value) -> Result<Vec<String>, ApiError> {
    let bad = || {
        ApiError::invalid(
            "generationConfig.stopSequences",
            "must be a list of strings",
        )
    };
    let texts: Vec<&Value> = match stop {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    };
    let texts = texts.into_iter().filter(|text| text.as_str() != Some(""));
    texts
        .map(|text| text.as_str().map(str::to_owned).ok_or_else(bad))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(config: &Value) -> GenerationConfig {
        serde_json::from_value(config.clone()).expect("a configuration")
    }

    #[test]
    fn members_come_in_camel_and_in_snake_case() {
        for given in [
            json!({ "topP": 0.5, "maxOutputTokens": 7, "stopSequences": ["a"], "seed": 3,
                "presencePenalty": 1, "frequencyPenalty": 2, "responseMimeType": "application/json",
                "thinkingConfig": { "includeThoughts": true, "thinkingBudget": 20000 } }),
            json!({ "top_p": "0.5", "max_output_tokens": 7.0, "stop_sequences": "a", "seed": 3,
                "presence_penalty": 1, "frequency_penalty": 2, "response_mime_type": "application/json",
                "thinking_config": { "include_thoughts": true, "thinking_budget": 20000 } }),
        ] {
            let config = config(&given);
            let params = config.params().expect("understood");
            assert_eq!((params.top_p, params.max_tokens), (Some(0.5), Some(7)));
            assert_eq!((params.stop, params.seed), (vec!["a".to_owned()], Some(3)));
            assert_eq!(params.presence_penalty, Some(1.0));
            assert_eq!(params.frequency_penalty, Some(2.0));
            assert_eq!(params.effort, Some(Effort::High));
            assert!(config.shows_thoughts());
            let format = config.format().expect("understood");
            assert_eq!(format, Some(ResponseFormat::JsonObject));
        }
    }

    #[test]
    fn a_schema_is_a_form() {
        for given in [
            json!({ "responseMimeType": "application/json", "responseSchema": { "type": "OBJECT" } }),
            json!({ "responseJsonSchema": { "type": "object" } }),
        ] {
            let format = config(&given).format().expect("understood");
            let Some(ResponseFormat::JsonSchema { schema, .. }) = format else {
                panic!("{format:?}");
            };
            assert_eq!(schema, json!({ "type": "object" }));
        }
    }

    #[test]
    fn thinking_is_asked_for_in_several_ways() {
        for (thinking, effort) in [
            (json!(null), None),
            (json!({ "thinkingBudget": 0 }), Some(Effort::None)),
            (json!({ "thinkingBudget": -1 }), Some(Effort::Medium)),
            (json!({ "thinkingLevel": "HIGH" }), Some(Effort::High)),
            (json!({ "thinking_level": "low" }), Some(Effort::Low)),
            (json!({ "includeThoughts": true }), Some(Effort::Medium)),
        ] {
            let asked = config(&json!({ "thinkingConfig": thinking })).params();
            assert_eq!(asked.expect("understood").effort, effort, "{thinking}");
        }
    }

    #[test]
    fn what_would_make_another_answer_is_refused_by_name() {
        for (given, field) in [
            (json!({ "candidateCount": 2 }), "candidateCount"),
            (json!({ "responseLogprobs": true }), "responseLogprobs"),
            (json!({ "speechConfig": {} }), "speechConfig"),
            (
                json!({ "responseModalities": ["AUDIO"] }),
                "responseModalities",
            ),
            (json!({ "stopSequences": [1] }), "stopSequences"),
        ] {
            let error = config(&given).params().expect_err("refused");
            let expected = format!("generationConfig.{field}");
            assert_eq!(error.param.as_deref(), Some(expected.as_str()));
        }
        let both = json!({ "responseModalities": ["TEXT", "IMAGE"], "candidateCount": 1 });
        assert!(config(&both).params().is_ok());
        let listed = json!({ "responseMimeType": "text/x.enum", "responseSchema": {} });
        assert!(config(&listed).format().is_err());
    }
}
