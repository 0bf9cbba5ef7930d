//! The page itself, and the script by which another site shows it in a frame.
//!
//! The page is a shell: what is said is read by its script, and written with DOM calls alone. What a
//! model says never becomes markup, as no text is ever parsed for any, here or there; and the policy
//! lets nothing run but the page's own script.

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Deserialize;
use serde_json::json;

use super::assets::{answered_html, script_url, style_url};
use super::settings::Settings;
use super::visitor::{self, Visitor, cookie};
use crate::edge::AppState;
use crate::error::ApiError;
use crate::store::DeploymentRow;

const BUBBLE: &str = include_str!("assets/embed.js");

#[derive(Debug, Deserialize)]
pub struct Shown {
    /// In a frame of another site.
    #[serde(default)]
    embed: Option<String>,
}

fn icon(path: &str) -> Markup {
    html! {
        svg viewBox="0 0 24 24" aria-hidden="true" focusable="false" { path d=(path) {} }
    }
}

const NEW: &str = "M12 5v14M5 12h14";
const CLOSE: &str = "M6 6l12 12M18 6L6 18";
const ATTACH: &str = "M20 11.5l-8.2 8.2a5 5 0 0 1-7-7l8.4-8.5a3.3 3.3 0 0 1 4.7 4.7l-8.4 8.4a1.7 1.7 0 0 1-2.4-2.4l7.8-7.7";
const SEND: &str = "M12 19V5M6 11l6-6 6 6";
const DOWN: &str = "M12 5v14M6 13l6 6 6-6";
const STOP: &str = "M8 8h8v8H8z";

/// What an accent becomes, as a style of its own that the policy knows by its hash.
fn accent_style(settings: &Settings) -> String {
    let [light, dark] = settings.accent.variables();
    format!(
        ":root{{{light}}}\
         @media(prefers-color-scheme:dark){{:root[data-theme=auto]{{{dark}}}}}\
         :root[data-theme=dark]{{{dark}}}"
    )
}

fn policy(style: &str, origins: &[String], is_framed: bool) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, style.as_bytes());
    let hash = STANDARD.encode(hash.as_ref());
    let mut ancestors = "'self'".to_owned();
    if is_framed {
        for origin in origins {
            ancestors.push(' ');
            ancestors.push_str(origin);
        }
    }
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-{hash}'; \
         img-src 'self' blob: data:; connect-src 'self'; form-action 'none'; base-uri 'none'; \
         frame-ancestors {ancestors}"
    )
}

fn shell(
    deployment: &DeploymentRow,
    settings: &Settings,
    style: &str,
    max_file: usize,
    (is_framed, is_locked): (bool, bool),
) -> Markup {
    let title = &settings.title;
    html! {
        (DOCTYPE)
        html lang="en" data-theme=(settings.theme.as_str()) {
            head {
                meta charset="utf-8";
                meta name="viewport"
                    content="width=device-width, initial-scale=1, viewport-fit=cover, interactive-widget=resizes-content";
                meta name="color-scheme" content=(match settings.theme.as_str() {
                    "auto" => "light dark", one => one });
                title { (title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(style)) }
                link rel="stylesheet" href=(style_url());
                script src=(script_url()) defer="" {}
            }
            body class="chat" data-page=(deployment.id) data-framed=(is_framed)
                data-locked=(is_locked) data-max-file=(max_file) {
                @if !is_locked { a class="skip" href="#words" { "Skip to the message box" } }
                header class="top" {
                    h1 { (title) }
                    div class="tools" {
                        button type="button" id="new" class="plain" hidden
                            title="New conversation" {
                            (icon(NEW)) span class="unseen" { "New conversation" }
                        }
                        @if is_framed {
                            button type="button" id="close" class="plain" title="Close" {
                                (icon(CLOSE)) span class="unseen" { "Close" }
                            }
                        }
                    }
                }
                @if is_locked {
                    main class="door" {
                        form id="door" {
                            h2 { (title) }
                            p { "This page asks for a password." }
                            label for="password" { "Password" }
                            input type="password" id="password" autocomplete="current-password"
                                required maxlength="200";
                            p id="refused" class="fault" role="alert" {}
                            button type="submit" class="main" { "Open" }
                        }
                    }
                } @else {
                    (conversation(settings))
                }
                noscript { p class="door" { "This page needs JavaScript." } }
                div id="told" class="unseen" role="status" aria-live="polite" {}
            }
        }
    }
}

fn conversation(settings: &Settings) -> Markup {
    html! {
        main id="scroll" tabindex="0" aria-label="Conversation" {
            div id="empty" hidden {
                p class="greeting" { (settings.greeting) }
                @if !settings.suggestions.is_empty() {
                    div class="chips" role="group" aria-label="Suggestions" {
                        @for one in &settings.suggestions {
                            button type="button" class="chip" data-say=(one) { (one) }
                        }
                    }
                }
            }
            div id="log" {}
            div id="replies" class="chips" role="group" aria-label="Suggested replies" hidden {}
        }
        footer {
            button type="button" id="down" hidden title="Newest message" {
                (icon(DOWN)) span class="unseen" { "Newest message" }
            }
            form id="composer" aria-label="Message" {
                div id="files" aria-label="Files" role="group" hidden {}
                div class="line" {
                    @if settings.takes_files {
                        button type="button" id="attach" class="plain" title="Add files" {
                            (icon(ATTACH)) span class="unseen" { "Add files" }
                        }
                        input type="file" id="picked" multiple hidden tabindex="-1"
                            aria-label="Files"
                            accept="image/*,.pdf,.txt,.md,.csv,.json,.html,.docx,.xlsx,.pptx,text/*";
                    }
                    textarea id="words" rows="1" maxlength="30000"
                        placeholder=(settings.placeholder) aria-label=(settings.placeholder)
                        enterkeyhint="send" {}
                    button type="submit" id="send" class="round" disabled title="Send" {
                        (icon(SEND)) span class="unseen" { "Send" }
                    }
                    button type="button" id="stop" class="round" hidden title="Stop" {
                        (icon(STOP)) span class="unseen" { "Stop" }
                    }
                }
            }
            p id="fault" class="fault" role="alert" {}
        }
    }
}

