//! All the shapes of errors that were met.

use super::*;
use serde_json::json;

fn of(status: u16, body: Value) -> Fault {
    Fault::of_answer(status, &HeaderMap::new(), body.to_string().as_bytes())
}

#[test]
fn code_param_and_message_reach_the_client() {
    let error = json!({ "error": { "message": "too long", "type": "invalid_request_error",
            "param": "messages", "code": "context_length_exceeded" } });
    let told = ApiError::from(of(400, error));
    assert_eq!(told.status, 400);
    assert_eq!(
        told.envelope()["error"],
        json!({ "message": "too long", "type": "invalid_request_error",
                "param": "messages", "code": "context_length_exceeded" })
    );
    let error =
        json!({ "error": { "message": "bad", "param": "tools[0]", "code": "invalid_value" } });
    let told = ApiError::from(of(422, error));
    assert_eq!((told.status.as_u16(), &*told.code), (422, "invalid_value"));
    assert_eq!(told.param.as_deref(), Some("tools[0]"));
    // What is no slug is no code of ours.
    let told = ApiError::from(of(
        400,
        json!({ "error": { "message": "x", "code": "Bad one!" } }),
    ));
    assert_eq!(told.code, FAILED);
}

#[test]
fn a_context_that_is_too_long_is_known_in_all_words() {
    for (status, message) in [
        (400, "prompt is too long: 208310 tokens > 200000 maximum"),
        (
            400,
            "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
        ),
        (
            400,
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        ),
        (
            400,
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        ),
        (
            400,
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
        ),
        (
            400,
            "the request exceeds the available context size. try increasing the context size",
        ),
        (
            400,
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        ),
        (
            400,
            "Invalid request: Your request exceeded model token limit: 8192",
        ),
        (
            422,
            "Prompt contains 40960 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        ),
        (
            400,
            "`inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000",
        ),
        (
            400,
            "Please reduce the length of the messages or completion.",
        ),
        (400, "Input is too long for requested model."),
        (
            500,
            "prompt too long; exceeded max context length by 4 tokens",
        ),
    ] {
        let fault = of(status, json!({ "error": { "message": message } }));
        assert_eq!(fault.cause, Cause::ContextLength, "{message}");
        assert!(!fault.is_retryable());
        let told = ApiError::from(fault);
        assert_eq!(told.code, "context_length_exceeded");
        assert!(told.status.is_client_error());
    }
    for (status, message) in [
        (400, "max_tokens is too large: 100000"),
        (429, "Rate limit reached for tokens per minute"),
        (400, "messages: at least one message is required"),
        (413, "Request exceeds the maximum size"),
    ] {
        let fault = of(status, json!({ "error": { "message": message } }));
        assert_ne!(fault.cause, Cause::ContextLength, "{message}");
    }
}

#[test]
fn an_empty_purse_is_no_rate_limit() {
    for (status, wanted, error) in [
        (
            429,
            429,
            json!({ "message": "You exceeded your current quota, please check your plan and billing details.",
                "type": "insufficient_quota", "param": null, "code": "insufficient_quota" }),
        ),
        (
            429,
            429,
            json!({ "message": "x", "code": "billing_hard_limit_reached" }),
        ),
        (
            400,
            402,
            json!({ "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the Anthropic API." }),
        ),
        (
            402,
            402,
            json!({ "message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error" }),
        ),
        (
            402,
            402,
            json!({ "message": "This request requires more credits", "code": 402 }),
        ),
        (
            429,
            429,
            json!({ "message": "Your account is suspended, please check your plan and billing details",
                "type": "exceeded_current_quota_error" }),
        ),
        (
            429,
            429,
            json!({ "code": 429, "status": "RESOURCE_EXHAUSTED",
                "message": "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing." }),
        ),
    ] {
        let fault = of(status, json!({ "error": error }));
        assert_eq!(fault.cause, Cause::Quota, "{error}");
        assert!(!fault.is_retryable() && fault.is_of_target());
        let told = ApiError::from(fault);
        assert_eq!(
            (told.status.as_u16(), &*told.code),
            (wanted, "insufficient_quota")
        );
        assert_eq!(told.retry_after, None);
    }
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", "7".parse().expect("a value"));
    let body = br#"{"error":{"code":"insufficient_quota","message":"x"}}"#;
    assert_eq!(Fault::of_answer(429, &headers, body).pause, None);
}

#[test]
fn a_quota_that_comes_back_is_a_rate_limit() {
    let fault = of(
        429,
        json!([{ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED",
            "message": "You exceeded your current quota, please check your plan and billing details.",
            "details": [{ "@type": "type.googleapis.com/google.rpc.QuotaFailure" },
                { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s" }] } }]),
    );
    assert_eq!(fault.cause, Cause::RateLimit);
    assert_eq!(fault.pause, Some(Duration::from_millis(34_500)));
    assert_eq!(ApiError::from(fault).retry_after, Some(35));
}

#[test]
fn what_is_wrapped_is_found() {
    let raw = json!({ "error": { "message": "Slow down", "type": "rate_limit_error",
            "code": "rate_limit_exceeded" } });
    let wrapped = json!({ "error": { "message": "Provider returned error", "code": 429,
            "metadata": { "raw": raw.to_string(), "provider_name": "X" } } });
    let fault = Fault::in_answer(&wrapped).expect("a failure");
    assert_eq!((fault.status, fault.cause), (Some(429), Cause::RateLimit));
    assert_eq!(fault.message, "Provider returned error: Slow down");
    assert_eq!(fault.code.as_deref(), Some("rate_limit_exceeded"));
    let inner = json!({ "message": "inside", "code": "invalid_value", "param": "p" });
    for body in [
        json!({ "error": { "error": inner } }),
        json!({ "error": { "message": json!({ "error": inner }).to_string() } }),
        json!({ "errors": [inner] }),
        json!({ "detail": inner }),
        json!({ "response": { "status": "failed", "error": inner } }),
        json!([{ "error": inner }]),
        json!({ "error": json!({ "error": inner }).to_string() }),
    ] {
        let fault = of(400, body.clone());
        assert_eq!(fault.message, "inside", "{body}");
        assert_eq!(fault.code.as_deref(), Some("invalid_value"), "{body}");
        assert_eq!(fault.param.as_deref(), Some("p"), "{body}");
    }
}

#[test]
fn all_shapes_have_a_message() {
    for (body, message) in [
        (json!({ "error": "plain" }), "plain"),
        (json!({ "message": "plain" }), "plain"),
        (json!({ "detail": "plain" }), "plain"),
        (json!({ "msg": "plain", "code": 1113 }), "plain"),
        (
            json!({ "object": "error", "message": "plain", "code": 400 }),
            "plain",
        ),
        (
            json!({ "base_resp": { "status_code": 1004, "status_msg": "plain" } }),
            "plain",
        ),
        (
            json!({ "error": { "code": 400 } }),
            "the model provider answered with status 400",
        ),
        (json!("plain"), "plain"),
        (
            json!({ "detail": [{ "loc": ["body", "messages", 0, "role"], "msg": "field required" }] }),
            "body.messages.0.role: field required",
        ),
    ] {
        assert_eq!(of(400, body.clone()).message, message, "{body}");
    }
    let page = b"<!DOCTYPE html><html><head><title>502 Bad\n Gateway</title></head></html>";
    let fault = Fault::of_answer(502, &HeaderMap::new(), page);
    assert_eq!(
        fault.message,
        "the model provider answered with status 502 and a web page: 502 Bad Gateway"
    );
    let fault = Fault::of_answer(503, &HeaderMap::new(), b"upstream connect error");
    assert_eq!(
        fault.message,
        "the model provider answered with status 503 and the text: upstream connect error"
    );
    let fault = Fault::of_answer(500, &HeaderMap::new(), &[0, 159, 146, 150]);
    assert_eq!(fault.message, "the model provider answered with status 500");
}

#[test]
fn answers_are_no_failures() {
    for answer in [
        json!({ "id": "x", "choices": [], "error": null }),
        json!({ "id": "x", "choices": [{ "message": { "content": "error" } }] }),
        json!({ "object": "response", "status": "completed", "error": null, "output": [] }),
        json!({ "candidates": [{}] }),
        json!({ "type": "message", "content": [], "message": null }),
        json!({ "type": "response.created", "response": { "error": null, "status": "in_progress" } }),
        json!({ "type": "ping" }),
        json!({ "type": "message_start", "message": { "id": "m", "content": [] } }),
        json!({ "choices": [{ "delta": { "content": "x" } }], "base_resp": { "status_code": 0, "status_msg": "" } }),
        json!({}),
    ] {
        assert_eq!(Fault::in_answer(&answer), None, "{answer}");
    }
    for failure in [
        json!({ "error": "x" }),
        json!({ "error": { "message": "x" }, "choices": [] }),
        json!({ "type": "error", "message": "x" }),
        json!({ "detail": "Not found" }),
        json!({ "code": 500, "message": "Internal" }),
        json!({ "choices": null, "base_resp": { "status_code": 1002, "status_msg": "rate limit" } }),
        json!({ "type": "response.failed", "response": { "status": "failed", "error": null } }),
    ] {
        assert!(Fault::in_answer(&failure).is_some(), "{failure}");
    }
}

#[test]
fn what_comes_without_a_status_is_known_by_its_words() {
    for (error, cause, status) in [
        (
            json!({ "type": "overloaded_error" }),
            Cause::Overloaded,
            503,
        ),
        (json!({ "type": "rate_limit_error" }), Cause::RateLimit, 429),
        (
            json!({ "code": "rate_limit_exceeded" }),
            Cause::RateLimit,
            429,
        ),
        (json!({ "code": 503 }), Cause::Overloaded, 503),
        (json!({ "code": "429" }), Cause::RateLimit, 429),
        (json!({ "status": "UNAVAILABLE" }), Cause::Overloaded, 503),
        (
            json!({ "status": "RESOURCE_EXHAUSTED" }),
            Cause::RateLimit,
            429,
        ),
        (
            json!({ "type": "invalid_request_error" }),
            Cause::Request,
            400,
        ),
        (json!({ "type": "authentication_error" }), Cause::Key, 502),
        (json!({ "code": "insufficient_quota" }), Cause::Quota, 402),
        (json!({ "type": "server_error" }), Cause::Other, 502),
        (json!("on fire"), Cause::Other, 502),
    ] {
        let fault = Fault::in_answer(&json!({ "error": error })).expect("a failure");
        assert_eq!(fault.cause, cause, "{error}");
        assert_eq!(ApiError::from(fault).status.as_u16(), status, "{error}");
    }
}

#[test]
fn a_key_is_not_repeated() {
    let fault = of(
        401,
        json!({ "error": { "message": "no such key: sk-secret-key" } }),
    );
    assert_eq!(
        fault.without(Some("sk-secret-key")).message,
        "no such key: ***"
    );
    // Nor is the part of it that a cut left.
    let long = format!("{}sk-secret-key", "x".repeat(1_990));
    let fault = of(401, json!({ "error": { "message": long } }));
    let told = fault.without(Some("sk-secret-key")).message;
    assert!(told.ends_with("x***"), "{told}");
}
