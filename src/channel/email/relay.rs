//! Sending, by a relay: the tenant's own mail server, or the operator's.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters,
};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use pingora_core::tls::{
    ClientConfig, ClientTlsStream, RootCertStore, ServerName, TlsConnector,
    install_default_crypto_provider, load_ca_file_into_store,
    load_platform_certs_incl_env_into_store,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::arrival::short;
use super::compose::{self, Outside};
use super::{Secrets, Settings, account, bounce, sign};
use crate::channel::{Account, Fault, Hub, Outgoing};
use crate::config::{Email, RelayTls};
use crate::store::{EmailMessageRow, OutboundRow, now_micros};
use crate::upstream::AddressGuard;

/// Until a relay is ready to take a message, and has agreed to. All three together are less than a
/// message that was taken up is held.
const CONNECT: Duration = Duration::from_secs(12);
const AGREE: Duration = Duration::from_secs(15);
const TAKE: Duration = Duration::from_secs(25);
/// What a server says is kept as far as here.
const MAX_SAID: usize = 300;

/// Cloudflare's submission server, to which an API token is a password:
/// <https://developers.cloudflare.com/email-service/api/send-emails/smtp/>.
const CLOUDFLARE: (&str, u16, &str) = ("smtp.mx.cloudflare.net", 465, "api_token");

/// Where mail leaves by.
pub struct Route {
    pub host: String,
    port: u16,
    tls: RelayTls,
    login: Option<(String, String)>,
    ca: Option<PathBuf>,
    /// Whether the operator named it; a tenant's is held against the address guard.
    is_trusted: bool,
}

impl Route {
    /// Of a tenant; `None`: there is none.
    pub fn of(settings: &Settings, secrets: &Secrets, config: &Email) -> Option<Self> {
        if let Some(host) = &settings.smtp_host {
            let tls = settings.smtp_tls.unwrap_or_default();
            let usual = match tls {
                RelayTls::Tls => 465,
                _ => 587,
            };
            return Some(Self {
                host: host.clone(),
                port: settings.smtp_port.unwrap_or(usual),
                tls,
                login: settings
                    .smtp_username
                    .clone()
                    .zip(secrets.smtp_password.clone()),
                ca: None,
                is_trusted: false,
            });
        }
        if let Some(token) = &secrets.cloudflare_api_token {
            let (host, port, user) = CLOUDFLARE;
            return Some(Self {
                host: host.to_owned(),
                port,
                tls: RelayTls::Tls,
                login: Some((user.to_owned(), token.clone())),
                ca: None,
                is_trusted: false,
            });
        }
        let relay = config.relay.as_ref()?;
        Some(Self {
            host: relay.host.clone(),
            port: relay.port,
            tls: relay.tls,
            login: relay.username.clone().zip(relay.password.clone()),
            ca: relay.ca.clone(),
            is_trusted: true,
        })
    }
}

/// Sends a message of the outbox, with files; answers its Message-ID.
pub async fn send(
    hub: &Hub,
    to: &OutboundRow,
    markdown: &str,
    files: &[Outgoing],
    key: &str,
) -> Result<String, Fault> {
    let Account { settings, secrets } = account(hub, &to.tenant_id).await?;
    let settings = Settings::of(&settings);
    let route = Route::of(&settings, &secrets, &hub.config.email).ok_or_else(|| {
        Fault::Never("email_unconfigured: mail has no way to leave by".to_owned())
    })?;
    let mut outside = outside(hub, to, &settings, markdown, key).await?;
    let recipient = outside.to.clone();
    if let Some(found) = hub.store.suppression(&to.tenant_id, &recipient).await? {
        let why = found.detail.unwrap_or_default();
        return Err(Fault::Never(format!(
            "{recipient} is on the suppression list ({}): {why}",
            found.reason
        )));
    }
    outside.from_name = settings.display_name.clone();
    let letter = compose::letter(&outside, markdown, files).map_err(Fault::Never)?;
    let (dkim, selector) = (&secrets.dkim_key, &settings.dkim_selector);
    let letter =
        sign::signed(letter, dkim, &settings.from_domain, selector).map_err(Fault::Never)?;
    // Before it is sent, so that an answer finds its conversation.
    let people = json!([recipient, outside.from]);
    hub.store
        .note_email(&EmailMessageRow {
            tenant_id: to.tenant_id.clone(),
            id: short(&outside.message_id),
            chat: to.chat.clone(),
            sender: String::new(),
            people: people.to_string(),
            outbound_id: Some(to.id.clone()),
            created_at: now_micros(),
        })
        .await?;
    match carry(hub, &route, &outside, &letter).await {
        Ok(()) => Ok(outside.message_id),
        Err(Refusal::Gone(why)) => {
            bounce::suppress(hub, &to.tenant_id, &recipient, &why).await?;
            Err(Fault::Never(why))
        }
        Err(Refusal::Other(fault)) => Err(fault),
    }
}

async fn outside(
    hub: &Hub,
    to: &OutboundRow,
    settings: &Settings,
    markdown: &str,
    key: &str,
) -> Result<Outside, Fault> {
    let place: Value = serde_json::from_str(&to.reply_to).unwrap_or_default();
    let text = |name: &str| place[name].as_str().map(str::to_owned);
    let recipient = text("to").ok_or_else(|| Fault::Never("it goes to nobody".to_owned()))?;
    let from = match text("mailbox").filter(|mailbox| settings.has(mailbox)) {
        Some(mailbox) => mailbox,
        None => {
            let deployment = hub
                .store
                .deployment(&to.tenant_id, &to.deployment_id)
                .await?;
            let address = deployment.and_then(|found| found.address);
            let own = address.filter(|address| settings.has(address));
            own.unwrap_or_else(|| settings.default_mailbox())
        }
    };
    let in_reply_to = text("in_reply_to");
    let subject = match (text("subject"), &in_reply_to) {
        (Some(subject), Some(_)) => compose::answer_to(&subject),
        (Some(subject), None) if !subject.is_empty() => subject,
        _ => compose::first_line(markdown),
    };
    let references = place["references"].as_array().into_iter().flatten();
    Ok(Outside {
        from: from.to_lowercase(),
        from_name: None,
        to: recipient,
        to_name: text("to_name"),
        subject,
        // The same for the same message: who gets it twice sees it once.
        message_id: format!("{key}@{}", settings.from_domain),
        in_reply_to,
        references: references
            .filter_map(|id| id.as_str().map(str::to_owned))
            .collect(),
    })
}

/// Why a relay did not take a message.
enum Refusal {
    /// Its recipient does not exist.
    Gone(String),
    Other(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Other(fault)
    }
}

fn late(what: &str) -> Fault {
    Fault::later(format!("email_send_failed: {what} took too long"))
}

fn told(error: &SmtpError) -> String {
    let said: String = error
        .to_string()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SAID)
        .collect();
    format!("email_send_failed: {said}")
}

