"""Loads the data set of the bench into an empty database with all migrations, in bulk, and keeps the loaded cluster.

One organization, `big`, is measured. It has 20,000 deployments of 50 agents with 1,000,000 events, 200,000 of them on one
deployment, and 10,000 ended upgrades with their rollouts, 18 checks each and timelines. `SCALE=10` gives it ten times as
many rows of each kind, agents included. `tenth` has a tenth of the rows of `big`, so that `make bench-growth` can compare
the two. Beside them are 199 small organizations with 10 deployments and 5 upgrades each, at every scale: their rows share
the tables, and row-level security must keep them out.

Rows are made by the server from a number each, so that two runs have the same rows. Triggers run, except for events and
checks, which have none but foreign keys. A column that the present models do not have is left out, and one that is not
named here gets the model's default. So the same file loads the data set for other revisions: `make bench-compare`.

A loaded cluster takes minutes to make at SCALE=10, so it is kept beside the virtual environment, for the same tables.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from django.db.models import NOT_PROVIDED, JSONField, Model
from psycopg import sql
from psycopg.types.json import Jsonb

from deployments.models import Agent, Deployment, DeploymentEvent
from portal.aws.ecs import DeploymentConfiguration
from portal.models import Membership, Organization, Role, User
from upgrades.models import Rollout, Upgrade, UpgradeCheck, UpgradeEvent, ValidationRun
from upgrades.states import (
    AUTOMATIC,
    TARGETS,
    MatrixRow,
    Outcome,
    PlatformService,
    PreflightCheck,
    Status,
    describe_upgrade,
    get_services,
    overall_status,
)

ROOT = Path(__file__).resolve().parent.parent
KEPT_CLUSTERS, CLUSTERS_KEPT = Path(sys.prefix) / "bench-clusters", 3
PERSON = ("bench@example.com", "bench-passphrase-of-the-portal-7")
PERSON_OF_TENTH = ("tenth@example.com", PERSON[1])
DEPLOYMENTS, AGENTS, UPGRADES, LARGE_EVENTS, EVENTS_EACH = 20_000, 50, 10_000, 200_000, 40
SMALL_ORGANIZATIONS, SMALL_DEPLOYMENTS, SMALL_EVENTS, SMALL_UPGRADES = 199, 10, 10, 5
TENTH = 200  # the number of the organization `tenth`
# Deployments of `big` and `tenth` by their number: 1 is the oldest.
LARGE, DETAILED, MEDIUM = 1, 2, 3
EVENTS_OF = {DETAILED: 45, MEDIUM: 120}
# The status of a deployment, by its number modulo 20.
STATUSES = (
    *("failed", "killed", "killed", "stopped", "stopped", "running"),
    *("ready",) * 14,
)
# The events of a deployment: created once, then these again and again.
CYCLE = (
    *(("deploy.running", "running"), ("deploy.ready", "ready"), ("scale", "ready"), ("deploy.ready", "ready")),
    *(("stop", "ready"), ("deploy.stopped", "stopped"), ("restart", "deploying"), ("deploy.failed", "failed")),
)
COMPLETED, ROLLED_BACK, NOT_ATTEMPTED = Outcome.COMPLETED, Outcome.ROLLED_BACK, Outcome.NOT_ATTEMPTED
# Target and outcomes in rolling order, by the upgrade's number modulo their count.
PATTERNS: tuple[tuple[str, tuple[Outcome, ...]], ...] = (
    ("all", (COMPLETED, COMPLETED, COMPLETED)),
    ("agent", (COMPLETED,)),
    ("orchestrator", (COMPLETED,)),
    ("agent", (COMPLETED,)),
    ("all", (COMPLETED, COMPLETED, COMPLETED)),
    ("customer-portal", (COMPLETED,)),
    ("agent", (ROLLED_BACK,)),
    ("all", (COMPLETED, ROLLED_BACK, NOT_ATTEMPTED)),
    ("orchestrator", (COMPLETED,)),
    ("agent", (COMPLETED,)),
)
ARN = "'arn:aws:ecs:eu-central-1:111111111111:"
IMAGE = "'111111111111.dkr.ecr.eu-central-1.amazonaws.com/bench-agent:v1.' || (n % 7)"
CRASH = "Essential container in task exited"
BREAKER = "Service deployment rolled back because the circuit breaker threshold was exceeded."

# The organizations with their numbers of rows, and the numbered rows of each kind: 0 is `big`, 1 to 199 are the small ones,
# and 200 is `tenth`.
NUMBERED = """
CREATE SCHEMA bench;
CREATE TABLE bench.owners AS
SELECT id, slug, CASE slug WHEN 'big' THEN 0 WHEN 'tenth' THEN {tenth} ELSE substr(slug, 7)::int END AS number,
    CASE slug WHEN 'big' THEN {agents} WHEN 'tenth' THEN {agents} / 10 ELSE 1 END AS agents,
    CASE slug WHEN 'big' THEN {deployments} WHEN 'tenth' THEN {deployments} / 10 ELSE {small_deployments} END
        AS deployments,
    CASE slug WHEN 'big' THEN {upgrades} WHEN 'tenth' THEN {upgrades} / 10 ELSE {small_upgrades} END AS upgrades
