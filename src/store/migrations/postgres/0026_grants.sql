-- A grant knows why it is: the token that let the host in, and when it ends whatever happens.
ALTER TABLE connector_codes ADD COLUMN cause_token_id TEXT NOT NULL DEFAULT '';
ALTER TABLE connector_grants ADD COLUMN cause_token_id TEXT NOT NULL DEFAULT '';
ALTER TABLE connector_grants ADD COLUMN ends_at BIGINT NOT NULL DEFAULT 0;
UPDATE connector_grants SET ends_at = created_at + 7776000000000;
CREATE INDEX connector_grants_by_tenant ON connector_grants (tenant_id, id);
CREATE INDEX connector_grants_by_smith ON connector_grants (tenant_id, smith_id, id);
CREATE INDEX connector_grants_by_client ON connector_grants (client_id);
-- Which grant a token was minted for.
ALTER TABLE tokens ADD COLUMN grant_id TEXT;
CREATE INDEX tokens_by_sub ON tokens (tenant_id, sub);
CREATE INDEX tokens_by_grant ON tokens (grant_id) WHERE grant_id IS NOT NULL;
