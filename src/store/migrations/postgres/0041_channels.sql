-- Channels: what a tenant gave a platform's account with, what arrives there, who answers whom, and
-- what is to be sent.
CREATE TABLE integrations (
    tenant_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    -- JSON; what may be shown.
    settings TEXT COLLATE "C" NOT NULL,
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, kind)
);
CREATE INDEX integrations_kind ON integrations (kind, tenant_id);

CREATE TABLE inbound_events (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    type TEXT COLLATE "C" NOT NULL,
    -- The conversation that it belongs to: arrivals of one are interpreted in order.
    subject TEXT COLLATE "C" NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    smith_id TEXT COLLATE "C" NOT NULL DEFAULT '',
    data TEXT COLLATE "C" NOT NULL,
    status TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C",
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
    tenant_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    -- Who is answered: a sender or a conversation, as the channel names them.
    identity TEXT COLLATE "C" NOT NULL,
    smith_id TEXT COLLATE "C" NOT NULL,
    deployment_id TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, kind, identity)
);
CREATE INDEX channel_bindings_deployment ON channel_bindings (tenant_id, deployment_id);
CREATE INDEX channel_bindings_smith ON channel_bindings (tenant_id, smith_id);

-- The thread that a conversation is in now; without a row, the one named after it.
CREATE TABLE channel_threads (
    tenant_id TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    chat TEXT COLLATE "C" NOT NULL,
    smith_id TEXT COLLATE "C" NOT NULL,
    thread_id TEXT COLLATE "C" NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, kind, chat, smith_id)
);

CREATE TABLE outbound_messages (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL,
    smith_id TEXT COLLATE "C" NOT NULL,
    deployment_id TEXT COLLATE "C" NOT NULL,
    channel TEXT COLLATE "C" NOT NULL,
    -- Messages of one conversation are sent in order.
    chat TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C",
    -- answer, approval, notice.
    kind TEXT COLLATE "C" NOT NULL,
    reply_to TEXT COLLATE "C" NOT NULL,
    -- Of an approval, its id; of an answer, absent: it is the run's.
    content TEXT COLLATE "C",
    status TEXT COLLATE "C" NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    takings BIGINT NOT NULL DEFAULT 0,
    -- JSON: how far it is sent.
    progress TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    last_error TEXT COLLATE "C",
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
ALTER TABLE deployments ADD COLUMN start_token TEXT COLLATE "C";
ALTER TABLE deployments ADD COLUMN sealed BYTEA;
CREATE UNIQUE INDEX deployments_start_token ON deployments (start_token)
    WHERE start_token IS NOT NULL;
CREATE INDEX deployments_kind ON deployments (tenant_id, kind, target_type);