FROM portal_organization WHERE slug IN ('big', 'tenth') OR slug LIKE 'small-%';
CREATE TABLE bench.deployments AS
SELECT o.id AS organization_id, o.slug, n, o.number, md5('deployment ' || o.number || ' ' || n)::uuid AS id,
    md5('agent ' || o.number || ' ' || (n % o.agents))::uuid AS agent_id,
    ({statuses}::text[])[1 + n % {status_count}] AS status,
    CASE WHEN o.slug LIKE 'small-%' THEN {small_events}
        ELSE COALESCE(({events_of}::jsonb ->> n::text)::int, {events_each})
            / CASE WHEN o.slug = 'tenth' AND n = {large} THEN 10 ELSE 1 END
    END AS events,
    now() - interval '1 day' - interval '399 days' * (1 - n / o.deployments::float) AS created_at
FROM bench.owners o, generate_series(1, o.deployments) n;
CREATE TABLE bench.upgrades AS
SELECT *, 'upgrade-' || to_char(created_at, 'YYYY-MMDD-HH24MISS') || '-' || lpad(to_hex(number * 1000000 + n), 8, '0')
    AS upgrade_id
FROM (
    SELECT o.id AS organization_id, o.slug, n, o.number, o.upgrades AS of, n % {patterns} AS pattern,
        now() - interval '1 day' - interval '399 days' * (1 - n / o.upgrades::float) AS created_at
    FROM bench.owners o, generate_series(1, o.upgrades) n
) AS numbered;
CREATE TABLE bench.patterns (pattern int, target text, status text, validation text, message text, error text,
    success_count int, failed_count int);
