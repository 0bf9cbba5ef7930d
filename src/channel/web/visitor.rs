//! Who visits a page: what their cookie says, and whether a call is one of the page's own.
//!
//! The cookie is sealed for one deployment, so that it opens nothing at another, and it holds all that
//! is known of a visitor: nothing is kept of those who only look. `HttpOnly`, below the page's path,
//! and `SameSite=Lax`; where sites may show the page in a frame, a second one for that is
//! `SameSite=None` and `Partitioned` (CHIPS), so that each site has its own. What changes anything is
//! taken from the page's own origin alone: by `Sec-Fetch-Site`, else `Origin`, and by a header that
//! another origin's script may not send without being asked first, which is refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::channel::Hub;
use crate::connection::{challenge, random_text};
use crate::error::ApiError;
use crate::store::{DeploymentRow, SmithFilter, now_micros};

const SECOND: i64 = 1_000_000;
/// A visitor who does not come back for so long begins anew.
const LASTS_S: i64 = 30 * 24 * 3600;
const MAX_COOKIE: usize = 2048;
/// Of the names of visitors and their conversations: 132 and 60 bits.
const NAME: usize = 22;
const SHORT: usize = 10;
/// Says that the page's own script calls, and whether it is shown in a frame.
pub const PAGE_HEADER: &str = "x-smithgate-page";

/// What a cookie says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitor {
    #[serde(rename = "v")]
    pub id: String,
    /// Which conversation they are in.
    #[serde(rename = "c")]
    pub conversation: String,
    /// Whether they knew the password.
    #[serde(rename = "u")]
    pub is_let_in: bool,
    #[serde(rename = "i")]
    issued: i64,
}

/// A visitor at a page.
pub struct Visit {
    pub deployment: DeploymentRow,
    pub settings: Settings,
    pub visitor: Visitor,
    pub is_framed: bool,
}

fn name(length: usize) -> Result<String, ApiError> {
    Ok(random_text()?.chars().take(length).collect())
}

impl Visitor {
    /// Somebody new.
    pub fn new() -> Result<Self, ApiError> {
        Ok(Self {
            id: name(NAME)?,
            conversation: name(SHORT)?,
            is_let_in: false,
            issued: now_micros(),
        })
    }

    /// Somebody new who knew the password.
    pub fn let_in() -> Result<Self, ApiError> {
        Ok(Self {
            is_let_in: true,
            ..Self::new()?
        })
    }

    /// Whom a program calls so. The conversation is one that it was told, one of its own naming, or
    /// the first.
    pub fn named(deployment_id: &str, name: &str, thread_id: Option<&str>) -> Self {
        let short = |text: &str, length: usize| challenge(text).chars().take(length).collect();
        let id: String = short(&format!("{deployment_id}/{name}"), NAME);
        let own = format!("{}:{deployment_id}/{id}/", super::KIND);
        let is_word = |text: &&str| {
            let is_one = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            text.len() == SHORT && text.bytes().all(is_one)
        };
        let conversation = match thread_id {
            None => short("first", SHORT),
            Some(said) => match said.strip_prefix(&own).filter(is_word) {
                Some(told) => told.to_owned(),
                None => short(said, SHORT),
            },
        };
        Self {
            id,
            conversation,
            is_let_in: true,
            issued: now_micros(),
        }
    }

    /// The same in a conversation in which nothing has been said.
    pub fn anew(&self) -> Result<Self, ApiError> {
        Ok(Self {
            conversation: name(SHORT)?,
            ..self.clone()
        })
    }

    /// Their conversation, as arrivals have it.
    pub fn chat(&self, deployment_id: &str) -> String {
        format!("{deployment_id}/{}/{}", self.id, self.conversation)
    }
}

fn owner(deployment: &DeploymentRow) -> String {
    format!("web_visitor/{}/{}", deployment.tenant_id, deployment.id)
}

fn cookie_name(is_secure: bool, is_framed: bool) -> &'static str {
    match (is_secure, is_framed) {
        (true, false) => "__Secure-smithgate_visitor",
        (true, true) => "__Secure-smithgate_framed",
        (false, false) => "smithgate_visitor",
        (false, true) => "smithgate_framed",
    }
}

/// Whether the browser reaches this page by TLS.
fn is_secure(hub: &Hub, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(said) = text("x-forwarded-proto") {
        return said.eq_ignore_ascii_case("https");
    }
    let Some(authority) = hub.public_url.strip_prefix("https://") else {
        return false;
    };
    let authority = authority.split('/').next().unwrap_or_default();
    text("host").is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let all = headers.get_all(header::COOKIE).iter();
    let texts = all.filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';'));
    let pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The visitor that a request's cookie names.
pub fn known(
    hub: &Hub,
    deployment: &DeploymentRow,
    headers: &HeaderMap,
    is_framed: bool,
) -> Option<Visitor> {
    let name = cookie_name(is_secure(hub, headers), is_framed);
    let sealed = cookies(headers, name).find(|value| value.len() <= MAX_COOKIE)?;
    let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
    let opened = hub.vault.open(&owner(deployment), &sealed).ok()?;
    let visitor: Visitor = serde_json::from_slice(&opened).ok()?;
    let age = now_micros() - visitor.issued;
    (age < LASTS_S * SECOND).then_some(visitor)
}

