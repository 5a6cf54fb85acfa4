"""The floor: a bare WSGI application that answers each route with the JSON of one SQL statement, and these statements.

A statement returns what the product answers, from the same tables, with row-level security on. What could be kept on a row
(texts of upgrades, their number) it takes from tables of the bench, so that it computes nothing that need not be computed.
It knows neither session nor person: the floor of a route is this plus the product's signed-in no-op.

    gunicorn -c python:portal.gunicorn_conf bench.floor:application     (BENCH_STATEMENTS: a file with {path: statement})
"""

import json
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import django
import psycopg

from upgrades.states import MatrixRow, PreflightCheck

# The product's configuration of gunicorn compiles the templates before the workers start.
django.setup()
_local = threading.local()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the only value of the path's statement, on a connection of this thread that is kept."""
    if not hasattr(_local, "connection"):
        _local.connection = connect()
        _local.statements = json.loads(Path(os.environ["BENCH_STATEMENTS"]).read_text())
    statement = _local.statements[environ["PATH_INFO"]]
    body = _local.connection.execute(statement, prepare=True, binary=True).fetchone()[0].encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def connect() -> psycopg.Connection[Any]:
    """Connect as the application's role, in the context of the measured organization."""
    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    connection.execute("SELECT set_config('portal.organizations', %s, false)", [os.environ["BENCH_CONTEXT"]])
    connection.execute("SET timezone = 'UTC'")
    return connection


