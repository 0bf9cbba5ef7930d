//! The members of an error, wherever they are.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Cause, pause};

/// How deep errors are wrapped at most.
const MOST_WRAPS: usize = 8;

/// Members under which an error holds another.
const WITHIN: [&str; 8] = [
    "error",
    "errors",
    "response",
    "detail",
    "metadata",
    "raw",
    "base_resp",
    "cause",
];
/// Members that hold its message, the best first.
const MESSAGES: [&str; 9] = [
    "message",
    "msg",
    "error_message",
    "error_msg",
    "errorMessage",
    "error_description",
    "status_msg",
    "Message",
    "title",
];

/// What an error holds; what is outermost counts, but for the message, which is put together.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub message: String,
    pub code: Option<String>,
    pub param: Option<String>,
    pub pause: Option<Duration>,
    kinds: Vec<String>,
    number: Option<u16>,
}

impl Shape {
    pub fn of_message(message: String) -> Self {
        Self {
            message,
            ..Self::default()
        }
    }

    /// Takes in what `value` says.
    pub fn read(&mut self, value: &Value) {
        self.walk(value, MOST_WRAPS);
    }

    fn walk(&mut self, value: &Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else {
            return;
        };
        match value {
            Value::String(text) => self.text(text, depth),
            Value::Array(list) => {
                if let Some(first) = list.first() {
                    self.walk(first, depth);
                }
            }
            Value::Object(members) => self.object(members, depth),
            _ => {}
        }
    }

    fn object(&mut self, members: &Map<String, Value>, depth: usize) {
        for name in ["code", "status", "status_code", "error_code"] {
            match members.get(name) {
                Some(Value::Number(number)) => self.number(number.as_u64()),
                Some(Value::String(text)) => match text.parse::<u64>() {
                    Ok(number) => self.number(Some(number)),
                    Err(_) if name.ends_with("code") && self.code.is_none() => {
                        self.code = Some(text.clone());
                    }
                    Err(_) => self.kinds.push(text.clone()),
                },
                _ => {}
            }
        }
        if let Some(kind) = members.get("type").and_then(Value::as_str) {
            self.kinds.push(kind.to_owned());
        }
        if let Some(param) = members.get("param").and_then(Value::as_str) {
            self.param.get_or_insert_with(|| param.to_owned());
        }
        self.pause = self.pause.or_else(|| pause::in_body(members));
        let place = place_of(members);
        let message = MESSAGES.iter().find_map(|name| members.get(*name));
        match message {
            Some(Value::String(text)) => match &place {
                Some(place) => self.say(&format!("{place}: {text}")),
                None => self.text(text, depth),
            },
            Some(other) => self.walk(other, depth),
            None => {}
        }
        if let Some(place) = place {
            let field = place.strip_prefix("body.").unwrap_or(&place).to_owned();
            self.param.get_or_insert(field);
        }
        for name in WITHIN {
            if let Some(inner) = members.get(name) {
                self.walk(inner, depth);
            }
        }
    }

    /// A text that may hold JSON.
    fn text(&mut self, text: &str, depth: usize) {
        let trimmed = text.trim();
        if trimmed.starts_with(['{', '['])
            && let Ok(value) = serde_json::from_str::<Value>(trimmed)
            && (value.is_object() || value.is_array())
        {
            return self.walk(&value, depth);
        }
        self.say(trimmed);
    }

    fn say(&mut self, text: &str) {
        if text.is_empty() || self.message.contains(text) {
            return;
        }
        if !self.message.is_empty() {
            self.message.push_str(": ");
        }
        self.message.push_str(text);
    }

    fn number(&mut self, number: Option<u64>) {
        let status = number.and_then(|number| u16::try_from(number).ok());
        if let Some(status) = status.filter(|status| (400..600).contains(status)) {
            self.number.get_or_insert(status);
        }
    }

    /// The status that it names or means.
    pub fn status(&self) -> Option<u16> {
        self.number.or_else(|| {
            let words = self.code.iter().chain(&self.kinds);
            words.map(String::as_str).find_map(status_of)
        })
    }

    /// What it comes from; `status` is the answer's, or what is known of it.
    pub fn cause(&self, status: Option<u16>) -> Cause {
        let words = || self.code.iter().chain(&self.kinds).map(String::as_str);
        let message = self.message.to_lowercase();
        let status = status.unwrap_or(0);
        let is_limit = status == 429 || words().any(|word| word.contains("rate_limit"));
        // A limit that says when it ends is one, whatever it talks of.
        let ends = self.pause.is_some() || pause::in_text(&self.message).is_some();
        if status == 402
            || words().any(is_quota)
            || (!(is_limit && ends) && speaks_of_quota(&message))
        {
            return Cause::Quota;
        }
        let of_context = words().any(|word| {
            word.contains("context_length")
                || word.contains("context_size")
                || word.contains("context_window")
                || word.contains("max_prompt_tokens")
        });
        if of_context
            || (!is_limit
                && !matches!(status, 401 | 403 | 404 | 503 | 529)
                && speaks_of_context(&message))
        {
            return Cause::ContextLength;
        }
        match status {
            429 => Cause::RateLimit,
            503 | 529 => Cause::Overloaded,
            401 | 403 => Cause::Key,
            400..=499 => Cause::Request,
            _ if words().any(is_rate) || (status == 0 && speaks_of_rate(&message)) => {
                Cause::RateLimit
            }
            _ if words().any(|word| word.contains("overloaded")) => Cause::Overloaded,
            _ => Cause::Other,
        }
    }
}

