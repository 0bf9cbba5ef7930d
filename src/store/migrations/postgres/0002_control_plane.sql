-- What is deleted stays as a row, so that runs keep their smith and agent; its natural key is free.
ALTER TABLE agents ADD COLUMN deleted_at BIGINT;
DROP INDEX agents_slug;
CREATE UNIQUE INDEX agents_slug ON agents (tenant_id, slug)
    WHERE slug IS NOT NULL AND deleted_at IS NULL;
ALTER TABLE smiths ADD COLUMN deleted_at BIGINT;
DROP INDEX smiths_external;
CREATE UNIQUE INDEX smiths_external ON smiths (tenant_id, external_id, agent_id)
    WHERE external_id IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX smiths_by_customer ON smiths (tenant_id, customer_id, id);
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
    sealed BYTEA NOT NULL,
    previous_sealed BYTEA,
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
