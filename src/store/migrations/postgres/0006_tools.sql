-- What it takes to go on with a run: as it began, and what it did since. JSON.
CREATE TABLE run_states (
    run_id TEXT PRIMARY KEY,
    tenant_id TEXT NOT NULL,
    base TEXT NOT NULL,
    progress TEXT NOT NULL
);
-- Why a run that lives on another node shall be cancelled there.
ALTER TABLE runs ADD COLUMN cancel_reason TEXT;
CREATE INDEX runs_to_cancel ON runs (node_id)
    WHERE cancel_reason IS NOT NULL AND status IN ('queued', 'running');
CREATE INDEX runs_paused ON runs (updated_at) WHERE status = 'paused_for_approval';
-- JSON: what answers an elicitation.
ALTER TABLE approvals ADD COLUMN answer TEXT;
ALTER TABLE approvals ADD COLUMN expires_at BIGINT;
CREATE INDEX approvals_expiring ON approvals (expires_at) WHERE status = 'pending';