CREATE TABLE bench.rollouts (pattern int, position int, service text, status text, outcome text, error text);
CREATE TABLE bench.checks (stage text, position int, name text, label text, automatic bool);
CREATE TABLE bench.cycle (step int, event_type text, status text);
"""
COUNTS_OF_EVENTS = """
SELECT jsonb_object_agg(kind, times) FROM (
    SELECT CASE WHEN s = 1 THEN 'create|deploying' ELSE c.event_type || '|' || c.status END AS kind, count(*) AS times
    FROM generate_series(1, d.events) s JOIN bench.cycle c ON c.step = (s - 2 + {cycle}) % {cycle} GROUP BY 1
) AS counted
"""
# Kept texts and totals, so that the floor's statement never computes what a statement could keep.
FLOOR = """
CREATE TABLE bench.texts AS SELECT u.id AS upgrade_id, p.message, p.error
FROM deployment_upgrades u JOIN bench.upgrades b USING (upgrade_id) JOIN bench.patterns p USING (pattern);
ALTER TABLE bench.texts ADD PRIMARY KEY (upgrade_id);
CREATE TABLE bench.totals AS SELECT organization_id, count(*)::int AS upgrades FROM deployment_upgrades GROUP BY 1;
GRANT USAGE ON SCHEMA bench TO portal_app;
GRANT SELECT ON bench.texts, bench.totals TO portal_app;
DROP TABLE bench.deployments, bench.upgrades, bench.patterns, bench.rollouts, bench.checks, bench.cycle, bench.owners;
"""
MADE = "deployment_upgrades u JOIN bench.upgrades b USING (upgrade_id)"


def number_id(kind: str, number: int, organization: int = 0) -> UUID:
    """Return the id of a numbered agent or deployment. `organization`: 0 is `big`."""
    return UUID(hashlib.md5(f"{kind} {organization} {number}".encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True)
class Writer:
    """Inserts rows of a model from a SELECT, with the model's defaults for what is not named."""

    connection: psycopg.Connection[Any]

    def run(self, statement: str, **values: Any) -> None:
        texts = {name: sql.Literal(value) for name, value in values.items()}
        self.connection.execute(sql.SQL(statement).format(**texts))

    def analyze(self, *tables: str) -> None:
        """Collect statistics, without which a join of new tables compares each row with each other."""
        self.connection.execute(f"ANALYZE {', '.join(tables)}")

    def insert(self, model: type[Model], source: str, columns: Mapping[str, str], *, triggers: bool = True) -> None:
        """Insert one row for each row of `source`. `columns`: an expression for each field by its name."""
        names, values = [], []
        for field in model._meta.concrete_fields:
            given = columns.get(field.name)
            if field.generated:
                continue
            if given is not None:
                value: sql.Composable = sql.SQL(given)
            elif field.has_default() and field.db_default is NOT_PROVIDED and not field.primary_key:
                default = field.get_default()
                value = sql.Literal(Jsonb(default) if isinstance(field, JSONField) else default)
            elif field.empty_strings_allowed and not field.null and field.db_default is NOT_PROVIDED:
                value = sql.Literal("")
            else:
                continue
            names.append(sql.Identifier(str(field.column)))
            values.append(value)
        statement = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(
            sql.Identifier(model._meta.db_table),
            sql.SQL(", ").join(names),
            sql.SQL(", ").join(values),
            sql.SQL(source),
        )
        self.connection.execute(f"SET session_replication_role = {'origin' if triggers else 'replica'}")
        self.connection.execute(statement)
        self.connection.execute("SET session_replication_role = origin")


def make_people() -> User:
    """Create the organizations and the people who are measured, an admin of `big` alone and one of `tenth` alone.

    Call in all organizations.
    """
    person = User.objects.create_user(*PERSON, name="Bench")
    big = make_organization("big", "Big", upgrade_trigger_limit=1000)
    small = [make_organization(f"small-{number}", f"Small {number}") for number in range(1, SMALL_ORGANIZATIONS + 1)]
    other = User.objects.create_user("other@example.com", None)
    accepted = Organization.objects.get(pk=big.pk).created_at
    Membership.objects.create(organization=big, user=person, role=Role.ADMIN, accepted_at=accepted)
    tenth = make_organization("tenth", "Tenth", upgrade_trigger_limit=1000)
    of_tenth = User.objects.create_user(*PERSON_OF_TENTH, name="Bench of tenth")
    Membership.objects.create(organization=tenth, user=of_tenth, role=Role.ADMIN, accepted_at=accepted)
    Membership.objects.bulk_create(
        Membership(organization=each, user=other, role=Role.ADMIN, accepted_at=accepted) for each in small
    )
    return person


def make_organization(slug: str, name: str, **fields: Any) -> Organization:
    return Organization.objects.create(slug=slug, name=name, deployment_stack=slug, **fields)


def load(connection: psycopg.Connection[Any], person: User, scale: int) -> None:
    """Insert the rows of all organizations, as a superuser, in one transaction. Then collect statistics."""
    writer = Writer(connection)
    with connection.transaction():
        number_rows(writer, scale)
        load_agents(writer)
        load_deployments(writer, person)
        load_events(writer, person, scale)
        load_upgrades(writer, person)
        writer.run(FLOOR)
    connection.autocommit = True
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")


