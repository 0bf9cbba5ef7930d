-- What providers want back with tool calls (thinking, signatures), for clients that do not send it.
CREATE TABLE kept_calls (
    tenant_id TEXT NOT NULL,
    -- Empty for calls without a smith.
    smith_id TEXT NOT NULL,
    -- By what the call is known: its id, or that and a digest of what is called.
    call TEXT NOT NULL,
    -- A JSON object.
    kept TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, smith_id, call)
);
CREATE INDEX kept_calls_by_age ON kept_calls (created_at);
CREATE INDEX kept_calls_of_tenant ON kept_calls (tenant_id, created_at);
