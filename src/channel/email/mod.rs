//! E-mail: mail that came by HTTP or to a listener of our own, and mail that leaves by a relay.

mod arrival;
mod bounce;
mod compose;
mod data;
mod interpret;
mod limits;
mod listen;
mod normal;
mod post;
mod quote;
mod relay;
mod rest;
mod session;
mod sign;
mod suppressions;
mod verify;

pub use rest::{documented, routes};

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use mail_auth::MessageAuthenticator;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Account, Card, Channel, Destination, Fault, Hub, Meaning, Outgoing, Said, SendTool, Setup,
};
use crate::config::RelayTls;
use crate::error::ApiError;
use crate::store::{DeploymentFilter, DeploymentRow, InboundRow, OutboundRow};
use crate::untrusted::mail;

pub const KIND: &str = "email";
/// Of the arguments on a card.
const MAX_ARGUMENTS: usize = 4000;
/// An answer that is longer is cut, in bytes.
const MAX_TEXT: usize = 1024 * 1024;
/// Files of a letter together, in bytes: many servers take letters of no more than 20 MB, and base64
/// makes a third more of them.
const MAX_ATTACHED: usize = 10 * 1024 * 1024;
/// Deployments whose addresses are known at once.
const MAX_DEPLOYMENTS: i64 = 200;

/// What an account shows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub from_domain: String,
    pub display_name: Option<String>,
    /// The part before the `@` of what no deployment's own address sends.
    pub mailbox: String,
    /// Who is believed in `Authentication-Results` of mail that was posted.
    pub authserv_id: Option<String>,
    /// Whether only mail is answered whose sender is verified.
    pub require_verified: bool,
    pub smtp_host: Option<String>,
    pub smtp_port: Option<u16>,
    pub smtp_username: Option<String>,
    pub smtp_tls: Option<RelayTls>,
    pub dkim_selector: String,
    /// What the DNS is to say, which proves our signatures.
    pub dkim_record: String,
    pub cloudflare_account_id: Option<String>,
}

/// The secrets of an account.
#[derive(Clone, Serialize, Deserialize)]
pub struct Secrets {
    pub inbound_secret: String,
    #[serde(default)]
    pub smtp_password: Option<String>,
    #[serde(default)]
    pub cloudflare_api_token: Option<String>,
    /// PKCS #8, in base64.
    pub dkim_key: String,
}

impl Settings {
    fn of(settings: &Value) -> Self {
        serde_json::from_value(settings.clone()).unwrap_or_default()
    }

    /// The address that answers where none is named.
    pub fn default_mailbox(&self) -> String {
        format!("{}@{}", self.mailbox, self.from_domain)
    }

    /// Whether an address is of the tenant's domain.
    pub fn has(&self, address: &str) -> bool {
        let domain = address.rsplit_once('@').map(|(_, domain)| domain);
        domain.is_some_and(|domain| domain.eq_ignore_ascii_case(&self.from_domain))
    }
}

/// E-mail.
#[derive(Default)]
pub struct Email {
    authenticator: OnceLock<Result<Arc<MessageAuthenticator>, String>>,
}

/// A tenant's account, or why there is none.
async fn account(hub: &Hub, tenant_id: &str) -> Result<Account<Secrets>, Fault> {
    let found = hub.account_lately(tenant_id, KIND).await?;
    found.ok_or_else(|| Fault::Never("email_unconfigured: the tenant has no e-mail".to_owned()))
}

/// The tenant's deployments.
async fn deployments(hub: &Hub, tenant_id: &str) -> Result<Vec<DeploymentRow>, ApiError> {
    let filter = DeploymentFilter {
        kind: Some(KIND.to_owned()),
        ..DeploymentFilter::default()
    };
    let found = hub
        .store
        .deployments(tenant_id, &filter, None, MAX_DEPLOYMENTS);
    Ok(found.await?.into_vec())
}

impl Email {
    fn authenticator(&self, hub: &Hub) -> Result<Arc<MessageAuthenticator>, Fault> {
        let made = || verify::authenticator(&hub.config.email).map(Arc::new);
        let found = self.authenticator.get_or_init(made);
        found.clone().map_err(Fault::later)
    }
}

#[async_trait]
impl Channel for Email {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn setup(&self, mode: &str) -> Option<Setup> {
        match mode {
            "provision" => Some(Setup::Provision),
            Setup::START_TOKEN => Some(Setup::StartToken),
            _ => None,
        }
    }

    async fn interpret(&self, hub: &Hub, arrival: &InboundRow) -> Result<Meaning, Fault> {
        interpret::interpret(self, hub, arrival).await
    }