def number_rows(writer: Writer, scale: int) -> None:
    writer.run(
        NUMBERED,
        agents=AGENTS * scale,
        deployments=DEPLOYMENTS * scale,
        upgrades=UPGRADES * scale,
        small_deployments=SMALL_DEPLOYMENTS,
        small_upgrades=SMALL_UPGRADES,
        small_events=SMALL_EVENTS,
        statuses=list(STATUSES),
        status_count=len(STATUSES),
        events_of=Jsonb({LARGE: LARGE_EVENTS * scale, **EVENTS_OF}),
        events_each=EVENTS_EACH,
        large=LARGE,
        tenth=TENTH,
        patterns=len(PATTERNS),
    )
    with writer.connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO bench.cycle VALUES (%s, %s, %s)", [(step, *each) for step, each in enumerate(CYCLE)]
        )
        cursor.executemany("INSERT INTO bench.checks VALUES (%s, %s, %s, %s, %s)", build_checks())
        for pattern, (target, outcomes) in enumerate(PATTERNS):
            rollouts = build_rollouts(target, outcomes)
            cursor.executemany(
                "INSERT INTO bench.rollouts VALUES (%s, %s, %s, %s, %s, %s)", [(pattern, *each) for each in rollouts]
            )
            cursor.execute(
                "INSERT INTO bench.patterns VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (pattern, target, *summarize(rollouts)),
            )
    tables = ("owners", "deployments", "upgrades", "patterns", "rollouts", "checks", "cycle")
    writer.analyze(*(f"bench.{table}" for table in tables))


def build_checks() -> list[tuple[str, int, str, str, bool]]:
    before = [("preflight", at, check.value, str(check.label), True) for at, check in enumerate(PreflightCheck)]
    after = [("validation", at, row.value, str(row.label), row in AUTOMATIC) for at, row in enumerate(MatrixRow)]
    return before + after


def build_rollouts(target: str, outcomes: tuple[Outcome, ...]) -> list[tuple[int, str, str, str, str | None]]:
    """Return position, service, status, outcome and error of each rollout."""
    assert target in TARGETS  # noqa: S101
    rows = []
    for position, (service, outcome) in enumerate(zip(get_services(target), outcomes, strict=True)):
        is_good = outcome == COMPLETED
        why = BREAKER if outcome == ROLLED_BACK else "An earlier service failed."
        error = None if is_good else f"{outcome.label}. {why}"
        status = Status.SUCCESS if is_good else Status.FAILED
        rows.append((position, PlatformService(service).value, status.value, outcome.value, error))
    return rows


def summarize(rollouts: list[tuple[int, str, str, str, str | None]]) -> tuple[str, str, str, str | None, int, int]:
    """Return status, validation, message, error message, and the counts of the upgrade with these rollouts."""
    statuses = [Status(status) for _, _, status, _, _ in rollouts]
    overall = overall_status(statuses)
    said = [(service, Status(status), outcome) for _, service, status, outcome, _ in rollouts]
    errors = [f"{service}: {error}" for _, service, _, outcome, error in rollouts if error and outcome != NOT_ATTEMPTED]
    good = statuses.count(Status.SUCCESS)
    validation = "passed" if good else "none"
    message = describe_upgrade(overall, said)
    return overall.value, validation, message, " ".join(errors) or None, good, len(statuses) - good


def load_agents(writer: Writer) -> None:
    writer.insert(
        Agent,
        "bench.owners o, generate_series(0, o.agents - 1) n",
        {
            "id": "md5('agent ' || o.number || ' ' || n)::uuid",
            "organization": "o.id",
            "name": "'Agent ' || n",
            "description": "'Answers questions about the product, in several languages.'",
            "image": IMAGE,
            "cpu": "256",
            "memory": "512",
            "environment": """'{"LOG_LEVEL": "info"}'""",
            "created_at": "now() - interval '400 days' + n * interval '1 hour'",
        },
    )