/// Where FastAPI says that something is wrong.
fn place_of(members: &Map<String, Value>) -> Option<String> {
    let place = members.get("loc")?.as_array()?;
    let steps: Vec<String> = place
        .iter()
        .take(16)
        .map(|step| match step {
            Value::String(name) => name.clone(),
            other => other.to_string(),
        })
        .collect();
    (!steps.is_empty()).then(|| steps.join("."))
}

/// The status that an error's kind stands for: Anthropic's, OpenAI's and Google's names.
fn status_of(word: &str) -> Option<u16> {
    Some(match word {
        "invalid_request_error" | "INVALID_ARGUMENT" | "FAILED_PRECONDITION" => 400,
        "authentication_error" | "UNAUTHENTICATED" | "invalid_api_key" => 401,
        "billing_error" => 402,
        "permission_error" | "PERMISSION_DENIED" => 403,
        "not_found_error" | "NOT_FOUND" | "model_not_found" => 404,
        "request_too_large" => 413,
        "rate_limit_error" | "rate_limit_exceeded" | "RESOURCE_EXHAUSTED" => 429,
        "api_error" | "server_error" | "internal_server_error" | "INTERNAL" => 500,
        "UNAVAILABLE" | "service_unavailable" => 503,
        "timeout_error" | "DEADLINE_EXCEEDED" => 504,
        "overloaded_error" | "engine_overloaded" => 529,
        _ => return None,
    })
}

fn is_rate(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let words = [
        "rate_limit",
        "ratelimit",
        "ratequota",
        "throttl",
        "too_many_requests",
    ];
    words.iter().any(|known| word.contains(known)) || word == "toomanyrequests"
}

/// In small letters.
fn speaks_of_rate(message: &str) -> bool {
    let phrases = ["rate limit", "too many requests"];
    phrases.iter().any(|phrase| message.contains(phrase))
}

fn is_quota(word: &str) -> bool {
    matches!(
        word,
        "insufficient_quota"
            | "billing_hard_limit_reached"
            | "billing_not_active"
            | "billing_error"
            | "exceeded_current_quota_error"
            | "insufficient_balance"
            | "insufficient_credits"
            | "insufficient_funds"
            | "payment_required"
            | "credit_limit_exceeded"
            | "Arrearage"
            | "BILLING_DISABLED"
    )
}

/// In small letters.
fn speaks_of_quota(message: &str) -> bool {
    const PHRASES: [&str; 15] = [
        "credit balance is too low",
        "insufficient balance",
        "insufficient credit",
        "insufficient funds",
        "insufficient quota",
        "insufficient_quota",
        "requires more credits",
        "credits are depleted",
        "out of credits",
        "any credits",
        "used all available credits",
        "exceeded your current quota",
        "check your plan and billing",
        "spending limit",
        "billing hard limit",
    ];
    PHRASES.iter().any(|phrase| message.contains(phrase))
}

/// In small letters.
fn speaks_of_context(message: &str) -> bool {
    const PHRASES: [&str; 21] = [
        "context_length_exceeded",
        "prompt is too long",
        "prompt too long",
        "input is too long",
        "maximum context length",
        "max context length",
        "maximum prompt length",
        "context length exceeded",
        "exceeds the context length",
        "greater than the context length",
        "exceed context limit",
        "context window exceeds",
        "exceeds the context window",
        "exceed the context window",
        "exceeds the available context",
        "exceeded model token limit",
        "reduce the length of the messages",
        "tokens in request more than max tokens",
        "total number of tokens in the prompt cannot exceed",
        "exceeds the maximum number of tokens",
        "prompt token count",
    ];
    PHRASES.iter().any(|phrase| message.contains(phrase))
        || (message.contains("max_new_tokens") && message.contains("must be <="))
}

/// Whether JSON that came in the place of an answer, or of an event, is a failure.
pub(super) fn is_failure(value: &Value) -> bool {
    let members = match value {
        Value::Array(list) => {
            return list
                .first()
                .is_some_and(|first| first.is_object() && is_failure(first));
        }
        Value::Object(members) => members,
        _ => return false,
    };
    let says = |name: &str| match members.get(name) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(inner)) => !inner.is_empty(),
        Some(_) => true,
    };
    let is = |name: &str, what: &str| members.get(name).and_then(Value::as_str) == Some(what);
    if says("error")
        || is("type", "error")
        || is("object", "error")
        || is("type", "response.failed")
        || (is("object", "response") && is("status", "failed"))
    {
        return true;
    }
    // What has a place for an answer is judged by its wire.
    const ANSWERS: [&str; 9] = [
        "choices",
        "output",
        "candidates",
        "content",
        "data",
        "delta",
        "type",
        "usage",
        "embeddings",
    ];
    // A message that was begun, not one about a failure.
    let is_said = |message: &Value| {
        ["id", "role", "content"]
            .iter()
            .any(|of| !message[of].is_null())
    };
    let answers =
        ANSWERS.iter().any(|name| says(name)) || members.get("message").is_some_and(is_said);
    let failed = |of: &Value| of["status_code"].as_i64().is_some_and(|code| code != 0);
    // A kind that speaks of a failure is none of an answer.
    let is_of_failure = || {
        let kind = members.get("type").and_then(Value::as_str);
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        let words = [
            "error",
            "limit",
            "exceeded",
            "failed",
            "invalid",
            "exception",
        ];
        !kind.contains('.')
            && words.iter().any(|word| kind.contains(word))
            && members.get("message").is_some_and(Value::is_string)
    };
    (!answers || is_of_failure())
        && (members.get("base_resp").is_some_and(failed)
            || [
                "errors",
                "detail",
                "message",
                "msg",
                "error_msg",
                "error_message",
                "errorMessage",
            ]
            .iter()
            .any(|name| says(name)))
}
