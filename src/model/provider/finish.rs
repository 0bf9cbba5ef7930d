//! How an answer ended, in the words of all wires: who speaks one wire passes on the words of the
//! models that it stands before, and has some of its own.

use crate::frame::StopReason;
use crate::model::error::ModelError;

/// What a word for an end means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Well(StopReason),
    /// For a reason that is not told: an end if there is something, else a failure.
    Unclear,
    /// The provider had to stop.
    Busy,
    MalformedCall,
    Failed,
}

/// The end that `word` tells; `None` for one that tells of none.
pub(super) fn ended(word: &str) -> Option<Ended> {
    Some(match word.to_ascii_lowercase().as_str() {
        "" | "null" | "none" | "finish_reason_unspecified" => return None,
        "length"
        | "max_tokens"
        | "max_output_tokens"
        | "model_length"
        | "model_context_window_exceeded"
        | "context_length_exceeded"
        | "token_limit" => Ended::Well(StopReason::MaxTokens),
        "tool_calls" | "tool_call" | "function_call" | "tool_use" => {
            Ended::Well(StopReason::ToolCalls)
        }
        "content_filter"
        | "content_filtered"
        | "guardrail_intervened"
        | "refusal"
        | "sensitive"
        | "safety"
        | "recitation"
        | "blocklist"
        | "prohibited_content"
        | "spii"
        | "language"
        | "model_armor"
        | "image_safety"
        | "image_prohibited_content"
        | "image_recitation" => Ended::Well(StopReason::ContentFilter),
        "other" | "unknown" | "image_other" | "no_image" => Ended::Unclear,
        "insufficient_system_resource" | "engine_overloaded" | "overloaded" => Ended::Busy,
        "malformed_function_call" | "malformed_tool_use" | "unexpected_tool_call" => {
            Ended::MalformedCall
        }
        "error"
        | "failed"
        | "network_error"
        | "malformed_response"
        | "malformed_model_output"
        | "missing_thought_signature"
        | "too_many_tool_calls" => Ended::Failed,
        _ => Ended::Well(StopReason::EndTurn),
    })
}

/// Whether `word` tells of an end.
pub fn is_end(word: &str) -> bool {
    ended(word).is_some()
}

impl Ended {
    /// Why the model stopped, or the failure that it is. `word`: as it was told; `why`: what was told
    /// with it; `is_empty`: nothing was said before.
    pub fn stop(self, word: &str, why: &str, is_empty: bool) -> Result<StopReason, ModelError> {
        let what = match self {
            Self::Well(stop) => return Ok(stop),
            Self::Unclear if !is_empty => return Ok(StopReason::EndTurn),
            Self::MalformedCall => "the model wrote a malformed function call".to_owned(),
            _ => {
                let word: String = word.chars().take(80).collect();
                format!("the model provider ended its answer with '{word}'")
            }
        };
        let message = match why.trim() {
            "" => what,
            why => format!("{what}: {why}"),
        };
        Err(match self {
            Self::Busy => ModelError::told("engine_overloaded", &message),
            _ => ModelError::told("", &message),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_all_wires_are_known() {
        for (word, stop) in [
            ("stop", StopReason::EndTurn),
            ("STOP", StopReason::EndTurn),
            ("eos_token", StopReason::EndTurn),
            ("pause_turn", StopReason::EndTurn),
            ("model_length", StopReason::MaxTokens),
            ("MAX_TOKENS", StopReason::MaxTokens),
            ("sensitive", StopReason::ContentFilter),
            ("IMAGE_PROHIBITED_CONTENT", StopReason::ContentFilter),
            ("tool_use", StopReason::ToolCalls),
        ] {
            let told = ended(word).map(|ended| ended.stop(word, "", true));
            assert!(matches!(told, Some(Ok(told)) if told == stop), "{word}");
        }
        for word in ["", "null", "FINISH_REASON_UNSPECIFIED"] {
            assert!(!is_end(word), "{word}");
        }
        let stop = |word: &str, is_empty| ended(word).map(|e| e.stop(word, "no image", is_empty));
        assert!(matches!(
            stop("OTHER", false),
            Some(Ok(StopReason::EndTurn))
        ));
        let Some(Err(error)) = stop("OTHER", true) else {
            panic!("an empty answer");
        };
        assert!(error.to_string().contains("'OTHER': no image"), "{error}");
        assert!(matches!(stop("network_error", false), Some(Err(_))));
    }
}
