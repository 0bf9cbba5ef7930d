-- Channels: what a tenant gave a platform's account with, what arrives there, who answers whom, and
-- what is to be sent.
CREATE TABLE integrations (
    tenant_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    -- JSON; what may be shown.
    settings TEXT NOT NULL,
    sealed BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, kind)
);
CREATE INDEX integrations_kind ON integrations (kind, tenant_id);

CREATE TABLE inbound_events (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    -- The conversation that it belongs to: arrivals of one are interpreted in order.
    subject TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    smith_id TEXT NOT NULL DEFAULT '',
    data TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    takings BIGINT NOT NULL DEFAULT 0,
    -- When it is to be interpreted; absent: that is over.
    due_at BIGINT,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX inbound_events_key ON inbound_events (tenant_id, source, idempotency_key);
CREATE INDEX inbound_events_tenant ON inbound_events (tenant_id, id);
CREATE INDEX inbound_events_smith ON inbound_events (tenant_id, smith_id, id);
CREATE INDEX inbound_events_due ON inbound_events (tenant_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX inbound_events_order ON inbound_events (tenant_id, source, subject, created_at, id)
    WHERE due_at IS NOT NULL;
CREATE INDEX inbound_events_age ON inbound_events (created_at) WHERE due_at IS NULL;

CREATE TABLE channel_bindings (
    tenant_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    -- Who is answered: a sender or a conversation, as the channel names them.
    identity TEXT NOT NULL,
    smith_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, kind, identity)
);
CREATE INDEX channel_bindings_deployment ON channel_bindings (tenant_id, deployment_id);
CREATE INDEX channel_bindings_smith ON channel_bindings (tenant_id, smith_id);

-- The thread that a conversation is in now; without a row, the one named after it.
CREATE TABLE channel_threads (
    tenant_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    chat TEXT NOT NULL,
    smith_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, kind, chat, smith_id)
);

CREATE TABLE outbound_messages (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    smith_id TEXT NOT NULL,
    deployment_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    -- Messages of one conversation are sent in order.
    chat TEXT NOT NULL,
    run_id TEXT,
    -- answer, approval, notice.
    kind TEXT NOT NULL,
    reply_to TEXT NOT NULL,
    -- Of an approval, its id; of an answer, absent: it is the run's.
    content TEXT,
    status TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    takings BIGINT NOT NULL DEFAULT 0,
    -- JSON: how far it is sent.
    progress TEXT NOT NULL DEFAULT '{}',
    last_error TEXT,
    due_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX outbound_messages_deployment ON outbound_messages (tenant_id, deployment_id, id);
CREATE INDEX outbound_messages_due ON outbound_messages (tenant_id, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX outbound_messages_order ON outbound_messages (tenant_id, channel, chat, created_at, id)
    WHERE due_at IS NOT NULL;
CREATE INDEX outbound_messages_age ON outbound_messages (updated_at) WHERE due_at IS NULL;

-- What binds a conversation to a fixed smith, as a hash; what is kept of a deployment's secrets.
ALTER TABLE deployments ADD COLUMN start_token TEXT;
ALTER TABLE deployments ADD COLUMN sealed BLOB;
CREATE UNIQUE INDEX deployments_start_token ON deployments (start_token)
    WHERE start_token IS NOT NULL;
CREATE INDEX deployments_kind ON deployments (tenant_id, kind, target_type);
