"""What a request or a sweep reads does not grow with the past: no scan of a whole table, and few rows from each index."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import Client

from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import PREFLIGHT, UPGRADE, VERSIONS, post_json
from upgrades.checks.draining import find_draining_due
from upgrades.checks.validation import open_missing_matrices
from upgrades.models import Rollout, Upgrade, ValidationRun

SignIn = Callable[[User], Client]

PAST = 2000
# The newest ones failed at their first service, so the others were not attempted.
FAILED = 400
# The most rows that one scan may read, the digests of 70 rollouts being the largest reading.
MOST = 100
GROWING = ("deployment_upgrades", "deployment_upgrade_services", "deployment_upgrade_validations")

UPGRADES = """
INSERT INTO deployment_upgrades (
    upgrade_id, organization_id, target, version, force_new_deployment, reason, status, initiated_by_id,
    initiated_by_email, cluster, region, kind, role_arn, success_count, failed_count, created_at, started_at, completed_at
)
SELECT 'upgrade-past-' || number, %(organization)s, 'all', 'v9.8.0', false, '',
    CASE WHEN number > %(past)s - %(failed)s THEN 'FAILED' ELSE 'SUCCESS' END, %(user)s, '', %(cluster)s, %(region)s,
    'upgrade', '', 0, 0, began, began, began + interval '50 seconds'
FROM generate_series(1, %(past)s) number, LATERAL (SELECT now() - interval '9 days' + number * interval '1 min') at (began)
"""
ROLLOUTS = """
INSERT INTO deployment_upgrade_services (
    upgrade_id, organization_id, service, service_name, position, status, outcome, phase, to_version, to_digest,
    deployment_id, task_definition, previous_task_definition, baseline, stopped_tasks, attempts, target_running,
    target_pending, source_running, breaker_failures, breaker_threshold, is_stalled, lease_epoch, started_at, completed_at
)
SELECT id, organization_id, service, %(stack)s || '-' || service || '-service', position, status,
    CASE WHEN status = 'SUCCESS' THEN 'completed' WHEN position = 0 THEN 'rolled_back' ELSE 'not_attempted' END,
    'done', 'v9.8.0', 'sha256:' || id, 'ecs-svc/' || id, 'arn:past:' || id, 'arn:past:' || id - 1, '{}', '[]',
    1, 0, 0, 0, 0, 0, false, 1, started_at, completed_at
FROM deployment_upgrades, (VALUES ('agent', 0), ('orchestrator', 1), ('customer-portal', 2)) rolled (service, position)
"""
VALIDATIONS = """
INSERT INTO deployment_upgrade_validations (organization_id, upgrade_id, ends_at, is_done, lease_epoch)
SELECT organization_id, id, completed_at, true, 1 FROM deployment_upgrades
"""


@pytest.fixture
def past(cast: Cast, platform: LocalAws, registry: dict[str, str]) -> None:
    """Give acme PAST upgrades of all services, and the planner its statistics, which only the owner of a table may make."""
    acme = cast.acme
    values = {
        "organization": acme.pk,
        "user": cast.operator.pk,
        "cluster": acme.cluster,
        "region": acme.deployment_region,
        "stack": acme.deployment_stack,
        "past": PAST,
        "failed": FAILED,
    }
    with connection.cursor() as cursor:
        cursor.execute(UPGRADES, values)
        cursor.execute(ROLLOUTS, values)
        cursor.execute(VALIDATIONS)
        cursor.execute("SET LOCAL ROLE postgres")
        cursor.execute(f"ANALYZE {', '.join(GROWING)}")
        cursor.execute("RESET ROLE")


@contextmanager
def explained() -> Iterator[list[str]]:
    """Explain each SELECT in the block where it runs. Yield what read too much of a growing table."""
    found: list[str] = []

    def explain(execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if sql.startswith(("SELECT", "(SELECT")) and any(table in sql for table in GROWING):
            with connection.connection.cursor() as cursor:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
                [plan] = cursor.fetchone()[0]
            found.extend(f"{problem} in {sql[:3000]}" for problem in find_problems(plan["Plan"]))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explain):
        yield found


def find_problems(node: dict[str, Any]) -> Iterator[str]:
    if node.get("Relation Name") in GROWING or node["Node Type"] == "Bitmap Index Scan":
        rows = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        if rows > MOST or node["Node Type"] == "Seq Scan":
            yield f"{node['Node Type']} of {node.get('Relation Name') or node['Index Name']} read {rows} rows"
    for part in node.get("Plans", ()):
        yield from find_problems(part)


@pytest.mark.parametrize("path", [f"{PREFLIGHT}?service=all", VERSIONS, "/o/acme/", "/o/acme/upgrades/new?service=all"])
def test_a_read_of_the_platform_reads_little_of_the_past(path: str, cast: Cast, past: None, client_for: SignIn) -> None:
    with explained() as problems:
        answer = client_for(cast.operator).get(path)

    assert answer.status_code == 200
    assert problems == []


def test_an_upgrade_reads_little_of_the_past(cast: Cast, past: None, client_for: SignIn, engine: Engine) -> None:
    client = client_for(cast.operator)

    with explained() as problems:
        accepted = post_json(client, UPGRADE, {"service": "all", "force_new_deployment": True})
        engine.start(Upgrade.objects.get(upgrade_id=accepted.json()["upgrade_id"]))
        page = client.get(f"/o/acme/upgrades/upgrade-past-{PAST}/")

    assert (accepted.status_code, page.status_code) == (202, 200)
    assert problems == []


def test_a_sweep_reads_none_of_the_past(past: None) -> None:
    with explained() as problems, transaction.atomic():
        due = [
            *Rollout.objects.due()[:50],
            *ValidationRun.unfinished().filter(next_check_at__lte="2020-01-01T00:00Z")[:50],
            *find_draining_due()[:50],
        ]
        open_missing_matrices()

    assert due == []
    assert problems == []
