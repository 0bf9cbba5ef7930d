//! Who is calling: tokens minted here, verified here, revoked here (`conventions.md`, "Tokens").
//!
//! Lives here: scopes, signing keys and JWKS, minting, verification with its cache, revocation;
//! virtual keys (`virtual_keys`) and what they may do (`rights`); what comes out is a [`Principal`]. May import `store`, `bus`, `secrets`, `ids`,
//! `error`.

mod keys;
mod principal;
mod rights;
mod scopes;
mod verify;
mod virtual_keys;

pub use keys::{KeyError, SigningKeys};
pub use principal::{Principal, Role, SMITH_HEADER, THREAD_HEADER, named_smith};
pub use rights::{AsUse, Rights, Use, model_not_allowed, uses};
pub use scopes::{AsScope, Scope, ScopeSet, scope};
pub use verify::{Auth, Mint, Minted, MintedScope};
pub use virtual_keys::{VirtualKeys, digest_of};

/// The handle before a tenant-admin token's JWT.
pub const ADMIN_PREFIX: &str = "tha_live_";
/// The handle before a smith token's JWT.
pub const SMITH_PREFIX: &str = "thp_live_";
/// The handle before an organization key's JWT.
pub const ORGANIZATION_PREFIX: &str = "tho_live_";
/// The handle before a virtual key's secret.
pub const VIRTUAL_KEY_PREFIX: &str = "sk-sg-";
/// The marker scope of organization keys.
pub const ORGANIZATION_ALL: &str = "organization:*";
/// The marker scope of tenant-admin tokens; never a legal permission of a smith token.
pub const TENANT_ALL: &str = "tenant:*";
/// The longest life of a smith token, in seconds.
pub const SMITH_TOKEN_MAX_SECONDS: i64 = 86_400;
/// The longest life of any token, in seconds.
pub const TOKEN_MAX_SECONDS: i64 = 315_360_000;
