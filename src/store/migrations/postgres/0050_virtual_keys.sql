-- Keys for plain use of models. Their secrets are kept as hashes only; those that others have taken the
-- place of end.
CREATE TABLE virtual_keys (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C",
    owner TEXT COLLATE "C",
    team TEXT COLLATE "C",
    metadata TEXT COLLATE "C" NOT NULL,
    tags TEXT COLLATE "C" NOT NULL,
    models TEXT COLLATE "C",
    routes TEXT COLLATE "C",
    disabled BOOLEAN NOT NULL,
    last_four TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX virtual_keys_by_tenant ON virtual_keys (tenant_id, id);
CREATE INDEX virtual_keys_by_change ON virtual_keys (updated_at);
CREATE TABLE virtual_key_secrets (
    hash TEXT COLLATE "C" PRIMARY KEY,
    tenant_id TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT
);
CREATE INDEX virtual_key_secrets_by_key ON virtual_key_secrets (tenant_id, key_id);
CREATE TABLE usage_by_key (
    tenant_id TEXT COLLATE "C" NOT NULL,
    day TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
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
