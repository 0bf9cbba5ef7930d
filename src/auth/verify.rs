//! Minting and verification. A verified token is cached under its hash; expiry and revocation are
//! looked at on every call.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};

use super::*;
use crate::bus::{Bus, Notice};
use crate::error::ApiError;
use crate::ids;
use crate::metrics::Metrics;
use crate::store::{GrantsOf, OrganizationKeyRow, Store, TokenRow, now_micros, now_seconds};

/// How often nodes look for revocations made elsewhere; well within the 5 s of the contract.
const REVOCATION_POLL: Duration = Duration::from_secs(2);
/// Longer bearers are refused unread.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    scopes: Vec<String>,
    jti: String,
    iat: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

/// What a new token is for.
#[derive(Debug, Clone)]
pub enum MintedScope {
    Admin,
    Smith { smith_id: String, scopes: ScopeSet },
}

/// A request for a token.
#[derive(Debug, Clone)]
pub struct Mint {
    pub tenant_id: String,
    pub scope: MintedScope,
    pub ttl_seconds: Option<i64>,
    pub name: Option<String>,
}

/// A new token; the only time its secret is seen.
#[derive(Debug)]
pub struct Minted {
    pub row: TokenRow,
    pub scopes: Vec<String>,
    pub token: String,
}

/// Mints, verifies and revokes.
pub struct Auth {
    keys: SigningKeys,
    issuer: String,
    store: Arc<dyn Store>,
    bus: Bus,
    verified: moka::sync::Cache<[u8; 32], Arc<Principal>>,
    revoked: ArcSwap<HashSet<String>>,
    pub virtual_keys: VirtualKeys,
    validation: Validation,
    metrics: Metrics,
}

impl Auth {
    /// Loads the revocations so far.
    pub async fn new(
        keys: SigningKeys,
        config: &crate::config::Auth,
        store: Arc<dyn Store>,
        bus: Bus,
        metrics: Metrics,
    ) -> Result<Self, crate::store::StoreError> {
        let revoked = store.revoked_since(0).await?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.required_spec_claims.clear();
        // Expiry is looked at on every call, cached or not; see `check`.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_issuer(&[&config.issuer]);
        let virtual_keys = VirtualKeys::new(
            store.clone(),
            bus.clone(),
            config.cache_entries,
            metrics.clone(),
        );
        Ok(Self {
            keys,
            issuer: config.issuer.clone(),
            virtual_keys,
            store,
            bus,
            verified: moka::sync::Cache::builder()
                .max_capacity(config.cache_entries)
                .time_to_idle(Duration::from_secs(3600))
                .build(),
            revoked: ArcSwap::from_pointee(revoked.into_iter().map(|(id, _)| id).collect()),
            validation,
            metrics,
        })
    }

    /// The public keys.
    pub fn jwks(&self) -> &serde_json::Value {
        self.keys.jwks()
    }

