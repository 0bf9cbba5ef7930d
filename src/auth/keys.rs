//! Signing keys: RSA, private part sealed in the store, public parts served as a JWKS. The newest
//! signs; all verify, so that keys can rotate.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Value, json};

use crate::ids;
use crate::secrets::{Vault, VaultError};
use crate::store::{SigningKeyRow, Store, StoreError, now_micros};

const OWNER: &str = "signing_key";

/// Why signing keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "secrets.master_key: this is not the key that the store was sealed with ({0}); nothing was changed"
    )]
    Sealed(#[from] VaultError),
    #[error("a signing key cannot be made or read")]
    Broken,
}

/// The keys of this installation.
pub struct SigningKeys {
    pub(super) signing: EncodingKey,
    pub(super) kid: String,
    pub(super) verifying: HashMap<String, DecodingKey>,
    jwks: Value,
}

impl SigningKeys {
    /// Loads the keys, making the first one when there is none.
    pub async fn load(store: &Arc<dyn Store>, vault: &Vault) -> Result<Self, KeyError> {
        let mut rows = store.signing_keys().await?;
        if rows.is_empty() {
            let row = generate(vault)?;
            store.add_signing_key(&row).await?;
            rows = store.signing_keys().await?;
        }
        let newest = rows.first().ok_or(KeyError::Broken)?;
        let pkcs8 = vault.open(OWNER, &newest.sealed)?;
        let pem = zeroize::Zeroizing::new(format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(&*pkcs8)
        ));
        let signing = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| KeyError::Broken)?;
        let mut verifying = HashMap::new();
        let mut keys = Vec::new();
        for row in &rows {
            let jwk: Value = serde_json::from_str(&row.jwk).map_err(|_| KeyError::Broken)?;
            let part = |name: &str| jwk[name].as_str().unwrap_or_default().to_owned();
            let key = DecodingKey::from_rsa_components(&part("n"), &part("e"))
                .map_err(|_| KeyError::Broken)?;
            verifying.insert(row.kid.clone(), key);
            keys.push(jwk);
        }
        Ok(Self {
            signing,
            kid: newest.kid.clone(),
            verifying,
            jwks: json!({ "keys": keys }),
        })
    }

    /// The public keys (RFC 7517).
    pub fn jwks(&self) -> &Value {
        &self.jwks
    }
}

fn generate(vault: &Vault) -> Result<SigningKeyRow, KeyError> {
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Broken)?;
    let private: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Broken)?;
    let public = pair.public_key();
    let kid = ids::mint(ids::Kind::Key);
    let jwk = json!({
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": kid,
        "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
        "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
    });
    Ok(SigningKeyRow {
        kid,
        sealed: vault.seal(OWNER, private.as_ref())?,
        jwk: jwk.to_string(),
        created_at: now_micros(),
    })
}