def load_deployments(writer: Writer, person: User) -> None:
    runs = "status IN ('ready', 'running')"
    cycle = str(len(CYCLE))
    writer.insert(
        Deployment,
        "bench.deployments d",
        {
            "id": "id",
            "organization": "organization_id",
            "agent": "agent_id",
            "status": "status",
            "status_at": "created_at + interval '10 minutes'",
            "wanted": "CASE status WHEN 'killed' THEN 'gone' WHEN 'stopped' THEN 'stopped' ELSE 'running' END",
            "replicas": "1 + n % 4",
            "observed_generation": "1",
            "version": "'v1.' || (n % 7)",
            "image": IMAGE,
            "cpu": "256",
            "memory": "512",
            "environment": """'{"LOG_LEVEL": "info"}'""",
            "cluster": "slug || '-cluster'",
            "service_name": "'agent-' || left(id::text, 13)",
            "service_arn": f"{ARN}service/' || slug || '-cluster/agent-' || left(id::text, 13)",
            "task_definition": "'agent-' || left(id::text, 13) || ':1'",
            "task_generation": "1",
            "applied_generation": "1",
            "log_group": "'/ecs/' || slug",
            "desired_count": f"CASE WHEN {runs} THEN 1 + n % 4 ELSE 0 END",
            "running_replicas": f"CASE WHEN {runs} THEN 1 + n % 4 ELSE 0 END",
            "node_id": f"CASE WHEN {runs} THEN md5(id::text) END",
            "error_message": f"CASE WHEN status = 'failed' THEN 'container exited with code 1: {CRASH}' END",
            "last_checked_at": "now() - interval '1 minute'",
            # In the future, so that no reconciler takes it.
            "next_check_at": "CASE WHEN status <> 'killed' THEN now() + interval '10 years' END",
            "events_count": "events",
            "event_counts": f"({COUNTS_OF_EVENTS.replace('{cycle}', cycle)})",
            "created_by": str(person.pk),
            "created_at": "created_at",
            "started_at": "created_at + interval '40 seconds'",
            "ended_at": "CASE WHEN status IN ('failed', 'killed', 'stopped') THEN created_at + interval '10 minutes' END",
        },
    )


def load_events(writer: Writer, person: User, scale: int) -> None:
    """Write the events of a deployment beside each other, as they lie where a deployment writes its own in one go."""
    cycle = len(CYCLE)
    writer.insert(
        DeploymentEvent,
        "(SELECT d.*, s FROM bench.deployments d, generate_series(1, d.events) s) AS e"
        f" JOIN bench.cycle c ON c.step = (s - 2 + {cycle}) % {cycle}",
        {
            "id": "md5(e.id::text || s)::uuid",
            "organization": "organization_id",
            "deployment": "e.id",
            "sequence": "s",
            "event_type": "CASE WHEN s = 1 THEN 'create' ELSE c.event_type END",
            "status": "CASE WHEN s = 1 THEN 'deploying' ELSE c.status END",
            "node_id": "CASE WHEN s > 1 AND c.status IN ('ready', 'running') THEN md5(e.id::text) END",
            "error_message": "CASE WHEN s > 1 AND c.status = 'failed' THEN 'container exited with code 1' END",
            "detail": "CASE WHEN s > 1 AND c.event_type = 'scale' THEN 'from 1 to 2' ELSE '' END",
            "actor": f"CASE WHEN s > 1 AND c.event_type LIKE 'deploy.%' THEN 'system' ELSE '{person.email}' END",
            "created_at": f"e.created_at + (s - 1) * interval '10 seconds' / {scale}",
        },
        triggers=False,
    )


def load_upgrades(writer: Writer, person: User) -> None:
    lasted = "interval '90 seconds' * p.success_count"
    writer.insert(
        Upgrade,
        "bench.upgrades b JOIN bench.patterns p USING (pattern) ORDER BY b.created_at",
        {
            "upgrade_id": "b.upgrade_id",
            "organization": "b.organization_id",
            "target": "p.target",
            "version": "'v9.' || (b.n % 9)",
            "force_new_deployment": "b.n % 2 = 0",
            "reason": "'OPS-' || b.n || ': new release'",
            "status": "p.status",
            "initiated_by": str(person.pk),
            "initiated_by_email": f"'{person.email}'",
            "success_count": "p.success_count",
            "failed_count": "p.failed_count",
            "estimated_seconds": "90 * p.success_count",
            "cluster": "b.slug || '-cluster'",
            "region": "'eu-central-1'",
            "validation": "p.validation",
            "message": "p.message",
            "created_at": "b.created_at",
            "started_at": "b.created_at + interval '1 second'",
            "completed_at": f"b.created_at + interval '1 second' + {lasted}",
        },
    )
    writer.analyze("deployment_upgrades")
    load_rollouts(writer)
    writer.analyze("deployment_upgrade_services")
    load_checks(writer, person)
    load_timelines(writer, person)


