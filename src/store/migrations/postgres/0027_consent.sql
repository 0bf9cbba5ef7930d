-- How a tenant's people consent: on its own page, and where they may be sent back to.
CREATE TABLE tenant_consents (
    tenant_id TEXT PRIMARY KEY REFERENCES tenants (id),
    -- The tenant's own consent page; NULL: this gateway's.
    authorize_url TEXT,
    -- JSON array of origins.
    return_origins TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
-- Authorizations of MCP hosts that wait for a tenant's own page.
CREATE TABLE authorize_requests (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    client_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    redirect_uri TEXT NOT NULL,
    resource TEXT NOT NULL,
    challenge TEXT NOT NULL,
    state TEXT,
    issuer TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX authorize_requests_by_age ON authorize_requests (created_at);