/// A page that says that there is none.
fn nobody(headers: &HeaderMap) -> Result<Response, ApiError> {
    let page = html! {
        (DOCTYPE)
        html lang="en" data-theme="auto" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "There is no such page" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(style_url());
            }
            body class="card" {
                main { h1 { "There is no such page" } p { "It was taken down, or its address is wrong." } }
            }
        }
    };
    let policy = "default-src 'none'; style-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; \
        frame-ancestors *";
    answered_html(StatusCode::NOT_FOUND, headers, page.into_string(), policy)
}

/// The page that visitors open.
#[utoipa::path(get, path = "/hosted/{id}", tag = "web page", security(()),
    params(("id" = String, Path), ("embed" = Option<String>, Query)),
    responses((status = 200, content_type = "text/html", body = String),
        (status = 404, content_type = "text/html", body = String)))]
pub async fn page(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
    Query(shown): Query<Shown>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let hub = &gateway.hub;
    let deployment = match visitor::page(hub, &id).await {
        Ok(found) => found,
        Err(error) if error.status == StatusCode::NOT_FOUND => return nobody(&headers),
        Err(error) => return Err(error),
    };
    let settings = Settings::of(&deployment.provider_metadata)?;
    let is_framed = shown.embed.is_some();
    let who = match visitor::known(hub, &deployment, &headers, is_framed) {
        Some(known) => known,
        None => Visitor::new()?,
    };
    let is_locked = deployment.sealed.is_some() && !who.is_let_in;
    let style = accent_style(&settings);
    let max_file = hub.config.max_file_bytes;
    let page = shell(
        &deployment,
        &settings,
        &style,
        max_file,
        (is_framed, is_locked),
    );
    let policy = policy(&style, &settings.allowed_origins, is_framed);
    let mut answer = answered_html(StatusCode::OK, &headers, page.into_string(), &policy)?;
    let cookie = cookie(hub, &deployment, &headers, &who, is_framed)?;
    answer.headers_mut().append(header::SET_COOKIE, cookie);
    if !is_framed {
        let value = HeaderValue::from_static("SAMEORIGIN");
        answer.headers_mut().insert(header::X_FRAME_OPTIONS, value);
    }
    Ok(answer)
}

/// The script that puts the page on another site, behind a bubble.
#[utoipa::path(get, path = "/hosted/{id}/embed.js", tag = "web page", security(()),
    params(("id" = String, Path)),
    responses((status = 200, content_type = "text/javascript", body = String)))]
pub async fn embed(
    State(gateway): State<AppState>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let deployment = visitor::page(&gateway.hub, &id).await?;
    let settings = Settings::of(&deployment.provider_metadata)?;
    let [light, _] = settings.accent.variables();
    let variable = |name: &str| {
        let found = light.split(';').find_map(|one| one.strip_prefix(name));
        found.unwrap_or_default().to_owned()
    };
    let told = json!({ "page": deployment.id, "title": settings.title,
        "accent": variable("--accent:"), "on": variable("--on-accent:") });
    // JSON is JavaScript (ECMA-262, 2019), so that no text of it ends up as code.
    let script = BUBBLE.replacen("/*settings*/{}", &told.to_string(), 1);
    let mut answer = script.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=300"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
    ] {
        let value = HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_in_a_frame_has_ancestors() {
        let origins = ["https://a.example".to_owned()];
        assert!(policy("", &origins, false).ends_with("frame-ancestors 'self'"));
        assert!(policy("", &origins, true).ends_with("frame-ancestors 'self' https://a.example"));
        assert!(!policy("", &origins, true).contains("unsafe"));
        assert!(BUBBLE.contains("/*settings*/{}"));
    }

    #[test]
    fn nothing_that_is_configured_becomes_markup() {
        let evil = r#"</title><script>alert(1)</script>" onload="x"#;
        let of = json!({ "title": evil, "greeting": evil, "placeholder": evil,
            "suggestions": [evil] });
        let settings = Settings::read(&of).expect("settings");
        let deployment = DeploymentRow {
            id: "dep_1".to_owned(),
            tenant_id: "proj_1".to_owned(),
            target_type: "agent".to_owned(),
            target_id: "agt_1".to_owned(),
            kind: "web".to_owned(),
            address: None,
            provider: None,
            provider_metadata: of.to_string(),
            display_name: None,
            owner_email: None,
            status: "active".to_owned(),
            created_at: 0,
            sealed: None,
        };
        let style = accent_style(&settings);
        let page = shell(&deployment, &settings, &style, 1, (true, false)).into_string();
        assert!(
            !page.contains("<script>alert") && !page.contains("\" onload=\""),
            "{page}"
        );
    }
}
