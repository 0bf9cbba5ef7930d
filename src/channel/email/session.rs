//! A conversation with another mail server (RFC 5321): what it may say, and what it is told.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pingora_core::tls::TlsAcceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::arrival::{self, Coming, Envelope, Form, Found};
use super::data::{Data, Step};
use super::limits::{Limits, UNIT, counted};
use crate::channel::Hub;
use crate::config::Email;
use crate::untrusted::mail;

/// A command with its arguments, in bytes; more than RFC 5321 asks for, since SMTPUTF8 takes more.
const MAX_LINE: usize = 2048;
/// Of a message's header, in bytes.
pub const MAX_HEADER: usize = 256 * 1024;
/// Servers that a message has passed: more are a loop (RFC 5321, section 6.3).
const MAX_HOPS: usize = 50;
/// Commands that are none, or do not fit, until the connection is closed.
const MAX_FAULTS: usize = 10;
/// Commands of a connection; mail servers need a handful for each message.
const MAX_COMMANDS: usize = 1000;
/// A whole connection.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// The content of one message.
const DATA: Duration = Duration::from_secs(10 * 60);
const HANDSHAKE: Duration = Duration::from_secs(20);
const WRITE: Duration = Duration::from_secs(30);

/// Where the header of a message ends, at most [`MAX_HEADER`] bytes.
pub fn header_end(raw: &[u8]) -> usize {
    let lines = memchr::memmem::find(raw, b"\r\n\r\n").map(|at| at + 4);
    let bare = memchr::memmem::find(raw, b"\n\n").map(|at| at + 2);
    let end = lines.into_iter().chain(bare).min().unwrap_or(raw.len());
    end.min(MAX_HEADER)
}

/// Talks to a server until it goes.
pub async fn run(
    hub: &Hub,
    limits: &Limits,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
    peer: IpAddr,
) {
    let end = Instant::now() + LONGEST;
    let mut session = Session {
        hub,
        limits,
        config: &hub.config.email,
        peer,
        offers_tls: tls.is_some(),
        is_tls: false,
        helo: None,
        from: None,
        to: Vec::new(),
        faults: 0,
        commands: 0,
        end,
    };
    let hostname = &session.config.hostname;
    let greeting = format!("220 {hostname} ESMTP Smithgate\r\n");
    let mut wire = Wire::new(stream, session.config, end);
    if wire.write(&greeting).await.is_err() {
        return;
    }
    let is_done = !matches!(session.talk(&mut wire).await, Ok(After::Tls));
    let (false, Some(tls)) = (is_done, tls) else {
        return;
    };
    let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(wire.stream)).await;
    let Ok(Ok(stream)) = handshake else {
        return;
    };
    // RFC 3207, section 4.2: nothing that was said before counts.
    (session.helo, session.is_tls, session.offers_tls) = (None, true, false);
    session.reset();
    let mut wire = Wire::new(stream, session.config, end);
    let _ = session.talk(&mut wire).await;
}

/// What follows a conversation.
enum After {
    Nothing,
    Tls,
}

/// Why a connection is closed.
#[derive(Debug)]
enum Gone {
    /// It is broken, or was closed.
    Broken,
    /// Its other side was silent.
    Silent,
    /// A line was too long, or ended with something else than CR LF.
    Line,
}

/// A connection, read line by line.
struct Wire<S> {
    stream: S,
    read: BytesMut,
    patience: Duration,
    end: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire<S> {
    fn new(stream: S, config: &Email, end: Instant) -> Self {
        Self {
            stream,
            read: BytesMut::with_capacity(4096),
            patience: Duration::from_secs(config.timeout_s),
            end,
        }
    }

    async fn more(&mut self, until: Instant) -> Result<(), Gone> {
        let until = until.min(self.end).min(Instant::now() + self.patience);
        self.read.reserve(16 * 1024);
        let reading = self.stream.read_buf(&mut self.read);
        match tokio::time::timeout_at(until, reading).await {
            Ok(Ok(0) | Err(_)) => Err(Gone::Broken),
            Ok(Ok(_)) => Ok(()),
            Err(_) => Err(Gone::Silent),
        }
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<BytesMut, Gone> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.read) {
                let mut line = self.read.split_to(at + 1);
                let is_whole = line.ends_with(b"\r\n");
                line.truncate(at.saturating_sub(usize::from(is_whole)));
                let is_sane = is_whole && line.len() <= MAX_LINE && !line.contains(&b'\r');
                return is_sane.then_some(line).ok_or(Gone::Line);
            }
            if self.read.len() > MAX_LINE {
                return Err(Gone::Line);
            }
            self.more(self.end).await?;
        }
    }

    async fn write(&mut self, text: &str) -> Result<(), Gone> {
        let writing = async {
            self.stream.write_all(text.as_bytes()).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(WRITE, writing).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone::Broken),
        }
    }
}

