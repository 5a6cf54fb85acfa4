"""Fixtures for all tests: the cast of users and organizations, the local AWS, and an engine that tests step by hand.

Each xdist worker has its own database (pytest-django) and its own local AWS. Each test has its own clusters.
"""

import gc
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache as keep
from typing import Any

import psycopg
import pytest
from allauth.account.internal.flows.login import AUTHENTICATION_METHODS_SESSION_KEY
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.hashers import make_password
from django.contrib.contenttypes.management import create_contenttypes
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.core.signals import request_finished
from django.db import connection, transaction
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.models.functions import Now
from django.db.models.signals import post_migrate
from django.test import Client, TransactionTestCase
from django.utils import timezone

from portal import tenancy
from portal.accounts.sessions import SessionStore
from portal.aws import bulkhead, credentials, reachability
from portal.celery import app
from portal.models import AuditEvent, AuditQuerySet, Membership, Organization, Role, User
from portal.outages import forget_outages
from tests.embedded import TEMPLATE_DATABASE
from tests.figures import pytest_runtest_logreport, pytest_terminal_summary
from tests.local_aws import LocalAws
from upgrades.engine.reconciler import advance
from upgrades.models import Rollout, Upgrade

__all__ = ["pytest_runtest_logreport", "pytest_terminal_summary"]  # hooks

# Real hashing takes a third of a second for each user of the cast.
settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Let WhiteNoise look up static files on request instead of scanning all of them for each test client.
settings.WHITENOISE_AUTOREFRESH = True

PASSWORD = "portal-test-password-1"
PASSWORD_HASH = make_password(PASSWORD)
SERVICES = ("agent", "orchestrator", "customer-portal")
_numbers = itertools.count(1)


