"""Checks each write to the rows that the engine works on, in triggers that only the simulation installs.

A statement that breaks an invariant fails with the state `BROKEN`, and the world ends at this step (sim/backend). The
triggers record the claims and the rollouts that became overdue, for the checks at the end (sim/oracle.py).
"""

from dataclasses import dataclass
from typing import Any

import psycopg

BROKEN = "SIM01"
SQL = f"""
CREATE UNLOGGED TABLE turned.writes (
  number bigserial PRIMARY KEY, kind text NOT NULL, row_id bigint NOT NULL, at timestamptz NOT NULL);
CREATE UNLOGGED TABLE turned.claims (
  pid int, relation text, row_id text, epoch bigint NOT NULL, PRIMARY KEY (pid, relation, row_id));

CREATE FUNCTION turned.refuse(kind text, what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '%: %', kind, what USING ERRCODE = '{BROKEN}'; END $$;

-- Note who has the newest lease, and refuse a claim while another worker holds the row.
CREATE FUNCTION turned.note_claim(relation text, row_id text, epoch bigint, held_until timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF held_until > turned.now() THEN
    PERFORM turned.refuse('fenced', format('%s %s was claimed while another worker held it', relation, row_id));
  END IF;
  INSERT INTO turned.claims AS claims VALUES (pg_backend_pid(), relation, row_id, epoch)
  ON CONFLICT ON CONSTRAINT claims_pkey DO UPDATE SET epoch = excluded.epoch;
END $$;

CREATE FUNCTION turned.has_lease(of_relation text, of_row text, of_epoch bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  RETURN EXISTS (SELECT FROM turned.claims
    WHERE pid = pg_backend_pid() AND relation = of_relation AND row_id = of_row AND epoch = of_epoch);
END $$;

CREATE FUNCTION turned.check_rollout() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE compared deployment_upgrade_services := old;
BEGIN
  IF old.phase = 'done' THEN
    PERFORM turned.refuse('wrong', format('rollout %s was written after its end', new.id));
  END IF;
  IF old.lease_epoch <> new.lease_epoch THEN
    PERFORM turned.note_claim('rollout', new.id::text, new.lease_epoch, old.lease_until);
    INSERT INTO turned.writes (kind, row_id, at) VALUES ('claimed', new.id, turned.now());
  ELSIF old.phase <> 'waiting' THEN
    -- A person's command only makes the rollout due.
    compared.next_check_at := new.next_check_at;
    IF compared IS DISTINCT FROM new THEN
      IF old.lease_until IS NULL THEN
        PERFORM turned.refuse('fenced', format('rollout %s was written after its lease was released', new.id));
      ELSIF NOT turned.has_lease('rollout', new.id::text, old.lease_epoch) THEN
        PERFORM turned.refuse('fenced', format('rollout %s was written without its lease', new.id));
      END IF;
    END IF;
  END IF;
  IF new.is_overdue AND NOT old.is_overdue THEN
    INSERT INTO turned.writes (kind, row_id, at) VALUES ('overdue', new.id, turned.now());
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION turned.check_new_rollout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM deployment_upgrade_services WHERE organization_id = new.organization_id
      AND service = new.service AND phase <> 'done' AND id <> new.id) THEN
    PERFORM turned.refuse('wrong', format('rollout %s was added while one of %s is open', new.id, new.service));
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION turned.check_upgrade() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.status IN ('SUCCESS', 'FAILED', 'PARTIAL', 'SKIPPED') AND new.status <> old.status THEN
    PERFORM turned.refuse('wrong', format('upgrade %s changed from %s to %s', new.id, old.status, new.status));
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION turned.check_deployment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.lease_epoch <> new.lease_epoch THEN
    PERFORM turned.note_claim('deployment', new.id::text, new.lease_epoch, old.lease_until);
  ELSIF new.lease_until IS DISTINCT FROM old.lease_until
      AND NOT turned.has_lease('deployment', new.id::text, old.lease_epoch) THEN
    PERFORM turned.refuse('fenced', format('deployment %s was written without its lease', new.id));
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER checked AFTER UPDATE ON deployment_upgrade_services
  FOR EACH ROW EXECUTE FUNCTION turned.check_rollout();
CREATE TRIGGER checked_first AFTER INSERT ON deployment_upgrade_services
  FOR EACH ROW EXECUTE FUNCTION turned.check_new_rollout();
CREATE TRIGGER checked AFTER UPDATE ON deployment_upgrades
  FOR EACH ROW EXECUTE FUNCTION turned.check_upgrade();
CREATE TRIGGER checked AFTER UPDATE ON deployments_deployment
  FOR EACH ROW EXECUTE FUNCTION turned.check_deployment();
"""


@dataclass(frozen=True)
class Write:
    """A write that the end of the world is judged by. `kind`: `claimed`, or `overdue` at the moment it became so."""

    kind: str
    rollout_id: int
    at: float


def read_writes(connection: "psycopg.Connection[Any]") -> list[Write]:
    query = "SELECT kind, row_id, extract(epoch FROM at) FROM turned.writes ORDER BY number"
    return [Write(kind, pk, float(at)) for kind, pk, at in connection.execute(query, prepare=True)]
