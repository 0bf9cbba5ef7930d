-- When a skill last changed, and what is told of the files of a version: JSON, absent for those that
-- were made before.
ALTER TABLE skills ADD COLUMN updated_at BIGINT NOT NULL DEFAULT 0;
UPDATE skills SET updated_at = COALESCE(
    (SELECT MAX(v.created_at) FROM skill_versions v WHERE v.skill_id = skills.id), created_at);
ALTER TABLE skill_versions ADD COLUMN manifest TEXT COLLATE "C";
-- The kind and the attributes of a trace's root.
ALTER TABLE traces ADD COLUMN root_kind TEXT COLLATE "C" NOT NULL DEFAULT 'run';
ALTER TABLE traces ADD COLUMN attributes TEXT COLLATE "C" NOT NULL DEFAULT '{}';
UPDATE traces SET root_kind = 'runtime_event' WHERE run_id IS NULL;
CREATE INDEX traces_by_run ON traces (tenant_id, run_id, id);
-- Free JSON of those that a tenant's own meters count.
ALTER TABLE usage_events ADD COLUMN metadata TEXT COLLATE "C" NOT NULL DEFAULT '{}';
CREATE INDEX usage_events_by_meter ON usage_events (tenant_id, meter, id)
    WHERE meter IS NOT NULL;