    /// Mail has no limit that an answer reaches; what it looks like is made when it is sent.
    fn messages(&self, text: &str) -> Vec<String> {
        let text = text.trim();
        if text.is_empty() {
            return Vec::new();
        }
        let end = (0..=MAX_TEXT.min(text.len()))
            .rev()
            .find(|at| text.is_char_boundary(*at));
        let cut = &text[..end.unwrap_or(0)];
        vec![match cut.len() < text.len() {
            true => format!("{cut}\n\n(The rest is too long for this channel.)"),
            false => text.to_owned(),
        }]
    }

    async fn send(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        message: &str,
        key: &str,
    ) -> Result<String, Fault> {
        relay::send(hub, to, message, &[], key).await
    }

    fn largest_file(&self, _media_type: &str) -> Option<usize> {
        Some(MAX_ATTACHED)
    }

    fn sends_files_within(&self) -> bool {
        true
    }

    async fn send_files(
        &self,
        hub: &Hub,
        to: &OutboundRow,
        words: &str,
        files: &[Outgoing],
        key: &str,
    ) -> Result<String, Fault> {
        relay::send(hub, to, words, files, key).await
    }

    async fn ask(&self, hub: &Hub, to: &OutboundRow, card: &Card) -> Result<String, Fault> {
        relay::send(hub, to, &asked(card), &[], &format!("{}-ask", to.id)).await
    }

    /// Decisions are made on the page that the card leads to, which shows them.
    async fn decided(&self, _hub: &Hub, _arrival: &InboundRow, _text: &str, _is_settled: bool) {}

    async fn made(
        &self,
        hub: &Hub,
        deployment: &DeploymentRow,
        start_token: Option<&str>,
    ) -> Result<Map<String, Value>, ApiError> {
        let mut shown = Map::new();
        if let Some(token) = start_token {
            let account: Option<Account<Secrets>> =
                hub.account(&deployment.tenant_id, KIND).await?;
            if account.is_some() {
                shown.insert(
                    "prefilled_message".to_owned(),
                    json!(format!("/start {token}")),
                );
            }
        }
        Ok(shown)
    }

    async fn address(
        &self,
        hub: &Hub,
        tenant_id: &str,
        address: Option<String>,
        is_made: bool,
    ) -> Result<Option<String>, ApiError> {
        let wrong = |code: &'static str, why: &'static str| {
            Err(ApiError::bad_request(code, why).param("address"))
        };
        let account: Option<Account<Secrets>> = hub.account(tenant_id, KIND).await?;
        let settings = account.map(|account| Settings::of(&account.settings));
        let made = match (address, settings) {
            (Some(address), _) => match mail::address_of(&address) {
                Some(address) => address,
                None => return wrong("invalid_address", "is no e-mail address"),
            },
            (None, Some(settings)) if is_made => {
                let word = crate::connection::random_text()?.to_ascii_lowercase();
                let word = word.chars().filter(char::is_ascii_alphanumeric).take(12);
                format!(
                    "smith-{}@{}",
                    word.collect::<String>(),
                    settings.from_domain
                )
            }
            _ => return Ok(None),
        };
        let taken = deployments(hub, tenant_id).await?;
        let mut taken = taken.iter().filter_map(|one| one.address.as_deref());
        match taken.any(|other| other.eq_ignore_ascii_case(&made)) {
            true => {
                let why = "another deployment has this address";
                Err(ApiError::conflict("address_in_use", why).param("address"))
            }
            false => Ok(Some(made)),
        }
    }

    fn deep_link(&self, settings: &Value, token: &str) -> Option<String> {
        let settings = Settings::of(settings);
        let to = settings.default_mailbox();
        Some(format!("mailto:{to}?subject=Start&body=%2Fstart%20{token}"))
    }

    fn addressee<'a>(&self, said: &'a Said) -> Option<&'a str> {
        said.reply_to["mailbox"].as_str()
    }

    /// A deployment's address is the smith's own, and a conversation is a message's id.
    fn addressed(&self, identity: &str) -> Option<String> {
        identity.strip_prefix("sender:").map(str::to_owned)
    }

    fn send_tool(&self) -> Option<SendTool> {
        Some(SendTool {
            name: "email_send",
            description: "Sends an e-mail. The first line of the text becomes its subject; the text \
                          may be Markdown.",
            to: "The address that it goes to, such as ann@example.com.",
        })
    }

    fn destination(&self, to: &str) -> Result<Destination, String> {
        let found = match to.contains(char::is_control) {
            true => Vec::new(),
            false => mail::people_of(to),
        };
        let [one] = found.as_slice() else {
            return Err(format!("'{to}' is not one e-mail address"));
        };
        Ok(Destination {
            chat: format!("to:{}", one.address),
            reply_to: json!({ "to": one.address, "to_name": one.name }),
        })
    }

    async fn poll(&self, hub: Arc<Hub>) {
        listen::listen(hub).await;
    }
}

