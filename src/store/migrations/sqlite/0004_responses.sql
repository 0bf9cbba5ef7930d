-- The response that a response continues.
ALTER TABLE runs ADD COLUMN previous_run_id TEXT;
-- JSON: what the Responses wire shows of its request.
ALTER TABLE runs ADD COLUMN response TEXT;
