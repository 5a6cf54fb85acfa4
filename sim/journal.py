"""A record of every write to the rows that the engine works on, made by triggers that only the simulation installs."""

from dataclasses import dataclass
from typing import Any

import psycopg

TABLES = ("deployment_upgrade_services", "deployment_upgrades", "deployments_deployment")
SQL = """
CREATE UNLOGGED TABLE turned.writes (
  number bigserial PRIMARY KEY, pid int, relation text, row_id text, at timestamptz,
  old_status text, new_status text, old_outcome text, new_outcome text, old_phase text, new_phase text,
  old_epoch bigint, new_epoch bigint, was_leased boolean, was_active boolean, is_overdue boolean, changed text[]);

CREATE FUNCTION turned.note_write() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE was jsonb := to_jsonb(old); becomes jsonb := to_jsonb(new); changed text[];
BEGIN
  SELECT array_agg(key) INTO changed FROM jsonb_each(becomes) WHERE was -> key IS DISTINCT FROM value;
  INSERT INTO turned.writes (pid, relation, row_id, at, old_status, new_status, old_outcome, new_outcome, old_phase,
    new_phase, old_epoch, new_epoch, was_leased, was_active, is_overdue, changed)
  VALUES (pg_backend_pid(), TG_TABLE_NAME, new.id::text, turned.now(), was ->> 'status', becomes ->> 'status',
    was ->> 'outcome', becomes ->> 'outcome', was ->> 'phase', becomes ->> 'phase',
    (was ->> 'lease_epoch')::bigint, (becomes ->> 'lease_epoch')::bigint,
    was ->> 'lease_until' IS NOT NULL,
    (was ->> 'lease_until')::timestamptz > turned.now(), (becomes ->> 'is_overdue')::boolean, changed);
  RETURN NULL;
END $$;
""" + "".join(
    f"CREATE TRIGGER noted AFTER UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION turned.note_write();"
    for table in TABLES
)


@dataclass(frozen=True)
class Write:
    """One committed update of a row."""

    number: int
    pid: int
    relation: str
    row_id: str
    at: Any
    old_status: str | None
    new_status: str | None
    old_outcome: str | None
    new_outcome: str | None
    old_phase: str | None
    new_phase: str | None
    old_epoch: int | None
    new_epoch: int | None
    was_leased: bool
    was_active: bool | None
    is_overdue: bool | None
    changed: list[str] | None


def read_writes(connection: "psycopg.Connection[Any]") -> list[Write]:
    rows = connection.execute("SELECT * FROM turned.writes ORDER BY number", prepare=True).fetchall()
    return [Write(*row) for row in rows]


def clear(connection: "psycopg.Connection[Any]") -> None:
    connection.execute("TRUNCATE turned.writes")