/// What a human is asked, as a letter.
fn asked(card: &Card) -> String {
    let mut text = match &card.question {
        Some(question) => format!("{}\n", question.message),
        None => {
            let mut arguments: String = card.arguments.chars().take(MAX_ARGUMENTS).collect();
            if arguments.len() < card.arguments.len() {
                arguments.push('…');
            }
            // A fence that no arguments end.
            let fence = "`".repeat(longest_run(&arguments).max(2) + 1);
            let tool = card.tool.replace(['`', '\n', '\r'], "'");
            format!("May I use `{tool}`?\n\n{fence}\n{arguments}\n{fence}\n")
        }
    };
    match &card.link {
        Some(link) => text.push_str(&format!(
            "\nDecide here, once; whoever has this link may: <{link}>\n"
        )),
        None => {
            text.push_str("\nIt waits for a decision in the application that you know me from.\n")
        }
    }
    text
}

fn longest_run(text: &str) -> usize {
    let (mut longest, mut run) = (0, 0);
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// Decodes a message as a stranger may send it, for tests and fuzzing: its header and what it holds.
pub fn decode(raw: &[u8]) -> (mail::Head, mail::Mail) {
    let (found, files) = mail::read(raw);
    debug_assert_eq!(found.attached.len(), files.len());
    let head = mail::head(&raw[..session::header_end(raw)]);
    let text = quote::fresh(&found.text, &head.subject);
    (head, mail::Mail { text, ..found })
}

/// A letter of a model's words, for tests and fuzzing.
pub fn letter(markdown: &str) -> String {
    compose::html(markdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_the_parser_gives_up_is_a_report_still() {
        let raw = include_bytes!("../../../tests/fixtures/email/report-cut-in-a-part.eml");
        let (_, read) = decode(raw);
        assert!(read.report.is_some(), "{read:?}");
    }

    #[test]
    fn arguments_end_no_fence() {
        let card = Card {
            approval_id: "apr_1".to_owned(),
            tool: "melt`\n# x".to_owned(),
            arguments: "```\n<b>".to_owned(),
            question: None,
            link: Some("https://x.test/a".to_owned()),
        };
        let html = compose::html(&asked(&card));
        assert!(
            html.contains("https://x.test/a") && !html.contains("<b>"),
            "{html}"
        );
        assert!(html.contains("<code>```\n&lt;b&gt;"), "{html}");
        assert!(!html.contains("<h1>"), "{html}");
    }

    #[test]
    fn a_destination_is_one_address() {
        let email = Email::default();
        let to = email.destination("Ann <Ann@x.test>").expect("one");
        assert_eq!(to.chat, "to:ann@x.test");
        for bad in ["", "ann", "a@x.test, b@x.test", "a@x.test\r\nBcc: b@x.test"] {
            assert!(email.destination(bad).is_err(), "{bad}");
        }
    }

    const LETTERS: [&[u8]; 3] = [
        include_bytes!("../../../tests/fixtures/email/plain.eml"),
        include_bytes!("../../../tests/fixtures/email/alternative.eml"),
        include_bytes!("../../../tests/fixtures/email/report.eml"),
    ];

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read(
            letter in 0_usize..3,
            cuts in proptest::collection::vec((proptest::prelude::any::<proptest::sample::Index>(),
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..6)), 0..8),
        ) {
            let mut raw = LETTERS[letter].to_vec();
            for (at, bytes) in cuts {
                let at = at.index(raw.len());
                let end = (at + bytes.len() / 2).min(raw.len());
                raw.splice(at..end, bytes);
            }
            let (head, mail) = decode(&raw);
            let is_line = |text: &str| !text.contains(['\r', '\n', '\0']);
            proptest::prop_assert!(is_line(&head.subject));
            let people = head.from.iter().chain(&head.to).chain(&head.reply_to);
            for person in people {
                proptest::prop_assert!(is_line(&person.address) && person.address.contains('@'));
            }
            for id in head.message_id.iter().chain(&head.references).chain(&head.in_reply_to) {
                proptest::prop_assert!(is_line(id) && !id.contains(['<', '>', ' ']), "{id}");
            }
            let html = letter_of(&mail.text);
            proptest::prop_assert!(!html.contains("<script") && !html.contains("<img"));
        }

        #[test]
        fn no_words_become_tags(text in "[<>/a-z\"'`*_\\[\\]() \\n!:=-]{0,120}") {
            let html = letter_of(&text);
            for tag in ["<script", "<img", "<iframe", "<style", "<a href=\"javascript", "<a href=\"data"] {
                proptest::prop_assert!(!html.contains(tag), "{html}");
            }
            let fresh = quote::fresh(&text, "x");
            proptest::prop_assert_eq!(fresh.is_empty(), text.trim().is_empty());
        }
    }

    fn letter_of(text: &str) -> String {
        letter(text).to_ascii_lowercase()
    }
}
