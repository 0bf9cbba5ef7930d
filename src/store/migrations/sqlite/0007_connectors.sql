-- MCP hosts that registered themselves (RFC 7591). They belong to no tenant.
CREATE TABLE connector_clients (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- JSON array.
    redirect_uris TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- When somebody first let it in.
    used_at BIGINT
);
CREATE INDEX connector_clients_unused ON connector_clients (created_at) WHERE used_at IS NULL;
-- Authorization codes, by their SHA-256.
CREATE TABLE connector_codes (
    id TEXT PRIMARY KEY,
    client_id TEXT NOT NULL,
    tenant_id TEXT NOT NULL,
    smith_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    challenge TEXT NOT NULL,
    -- JSON array.
    scopes TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    used_at BIGINT
);
CREATE INDEX connector_codes_by_age ON connector_codes (created_at);
-- What somebody let a client do: one refresh token at a time.
CREATE TABLE connector_grants (
    id TEXT PRIMARY KEY,
    client_id TEXT NOT NULL,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    smith_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    -- JSON array.
    scopes TEXT NOT NULL,
    -- SHA-256 of the refresh token, and of the one before it.
    refresh_hash TEXT NOT NULL,
    previous_hash TEXT,
    rotated_at BIGINT NOT NULL,
    -- The newest access token.
    token_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT
);
CREATE INDEX connector_grants_by_expiry ON connector_grants (expires_at);
