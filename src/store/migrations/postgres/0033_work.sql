-- Files are taken in for one tenant after the other.
CREATE INDEX vector_store_files_due_by_tenant ON vector_store_files (tenant_id, due_at)
    WHERE status = 'in_progress';