struct Session<'a> {
    hub: &'a Hub,
    limits: &'a Limits,
    config: &'a Email,
    peer: IpAddr,
    offers_tls: bool,
    is_tls: bool,
    helo: Option<String>,
    /// The return path of the message that is being sent; empty: none.
    from: Option<String>,
    /// Tenants and their addresses.
    to: Vec<(String, String)>,
    faults: usize,
    commands: usize,
    end: Instant,
}

const BAD_SEQUENCE: &str = "503 5.5.1 Bad sequence of commands";

impl Session<'_> {
    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }

    async fn talk<S>(&mut self, wire: &mut Wire<S>) -> Result<After, Gone>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let hostname = self.config.hostname.clone();
        loop {
            let line = match wire.line().await {
                Ok(line) => line,
                Err(gone) => {
                    let reply = match gone {
                        Gone::Broken => return Err(gone),
                        Gone::Silent => format!("421 4.4.2 {hostname} Timeout\r\n"),
                        Gone::Line => {
                            "500 5.5.2 Line too long or not ended by CR LF\r\n".to_owned()
                        }
                    };
                    wire.write(&reply).await?;
                    return Err(gone);
                }
            };
            self.commands += 1;
            if self.commands > MAX_COMMANDS || self.faults >= MAX_FAULTS {
                let reply = format!("421 4.7.0 {hostname} Too many commands\r\n");
                wire.write(&reply).await?;
                return Ok(After::Nothing);
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let rest = rest.trim();
            let reply = match verb.to_ascii_uppercase().as_str() {
                "EHLO" | "HELO" => self.hello(verb, rest),
                "MAIL" => self.mail(rest),
                "RCPT" => self.rcpt(rest).await,
                "DATA" if rest.is_empty() => match self.may_send() {
                    Ok(()) => {
                        let (reply, goes_on) = self.data(wire).await?;
                        self.reset();
                        wire.write(&format!("{reply}\r\n")).await?;
                        if !goes_on {
                            return Ok(After::Nothing);
                        }
                        continue;
                    }
                    Err(reply) => reply,
                },
                "STARTTLS" if self.offers_tls && rest.is_empty() => {
                    if !wire.read.is_empty() {
                        // Said in the clear, it would count as said under TLS.
                        wire.write("501 5.5.2 Nothing may follow STARTTLS\r\n")
                            .await?;
                        return Ok(After::Nothing);
                    }
                    wire.write("220 2.0.0 Ready to start TLS\r\n").await?;
                    return Ok(After::Tls);
                }
                "RSET" => {
                    self.reset();
                    "250 2.0.0 Ok".to_owned()
                }
                "NOOP" => "250 2.0.0 Ok".to_owned(),
                "VRFY" => "252 2.5.0 Send some mail, and see".to_owned(),
                "HELP" => "214 2.0.0 RFC 5321".to_owned(),
                "QUIT" => {
                    wire.write(&format!("221 2.0.0 {hostname} Bye\r\n")).await?;
                    return Ok(After::Nothing);
                }
                "EXPN" | "AUTH" | "BDAT" | "ETRN" | "TURN" | "STARTTLS" => {
                    "502 5.5.1 Command not implemented".to_owned()
                }
                _ => "500 5.5.2 Command not recognized".to_owned(),
            };
            if reply.starts_with('5') {
                self.faults += 1;
            }
            wire.write(&format!("{reply}\r\n")).await?;
        }
    }

    fn hello(&mut self, verb: &str, name: &str) -> String {
        let is_name = |c: char| c.is_ascii_alphanumeric() || ".-[]:_".contains(c);
        let name = name.split_whitespace().next().unwrap_or_default();
        if name.is_empty() || name.len() > 255 || !name.chars().all(is_name) {
            return "501 5.5.4 Say your name".to_owned();
        }
        self.helo = Some(name.to_ascii_lowercase());
        self.reset();
        let hostname = &self.config.hostname;
        if verb.eq_ignore_ascii_case("HELO") {
            return format!("250 {hostname}");
        }
        let size = self.config.max_message_bytes;
        let tls = match self.offers_tls {
            true => "250-STARTTLS\r\n",
            false => "",
        };
        format!(
            "250-{hostname}\r\n250-PIPELINING\r\n250-SIZE {size}\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
             {tls}250 ENHANCEDSTATUSCODES"
        )
    }

    fn mail(&mut self, rest: &str) -> String {
        if self.helo.is_none() || self.from.is_some() {
            return BAD_SEQUENCE.to_owned();
        }
        let Some((path, parameters)) = path(rest, "FROM:") else {
            return "501 5.5.4 Syntax: MAIL FROM:<address>".to_owned();
        };
        for parameter in parameters.split_whitespace() {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name.to_ascii_uppercase().as_str() {
                "SIZE" => match value.parse::<usize>() {
                    Ok(size) if size > self.config.max_message_bytes => {
                        return "552 5.3.4 Message too large".to_owned();
                    }
                    Ok(_) => {}
                    Err(_) => return "501 5.5.4 SIZE is no number".to_owned(),
                },
                "BODY" if ["7BIT", "8BITMIME"].contains(&value.to_ascii_uppercase().as_str()) => {}
                "SMTPUTF8" => {}
                _ => return "555 5.5.4 Parameter not recognized".to_owned(),
            }
        }
        let from = match path {
            "" => String::new(),
            path => match mail::address_of(path) {
                Some(address) => address,
                None => return "553 5.1.7 That is no address".to_owned(),
            },
        };
        if !self.limits.count(counted(self.peer)) {
            return "450 4.7.1 Too many messages, try again later".to_owned();
        }
        self.from = Some(from);
        "250 2.1.0 Ok".to_owned()
    }

    async fn rcpt(&mut self, rest: &str) -> String {
        if self.from.is_none() {
            return BAD_SEQUENCE.to_owned();
        }
        let Some((path, parameters)) = path(rest, "TO:") else {
            return "501 5.5.4 Syntax: RCPT TO:<address>".to_owned();
        };
        if !parameters.trim().is_empty() {
            return "555 5.5.4 Parameter not recognized".to_owned();
        }
        let Some(address) = mail::address_of(path) else {
            return "553 5.1.3 That is no address".to_owned();
        };
        if self.to.len() >= self.config.max_recipients {
            return "452 4.5.3 Too many recipients".to_owned();
        }
        let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
        match self.hub.store.tenant_of_email_domain(domain).await {
            Ok(Some(tenant)) => {
                let one = (tenant, address);
                if !self.to.contains(&one) {
                    self.to.push(one);
                }
                "250 2.1.5 Ok".to_owned()
            }
            Ok(None) => "550 5.7.1 Relaying denied".to_owned(),
            Err(error) => {
                tracing::warn!(%error, "whose a domain is cannot be looked up");
                "451 4.3.0 Try again later".to_owned()
            }
        }
    }

    fn may_send(&self) -> Result<(), String> {
        match (&self.from, self.to.is_empty()) {
            (None, _) => Err(BAD_SEQUENCE.to_owned()),
            (Some(_), true) => Err("554 5.5.1 No valid recipients".to_owned()),
            (Some(_), false) => Ok(()),
        }
    }

    /// Takes the content of a message; the reply, and whether the conversation goes on.
    async fn data<S>(&mut self, wire: &mut Wire<S>) -> Result<(String, bool), Gone>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        wire.write("354 End data with <CR><LF>.<CR><LF>\r\n")
            .await?;
        let until = (Instant::now() + DATA).min(self.end);
        let mut data = Data::new(self.config.max_message_bytes);
        let mut memory: Option<OwnedSemaphorePermit> = None;
        let (mut held, mut has_room) = (0, true);
        loop {
            match data.feed(&wire.read) {
                Step::More => wire.read.clear(),
                Step::End(read) => {
                    wire.read.advance(read);
                    break;
                }
                Step::Bare => {
                    // Where it ends cannot be known any more.
                    let reply = "554 5.6.0 A line must end with CR LF, and hold neither alone";
                    return Ok((reply.to_owned(), false));
                }
            }
            let wanted = data.content.len().div_ceil(UNIT).saturating_sub(held);
            if has_room && wanted > 0 {
                let units = u32::try_from(wanted).unwrap_or(u32::MAX);
                match (
                    self.limits.memory.clone().try_acquire_many_owned(units),
                    &mut memory,
                ) {
                    (Ok(more), Some(memory)) => memory.merge(more),
                    (Ok(more), memory) => *memory = Some(more),
                    (Err(_), memory) => {
                        // What is on its way is read to its end, and not kept.
                        (has_room, *memory) = (false, None);
                        data = Data::full(data);
                    }
                }
                held += wanted;
            }
            wire.more(until).await?;
        }
        if !has_room {
            let reply = "452 4.3.1 Too much mail at once, try again later";
            return Ok((reply.to_owned(), true));
        }
        if data.is_too_large {
            return Ok(("552 5.3.4 Message too large".to_owned(), true));
        }
        let kept = self.keep(&data.content).await;
        drop(memory);
        Ok((kept, true))
    }

    /// Keeps a message; only then is it said to be taken.
    async fn keep(&self, content: &[u8]) -> String {
        let end = header_end(content);
        if end >= MAX_HEADER {
            return "554 5.6.0 The header is too large".to_owned();
        }
        let head = mail::head(&content[..end]);
        if head.hops > MAX_HOPS {
            return "554 5.4.6 Too many hops".to_owned();
        }
        let envelope = Envelope {
            from: self.from.clone(),
            ip: Some(self.peer.to_canonical()),
            helo: self.helo.clone(),
            tls: self.is_tls,
        };
        let mut tenants: Vec<&String> = self.to.iter().map(|(tenant, _)| tenant).collect();
        tenants.sort();
        tenants.dedup();
        for tenant in tenants {
            let of_tenant = self.to.iter().filter(|(found, _)| found == tenant);
            let mailboxes: Vec<String> = of_tenant.map(|(_, address)| address.clone()).collect();
            let coming = Coming {
                form: Form::Mime,
                content,
                head: head.clone(),
                mailboxes: &mailboxes,
                envelope: envelope.clone(),
                found: Found::default(),
            };
            if let Err(error) = arrival::accept(self.hub, tenant, coming).await {
                // Sent again, what is kept already is the same.
                tracing::warn!(%error, "a message is not kept");
                return "451 4.3.0 Not stored, try again later".to_owned();
            }
        }
        "250 2.0.0 Ok: kept".to_owned()
    }
}

