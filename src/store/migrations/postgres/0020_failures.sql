-- One row that is written to see whether the store takes writes.
CREATE TABLE store_probes (
    id BIGINT PRIMARY KEY,
    probed_at BIGINT NOT NULL,
    filler BYTEA NOT NULL
);
-- The last batch that a journal committed, and which of its entries took: when the answer to a
-- commit is lost, it is told from this whether the batch is in.
CREATE TABLE journal_marks (
    journal_id TEXT PRIMARY KEY,
    batch BIGINT NOT NULL,
    taken TEXT NOT NULL,
    noted_at BIGINT NOT NULL
);
-- How often the run was taken up after its node died with it.
ALTER TABLE runs ADD COLUMN takings BIGINT NOT NULL DEFAULT 0;
-- How often the delivery was taken up and nothing was heard of the attempt.
ALTER TABLE webhook_deliveries ADD COLUMN takings BIGINT NOT NULL DEFAULT 0;
-- The same of a file that is taken into a vector store.
ALTER TABLE vector_store_files ADD COLUMN takings BIGINT NOT NULL DEFAULT 0;