/// What a browser is told to keep.
pub fn cookie(
    hub: &Hub,
    deployment: &DeploymentRow,
    headers: &HeaderMap,
    visitor: &Visitor,
    is_framed: bool,
) -> Result<HeaderValue, ApiError> {
    let said = Visitor {
        issued: now_micros(),
        ..visitor.clone()
    };
    let text = serde_json::to_vec(&said).map_err(ApiError::internal)?;
    let sealed = hub.vault.seal(&owner(deployment), &text);
    let sealed = URL_SAFE_NO_PAD.encode(sealed.map_err(ApiError::internal)?);
    let is_secure = is_secure(hub, headers);
    let site = match (is_secure, is_framed) {
        (true, true) => "; Secure; SameSite=None; Partitioned",
        (true, false) => "; Secure; SameSite=Lax",
        (false, _) => "; SameSite=Lax",
    };
    let text = format!(
        "{}={sealed}; Path=/hosted/{}; HttpOnly; Max-Age={LASTS_S}{site}",
        cookie_name(is_secure, is_framed),
        deployment.id,
    );
    HeaderValue::try_from(text).map_err(ApiError::internal)
}

fn is_own_origin(hub: &Hub, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    // Browsers say nothing of the site to what is no TLS, but they do say the origin where something
    // is posted. What is no browser has no cookies of a victim.
    let Some(origin) = text("origin") else {
        return true;
    };
    let Some((_, authority)) = origin.split_once("://") else {
        return false;
    };
    let public = hub.public_url.split_once("://").map(|(_, rest)| rest);
    let public = public.and_then(|rest| rest.split('/').next());
    [text("host"), public].contains(&Some(authority))
}

/// Refuses what the page's own script did not send; whether the page is in a frame.
pub fn check_origin(hub: &Hub, headers: &HeaderMap) -> Result<bool, ApiError> {
    let said = headers.get(PAGE_HEADER).map(HeaderValue::as_bytes);
    match said {
        Some(said) if is_own_origin(hub, headers) => Ok(said == b"framed"),
        _ => Err(ApiError::forbidden(
            "cross_site",
            "only the page itself may do this",
        )),
    }
}

/// A page by its address.
pub async fn page(hub: &Hub, id: &str) -> Result<DeploymentRow, ApiError> {
    let found = hub.store.web_page(id).await?;
    let found = found.filter(|found| found.status == "active");
    found.ok_or_else(|| ApiError::not_found("page", id))
}

impl Visit {
    /// Who calls from the page `id`; 401 for those whom it does not know, 401 `password_required` for
    /// those who are not let in.
    pub async fn of(hub: &Hub, id: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let visit = Self::at_the_door(hub, id, headers).await?;
        if visit.deployment.sealed.is_some() && !visit.visitor.is_let_in {
            let why = "the page asks for a password";
            let status = StatusCode::UNAUTHORIZED;
            return Err(ApiError::new(status, "password_required", why));
        }
        Ok(visit)
    }

    /// The same of those who may still have to say the password.
    pub async fn at_the_door(hub: &Hub, id: &str, headers: &HeaderMap) -> Result<Self, ApiError> {
        let is_framed = check_origin(hub, headers)?;
        let deployment = page(hub, id).await?;
        let visitor = known(hub, &deployment, headers, is_framed).ok_or_else(|| {
            let why = "the page does not know this visitor: load it again";
            ApiError::new(StatusCode::UNAUTHORIZED, "unknown_visitor", why)
        })?;
        Ok(Self {
            settings: Settings::of(&deployment.provider_metadata)?,
            deployment,
            visitor,
            is_framed,
        })
    }

    /// Their conversation.
    pub fn chat(&self) -> String {
        self.visitor.chat(&self.deployment.id)
    }

    /// The thread that it is kept in.
    pub fn thread(&self) -> String {
        format!("{}:{}", super::KIND, self.chat())
    }

    /// The smith that answers them, when there is one by now.
    pub async fn smith(&self, hub: &Hub) -> Result<Option<String>, ApiError> {
        let deployment = &self.deployment;
        if deployment.target_type == "smith" {
            return Ok(Some(deployment.target_id.clone()));
        }
        let filter = SmithFilter {
            external_id: Some(format!("{}:{}", super::KIND, self.visitor.id)),
            agent_id: Some(deployment.target_id.clone()),
            ..SmithFilter::default()
        };
        let found = hub.store.smiths(&deployment.tenant_id, &filter, None, 1);
        Ok(found.await?.into_iter().next().map(|smith| smith.id))
    }

    /// Who they are, in records of what they do.
    pub fn actor(&self) -> serde_json::Value {
        serde_json::json!({ "kind": super::KIND, "id": self.visitor.id, "token_id": "", "email": "" })
    }
}
