-- What is deleted stays as a row, so that runs keep their smith and agent; its natural key is free.
ALTER TABLE agents ADD COLUMN deleted_at BIGINT;
DROP INDEX agents_slug;
CREATE UNIQUE INDEX agents_slug ON agents (tenant_id, slug)
    WHERE slug IS NOT NULL AND deleted_at IS NULL;
ALTER TABLE smiths ADD COLUMN deleted_at BIGINT;
DROP INDEX smiths_external;
CREATE UNIQUE INDEX smiths_external ON smiths (tenant_id, external_id, agent_id)
    WHERE external_id IS NOT NULL AND deleted_at IS NULL;
-- Live ones are counted from the index alone.
DROP INDEX smiths_by_tenant;
CREATE INDEX smiths_by_tenant ON smiths (tenant_id, id) WHERE deleted_at IS NULL;
DROP INDEX smiths_by_agent;
CREATE INDEX smiths_by_agent ON smiths (tenant_id, agent_id, id) WHERE deleted_at IS NULL;
CREATE INDEX smiths_by_customer ON smiths (tenant_id, customer_id, id)
    WHERE deleted_at IS NULL;
CREATE INDEX runs_by_agent ON runs (tenant_id, agent_id, id);
CREATE TABLE smith_revisions (
    tenant_id TEXT NOT NULL,
    smith_id TEXT NOT NULL REFERENCES smiths (id),
    version BIGINT NOT NULL,
    snapshot TEXT NOT NULL,
    created_by TEXT,
    note TEXT,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (smith_id, version)
);
CREATE TABLE smith_memory (
    tenant_id TEXT NOT NULL,
    smith_id TEXT PRIMARY KEY REFERENCES smiths (id),
    content TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE TABLE customers (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    external_ids TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX customers_by_tenant ON customers (tenant_id, id);
CREATE TABLE events (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    type TEXT NOT NULL,
    -- The type up to its first dot, by which the feed is filtered too.
    family TEXT NOT NULL,
    smith_id TEXT,
    data TEXT NOT NULL,
    actor TEXT,
    created_at BIGINT NOT NULL
);
CREATE INDEX events_by_tenant ON events (tenant_id, id);
CREATE INDEX events_by_smith ON events (tenant_id, smith_id, id);
CREATE INDEX events_by_type ON events (tenant_id, type, id);
CREATE INDEX events_by_family ON events (tenant_id, family, id);
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    url TEXT NOT NULL,
    -- A JSON array; webhook_patterns holds the same for matching.
    events TEXT NOT NULL,
    active BOOLEAN NOT NULL,
    sealed BLOB NOT NULL,
    previous_sealed BLOB,
    previous_until BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX webhooks_by_tenant ON webhooks (tenant_id, id);
CREATE TABLE webhook_patterns (
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    pattern TEXT NOT NULL,
    PRIMARY KEY (webhook_id, pattern)
);
-- The outbox: written in the transaction of the event.
CREATE TABLE webhook_deliveries (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    webhook_id TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    last_status BIGINT,
    last_error TEXT,
    -- When it is due; an attempt under way puts it off.
    next_attempt_at BIGINT NOT NULL,
    delivered_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE INDEX deliveries_by_webhook ON webhook_deliveries (tenant_id, webhook_id, id);
CREATE INDEX deliveries_due ON webhook_deliveries (webhook_id, next_attempt_at)
    WHERE status = 'pending';
-- Who owns projects (tenants), and the organization keys' owner.
CREATE TABLE organizations (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
ALTER TABLE tenants ADD COLUMN organization_id TEXT;
ALTER TABLE tenants ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
ALTER TABLE tenants ADD COLUMN deleted_at BIGINT;
CREATE INDEX tenants_by_organization ON tenants (organization_id, id);
CREATE TABLE organization_keys (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (id),
    name TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX organization_keys_by_owner ON organization_keys (organization_id, id);
CREATE INDEX organization_keys_revoked ON organization_keys (revoked_at)
    WHERE revoked_at IS NOT NULL;
CREATE TABLE conversations (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    smith_id TEXT NOT NULL REFERENCES smiths (id),
    title TEXT,
    metadata TEXT NOT NULL,
    -- JSON: the turns that it was made with.
    turns TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX conversations_by_smith ON conversations (tenant_id, smith_id, id);
CREATE TABLE approvals (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    run_id TEXT,
    smith_id TEXT,
    tool_call_id TEXT,
    tool TEXT,
    args TEXT NOT NULL,
    elicitation TEXT,
    status TEXT NOT NULL,
    actor TEXT,
    reason TEXT,
    created_at BIGINT NOT NULL,
    resolved_at BIGINT
);
CREATE INDEX approvals_by_tenant ON approvals (tenant_id, id);
CREATE INDEX approvals_by_smith ON approvals (tenant_id, smith_id, id);
CREATE INDEX approvals_by_status ON approvals (tenant_id, status, id);
CREATE INDEX approvals_by_run ON approvals (tenant_id, run_id, id);
CREATE TABLE connections (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    smith_id TEXT NOT NULL REFERENCES smiths (id),
    provider TEXT NOT NULL,
    scopes TEXT NOT NULL,
    status TEXT NOT NULL,
    expires_at BIGINT,
    metadata TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX connections_by_smith ON connections (tenant_id, smith_id, id);
CREATE INDEX connections_by_provider ON connections (tenant_id, smith_id, provider, id);
CREATE TABLE oauth_providers (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    provider TEXT NOT NULL,
    client_id TEXT,
    token_uri TEXT,
    scopes_allowed TEXT NOT NULL,
    refresh_webhook TEXT,
    authorize_url TEXT,
    sealed BLOB,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, provider)
);
-- OAuth authorizations that were begun and not yet answered.
CREATE TABLE oauth_states (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    smith_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    return_url TEXT,
    sealed BLOB NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX oauth_states_by_age ON oauth_states (created_at);
CREATE TABLE budgets (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    scope TEXT NOT NULL,
    -- Empty for the tenant's own.
    scope_id TEXT NOT NULL,
    -- Nanos of the currency, as all money here.
    amount BIGINT NOT NULL,
    currency TEXT NOT NULL,
    action TEXT NOT NULL,
    -- The last threshold that was told of, and in which month.
    told_period TEXT,
    told_percent BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX budgets_by_scope ON budgets (tenant_id, scope_id, scope);
CREATE INDEX budgets_by_tenant ON budgets (tenant_id, id);
-- Money spent in a month, by what a budget can limit.
CREATE TABLE spend (
    tenant_id TEXT NOT NULL,
    period TEXT NOT NULL,
    scope TEXT NOT NULL,
    scope_id TEXT NOT NULL,
    cost BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, period, scope, scope_id)
);
-- Empty smith, agent and customer: model routing without a smith.
CREATE TABLE usage_by_smith (
    tenant_id TEXT NOT NULL,
    day TEXT NOT NULL,
    smith_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    calls BIGINT NOT NULL,
    input BIGINT NOT NULL,
    output BIGINT NOT NULL,
    cache_read BIGINT NOT NULL,
    cache_write BIGINT NOT NULL,
    reasoning BIGINT NOT NULL,
    cost BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, day, smith_id, agent_id, customer_id, provider, model)
);
CREATE INDEX usage_of_smith ON usage_by_smith (tenant_id, smith_id, day);
CREATE INDEX usage_of_customer ON usage_by_smith (tenant_id, customer_id, day);
CREATE TABLE usage_events (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    run_id TEXT,
    smith_id TEXT,
    agent_id TEXT,
    customer_id TEXT,
    provider TEXT,
    model TEXT,
    input BIGINT NOT NULL,
    output BIGINT NOT NULL,
    cache_read BIGINT NOT NULL,
    cache_write BIGINT NOT NULL,
    reasoning BIGINT NOT NULL,
    cost BIGINT,
    -- Of custom meters.
    meter TEXT,
    quantity DOUBLE PRECISION,
    created_at BIGINT NOT NULL
);
CREATE INDEX usage_events_by_tenant ON usage_events (tenant_id, id);
CREATE INDEX usage_events_by_smith ON usage_events (tenant_id, smith_id, id);
CREATE INDEX usage_events_by_customer ON usage_events (tenant_id, customer_id, id);
CREATE INDEX usage_events_of_meters ON usage_events (tenant_id, created_at)
    WHERE meter IS NOT NULL;
CREATE TABLE traces (
    id TEXT NOT NULL,
    tenant_id TEXT NOT NULL,
    run_id TEXT,
    smith_id TEXT,
    agent_id TEXT,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    model TEXT,
    input BIGINT NOT NULL,
    output BIGINT NOT NULL,
    cost BIGINT,
    created_at BIGINT NOT NULL,
    -- Callers bring ids of their own.
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX traces_by_smith ON traces (tenant_id, smith_id, id);
CREATE INDEX traces_by_agent ON traces (tenant_id, agent_id, id);
CREATE INDEX traces_by_status ON traces (tenant_id, status, id);
CREATE TABLE spans (
    tenant_id TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    id TEXT NOT NULL,
    parent_id TEXT,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    ended_at BIGINT,
    model TEXT,
    input BIGINT,
    output BIGINT,
    cost BIGINT,
    attributes TEXT NOT NULL,
    PRIMARY KEY (tenant_id, trace_id, id)
);
CREATE TABLE files (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    smith_id TEXT,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    media_type TEXT,
    bytes BIGINT NOT NULL,
    -- Not before all its pieces are there.
    complete BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX files_by_tenant ON files (tenant_id, id);
CREATE INDEX files_by_smith ON files (tenant_id, smith_id, id);
CREATE INDEX files_by_purpose ON files (tenant_id, purpose, id);
CREATE INDEX files_incomplete ON files (created_at) WHERE NOT complete;
CREATE TABLE file_pieces (
    file_id TEXT NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    tenant_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (file_id, number)
);
-- What is said of a template stands in the agent's draft.
CREATE TABLE agent_ui (
    tenant_id TEXT NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agents (id),
    name TEXT NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, name)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);
