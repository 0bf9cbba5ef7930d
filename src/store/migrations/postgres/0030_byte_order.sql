-- Ids are compared byte by byte, as SQLite does: their letters have two cases, which a language's
-- order mixes. The database may have been made with any. Nothing but indexes is written anew.
DO $$
DECLARE
    change TEXT;
BEGIN
    FOR change IN
        SELECT format('ALTER TABLE %I %s', c.table_name,
            string_agg(format('ALTER COLUMN %I TYPE TEXT COLLATE "C"', c.column_name), ', '))
        FROM information_schema.columns AS c
        JOIN information_schema.tables AS t USING (table_schema, table_name)
        WHERE c.table_schema = current_schema() AND t.table_type = 'BASE TABLE'
            AND c.table_name <> '_sqlx_migrations'
            AND c.data_type = 'text' AND c.collation_name IS DISTINCT FROM 'C'
        GROUP BY c.table_name
    LOOP
        EXECUTE change;
    END LOOP;
END $$;
