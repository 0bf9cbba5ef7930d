-- A run's place in its thread's history, for one that took it: of two that saw the same history, and
-- would take the same place, the store keeps one, however soon that ends.
ALTER TABLE runs ADD COLUMN turn INTEGER;
CREATE UNIQUE INDEX runs_thread_turn ON runs (tenant_id, smith_id, thread_id, turn)
    WHERE turn IS NOT NULL;
