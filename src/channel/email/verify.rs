//! Who mail is from: SPF (RFC 7208), DKIM (RFC 6376) and DMARC (RFC 9989) by `mail-auth`, or what the
//! hop found that received it and is trusted to say so.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mail_auth::dmarc::Policy;
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts,
};
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{
    AuthenticatedMessage, DkimResult, DmarcResult, MessageAuthenticator, SpfOutput, SpfResult,
};

use super::arrival::{Envelope, Found};
use crate::config::Email;

/// All lookups of a message together.
const PATIENCE: Duration = Duration::from_secs(15);
/// One lookup.
const LOOKUP: Duration = Duration::from_secs(3);
/// A message with more signatures is one without: each costs a reading of the whole.
const MAX_SIGNATURES: usize = 8;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The domain in From vouches for it.
    Verified,
    Unverified,
    /// The domain in From says that such mail is forged and to be refused.
    Forged,
    /// The DNS did not answer.
    Unknown,
}

/// What looks names up.
pub fn authenticator(config: &Email) -> Result<MessageAuthenticator, String> {
    let told = |error: &dyn std::fmt::Display| format!("names cannot be looked up: {error}");
    let Some(server) = config.name_server else {
        return MessageAuthenticator::new_system_conf().map_err(|error| told(&error));
    };
    let mut place = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut place.connections {
        let connection: &mut ConnectionConfig = connection;
        connection.port = server.port();
    }
    let mut options = ResolverOpts::default();
    options.timeout = LOOKUP;
    options.attempts = 2;
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![place]);
    MessageAuthenticator::new(config, options).map_err(|error| told(&error))
}

/// Looks into a message as it came over the wire. `from`: the address in its From.
pub async fn verify(
    authenticator: Arc<MessageAuthenticator>,
    raw: Vec<u8>,
    from: String,
    envelope: Envelope,
    hostname: String,
) -> Verdict {
    let runtime = tokio::runtime::Handle::current();
    // To hash a large message takes a while, which is nothing for a worker of the runtime.
    let looked = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            let found = look(&authenticator, &raw, &from, &envelope, &hostname);
            tokio::time::timeout(PATIENCE, found)
                .await
                .unwrap_or(Verdict::Unknown)
        })
    });
    looked.await.unwrap_or(Verdict::Unverified)
}

async fn look(
    authenticator: &MessageAuthenticator,
    raw: &[u8],
    from: &str,
    envelope: &Envelope,
    hostname: &str,
) -> Verdict {
    let Some((_, from_domain)) = from.rsplit_once('@') else {
        return Verdict::Unverified;
    };
    let has_many = signatures(raw) > MAX_SIGNATURES;
    let message = match has_many {
        true => None,
        false => AuthenticatedMessage::parse(raw),
    };
    let Some(message) = message else {
        return Verdict::Unverified;
    };
    let dkim = authenticator.verify_dkim(&message).await;
    let (spf, return_domain) = spf(authenticator, envelope, hostname).await;
    let dmarc = authenticator
        .verify_dmarc(DmarcParameters::new(&message, &dkim, &return_domain, &spf))
        .await;
    let passes = |result: &DmarcResult| *result == DmarcResult::Pass;
    if passes(dmarc.dkim_result()) || passes(dmarc.spf_result()) {
        return Verdict::Verified;
    }
    let is_unknown = |result: &DmarcResult| matches!(result, DmarcResult::TempError(_));
    let is_unsure = is_unknown(dmarc.dkim_result())
        || is_unknown(dmarc.spf_result())
        || spf.result() == SpfResult::TempError
        || dkim
            .iter()
            .any(|found| matches!(found.result(), DkimResult::TempError(_)));
    if dmarc.dmarc_record().is_none() {
        // A domain that says nothing of the kind: what is signed by it, or sent from where it sends.
        let is_signed = dkim.iter().any(|found| {
            *found.result() == DkimResult::Pass
                && found
                    .signature()
                    .is_some_and(|signature| vouches(&signature.d, from_domain))
        });
        let is_sent = spf.result() == SpfResult::Pass && vouches(&return_domain, from_domain);
        return match (is_signed || is_sent, is_unsure) {
            (true, _) => Verdict::Verified,
            (false, true) => Verdict::Unknown,
            (false, false) => Verdict::Unverified,
        };
    }
    match (is_unsure, dmarc.policy()) {
        (true, _) => Verdict::Unknown,
        // Without the server that brought it, half of the proof is not there.
        (false, Policy::Reject) if envelope.ip.is_some() => Verdict::Forged,
        _ => Verdict::Unverified,
    }
}

async fn spf(
    authenticator: &MessageAuthenticator,
    envelope: &Envelope,
    hostname: &str,
) -> (SpfOutput, String) {
    let (Some(ip), Some(from)) = (envelope.ip, &envelope.from) else {
        return (SpfOutput::new(String::new()), String::new());
    };
    let ip: IpAddr = ip.to_canonical();
    let helo = envelope.helo.as_deref().unwrap_or_default();
    match from.rsplit_once('@') {
        Some((_, domain)) => {
            let asked = SpfParameters::verify_mail_from(ip, helo, hostname, from);
            (authenticator.verify_spf(asked).await, domain.to_owned())
        }
        // A report has no return path: its server vouches for itself.
        None => {
            let asked = SpfParameters::verify_ehlo(ip, helo, hostname);
            (authenticator.verify_spf(asked).await, helo.to_owned())
        }
    }
}