/// Before a message was handed over: a "no" for ever is one, all else may go better.
fn before(error: &SmtpError) -> Fault {
    match error.is_permanent() {
        true => Fault::Never(told(error)),
        false => Fault::later(told(error)),
    }
}

async fn carry(hub: &Hub, route: &Route, outside: &Outside, letter: &[u8]) -> Result<(), Refusal> {
    let connecting = connect(hub, route);
    let mut connection = tokio::time::timeout(CONNECT, connecting)
        .await
        .map_err(|_| late("the mail server"))??;
    let agreed = tokio::time::timeout(AGREE, agree(&mut connection, outside)).await;
    let agreed = agreed.unwrap_or_else(|_| Err(late("the mail server").into()));
    if let Err(refusal) = agreed {
        // It may wait for a word that nobody says any more.
        let _ = tokio::time::timeout(Duration::from_secs(2), connection.abort()).await;
        return Err(refusal);
    }
    let taken = tokio::time::timeout(TAKE, connection.message(letter)).await;
    let taken = match taken {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(match error.status() {
            Some(_) => before(&error),
            // The relay may have taken it and not have been heard.
            None => Fault::Unknown(told(&error)),
        }),
        Err(_) => {
            let why = "email_send_failed: the mail server did not say whether it took the message";
            Err(Fault::Unknown(why.to_owned()))
        }
    };
    if !matches!(taken, Err(Fault::Unknown(_))) {
        let _ = tokio::time::timeout(Duration::from_secs(2), connection.quit()).await;
    }
    Ok(taken?)
}

