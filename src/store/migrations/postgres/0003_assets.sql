-- MCP servers that runs may call.
CREATE TABLE mcp_servers (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    name TEXT NOT NULL,
    url TEXT NOT NULL,
    -- JSON: authentication but for its secret, origin, allow-list, approval policy.
    settings TEXT NOT NULL,
    sealed BYTEA,
    -- JSON: the tools as they were last listed.
    tools TEXT NOT NULL,
    tools_refreshed_at BIGINT,
    discovery_error TEXT,
    last_call_error TEXT,
    last_call_error_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX mcp_servers_by_name ON mcp_servers (tenant_id, name);
CREATE INDEX mcp_servers_by_tenant ON mcp_servers (tenant_id, id);
-- Agent skills: folders with a SKILL.md, in versions that never change.
CREATE TABLE skills (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    -- Empty: the tenant's own.
    smith_id TEXT NOT NULL,
    name TEXT NOT NULL,
    default_version BIGINT NOT NULL,
    -- The highest that was ever given.
    latest_version BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX skills_by_name ON skills (tenant_id, smith_id, name);
CREATE INDEX skills_by_tenant ON skills (tenant_id, id);
CREATE INDEX skills_by_smith ON skills (tenant_id, smith_id, id);
CREATE TABLE skill_versions (
    tenant_id TEXT NOT NULL,
    skill_id TEXT NOT NULL REFERENCES skills (id) ON DELETE CASCADE,
    version BIGINT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (skill_id, version)
);
CREATE TABLE skill_files (
    tenant_id TEXT NOT NULL,
    skill_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    path TEXT NOT NULL,
    content BYTEA NOT NULL,
    PRIMARY KEY (skill_id, version, path),
    FOREIGN KEY (skill_id, version) REFERENCES skill_versions (skill_id, version)
        ON DELETE CASCADE
);
-- Versions of agents that hold a version of a skill.
CREATE TABLE skill_uses (
    tenant_id TEXT NOT NULL,
    skill_id TEXT NOT NULL,
    version BIGINT NOT NULL,
    agent_id TEXT NOT NULL REFERENCES agents (id),
    agent_version BIGINT NOT NULL,
    PRIMARY KEY (skill_id, version, agent_id, agent_version)
);
CREATE INDEX skill_uses_by_agent ON skill_uses (agent_id, agent_version);
CREATE TABLE vector_stores (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    smith_id TEXT,
    name TEXT NOT NULL,
    description TEXT,
    metadata TEXT NOT NULL,
    -- Absent: searched by words alone.
    embedding_model TEXT,
    -- Grows with each change of what can be found.
    revision BIGINT NOT NULL,
    last_active_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX vector_stores_by_tenant ON vector_stores (tenant_id, id);
CREATE INDEX vector_stores_by_smith ON vector_stores (tenant_id, smith_id, id);
CREATE TABLE vector_store_batches (
    id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    vector_store_id TEXT NOT NULL REFERENCES vector_stores (id) ON DELETE CASCADE,
    cancelled BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX vector_store_batches_by_store ON vector_store_batches (vector_store_id);
CREATE TABLE vector_store_files (
    -- The file's id.
    id TEXT NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    tenant_id TEXT NOT NULL,
    vector_store_id TEXT NOT NULL REFERENCES vector_stores (id) ON DELETE CASCADE,
    batch_id TEXT,
    status TEXT NOT NULL,
    error_code TEXT,
    error TEXT,
    usage_bytes BIGINT NOT NULL,
    attributes TEXT NOT NULL,
    chunk_tokens BIGINT NOT NULL,
    overlap_tokens BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    -- When it is to be taken in; work under way puts it off.
    due_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (vector_store_id, id)
);
CREATE INDEX vector_store_files_by_store ON vector_store_files (tenant_id, vector_store_id, id);
CREATE INDEX vector_store_files_by_batch ON vector_store_files (batch_id, id);
CREATE INDEX vector_store_files_by_file ON vector_store_files (id);
CREATE INDEX vector_store_files_due ON vector_store_files (due_at)
    WHERE status = 'in_progress';
CREATE TABLE vector_chunks (
    tenant_id TEXT NOT NULL,
    vector_store_id TEXT NOT NULL,
    file_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    content TEXT NOT NULL,
    -- Little-endian 32-bit floats of length 1; absent where words alone are searched.
    embedding BYTEA,
    PRIMARY KEY (vector_store_id, file_id, number),
    FOREIGN KEY (vector_store_id, file_id) REFERENCES vector_store_files (vector_store_id, id)
        ON DELETE CASCADE
);
-- How many smiths an agent or a customer has: counting them would grow with them.
CREATE TABLE smith_counts (
    tenant_id TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    -- Writers on many connections do not wait for each other.
    shard BIGINT NOT NULL,
    smiths BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, owner_id, shard)
);
INSERT INTO smith_counts (tenant_id, owner_id, shard, smiths)
    SELECT tenant_id, agent_id, 0, COUNT(*) FROM smiths
    WHERE deleted_at IS NULL GROUP BY tenant_id, agent_id;
INSERT INTO smith_counts (tenant_id, owner_id, shard, smiths)
    SELECT tenant_id, customer_id, 0, COUNT(*) FROM smiths
    WHERE deleted_at IS NULL AND customer_id IS NOT NULL GROUP BY tenant_id, customer_id;
CREATE FUNCTION count_smiths() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO smith_counts AS counts (tenant_id, owner_id, shard, smiths)
            SELECT changed.tenant_id, owned.id, pg_backend_pid() % 16, COUNT(*)
            FROM added AS changed, LATERAL (VALUES (agent_id), (customer_id)) AS owned (id)
            WHERE changed.deleted_at IS NULL AND owned.id IS NOT NULL
            GROUP BY 1, 2 ORDER BY 1, 2
            ON CONFLICT (tenant_id, owner_id, shard)
            DO UPDATE SET smiths = counts.smiths + excluded.smiths;
    ELSE
        INSERT INTO smith_counts AS counts (tenant_id, owner_id, shard, smiths)
            SELECT changed.tenant_id, owned.id, pg_backend_pid() % 16, SUM(changed.step)
            FROM (SELECT tenant_id, agent_id, customer_id, 1 AS step FROM added
                  WHERE deleted_at IS NULL
                  UNION ALL SELECT tenant_id, agent_id, customer_id, -1 FROM removed
                  WHERE deleted_at IS NULL) AS changed,
                LATERAL (VALUES (agent_id), (customer_id)) AS owned (id)
            WHERE owned.id IS NOT NULL
            GROUP BY 1, 2 HAVING SUM(changed.step) <> 0 ORDER BY 1, 2
            ON CONFLICT (tenant_id, owner_id, shard)
            DO UPDATE SET smiths = counts.smiths + excluded.smiths;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER smiths_counted_in AFTER INSERT ON smiths
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION count_smiths();
CREATE TRIGGER smiths_counted_over AFTER UPDATE ON smiths
    REFERENCING NEW TABLE AS added OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION count_smiths();
