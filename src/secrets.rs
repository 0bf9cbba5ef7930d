//! Envelope encryption of secrets at rest.
//!
//! Lives here: [`Vault`]. Each value has its own data key (AES-256-GCM), wrapped by the master
//! key; both bind the owner as associated data, so that a row moved to another tenant does not
//! open. Imports nothing of ours.
//!
//! `aws-lc-rs` because it is the maintained, validated implementation that the token signing
//! (`jsonwebtoken`) already brings along.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use zeroize::Zeroizing;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const VERSION: u8 = 1;
const HEADER_LEN: usize = 1 + NONCE_LEN + KEY_LEN + TAG_LEN + NONCE_LEN;

/// Why a secret cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    #[error("the master key must be 32 bytes in base64")]
    BadMasterKey,
    #[error("no randomness available")]
    NoRandomness,
    #[error("the sealed value does not open with this master key and owner")]
    DoesNotOpen,
}

/// Seals and opens secrets with one master key.
pub struct Vault {
    master: LessSafeKey,
    random: SystemRandom,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

fn key(bytes: &[u8]) -> Result<LessSafeKey, VaultError> {
    UnboundKey::new(&AES_256_GCM, bytes)
        .map(LessSafeKey::new)
        .map_err(|_| VaultError::BadMasterKey)
}

impl Vault {
    /// From 32 bytes in base64 (standard alphabet).
    pub fn from_base64(master: &str) -> Result<Self, VaultError> {
        let bytes = Zeroizing::new(
            base64::engine::general_purpose::STANDARD
                .decode(master.trim())
                .map_err(|_| VaultError::BadMasterKey)?,
        );
        Ok(Self {
            master: key(&bytes)?,
            random: SystemRandom::new(),
        })
    }

    /// A new random master key in base64.
    pub fn generate_master() -> Result<Zeroizing<String>, VaultError> {
        let mut bytes = Zeroizing::new([0u8; KEY_LEN]);
        SystemRandom::new()
            .fill(&mut *bytes)
            .map_err(|_| VaultError::NoRandomness)?;
        Ok(Zeroizing::new(
            base64::engine::general_purpose::STANDARD.encode(*bytes),
        ))
    }

    fn nonce(&self) -> Result<[u8; NONCE_LEN], VaultError> {
        let mut nonce = [0u8; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| VaultError::NoRandomness)?;
        Ok(nonce)
    }

    /// Seals `secret` for `owner` (for example `tenant/model_key/openai`).
    pub fn seal(&self, owner: &str, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        let mut data_key = Zeroizing::new([0u8; KEY_LEN]);
        self.random
            .fill(&mut *data_key)
            .map_err(|_| VaultError::NoRandomness)?;
        let (wrap_nonce, data_nonce) = (self.nonce()?, self.nonce()?);
        let mut wrapped = data_key.to_vec();
        self.master
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(wrap_nonce),
                Aad::from(owner.as_bytes()),
                &mut wrapped,
            )
            .map_err(|_| VaultError::NoRandomness)?;
        let mut body = secret.to_vec();
        key(&*data_key)?
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(data_nonce),
                Aad::from(owner.as_bytes()),
                &mut body,
            )
            .map_err(|_| VaultError::NoRandomness)?;
        let mut sealed = Vec::with_capacity(HEADER_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&wrap_nonce);
        sealed.extend_from_slice(&wrapped);
        sealed.extend_from_slice(&data_nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what [`Vault::seal`] made for the same `owner`.
    pub fn open(&self, owner: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        if sealed.len() < HEADER_LEN + TAG_LEN || sealed[0] != VERSION {
            return Err(VaultError::DoesNotOpen);
        }
        let (wrap_nonce, rest) = sealed[1..].split_at(NONCE_LEN);
        let (wrapped, rest) = rest.split_at(KEY_LEN + TAG_LEN);
        let (data_nonce, body) = rest.split_at(NONCE_LEN);
        let data_key = open_with(&self.master, owner, wrap_nonce, wrapped)?;
        let data_key = key(&data_key).map_err(|_| VaultError::DoesNotOpen)?;
        open_with(&data_key, owner, data_nonce, body)
    }
}

fn open_with(
    key: &LessSafeKey,
    owner: &str,
    nonce: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| VaultError::DoesNotOpen)?;
    let mut buf = Zeroizing::new(sealed.to_vec());
    let len = key
        .open_in_place(nonce, Aad::from(owner.as_bytes()), &mut buf)
        .map_err(|_| VaultError::DoesNotOpen)?
        .len();
    buf.truncate(len);
    Ok(buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault() -> Vault {
        Vault::from_base64(&Vault::generate_master().expect("randomness")).expect("a vault")
    }

    #[test]
    fn opens_only_for_its_owner_and_key() {
        let vault = vault();
        let sealed = vault.seal("proj_a/openai", b"sk-secret").expect("sealed");
        assert_eq!(
            vault
                .open("proj_a/openai", &sealed)
                .expect("opens")
                .as_slice(),
            b"sk-secret"
        );
        assert!(!sealed.windows(9).any(|w| w == b"sk-secret"));
        assert_eq!(
            vault.open("proj_b/openai", &sealed).err(),
            Some(VaultError::DoesNotOpen)
        );
        assert!(
            super::tests::vault()
                .open("proj_a/openai", &sealed)
                .is_err()
        );
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 1;
            assert!(vault.open("proj_a/openai", &bent).is_err(), "byte {at}");
        }
        assert!(vault.open("proj_a/openai", &sealed[..20]).is_err());
    }

    #[test]
    fn short_master_keys_are_refused() {
        assert_eq!(
            Vault::from_base64("c2hvcnQ=").err(),
            Some(VaultError::BadMasterKey)
        );
    }
}