    /// Verifies the value of an `Authorization` header.
    pub async fn authenticate(&self, header: Option<&[u8]>) -> Result<Arc<Principal>, ApiError> {
        let header = header
            .ok_or_else(|| ApiError::unauthenticated("the Authorization header is missing"))?;
        let bearer = match header.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"bearer ") => rest.trim_ascii(),
            _ => {
                return Err(ApiError::unauthenticated(
                    "the Authorization header must be 'Bearer <token>'",
                ));
            }
        };
        self.caller(bearer).await
    }

    /// Verifies a token, or a virtual key.
    pub async fn caller(&self, token: &[u8]) -> Result<Arc<Principal>, ApiError> {
        match VirtualKeys::is_one(token) {
            true => self.virtual_keys.verify(token).await,
            false => self.verify(token),
        }
    }

    /// Verifies a token with its `tha_live_` or `thp_live_` handle.
    pub fn verify(&self, token: &[u8]) -> Result<Arc<Principal>, ApiError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(ApiError::unauthenticated(
                "this is no token of this gateway",
            ));
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
        let mut key = [0u8; 32];
        key.copy_from_slice(digest.as_ref());
        if let Some(principal) = self.verified.get(&key) {
            self.metrics.token_cache_hits.inc();
            self.check(&principal)?;
            return Ok(principal);
        }
        self.metrics.token_cache_misses.inc();
        let principal = Arc::new(self.verify_signature(token)?);
        self.check(&principal)?;
        self.verified.insert(key, principal.clone());
        Ok(principal)
    }

    fn check(&self, principal: &Principal) -> Result<(), ApiError> {
        if principal.expires_at.is_some_and(|at| at <= now_seconds()) {
            return Err(ApiError::unauthenticated("this token has expired"));
        }
        let revoked = self.revoked.load();
        if !revoked.is_empty() && revoked.contains(&*principal.token_id) {
            return Err(ApiError::unauthenticated("this token has been revoked"));
        }
        Ok(())
    }

    fn verify_signature(&self, token: &[u8]) -> Result<Principal, ApiError> {
        let bad = || ApiError::unauthenticated("this is no valid token of this gateway");
        let token = std::str::from_utf8(token).map_err(|_| bad())?;
        let (handle, jwt) = [ADMIN_PREFIX, SMITH_PREFIX, ORGANIZATION_PREFIX]
            .into_iter()
            .find_map(|handle| Some((handle, token.strip_prefix(handle)?)))
            .ok_or_else(bad)?;
        let header = jsonwebtoken::decode_header(jwt).map_err(|_| bad())?;
        let key = header
            .kid
            .as_deref()
            .and_then(|kid| self.keys.verifying.get(kid))
            .ok_or_else(bad)?;
        let claims = jsonwebtoken::decode::<Claims>(jwt, key, &self.validation)
            .map_err(|_| bad())?
            .claims;
        let marked = |marker: &str| claims.scopes.iter().any(|s| s == marker);
        let (tenant_id, role) = match (handle, claims.sub.split_once(':')) {
            (ADMIN_PREFIX, None) if marked(TENANT_ALL) => (claims.sub.as_str(), Role::TenantAdmin),
            (ORGANIZATION_PREFIX, None) if marked(ORGANIZATION_ALL) => {
                (claims.sub.as_str(), Role::Organization)
            }
            (SMITH_PREFIX, Some((tenant, smith_id))) => {
                let scopes = claims
                    .scopes
                    .iter()
                    .filter_map(|s| s.parse().ok())
                    .collect();
                let smith_id = smith_id.into();
                (tenant, Role::Smith { smith_id, scopes })
            }
            _ => return Err(bad()),
        };
        Ok(Principal {
            tenant_id: tenant_id.into(),
            role,
            token_id: claims.jti.into(),
            expires_at: claims.exp,
        })
    }

    /// Mints a token and records it. The caller has checked smith, scopes and lifetime.
    pub async fn mint(&self, mint: Mint) -> Result<Minted, ApiError> {
        self.mint_for(mint, None).await
    }

    /// Mints a token for the grant of an MCP host, with which it ends.
    pub async fn mint_for(&self, mint: Mint, grant_id: Option<String>) -> Result<Minted, ApiError> {
        let id = ids::mint(ids::Kind::Token);
        let now = now_seconds();
        let (prefix, sub, scopes) = match &mint.scope {
            MintedScope::Admin => (
                ADMIN_PREFIX,
                mint.tenant_id.clone(),
                vec![TENANT_ALL.to_owned()],
            ),
            MintedScope::Smith { smith_id, scopes } => (
                SMITH_PREFIX,
                format!("{}:{smith_id}", mint.tenant_id),
                scopes.iter().map(|s| s.as_str().to_owned()).collect(),
            ),
        };
        let exp = mint.ttl_seconds.map(|ttl| now.saturating_add(ttl));
        let jwt = self.signed(&id, &sub, &scopes, now, exp)?;
        let row = TokenRow {
            id,
            tenant_id: mint.tenant_id,
            name: mint.name,
            sub,
            scopes: serde_json::to_string(&scopes).map_err(ApiError::internal)?,
            prefix: Some(prefix.to_owned()),
            created_at: now_micros(),
            expires_at: exp.map(|at| at * 1_000_000),
            revoked_at: None,
            grant_id,
        };
        self.store.insert_token(&row).await?;
        // Who was deleted meanwhile had its tokens revoked before there was this one.
        if let MintedScope::Smith { smith_id, .. } = &mint.scope
            && self.store.smith(&row.tenant_id, smith_id).await?.is_none()
        {
            self.revoke(&row.tenant_id, &row.id).await?;
            return Err(ApiError::not_found("smith", smith_id));
        }
        Ok(Minted {
            row,
            scopes,
            token: format!("{prefix}{jwt}"),
        })
    }

    fn signed(
        &self,
        id: &str,
        sub: &str,
        scopes: &[String],
        iat: i64,
        exp: Option<i64>,
    ) -> Result<String, ApiError> {
        let claims = Claims {
            iss: self.issuer.clone(),
            sub: sub.to_owned(),
            scopes: scopes.to_vec(),
            jti: id.to_owned(),
            iat,
            exp,
        };
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.keys.kid.clone());
        jsonwebtoken::encode(&header, &claims, &self.keys.signing).map_err(ApiError::internal)
    }

    /// Mints a key of an organization and records it; answers its secret too.
    pub async fn mint_organization_key(
        &self,
        organization_id: &str,
        ttl_seconds: Option<i64>,
        name: Option<String>,
    ) -> Result<(OrganizationKeyRow, String), ApiError> {
        let id = ids::mint(ids::Kind::Token);
        let now = now_seconds();
        let exp = ttl_seconds.map(|ttl| now.saturating_add(ttl));
        let scopes = [ORGANIZATION_ALL.to_owned()];
        let jwt = self.signed(&id, organization_id, &scopes, now, exp)?;
        let row = OrganizationKeyRow {
            id,
            organization_id: organization_id.to_owned(),
            name,
            created_at: now_micros(),
            expires_at: exp.map(|at| at * 1_000_000),
            revoked_at: None,
        };
        self.store.insert_organization_key(&row).await?;
        Ok((row, format!("{ORGANIZATION_PREFIX}{jwt}")))
    }

    /// Notes tokens that the store has marked as revoked: at once here, within
    /// [`REVOCATION_POLL`] on other nodes.
    pub fn forget(&self, revoked: Vec<String>) {
        self.add_revoked(revoked.clone());
        self.bus.change(Notice::Revoked { tokens: revoked });
    }

    /// Notes what another node has revoked.
    pub fn heard_of(&self, revoked: Vec<String>) {
        self.add_revoked(revoked);
    }

    /// Revokes a token: at once here, within [`REVOCATION_POLL`] on other nodes.
    pub async fn revoke(&self, tenant_id: &str, id: &str) -> Result<bool, ApiError> {
        let found = self.store.revoke_token(tenant_id, id, now_micros()).await?;
        if found {
            self.forget(vec![id.to_owned()]);
        }
        Ok(found)
    }

    /// Revokes a token with all that it let in, and with the grant that it was minted for.
    pub async fn revoke_with_grants(&self, tenant_id: &str, id: &str) -> Result<bool, ApiError> {
        let token = self.store.token(tenant_id, id).await?;
        if !self.revoke(tenant_id, id).await? {
            return Ok(false);
        }
        let grant = token.and_then(|token| token.grant_id);
        let by_grant = grant.as_deref().map(GrantsOf::Grant);
        for which in [Some(GrantsOf::Cause(id)), by_grant].into_iter().flatten() {
            self.end_grants(tenant_id, which).await?;
        }
        Ok(true)
    }

    /// Ends grants of MCP hosts with all their tokens; `false` when there is no such grant.
    pub async fn end_grants(&self, tenant_id: &str, which: GrantsOf<'_>) -> Result<bool, ApiError> {
        let ended = self.store.revoke_grants(tenant_id, which, now_micros());
        match ended.await? {
            Some(tokens) => {
                self.forget(tokens);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn add_revoked(&self, ids: impl IntoIterator<Item = String> + Clone) {
        self.revoked.rcu(|known| {
            let mut all = HashSet::clone(known);
            all.extend(ids.clone());
            all
        });
    }

    /// Follows revocations made on other nodes, for ever.
    pub async fn follow_revocations(self: Arc<Self>) {
        // Clocks of nodes differ a little; looking back a minute each time costs nothing.
        const LOOK_BACK_MICROS: i64 = 60 * 1_000_000;
        let mut seen_until = now_micros();
        let mut interval = tokio::time::interval(REVOCATION_POLL);
        loop {
            interval.tick().await;
            let asked_at = now_micros();
            match self
                .store
                .revoked_since(seen_until - LOOK_BACK_MICROS)
                .await
            {
                Ok(found) => {
                    seen_until = asked_at;
                    let known = self.revoked.load_full();
                    let new: Vec<String> = found
                        .into_iter()
                        .map(|(id, _)| id)
                        .filter(|id| !known.contains(id))
                        .collect();
                    if !new.is_empty() {
                        self.add_revoked(new);
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot look for revoked tokens"),
            }
        }
    }
}
