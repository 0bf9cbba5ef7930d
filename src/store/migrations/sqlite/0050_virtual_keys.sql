-- Keys for plain use of models. Their secrets are kept as hashes only; those that others have taken the
-- place of end.
CREATE TABLE virtual_keys (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    name TEXT,
    owner TEXT,
    team TEXT,
    metadata TEXT NOT NULL,
    tags TEXT NOT NULL,
    models TEXT,
    routes TEXT,
    disabled BOOLEAN NOT NULL,
    last_four TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX virtual_keys_by_tenant ON virtual_keys (tenant_id, id);
CREATE INDEX virtual_keys_by_change ON virtual_keys (updated_at);
CREATE TABLE virtual_key_secrets (
    hash TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT
);
CREATE INDEX virtual_key_secrets_by_key ON virtual_key_secrets (tenant_id, key_id);
CREATE TABLE usage_by_key (
    tenant_id TEXT NOT NULL,
    day TEXT NOT NULL,
    key_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    calls BIGINT NOT NULL,
    input BIGINT NOT NULL,
    output BIGINT NOT NULL,
    cache_read BIGINT NOT NULL,
    cache_write BIGINT NOT NULL,
    reasoning BIGINT NOT NULL,
    cost BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, day, key_id, provider, model)
);
CREATE INDEX usage_of_key ON usage_by_key (tenant_id, key_id, day);