/// How many signatures a message claims to have.
fn signatures(raw: &[u8]) -> usize {
    let end = memchr::memmem::find(raw, b"\r\n\r\n").unwrap_or(raw.len());
    let header = raw[..end].to_ascii_lowercase();
    memchr::memmem::find_iter(&header, b"dkim-signature:").count()
        + memchr::memmem::find_iter(&header, b"dkim2-signature:").count()
}

/// Whether a domain may vouch for mail from another: it is the same, or one above it.
fn vouches(domain: &str, from: &str) -> bool {
    let (domain, from) = (domain.to_ascii_lowercase(), from.to_ascii_lowercase());
    domain == from || (domain.contains('.') && from.ends_with(&format!(".{domain}")))
}

/// What a hop found that is trusted: its own words are enough.
pub fn told(found: &Found, from: &str, envelope: &Envelope) -> Verdict {
    let is_pass = |word: &Option<String>| {
        word.as_deref()
            .is_some_and(|word| word.trim().eq_ignore_ascii_case("pass"))
    };
    let from_domain = from.rsplit_once('@').map_or("", |(_, domain)| domain);
    let is_signed = is_pass(&found.dkim)
        && found
            .dkim_domain
            .as_deref()
            .is_some_and(|domain| vouches(domain, from_domain));
    let return_domain = envelope
        .from
        .as_deref()
        .and_then(|from| from.rsplit_once('@'));
    let is_sent = is_pass(&found.spf)
        && return_domain.is_some_and(|(_, domain)| vouches(domain, from_domain));
    let is_verified = match &found.dmarc {
        Some(_) => is_pass(&found.dmarc),
        None => is_signed || is_sent,
    };
    match is_verified {
        true => Verdict::Verified,
        false => Verdict::Unverified,
    }
}

/// What `Authentication-Results` (RFC 8601) of a hop say. `None`: the topmost are not of that hop, and
/// whoever wrote them may be the sender.
pub fn results(topmost: &str, hop: &str) -> Option<Found> {
    // Comments may hold anything.
    let mut depth = 0_usize;
    let plain: String = topmost
        .chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => {
                    depth = depth.saturating_sub(1);
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect();
    let mut parts = plain.split(';');
    let said = parts.next()?.split_whitespace().next()?;
    if !said.eq_ignore_ascii_case(hop) {
        return None;
    }
    let mut found = Found::default();
    for part in parts {
        let mut words = part.split_whitespace();
        let Some((method, result)) = words.next().and_then(|word| word.split_once('=')) else {
            continue;
        };
        let result = result.to_ascii_lowercase();
        match method
            .split('/')
            .next()
            .unwrap_or(method)
            .to_ascii_lowercase()
            .as_str()
        {
            "spf" => found.spf = found.spf.or(Some(result)),
            "dmarc" => found.dmarc = found.dmarc.or(Some(result)),
            "dkim" if found.dkim.as_deref() != Some("pass") => {
                let domain = words.find_map(|word| {
                    let (name, value) = word.split_once('=')?;
                    let value = value.trim_matches('"');
                    match name.to_ascii_lowercase().as_str() {
                        "header.d" => Some(value.to_ascii_lowercase()),
                        "header.i" => Some(value.rsplit('@').next()?.to_ascii_lowercase()),
                        _ => None,
                    }
                });
                found.dkim = Some(result);
                found.dkim_domain = domain;
            }
            _ => {}
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_the_receiving_hop_count_and_no_others() {
        let topmost = "mx.acme.test 1; spf=pass (x; dmarc=pass) smtp.mailfrom=b@x.test; \
                       dkim=fail header.d=a.test; dkim=pass header.i=@x.test; dmarc=fail";
        let found = results(topmost, "MX.acme.test").expect("of the hop");
        assert_eq!(
            (
                found.spf.as_deref(),
                found.dmarc.as_deref(),
                found.dkim_domain.as_deref()
            ),
            (Some("pass"), Some("fail"), Some("x.test"))
        );
        assert_eq!(results(topmost, "mx.other.test"), None);
        assert_eq!(results("", "mx"), None);
    }

    #[test]
    fn a_pass_of_another_domain_is_none() {
        let envelope = |from: &str| Envelope {
            from: Some(from.to_owned()),
            ..Envelope::default()
        };
        let pass = |dkim_domain: &str| Found {
            spf: Some("pass".to_owned()),
            dkim: Some("Pass".to_owned()),
            dkim_domain: Some(dkim_domain.to_owned()),
            dmarc: None,
        };
        let evil = envelope("b@evil.test");
        assert_eq!(
            told(&pass("evil.test"), "a@x.test", &evil),
            Verdict::Unverified
        );
        assert_eq!(told(&pass("x.test"), "a@x.test", &evil), Verdict::Verified);
        assert_eq!(
            told(&pass("x.test"), "a@m.x.test", &evil),
            Verdict::Verified
        );
        assert_eq!(told(&pass("test"), "a@x.test", &evil), Verdict::Unverified);
        let own = envelope("b@x.test");
        assert_eq!(
            told(&pass("evil.test"), "a@x.test", &own),
            Verdict::Verified
        );
        let failed = Found {
            dmarc: Some("fail".to_owned()),
            ..pass("x.test")
        };
        assert_eq!(told(&failed, "a@x.test", &own), Verdict::Unverified);
    }
}
