//! DKIM signatures of what leaves (RFC 6376). A tenant's key is made here and never leaves; RSA, since
//! Ed25519 (RFC 8463) is not read everywhere.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mail_auth::common::crypto::{RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::DkimSigner;
use pingora_core::tls::PrivateKeyDer;

/// The fields that are signed, those that a letter has not as well: nobody can add them on its way.
const FIELDS: [&str; 10] = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Auto-Submitted",
];

/// A new key.
pub struct Made {
    /// PKCS #8, in base64.
    pub key: String,
    /// What the DNS is to say.
    pub record: String,
}

/// Makes a key; that takes a while.
pub async fn make() -> Result<Made, String> {
    let made = tokio::task::spawn_blocking(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| "no key can be made")?;
        let key: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| "the key cannot be written")?;
        let public: PublicKeyX509Der<'_> = aws_lc_rs::signature::KeyPair::public_key(&pair)
            .as_der()
            .map_err(|_| "the key cannot be written")?;
        Ok::<_, &str>(Made {
            key: STANDARD.encode(key.as_ref()),
            record: format!("v=DKIM1; k=rsa; p={}", STANDARD.encode(public.as_ref())),
        })
    });
    made.await
        .map_err(|error| error.to_string())?
        .map_err(str::to_owned)
}

/// A letter with its signature above.
pub fn signed(letter: Vec<u8>, key: &str, domain: &str, selector: &str) -> Result<Vec<u8>, String> {
    let told = |error: &dyn std::fmt::Display| format!("the letter cannot be signed: {error}");
    let key = STANDARD.decode(key).map_err(|error| told(&error))?;
    let key = PrivateKeyDer::Pkcs8(key.into());
    let key = RsaKey::<Sha256>::from_key_der(key).map_err(|error| told(&error))?;
    let signature = DkimSigner::from_key(key)
        .domain(domain)
        .selector(selector)
        .headers(FIELDS)
        .sign(&letter)
        .map_err(|error| told(&error))?;
    let mut all = signature.to_header().into_bytes();
    all.extend(letter);
    Ok(all)
}
