"""SQL for a column `revision` that counts each change of a row that a page shows. The ETags of live
fragments and of polled records are made of it.

A trigger counts, so that no statement can forget it, and under the row's own lock only.
"""

FUNCTION = """
CREATE FUNCTION {table}_count_revision() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE before {table}%ROWTYPE := OLD;
BEGIN
    NEW.revision := OLD.revision;
    {same}
    IF before IS DISTINCT FROM NEW THEN
        NEW.revision := OLD.revision + 1;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER {table}_revision BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_count_revision();
"""
DROP = """
DROP TRIGGER {table}_revision ON {table};
DROP FUNCTION {table}_count_revision();
"""


def count_revisions(table: str, *, unseen: tuple[str, ...] = ()) -> tuple[str, str]:
    """Return the SQL that counts, and the SQL that ends it. A change of the `unseen` columns alone does not count."""
    same = " ".join(f"before.{name} := NEW.{name};" for name in unseen)
    return FUNCTION.format(table=table, same=same), DROP.format(table=table)
