//! What the pages show. No script; the style is the chat page's own.

use axum::response::Response;
use http::{HeaderMap, StatusCode};
use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

use super::fields::{Filled, fields};
use crate::channel::web::{answered_html, style_url};
use crate::error::ApiError;
use crate::store::{ApprovalRow, ApprovalStatus};

/// Of the arguments of a call.
const MOST_SHOWN: usize = 20_000;
/// A question that makes a heading, in characters.
const SHORT: usize = 120;

/// What a page may do. Where a form ends with the provider's own page, browsers hold that to
/// `form-action` as well, so that it is not said there.
fn policy(leads_away: bool) -> &'static str {
    match leads_away {
        false => {
            "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; \
             base-uri 'none'; frame-ancestors 'none'"
        }
        true => {
            "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; \
             frame-ancestors 'none'"
        }
    }
}

/// A page of its own.
pub fn answer(
    status: StatusCode,
    headers: &HeaderMap,
    title: &str,
    body: &Markup,
    leads_away: bool,
) -> Result<Response, ApiError> {
    let page = html! {
        (DOCTYPE)
        html lang="en" data-theme="auto" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(style_url());
            }
            body class="card" { main { (body) } }
        }
    };
    answered_html(status, headers, page.into_string(), policy(leads_away))
}

/// A page that only says something.
pub fn note(
    status: StatusCode,
    headers: &HeaderMap,
    title: &str,
    text: &str,
) -> Result<Response, ApiError> {
    let body = html! { h1 { (title) } p { (text) } };
    answer(status, headers, title, &body, false)
}

/// What is asked beside yes or no.
pub fn question_of(approval: &ApprovalRow) -> Option<Value> {
    serde_json::from_str(approval.elicitation.as_deref()?).ok()
}

fn shown_arguments(approval: &ApprovalRow) -> String {
    let arguments: Value = serde_json::from_str(&approval.args).unwrap_or_default();
    let text = serde_json::to_string_pretty(&arguments).unwrap_or_default();
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What waits for a decision.
pub fn decision(
    headers: &HeaderMap,
    approval: &ApprovalRow,
    filled: Option<&Filled>,
    wrong: Option<(&str, &str)>,
) -> Result<Response, ApiError> {
    let tool = approval.tool.as_deref().unwrap_or("a tool");
    let status = match wrong {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::OK,
    };
    let arguments = shown_arguments(approval);
    let question = question_of(approval);
    let schema = question.as_ref().map(|asked| &asked["requested_schema"]);
    let known = schema.and_then(|schema| schema["properties"].as_object());
    // What is at fault and no field is told above them.
    let above = wrong.filter(|(name, _)| !known.is_some_and(|known| known.contains_key(*name)));
    let body = html! {
        @if let Some(asked) = &question {
            @let message = asked["message"].as_str().unwrap_or_default();
            @if (1..=SHORT).contains(&message.chars().count()) {
                h1 { (message) }
            } @else {
                h1 { "A question" }
                p class="lead" { (message) }
            }
            p class="faint" { "Asked by " code { (tool) } }
        } @else {
            h1 { "May this be done?" }
            p class="lead" { "The assistant wants to use " code { (tool) } "." }
            @if arguments != "{}" && arguments != "null" {
                h2 class="small" id="with" { "With" }
                pre tabindex="0" role="group" aria-labelledby="with" { code { (arguments) } }
            }
        }
        @if let Some((_, why)) = above { p class="fault" role="alert" { (why) } }
        form method="post" {
            @if let Some(schema) = schema { (fields(schema, filled, wrong)) }
            div class="choice" {
                @if question.is_some() {
                    button class="main" name="decision" value="approve" { "Send" }
                    button name="decision" value="reject" formnovalidate { "Decline" }
                } @else {
                    button class="main" name="decision" value="approve" { "Approve" }
                    button name="decision" value="reject" { "Reject" }
                }
            }
        }
    };
    answer(status, headers, "A decision", &body, false)
}

/// What was decided, now or before.
pub fn decided(
    headers: &HeaderMap,
    approval: &ApprovalRow,
    is_new: bool,
) -> Result<Response, ApiError> {
    let tool = approval.tool.as_deref().unwrap_or("a tool");
    let asked = approval.elicitation.is_some();
    let title = match (approval.status, asked) {
        (ApprovalStatus::Approved, false) => "Approved",
        (ApprovalStatus::Approved, true) => "Answered",
        (ApprovalStatus::Rejected, false) => "Rejected",
        (ApprovalStatus::Rejected, true) => "Declined",
        _ => "No longer asked",
    };
    let body = html! {
        h1 { (title) }
        p {
            @if is_new { "Thank you. " } @else { "This was decided before. " }
            "It was about " code { (tool) } "."
        }
        p class="faint" { "You may close this page." }
    };
    answer(StatusCode::OK, headers, title, &body, false)
}

/// Whether a smith may use an account.
pub fn connection(headers: &HeaderMap, provider: &str) -> Result<Response, ApiError> {
    let body = html! {
        h1 { "Connect " (provider) }
        p class="lead" { "The assistant needs your permission to use " (provider) " for you." }
        p class="faint" { "You will be asked there what it may do. You can take it back at any time." }
        form method="post" {
            div class="choice" { button class="main" { "Continue to " (provider) } }
        }
    };
    answer(StatusCode::OK, headers, "Connect an account", &body, true)
}