async fn agree(connection: &mut AsyncSmtpConnection, outside: &Outside) -> Result<(), Refusal> {
    let address = |text: &str| {
        text.parse::<Address>()
            .map_err(|error| Fault::Never(format!("{text} is no address: {error}")))
    };
    let (from, to) = (address(&outside.from)?, address(&outside.to)?);
    let mut options = Vec::new();
    if !outside.from.is_ascii() || !outside.to.is_ascii() {
        let has = connection
            .server_info()
            .supports_feature(Extension::SmtpUtfEight);
        if !has {
            let why = "email_send_failed: the mail server takes no addresses beyond ASCII";
            return Err(Fault::Never(why.to_owned()).into());
        }
        options.push(MailParameter::SmtpUtfEight);
        options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let said = connection.command(Mail::new(Some(from), options)).await;
    said.map_err(|error| before(&error))?;
    if let Err(error) = connection.command(Rcpt::new(to, Vec::new())).await {
        let why = told(&error);
        let is_gone = error.is_permanent() && gone(&why);
        return Err(match is_gone {
            true => Refusal::Gone(why),
            false => Refusal::Other(before(&error)),
        });
    }
    let said = connection.command(Data).await;
    said.map_err(|error| before(&error))?;
    Ok(())
}

/// Whether a server's words hold a status that says that the address is none.
fn gone(said: &str) -> bool {
    let is_code = |c: char| c.is_ascii_digit() || c == '.';
    said.split(|c: char| !is_code(c)).any(bounce::is_gone)
}

async fn connect(hub: &Hub, route: &Route) -> Result<AsyncSmtpConnection, Fault> {
    let stream = dial(hub.upstream.guard(), route).await?;
    let name = ClientId::Domain(hub.config.email.hostname.clone());
    let failed = |error: SmtpError| Fault::later(told(&error));
    let broken = |why: String| Fault::later(format!("email_send_failed: {why}"));
    let stream: Box<dyn AsyncTokioStream> = match route.tls {
        RelayTls::Tls => Box::new(wrap(stream, route).await.map_err(broken)?),
        _ => Box::new(stream),
    };
    let mut connection = AsyncSmtpConnection::connect_with_transport(stream, &name)
        .await
        .map_err(failed)?;
    if route.tls == RelayTls::Starttls {
        let mut parameters = TlsParameters::builder(route.host.clone());
        if let Some(path) = &route.ca {
            let read = tokio::fs::read(path).await;
            let pem = read.map_err(|error| broken(format!("{}: {error}", path.display())))?;
            let found = Certificate::from_pem(&pem).map_err(failed)?;
            parameters = parameters.add_root_certificate(found);
        }
        let parameters = parameters.build().map_err(failed)?;
        connection
            .starttls(parameters, &name)
            .await
            .map_err(failed)?;
    }
    if let Some((user, password)) = &route.login {
        let credentials = Credentials::new(user.clone(), password.clone());
        connection
            .auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
            .await
            // A password may be set right.
            .map_err(failed)?;
    }
    Ok(connection)
}

/// Connects; the address that the guard has let through is the one that is connected to.
async fn dial(guard: &AddressGuard, route: &Route) -> Result<TcpStream, Fault> {
    let (host, port) = (route.host.as_str(), route.port);
    let found = tokio::net::lookup_host((host, port)).await;
    let found: Vec<SocketAddr> = found
        .map_err(|error| Fault::later(format!("email_send_failed: {host}: {error}")))?
        .collect();
    let mut why = format!("{host} has no address");
    for address in found {
        if !route.is_trusted
            && let Err(refused) = guard.check(address.ip())
        {
            why = refused.to_string();
            continue;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "this is not HTTP, and the address was held against the guard"
        )]
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = format!("{host}: {error}"),
        }
    }
    Err(Fault::later(format!("email_send_failed: {why}")))
}

/// TLS from the first byte.
#[derive(Debug)]
struct Wrapped(ClientTlsStream<TcpStream>);

async fn wrap(stream: TcpStream, route: &Route) -> Result<Wrapped, String> {
    install_default_crypto_provider();
    let mut roots = RootCertStore::empty();
    let loaded = load_platform_certs_incl_env_into_store(&mut roots);
    if let Err(error) = loaded
        && route.ca.is_none()
    {
        return Err(format!("the system's certificates cannot be read: {error}"));
    }
    if let Some(path) = &route.ca {
        load_ca_file_into_store(path, &mut roots).map_err(|error| error.to_string())?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(route.host.clone()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await;
    stream.map(Wrapped).map_err(|error| error.to_string())
}

impl tokio::io::AsyncRead for Wrapped {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl tokio::io::AsyncWrite for Wrapped {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl AsyncTokioStream for Wrapped {
    fn peer_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.get_ref().0.peer_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::gone;

    #[test]
    fn a_status_says_that_an_address_is_none() {
        assert!(gone(
            "permanent error (550): 5.1.1 <a@x.test>: no such user"
        ));
        assert!(!gone("permanent error (550): 5.7.1 refused, see 5.1.11"));
        assert!(!gone("permanent error (554): spam"));
    }
}