# Fixtures that start a process; whoever uses one of them, directly or not, gets the marker `process`.
PROCESS_FIXTURES = {"local_aws_server", "aws_server", "ecs", "own_server", "killed", "browser"}
# Tests that wait for processes more than they work: first, so that the other workers use the cores meanwhile.
WAITING = (
    *("tests/faults/test_random_kills.py", "tests/faults/test_make_up.py", "tests/faults/test_self_upgrade.py"),
    "tests/faults/",
    *("tests/docs/test_console_blocks.py", "tests/portal/test_sqs_broker.py", "tests/browser/"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a process (`make test-fast` leaves it out) or breaks one, and put what waits longest first."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & PROCESS_FIXTURES or hasattr(getattr(item, "module", None), "subprocess"):
            item.add_marker(pytest.mark.process)
        if item.nodeid.startswith("tests/faults/"):
            item.add_marker(pytest.mark.faults)
    items.sort(key=waits)


def waits(item: pytest.Item) -> int:
    """The item's place among those that wait; the order among equals, a random one, stays."""
    return next((place for place, path in enumerate(WAITING) if item.nodeid.startswith(path)), len(WAITING))


def pytest_collection_finish() -> None:
    """Start the garbage collector, without the modules and tests that there are, and let it run less often."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    """Make each worker's database a copy of the migrated template."""
    connection.settings_dict["TEST"]["TEMPLATE"] = TEMPLATE_DATABASE


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Keep the test databases: they go with their server, and dropping one fails while a page still has a connection."""
    return True


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """A flush, after each test with real transactions, need not make content types and permissions again: they are made
    when a test asks for them. And such a test need not open a new connection: that takes longer than most tests."""
    post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    post_migrate.disconnect(create_contenttypes)
    DatabaseOperations.sql_flush = build_deletes
    DatabaseOperations.execute_sql_flush = flush_as_superuser
    TransactionTestCase._should_reload_connections = lambda _self: not connection.is_usable()
    yield
    if connect_as_superuser.cache_info().currsize:
        connect_as_superuser().close()


def build_deletes(self: DatabaseOperations, style: Any, tables: list[str], **_: bool) -> list[str]:
    """Return the statements that empty the tables. TRUNCATE makes 300 new files, 40 times the work for a few rows.

    The lock waits for what other connections still write, as TRUNCATE does, but not for what they read.
    """
    names = [self.quote_name(table) for table in tables]
    lock = f"LOCK TABLE {', '.join(names)} IN SHARE ROW EXCLUSIVE MODE"
    return [lock, *(f"DELETE FROM {name}" for name in names)]  # noqa: S608 - names of our own tables


def flush_as_superuser(self: DatabaseOperations, statements: list[str]) -> None:
    """Run the statements that empty the tables, without the triggers that refuse it. The application's role may not."""
    with connect_as_superuser().transaction():
        connect_as_superuser().execute("; ".join(["SET LOCAL session_replication_role = replica", *statements]))


@keep
def connect_as_superuser() -> psycopg.Connection[Any]:
    named = connection.settings_dict
    return psycopg.connect(host=named["OPTIONS"]["host"], dbname=named["NAME"], user="postgres", autocommit=True)


@pytest.fixture(autouse=True)
def all_organizations() -> Iterator[None]:
    """Let the test itself see all organizations. Requests and the engine have their own contexts, as in production."""

    def enter_again(**_: Any) -> None:
        tenancy.enter_all_organizations()

    with tenancy.all_organizations("the test"):
        request_finished.connect(enter_again)
        yield
        request_finished.disconnect(enter_again)


@pytest.fixture(autouse=True)
def forget_what_is_gone() -> Iterator[None]:
    """Drop cached content types: the test that made them has rolled their rows back, or the flush emptied the table.
    And forget the broker and the cache that the test took away."""
    yield
    ContentType.objects.clear_cache()
    forget_outages()


@pytest.fixture(scope="session")
def local_aws_server() -> Iterator[LocalAws]:
    server = LocalAws.start()
    os.environ["AWS_ENDPOINT_URL"] = server.url
    credentials._target_sessions.clear()  # an earlier test without this server may have made clients of the real AWS
    yield server
    server.stop()


@pytest.fixture
def local_aws(local_aws_server: LocalAws) -> LocalAws:
    """Return the local AWS, empty, with its clock frozen until the test advances it."""
    local_aws_server.reset()
    local_aws_server.freeze()
    clear_roles()
    bulkhead.forget_lanes()
    reachability.forget_answers()
    cache.clear()
    return local_aws_server


def clear_roles() -> None:
    """Drop the clients with assumed roles, whose credentials became invalid with the reset."""
    for target in [target for target in credentials._target_sessions if target.role_arn]:
        credentials.drop_session(target)


@dataclass
class Cast:
    """The organizations and users of every test. acme and globex run a platform; initech is not set up."""

    acme: Organization
    globex: Organization
    initech: Organization
    viewer: User
    operator: User
    admin: User
    outsider: User  # operator of globex
    consultant: User  # operator of acme and globex
    newcomer: User  # operator of initech
    stranger: User  # member of nothing
    staff: User
    password: str = field(default=PASSWORD)


def audited_changes() -> AuditQuerySet:
    """Return the audit rows about changes: without refused attempts, failed sign-ins and exports."""
    return AuditEvent.objects.exclude(kind__regex="[._](refused|failed|exported)$")


def make_person(email: str, **fields: Any) -> User:
    person = new_person(email, **fields)
    person.save()
    return person


def new_person(email: str, **fields: Any) -> User:
    name = email.partition("@")[0].capitalize()
    return User(email=email, name=name, password=PASSWORD_HASH, **fields)


@pytest.fixture
def cast(db: None) -> Cast:
    number = next(_numbers)
    acme = Organization(slug="acme", name="Acme Robotics", deployment_stack=f"acme-{number}")
    globex = Organization(
        slug="globex",
        name="Globex",
        deployment_stack=f"globex-{number}",
        deployment_region="us-east-1",
        deployment_role_arn="arn:aws:iam::222222222222:role/portal-upgrades",
        deployment_external_id="globex-external-id",
    )
    initech = Organization(slug="initech", name="Initech")
    Organization.objects.bulk_create([acme, globex, initech])
    roles: dict[str, dict[Organization, Role]] = {
        "viewer": {acme: Role.VIEWER},
        "operator": {acme: Role.OPERATOR},
        "admin": {acme: Role.ADMIN},
        "outsider": {globex: Role.OPERATOR},
        "consultant": {acme: Role.OPERATOR, globex: Role.OPERATOR},
        "newcomer": {initech: Role.OPERATOR},
        "stranger": {},
    }
    people = {name: new_person(f"{name}@example.com") for name in roles}
    people["staff"] = new_person("staff@example.com", is_staff=True, is_superuser=True)
    User.objects.bulk_create(people.values())
    Membership.objects.bulk_create(
        Membership(organization=organization, user=people[name], role=role, accepted_at=timezone.now())
        for name, held in roles.items()
        for organization, role in held.items()
    )
    return Cast(acme=acme, globex=globex, initech=initech, **people)


@pytest.fixture
def platform(local_aws: LocalAws, cast: Cast) -> LocalAws:
    """Seed the platforms of acme and globex, steady in ECS: 4 agent, 3 orchestrator and 2 customer-portal tasks."""
    seed_platform(local_aws, cast.acme)
    seed_platform(local_aws, cast.globex)
    return local_aws


def seed_platform(local_aws: LocalAws, organization: Organization, **counts: int) -> None:
    account = organization.deployment_role_arn.split(":")[4] if organization.deployment_role_arn else "111111111111"
    stack = organization.deployment_stack
    desired = {"agent": 4, "orchestrator": 3, "customer-portal": 2} | counts
    roles = []
    if organization.deployment_role_arn:
        roles = [{"arn": organization.deployment_role_arn, "external_id": organization.deployment_external_id}]
    local_aws.seed(
        account=account,
        region=organization.deployment_region,
        cluster=organization.cluster,
        services=[
            {
                "name": f"{stack}-{service}-service",
                "family": f"{stack}-{service}",
                "container": service,
                "image": f"{account}.dkr.ecr.{organization.deployment_region}.amazonaws.com/axonflow-{service}:v9.9.0",
                "desired_count": count,
            }
            for service, count in desired.items()
        ],
        roles=roles,
    )


@pytest.fixture
def registry(local_aws: LocalAws, cast: Cast) -> dict[str, str]:
    """Seed the registries of acme and globex with v9.8.0, v9.9.0 and v9.9.1 (`latest`) of each platform service.

    Request it with `usefixtures`, so that the images exist before the services start. Returns acme's digests by
    `<service>:<version>`.
    """
    seed_images(local_aws, cast.globex)
    return seed_images(local_aws, cast.acme)


def seed_images(
    local_aws: LocalAws, organization: Organization, *, lacking: dict[str, str] | None = None
) -> dict[str, str]:
    """Seed an organization's images and return their digests. `lacking` maps a service to a version it does not have."""
    days = {"v9.8.0": 30, "v9.9.0": 12, "v9.9.1": 3}
    now = local_aws.now()
    images = [
        {
            "repository": f"axonflow-{service}",
            "tags": [version, "latest"] if version == "v9.9.1" else [version],
            "pushed_at": now - 86400 * ago,
        }
        for service in SERVICES
        for version, ago in days.items()
        if (lacking or {}).get(service) != version
    ]
    account = organization.deployment_role_arn.split(":")[4] if organization.deployment_role_arn else "111111111111"
    seeded = local_aws.seed(account=account, region=organization.deployment_region, images=images)
    return {name.removeprefix("axonflow-"): digest for name, digest in seeded["images"].items()}


@pytest.fixture
def client_for() -> Callable[[User], Client]:
    """Return a function that creates a client signed in as the user."""
    return lambda user: sign_in(Client(), user)


def sign_in(client: Client, user: User, *, is_fresh: bool = True) -> Client:
    """Sign the client in without using the sign-in page, by writing the session that signing in would write, and its
    place in the list of devices.

    `is_fresh`: the person has re-authenticated just now.
    """
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "portal.accounts.person.AuthenticationBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    if is_fresh:
        session[AUTHENTICATION_METHODS_SESSION_KEY] = [
            {"method": "password", "at": time.time(), "reauthenticated": True}
        ]
        session["account_authentication_methods_user"] = str(user.pk)
    session.create()
    UserSession.objects.create(user=user, session_key=session.session_key, ip="127.0.0.1")
    client.cookies[settings.SESSION_COOKIE_NAME] = session.cookie_key
    return client


def revise_each_field(row: Any, *, omit: tuple[str, ...] = ()) -> set[str]:
    """Change each column of the row, one at a time. Return the columns whose change did not count a revision.

    `omit`: columns that cannot be changed alone. Its other relations are to people.
    """
    unseen = set()
    rows = type(row)._default_manager.filter(pk=row.pk)
    for column in row._meta.concrete_fields:
        if column.primary_key or column.name in ("revision", *omit):
            continue
        before = rows.values_list("revision", flat=True).get()
        with transaction.atomic():
            rows.update(**{column.attname: find_other_value(column, getattr(row, column.attname))})
            if rows.values_list("revision", flat=True).get() == before:
                unseen.add(column.name)
            transaction.set_rollback(True)
    return unseen


def find_other_value(column: Any, value: Any) -> Any:
    if column.is_relation:
        return User.objects.exclude(pk=value).values_list("pk", flat=True).latest("pk")
    if column.choices:
        return next(choice for choice, _ in column.flatchoices if choice != value)
    kind = column.get_internal_type()
    if kind == "BooleanField":
        return not value
    if kind == "DateTimeField":
        return timezone.now()
    if kind == "JSONField":
        return {"changed": 1}
    return "changed" if "Char" in kind or kind == "TextField" else (value or 0) + 1


def get_session(client: Client) -> SessionStore:
    """Return the client's session. `client.session` looks for the cookie's key, which is not stored."""
    return SessionStore(cookie_key=client.cookies[settings.SESSION_COOKIE_NAME].value)


@pytest.fixture
def broker_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Point Celery's broker at a closed port and drop existing connections."""
    for name in ("broker_url", "broker_write_url", "broker_read_url"):
        monkeypatch.setitem(app.conf, name, "redis://127.0.0.1:1/0")
    monkeypatch.setattr(app, "_pool", None)
    monkeypatch.setattr(app.amqp, "_producer_pool", None)
    forget_outages()


@pytest.fixture
def cache_down(settings: Any) -> None:
    """Point the cache at a Redis that refuses connections."""
    settings.CACHES = {"default": {"BACKEND": "portal.cache.RedisCache", "LOCATION": "redis://127.0.0.1:1"}}
    forget_outages()


class Engine:
    """Replaces worker and sweep: takes due steps when the test calls it, and advances AWS's clock between them."""

    def __init__(self, local_aws: LocalAws) -> None:
        self.local_aws = local_aws

    def step(self) -> int:
        """Make all open rollouts due, take one step of each, and return the number of steps."""
        Rollout.objects.unfinished().filter(next_check_at__isnull=False).update(next_check_at=Now(), lease_until=None)
        found = list(Rollout.objects.due().values_list("pk", flat=True))
        with tenancy.inside(tenancy.NOTHING):
            return sum(advance(pk) for pk in found)

    def start(self, upgrade: Upgrade) -> Rollout:
        """Step until the first rollout watches its deployment."""
        for _ in range(5):
            self.step()
            rollout = upgrade.rollouts.filter(phase="watching").first()
            if rollout:
                return rollout
        raise AssertionError(f"no rollout of {upgrade} started: {list(upgrade.rollouts.values())}")

    def run(self, upgrade: Upgrade, *, seconds: float = 20, steps: int = 200) -> Upgrade:
        """Step and advance AWS's clock until the upgrade has ended."""
        for _ in range(steps):
            self.step()
            upgrade.refresh_from_db()
            if not upgrade.is_open:
                return upgrade
            self.local_aws.advance(seconds)
        raise AssertionError(f"{upgrade} did not end: {list(upgrade.rollouts.values())}")


@pytest.fixture
def engine(platform: LocalAws, settings: Any) -> Engine:
    """Return an engine without a minimum time between reads: two reads in a row count as two."""
    settings.UPGRADE_ADOPT_SECONDS = 0
    return Engine(platform)
