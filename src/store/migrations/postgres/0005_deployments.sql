-- Who answers where: a smith or an agent behind an endpoint.
CREATE TABLE deployments (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    -- `smith` or `agent`.
    target_type TEXT NOT NULL,
    target_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    address TEXT,
    provider TEXT,
    -- JSON object.
    provider_metadata TEXT NOT NULL,
    display_name TEXT,
    owner_email TEXT,
    status TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX deployments_by_tenant ON deployments (tenant_id, id);
CREATE INDEX deployments_by_target ON deployments (tenant_id, target_id, id);
-- One catch-all of each kind.
CREATE UNIQUE INDEX deployments_catch_all ON deployments (tenant_id, kind)
    WHERE target_type = 'agent' AND kind <> 'mcp' AND kind <> 'web';