def load_rollouts(writer: Writer) -> None:
    attempted = "r.outcome <> 'not_attempted'"
    good = "r.outcome = 'completed'"
    configuration = json.dumps(asdict(DeploymentConfiguration(breaker_enabled=True, breaker_rolls_back=True)))
    began = "u.started_at + r.position * interval '90 seconds'"
    name = "b.slug || '-' || r.service || '-service'"
    writer.insert(
        Rollout,
        f"{MADE} JOIN bench.rollouts r USING (pattern) ORDER BY u.id, r.position",
        {
            "upgrade": "u.id",
            "organization": "u.organization_id",
            "service": "r.service",
            "service_name": name,
            "position": "r.position",
            "status": "r.status",
            "outcome": "r.outcome",
            "phase": "'done'",
            "from_version": f"CASE WHEN {attempted} THEN 'v9.' || ((b.n + 8) % 9) END",
            "to_version": f"CASE WHEN {attempted} THEN u.version END",
            "from_digest": f"CASE WHEN {attempted} THEN 'sha256:' || md5('image ' || (b.n + 8) % 9) || repeat('0', 32) END",
            "to_digest": f"CASE WHEN {attempted} THEN 'sha256:' || md5('image ' || b.n % 9) || repeat('0', 32) END",
            "previous_task_definition": f"CASE WHEN {attempted} THEN {ARN}task-definition/' || {name} || ':' || b.n END",
            "task_definition": f"CASE WHEN {attempted} THEN {ARN}task-definition/' || {name} || ':' || b.n + 1 END",
            "deployment_id": f"CASE WHEN {attempted} THEN 'ecs-svc/' || (1000000000 + u.id) END",
            "attempts": f"CASE WHEN {attempted} THEN 1 ELSE 0 END",
            "desired_count": f"CASE WHEN {attempted} THEN 2 END",
            "running_count": f"CASE WHEN {attempted} THEN 2 END",
            "pending_count": f"CASE WHEN {attempted} THEN 0 END",
            "failed_tasks": f"CASE WHEN {attempted} THEN CASE WHEN {good} THEN 0 ELSE 3 END END",
            "target_running": f"CASE WHEN {good} THEN 2 ELSE 0 END",
            "source_running": f"CASE WHEN {good} THEN 0 ELSE 2 END",
            "breaker_threshold": "3",
            "rollout_reason": f"CASE WHEN r.outcome = 'rolled_back' THEN '{BREAKER}' END",
            "error_message": "r.error",
            "configuration": f"'{configuration}'",
            "strategy": f"CASE WHEN {attempted} THEN 'ROLLING' END",
            "allowed_seconds": "0",
            "started_at": f"CASE WHEN {attempted} THEN {began} END",
            "completed_at": f"{began} + interval '1 second' * (60 + b.n % 60)",
            "deadline_at": f"{began} + interval '45 minutes'",
            "last_checked_at": f"CASE WHEN {attempted} THEN {began} + interval '90 seconds' END",
        },
    )