/// The address between angle brackets after a word, and what follows it. Routes (`<@a,@b:user@c>`) are
/// left out, as RFC 5321 says.
fn path<'a>(text: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let begin = text.get(..word.len())?;
    if !begin.eq_ignore_ascii_case(word) {
        return None;
    }
    let rest = text[word.len()..].trim_start().strip_prefix('<')?;
    let (path, parameters) = rest.split_once('>')?;
    let path = match path.strip_prefix('@') {
        Some(route) => route.split_once(':')?.1,
        None => path,
    };
    (parameters.is_empty() || parameters.starts_with(' ')).then_some((path, parameters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_between_brackets() {
        assert_eq!(path("FROM:<a@b.c>", "FROM:"), Some(("a@b.c", "")));
        assert_eq!(
            path("from: <a@b.c> SIZE=1", "FROM:"),
            Some(("a@b.c", " SIZE=1"))
        );
        assert_eq!(path("FROM:<>", "FROM:"), Some(("", "")));
        assert_eq!(path("TO:<@x,@y:a@b.c>", "TO:"), Some(("a@b.c", "")));
        for bad in [
            "FROM:a@b.c",
            "FROM:<a@b.c",
            "FROM",
            "TO:<a@b.c>",
            "FROM:<a>x",
        ] {
            assert_eq!(path(bad, "FROM:"), None, "{bad}");
        }
    }

    #[test]
    fn a_header_ends_somewhere() {
        assert_eq!(header_end(b"A: b\r\n\r\nbody"), 8);
        assert_eq!(header_end(b"A: b\n\nbody\r\n\r\n"), 6);
        assert_eq!(header_end(b"A: b"), 4);
        assert_eq!(header_end(&[b'x'; MAX_HEADER * 2]), MAX_HEADER);
    }
}
