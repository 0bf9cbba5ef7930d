-- Who does what one node at a time does, and until when.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    node_id TEXT NOT NULL,
    lease_until BIGINT NOT NULL
);
-- What a tenant keeps for a shorter time than the operator would. JSON.
CREATE TABLE tenant_retention (
    tenant_id TEXT PRIMARY KEY REFERENCES tenants (id),
    document TEXT NOT NULL
);
-- The last run of a tenant whose frames are gone.
CREATE TABLE frames_pruned (
    tenant_id TEXT PRIMARY KEY REFERENCES tenants (id),
    run_id TEXT NOT NULL
);
-- Callers bring ids of their own, so the age of a trace is not told by its id.
CREATE INDEX traces_by_age ON traces (tenant_id, created_at);
CREATE INDEX tokens_by_expiry ON tokens (expires_at) WHERE expires_at IS NOT NULL;