def load_checks(writer: Writer, person: User) -> None:
    signed = "NOT c.automatic"
    newest = "b.n = b.of"
    writer.insert(
        UpgradeCheck,
        f"{MADE} JOIN bench.checks c ON c.stage = 'preflight' OR u.success_count > 0 ORDER BY u.id, c.stage, c.position",
        {
            "organization": "u.organization_id",
            "upgrade": "u.id",
            "stage": "c.stage",
            "name": "c.name",
            "position": "c.position",
            "status": "'pass'",
            "detail": "CASE WHEN c.automatic THEN c.label || ': answered correctly.' ELSE 'A person must sign this.' END",
            "evidence": """CASE WHEN c.automatic THEN '{"probed": "pass", "cluster": "c"}'::jsonb ELSE '{}' END""",
            "checked_by": f"CASE WHEN {signed} THEN {person.pk} END",
            "checked_by_email": f"CASE WHEN {signed} THEN '{person.email}' ELSE '' END",
            "note": f"CASE WHEN {signed} THEN 'Seen.' ELSE '' END",
            "checked_at": "CASE c.stage WHEN 'preflight' THEN u.created_at ELSE u.completed_at + interval '5 minutes' END",
        },
        triggers=False,
    )
    writer.insert(
        ValidationRun,
        f"{MADE} WHERE u.success_count > 0 ORDER BY u.id",
        {
            "organization": "u.organization_id",
            "upgrade": "u.id",
            # The newest one of each organization is still probed, so that its page is live. No worker takes it.
            "ends_at": f"CASE WHEN {newest} THEN now() + interval '10 years' ELSE u.completed_at END",
            "is_done": f"NOT ({newest})",
            "next_check_at": f"CASE WHEN {newest} THEN now() + interval '10 years' END",
        },
    )


def load_timelines(writer: Writer, person: User) -> None:
    """Write what the portal writes: the request, begin and end of each rollout, ECS's event of it, the validation."""
    entry = {"organization": "u.organization_id", "upgrade": "u.id"}
    one = {**entry, "kind": "e.kind", "message": "e.message", "actor_email": "e.actor", "created_at": "e.at"}
    writer.insert(
        UpgradeEvent,
        f"""{MADE} JOIN bench.patterns p USING (pattern) CROSS JOIN LATERAL (VALUES
            ('upgrade.triggered', u.target || ' to ' || u.version || '. ' || u.reason, '{person.email}', u.created_at),
            ('upgrade.ended', p.message, '', u.completed_at),
            ('check.recorded', 'Sign-in works: pass. Seen.', '{person.email}', u.completed_at + interval '5 minutes'),
            ('upgrade.validated', 'Validated.', '{person.email}', u.completed_at + interval '6 minutes')
        ) AS e (kind, message, actor, at) WHERE u.success_count > 0 OR e.kind IN ('upgrade.triggered', 'upgrade.ended')""",
        one,
        triggers=False,
    )
    writer.insert(
        UpgradeEvent,
        f"""{MADE} JOIN deployment_upgrade_services r ON r.upgrade_id = u.id CROSS JOIN LATERAL (VALUES
            ('rollout.started', 'Deployment started.', r.started_at, NULL),
            ('ecs', '(service ' || r.service_name || ') has reached a steady state.', r.completed_at, 'e-' || r.id),
            ('rollout.ended', COALESCE(r.error_message, 'Completed.'), r.completed_at, NULL)
        ) AS e (kind, message, at, event) WHERE r.started_at IS NOT NULL""",
        {**one, "rollout": "r.id", "actor_email": "''", "ecs_event_id": "e.event"},
        triggers=False,
    )


# The kept cluster


def get_digest(scale: int) -> str:
    """Return a digest of what decides the rows: migrations, models, this file and the scale."""
    digest = hashlib.sha256(str(scale).encode())
    names = ("*/migrations/*.py", "*/models.py", "portal/models/*.py", "portal/database/*.*", "bench/data.py")
    for path in sorted(path for name in names for path in ROOT.glob(name)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def find_kept(scale: int) -> Path | None:
    kept = KEPT_CLUSTERS / get_digest(scale)
    return kept if kept.exists() else None


def keep(cluster: Path, scale: int) -> None:
    """Keep a copy of a cluster that is shut down. Another run may do the same at this moment."""
    KEPT_CLUSTERS.mkdir(exist_ok=True)
    for old in sorted(KEPT_CLUSTERS.iterdir(), key=lambda path: path.stat().st_mtime)[: -CLUSTERS_KEPT + 1]:
        shutil.rmtree(old, ignore_errors=True)
    kept = KEPT_CLUSTERS / get_digest(scale)
    copy = kept.with_name(f"{kept.name}.{os.getpid()}")
    copy_cluster(cluster, copy)
    try:
        copy.rename(kept)
    except OSError:
        shutil.rmtree(copy)


def copy_cluster(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)  # noqa: S603, S607
