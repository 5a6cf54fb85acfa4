"""The plans of every list query on many rows: each reads about a page, whatever the number of rows of the organization."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext

from deployments.models import Deployment
from portal import tenancy
from portal.models import User
from portal.settings import PREPARE_AFTER
from portal.web.search import NEWEST
from tests.conftest import Cast
from tests.deployments.conftest import DEPLOYMENTS, make_agent, make_deployment
from tests.upgrades.conftest import UPGRADES, make_upgrade
from upgrades.states import Status

pytestmark = pytest.mark.django_db
SignIn = Callable[[User], Client]

ROWS = 6000
# A page has 50 or 100 rows. A search and the order by agent read as many of each of the 11 agents, and the list of agents
# may read all counters for each.
PAGE, PAGES_OF_AGENTS = 101, 600
PAGE_OF_LIST = "/o/acme/deployments/"
HISTORY = "/o/acme/upgrades/"


# Each address, and the most rows that a node of its plans may read.
READS = [
    (DEPLOYMENTS, PAGE),
    (f"{DEPLOYMENTS}?status=failed", PAGE),
    (f"{DEPLOYMENTS}?status=killed", PAGE),
    (f"{DEPLOYMENTS}?q=nothing", PAGE),
    (f"{DEPLOYMENTS}?q=abcdef01", PAGE),
    (f"{DEPLOYMENTS}?q=agent", PAGES_OF_AGENTS),
    (f"{DEPLOYMENTS}/{{busy}}", PAGE),
    (f"{DEPLOYMENTS}/{{busy}}/events", PAGE),
    (f"{DEPLOYMENTS}/{{busy}}/events?skip={ROWS // 2}", PAGE),
    (f"{DEPLOYMENTS}/{{busy}}/events?status=failed", PAGE),
    (UPGRADES, PAGE),
    (f"{UPGRADES}?status=FAILED", PAGE),
    (f"{UPGRADES}?validation=passed", PAGE),
    (f"{UPGRADES}?service=all", PAGE),
    (f"{UPGRADES}?version=v0", PAGE),
    (f"{UPGRADES}?initiated_by=Nobody@example.com", PAGE),
    ("/api/v1/deployments/upgrade/{upgrade}", PAGE),
    ("/api/v1/deployments/upgrade/{upgrade}/events", PAGE),
    ("/api/v1/agents", PAGES_OF_AGENTS),
    (PAGE_OF_LIST, PAGE),
    (f"{PAGE_OF_LIST}?sort=created_at", PAGE),
    (f"{PAGE_OF_LIST}?sort=status", PAGE),
    (f"{PAGE_OF_LIST}?sort=-replicas", PAGE),
    (f"{PAGE_OF_LIST}?sort=agent", PAGES_OF_AGENTS),
    (f"{PAGE_OF_LIST}?q=nothing&sort=-replicas", PAGE),
    (HISTORY, PAGE),
    ("/o/acme/search/?q=nothing", NEWEST),
    ("/o/acme/search/?q=abcdef01", NEWEST),
]


def copy_row(row: Model, numbers: str, **changes: str) -> None:
    """Insert a copy of a row for each of the numbers n. `changes`: SQL for a column, which may contain n."""
    fields = [field for field in row._meta.local_concrete_fields if not field.generated]
    names = [field.column for field in fields if field.column in changes or not field.primary_key]
    table = row._meta.db_table
    values = ", ".join(changes.get(name, f'"{name}"') for name in names)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table}, ({numbers}) AS numbers (n)"  # noqa: S608 - our own names
            f" WHERE {table}.{row._meta.pk.column} = %s",
            [row.pk],
        )


def up_to(most: int) -> str:
    return f"SELECT generate_series(1, {most})"


@pytest.fixture
def large(cast: Cast) -> Deployment:
    """Make an organization with many rows of everything that grows, and let PostgreSQL count them."""
    ago = {"id": "gen_random_uuid()", "created_at": "created_at - n * interval '1 minute'"}
    for number in range(10):
        first = make_deployment(cast, make_agent(cast, f"Agent {number}"), replicas=1 + number)
        copy_row(first, up_to(ROWS // 10), **ago, service_name="service_name || n")
    busy = make_deployment(cast, make_agent(cast, "Busy"), "failed")
    event = busy.events.get()
    copy_row(event, up_to(ROWS), **ago, sequence="sequence + n", event_type="'deploy.ready'", status="'ready'")
    Deployment.objects.filter(pk=busy.pk).update(
        events_count=ROWS + 1, event_counts={"create|deploying": 1, "deploy.ready|ready": ROWS}
    )
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="agent")
    copy_row(upgrade, up_to(ROWS), upgrade_id="upgrade_id || n", created_at="created_at - n * interval '1 minute'")
    others = f"SELECT id FROM deployment_upgrades WHERE id <> {upgrade.pk}"  # noqa: S608 - our own number
    copy_row(upgrade.rollouts.get(), others, upgrade_id="n")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO deployment_upgrade_events (organization_id, upgrade_id, kind, message)"
            " SELECT organization_id, id, 'upgrade.triggered', 'Recorded.' FROM deployment_upgrades"
        )
        cursor.execute("SET ROLE postgres")
        cursor.execute("ANALYZE")
        cursor.execute("RESET ROLE")
    make_upgrade(cast.acme, by=cast.admin, target="all", statuses=[Status.FAILED] * 3)
    return busy


def find_nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from find_nodes(child)


def read_plans(cast: Cast, queries: list[str]) -> Iterator[dict[str, Any]]:
    """Run the statements again in the person's context, and yield the nodes of their plans."""
    with tenancy.organizations(cast.acme.pk), connection.cursor() as cursor:
        for query in queries:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}")
            yield from find_nodes(cursor.fetchone()[0][0]["Plan"])


