-- Times are microseconds since the Unix epoch. Documents are JSON text.
CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    sealed BLOB NOT NULL,
    jwk TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT,
    sub TEXT NOT NULL,
    scopes TEXT NOT NULL,
    prefix TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX tokens_by_tenant ON tokens (tenant_id, id);
CREATE INDEX tokens_revoked ON tokens (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE TABLE agents (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    slug TEXT,
    name TEXT NOT NULL,
    is_default BOOLEAN NOT NULL,
    draft TEXT NOT NULL,
    active_version BIGINT,
    rollout_version BIGINT,
    rollout_percent BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX agents_by_tenant ON agents (tenant_id, id);
CREATE UNIQUE INDEX agents_slug ON agents (tenant_id, slug) WHERE slug IS NOT NULL;
CREATE UNIQUE INDEX agents_default ON agents (tenant_id) WHERE is_default;
CREATE TABLE agent_versions (
    tenant_id TEXT NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agents (id),
    version BIGINT NOT NULL,
    snapshot TEXT NOT NULL,
    created_by TEXT,
    note TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, version)
);
CREATE TABLE smiths (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    agent_id TEXT NOT NULL REFERENCES agents (id),
    external_id TEXT,
    profile TEXT NOT NULL,
    customer_id TEXT,
    pin BIGINT,
    overrides TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX smiths_by_tenant ON smiths (tenant_id, id);
CREATE INDEX smiths_by_agent ON smiths (tenant_id, agent_id, id);
CREATE UNIQUE INDEX smiths_external ON smiths (tenant_id, external_id, agent_id)
    WHERE external_id IS NOT NULL;
CREATE TABLE model_keys (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    smith_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    base_url TEXT,
    sealed BLOB NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, smith_id, provider)
);
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    smith_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    status TEXT NOT NULL,
    exclusive BOOLEAN NOT NULL,
    include_mask BIGINT NOT NULL,
    input TEXT NOT NULL,
    transcript TEXT,
    output TEXT,
    stop_reason TEXT,
    error_code TEXT,
    error TEXT,
    warnings TEXT NOT NULL,
    token_usage TEXT,
    metadata TEXT,
    actor TEXT,
    node_id TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX runs_by_tenant ON runs (tenant_id, id);
CREATE INDEX runs_by_smith ON runs (tenant_id, smith_id, id);
CREATE INDEX runs_by_thread ON runs (tenant_id, smith_id, thread_id, id);
CREATE INDEX runs_leased ON runs (lease_until) WHERE status IN ('queued', 'running');
-- One run at a time per thread.
CREATE UNIQUE INDEX runs_thread_lock ON runs (tenant_id, smith_id, thread_id)
    WHERE exclusive AND status IN ('queued', 'running', 'paused_for_approval', 'paused_for_tool');
CREATE TABLE run_frames (
    tenant_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    first_frame BIGINT NOT NULL,
    frames BLOB NOT NULL,
    PRIMARY KEY (run_id, first_frame)
);
CREATE TABLE idempotency (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    status BIGINT,
    body BLOB,
    run_id TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, key)
);
CREATE TABLE usage_daily (
    tenant_id TEXT NOT NULL,
    day TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    calls BIGINT NOT NULL,
    input BIGINT NOT NULL,
    output BIGINT NOT NULL,
    cache_read BIGINT NOT NULL,
    cache_write BIGINT NOT NULL,
    reasoning BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, day, provider, model)
);