def utc(column: str) -> str:
    return f"""to_char({column}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def times(table: str, *columns: str) -> str:
    return ", ".join(f"{utc(f'{table}.{column}')} AS {column}" for column in columns)


DEPLOYMENT = f"""d.id, d.agent_id, a.name AS agent_name, 'big' AS organization, d.status, d.version, d.replicas,
    d.running_replicas, d.node_id, {times("d", "started_at", "ended_at")}, d.error_message, {times("d", "created_at")}"""
EVENT = (
    f"e.id, e.deployment_id, e.event_type, e.status, e.node_id, e.error_message, {times('e', 'created_at')}, e.actor"
)
ROLLOUT_PLAIN = [
    *(
        "service",
        "service_name",
        "status",
        "outcome",
        "desired_count",
        "running_count",
        "pending_count",
        "failed_tasks",
    ),
    *("from_version", "to_version", "task_definition", "previous_task_definition", "deployment_id", "rollout_reason"),
    *("error_message", "strategy", "lifecycle_stage", "production_weight", "test_weight", "source_weight"),
    *("target_running", "target_pending", "source_running", "hook", "is_stalled", "is_overdue", "is_draining"),
]
ROLLOUT_TIMES = ("started_at", "completed_at", "last_checked_at", "stage_began_at", "bake_ends_at", "deadline_at")
ROLLOUT = f"{', '.join(f'r.{name}' for name in ROLLOUT_PLAIN)}, {times('r', *ROLLOUT_TIMES)}, NULL AS decision"
LABELS = " ".join(f"WHEN '{each.value}' THEN '{each.label}'" for each in (*PreflightCheck, *MatrixRow))
CHECK = f"""c.stage, c.name AS check, CASE c.name {LABELS} END AS title, c.status, c.detail, c.evidence,
    NULLIF(c.checked_by_email, '') AS checked_by, NULLIF(c.note, '') AS note, {times("c", "checked_at")}"""
CHECKS = f"""(SELECT json_agg(row_to_json(k)) FROM (SELECT {CHECK} FROM deployment_upgrade_checks c
    WHERE c.upgrade_id = u.id ORDER BY c.stage, c.position) k)"""
UPGRADE = f"""u.status = 'SUCCESS' AS success, u.upgrade_id, 'big' AS organization, u.status, u.kind, u.version,
    u.force_new_deployment, u.reason, u.initiated_by_email AS initiated_by, u.success_count, u.failed_count, u.validation,
    t.message, t.error AS error_message, NULLIF(u.override_reason, '') AS override_reason,
    {times("u", "started_at", "completed_at")}, {CHECKS} AS checks"""


def document(columns: str, tables: str = "") -> str:
    """Return a statement for one JSON object as text."""
    return f"SELECT row_to_json(answer)::text FROM (SELECT {columns} {tables}) answer"


def array(columns: str, tables: str) -> str:
    return f"COALESCE((SELECT json_agg(row_to_json(i)) FROM (SELECT {columns} {tables}) i), '[]')"


def envelope(total: str, *, limit: int, skip: int = 0) -> str:
    return f"{total} AS total, {skip} AS skip, {limit} AS limit, {total} > {skip + limit} AS has_more"


def list_statement(organization: UUID, status: str | None = None) -> str:
    which = f"AND d.status = '{status}'" if status else ""
    items = array(
        DEPLOYMENT,
        f"""FROM deployments_deployment d JOIN deployments_agent a ON a.id = d.agent_id
        WHERE d.organization_id = '{organization}' {which} ORDER BY d.created_at DESC, d.id DESC LIMIT 50""",
    )
    counted = f"""(SELECT sum(count) AS total FROM deployments_deploymentcount
        WHERE organization_id = '{organization}' {which.replace("d.", "")}) n"""
    chosen = f"'{status}'" if status else "NULL"
    asked = f"'big' AS organization, NULL AS agent_id, {chosen} AS status, NULL AS q"
    return document(f"{items} AS items, {envelope('n.total', limit=50)}, {asked}", f"FROM {counted}")


def detail_statement(deployment: UUID) -> str:
    newest = array(
        EVENT, "FROM deployments_deploymentevent e WHERE e.deployment_id = d.id ORDER BY e.sequence DESC LIMIT 20"
    )
    of = f"FROM deployments_deployment d JOIN deployments_agent a ON a.id = d.agent_id WHERE d.id = '{deployment}'"
    return document(f"{DEPLOYMENT}, {newest} AS events", of)


def events_statement(deployment: UUID, skip: int = 0) -> str:
    items = array(
        EVENT,
        f"""FROM deployments_deploymentevent e WHERE e.deployment_id = d.id AND e.sequence <= d.events_count - {skip}
        ORDER BY e.sequence DESC LIMIT 100""",
    )
    said = f"d.id AS deployment_id, d.status AS deployment_status, {items} AS items"
    asked = "NULL AS event_type, NULL AS status"
    of = f"FROM deployments_deployment d WHERE d.id = '{deployment}'"
    return document(f"{said}, {envelope('d.events_count', limit=100, skip=skip)}, {asked}", of)


def history_statement(organization: UUID) -> str:
    services = (
        "(SELECT json_agg(r.service ORDER BY r.position) FROM deployment_upgrade_services r WHERE r.upgrade_id = u.id)"
    )
    number = "(SELECT count(*) FROM deployment_upgrade_services r WHERE r.upgrade_id = u.id)"
    items = array(
        f"{UPGRADE}, {services} AS services, {number} AS service_count",
        f"""FROM deployment_upgrades u JOIN bench.texts t ON t.upgrade_id = u.id
        WHERE u.organization_id = '{organization}' ORDER BY u.created_at DESC, u.id DESC LIMIT 50""",
    )
    empty = ", ".join(f"NULL AS {name}" for name in ("status", "service", "version", "initiated_by", "validation"))
    asked = f"'big' AS organization, {empty}"
    counted = f"FROM bench.totals n WHERE n.organization_id = '{organization}'"
    return document(f"{items} AS items, {envelope('n.upgrades', limit=50)}, {asked}", counted)


def upgrade_statement(upgrade_id: str) -> str:
    services = array(ROLLOUT, "FROM deployment_upgrade_services r WHERE r.upgrade_id = u.id ORDER BY r.position")
    of = f"FROM deployment_upgrades u JOIN bench.texts t ON t.upgrade_id = u.id WHERE u.upgrade_id = '{upgrade_id}'"
    return document(f"{UPGRADE}, {services} AS services", of)