def describe(node: dict[str, Any]) -> str:
    return (
        f"{node['Node Type']} {node.get('Relation Name', '')} {node.get('Index Name', '')}: {count_rows(node):.0f} rows"
    )


def count_rows(node: dict[str, Any]) -> float:
    """Return the rows that a node of a plan read, sorted or dropped; 0 for one that repeats what another node read."""
    if node["Node Type"] in ("Materialize", "Memoize"):
        return 0
    rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    sorted_rows = node["Plans"][0]["Actual Rows"] if node["Node Type"] == "Sort" else 0
    return float(max(rows, sorted_rows) * node["Actual Loops"])


def test_every_list_reads_about_a_page(cast: Cast, client_for: SignIn, large: Deployment, subtests: Any) -> None:
    upgrade = cast.acme.upgrades.order_by("-created_at")[0].upgrade_id
    client = client_for(cast.viewer)

    for path, most in READS:
        with subtests.test(path), CaptureQueriesContext(connection) as captured:
            assert client.get(path.format(busy=large.pk, upgrade=upgrade)).status_code == 200
        reads = [each["sql"] for each in captured.captured_queries if each["sql"].startswith("SELECT")]
        with subtests.test(f"plans of {path}"):
            assert [describe(node) for node in read_plans(cast, reads) if count_rows(node) > most] == []


def test_a_page_is_planned_for_its_own_organization(cast: Cast, client_for: SignIn) -> None:
    """A prepared statement gets one plan for organizations of all sizes. One that reads by key may have it."""
    deployment = make_deployment(cast, make_agent(cast, "Agent"))
    client = client_for(cast.viewer)

    for path in (DEPLOYMENTS, PAGE_OF_LIST, UPGRADES, HISTORY, f"{DEPLOYMENTS}/{deployment.pk}"):
        for _ in range(PREPARE_AFTER + 2):
            assert client.get(path).status_code == 200

    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        prepared = [text for (text,) in cursor.fetchall()]
    assert any("row_to_json" in text for text in prepared)
    assert [text for text in prepared if "LIMIT 50" in text] == []
