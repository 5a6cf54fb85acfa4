"""The second wall: PostgreSQL itself limits every statement to the organizations of its context (portal/tenancy.py)."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings as portal_settings
from django.db import ProgrammingError, connection, transaction
from django.db.models.functions import Now
from django.test import Client

from bench.mutants import ROOT, Mutant
from bench.scope_mutants import MUTANTS, NO_SECOND_WALL
from deployments import tasks as deployment_tasks
from deployments.models import Agent, Deployment
from portal import tenancy
from portal.accounts.person import enter_person
from portal.database.roles import owner_connection, secure_tables
from portal.doctor.database import tenant_tables
from portal.models import AuditEvent, AuditKind, Membership, Organization, User
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment
from tests.local_aws import LocalAws
from tests.portal.isolation_table import make_place
from tests.upgrades.conftest import make_upgrade
from upgrades import tasks as upgrade_tasks
from upgrades.checks.draining import list_draining_due, refresh_draining
from upgrades.models import Rollout, ValidationRun
from upgrades.states import Phase, Status
from upgrades.tasks import advance_rollout

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]


def tables_with_rows() -> set[str]:
    models = [model for model in apps.get_models() if model._meta.db_table in tenant_tables()]
    return {model._meta.db_table for model in models if model._default_manager.exists()}


def read_context() -> str:
    """Return the context in PostgreSQL, without the backend's help."""
    raw = connection.connection.execute("SELECT current_setting('portal.organizations', true)")
    return str(raw.fetchone()[0])


def read_stream(client: Client) -> bytes:
    answer: Any = client.get("/organizations")
    return b"".join(answer.streaming_content)


def slugs() -> list[str]:
    return sorted(Organization.objects.values_list("slug", flat=True))


# --- the policies --------------------------------------------------------------------------------------------------


def test_without_a_context_every_tenant_table_is_empty(cast: Cast) -> None:
    make_place(cast, cast.acme)

    with tenancy.inside(tenancy.NOTHING):
        assert tables_with_rows() == set()
    assert len(tables_with_rows()) > 8


@pytest.mark.parametrize("context", [lambda: tenancy.inside(tenancy.NOTHING), lambda: tenancy.organizations()])
def test_without_a_context_nothing_is_written(cast: Cast, context: Callable[[], Any]) -> None:
    agent = make_agent(cast)

    with context():
        assert Agent.objects.filter(pk=agent.pk).update(name="Renamed") == 0
        assert Agent.objects.filter(pk=agent.pk).delete() == (0, {})
        with pytest.raises(ProgrammingError, match="row-level security"), transaction.atomic():
            Membership.objects.create(organization=cast.acme, user=cast.stranger)


def test_a_row_cannot_be_moved_to_another_organization(cast: Cast) -> None:
    agent = make_agent(cast)

    with (
        tenancy.organizations(cast.acme.pk),
        pytest.raises(ProgrammingError, match="row-level security"),
        transaction.atomic(),
    ):
        Agent.objects.filter(pk=agent.pk).update(organization=cast.globex)


def test_an_audit_row_of_no_organization_is_hidden(cast: Cast) -> None:
    AuditEvent.objects.create(organization=None, kind=AuditKind.SIGNED_IN, actor_email="", subject="", request_id="")

    with tenancy.organizations(cast.acme.pk):
        assert not AuditEvent.objects.exists()
    assert AuditEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_single_role_that_owns_the_tables_is_limited_too(cast: Cast) -> None:
    with owner_connection() as role:
        with tenancy.inside(tenancy.NOTHING):
            assert slugs() == ["acme", "globex", "initech"]  # an owner of its own needs no context

        secure_tables(portal_settings.DATABASE_OWNER["USER"])
        with tenancy.inside(tenancy.NOTHING):
            alone = slugs()
        secure_tables(role)

    assert alone == []


# --- the context of a person ---------------------------------------------------------------------------------------


def test_a_persons_context_is_the_set_of_their_organizations(cast: Cast) -> None:
    enter_person(cast.consultant.pk)
    assert slugs() == ["acme", "globex"]

    enter_person(cast.stranger.pk)
    assert slugs() == []


@pytest.mark.parametrize("model", [Organization, User])
def test_what_is_switched_off_is_in_no_context(cast: Cast, model: Any) -> None:
    model.objects.update(is_active=False)

    enter_person(cast.operator.pk)

    assert slugs() == []


def test_a_session_with_another_password_opens_nothing(cast: Cast, client_for: SignIn, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.portal.urls_that_stream"
    client = client_for(cast.operator)
    assert read_stream(client) == b"acmeacme"
    User.objects.filter(pk=cast.operator.pk).update(password="changed")

    assert read_stream(client) == b""


@pytest.mark.parametrize("name", ["operator", "staff"])
def test_only_the_admin_pages_see_all_organizations(cast: Cast, client_for: SignIn, settings: Any, name: str) -> None:
    settings.ROOT_URLCONF = "tests.portal.urls_that_stream"
    client = client_for(getattr(cast, name))

    page = client.get("/admin/portal/organization/")
    own = read_stream(client)

    assert (page.status_code, b"Globex" in page.content) == ((200, True) if name == "staff" else (403, False))
    assert own == (b"" if name == "staff" else b"acmeacme")


# --- its end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/o/acme/", "/o/globex/", "/fail/defect/", "/fail/database/"])
def test_the_context_ends_with_the_answer(cast: Cast, client_for: SignIn, settings: Any, path: str) -> None:
    settings.ROOT_URLCONF = "tests.portal.urls_that_fail"
    client = client_for(cast.operator)
    client.raise_request_exception = False

    client.get(path)

    assert read_context() == tenancy.NOTHING


def test_a_streamed_answer_keeps_the_context_to_its_end(cast: Cast, client_for: SignIn, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.portal.urls_that_stream"

    answer: Any = client_for(cast.operator).get("/organizations")
    before, chunks = read_context(), b"".join(answer.streaming_content)

    assert before == f"{{{cast.acme.pk}}}"
    assert chunks == b"acmeacme"
    assert read_context() == tenancy.NOTHING


def test_the_context_ends_with_a_task(cast: Cast) -> None:
    slugs()
    assert read_context() == tenancy.ALL

    advance_rollout.apply([0])

    assert read_context() == tenancy.NOTHING
    assert slugs() == []


def test_the_engine_works_inside_one_organization_at_a_time(cast: Cast, platform: LocalAws, broker_down: None) -> None:
    """Sweeps find due work without a context, and each step, from its claim on, has that of its organization."""
    for organization, person in ((cast.acme, cast.operator), (cast.globex, cast.outsider)):
        make_upgrade(organization, by=person, statuses=[Status.PENDING])
        run = make_upgrade(organization, by=person, target="orchestrator")
        ends_at = Now() + timedelta(hours=1)
        ValidationRun.objects.create(upgrade=run, organization=organization, ends_at=ends_at, next_check_at=Now())
        Rollout.objects.filter(upgrade=run).update(is_draining=True, last_checked_at=Now() - timedelta(hours=1))
    make_deployment(cast, make_agent(cast))
    for rows in (Rollout.objects.exclude(phase=Phase.DONE), ValidationRun.objects.all(), Deployment.objects.all()):
        rows.update(next_check_at=Now() - timedelta(minutes=1))
    used: set[str] = set()

    def note(execute: Any, *statement: Any) -> Any:
        used.add(tenancy.current())
        return execute(*statement)

    with tenancy.inside(tenancy.NOTHING), connection.execute_wrapper(note):
        upgrade_tasks.sweep()
        upgrade_tasks.sweep_validations()
        for pk in list_draining_due(10):
            assert refresh_draining(pk)
        deployment_tasks.sweep()

    assert used == {tenancy.NOTHING, *(f"{{{organization.pk}}}" for organization in (cast.acme, cast.globex))}
    for rows in (Rollout.objects.exclude(phase=Phase.DONE), ValidationRun.objects.all(), Deployment.objects.all()):
        assert not rows.filter(lease_epoch=0).exists()


# --- one connection ------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_new_connection_gets_the_context_of_the_request(cast: Cast) -> None:
    with tenancy.organizations(cast.acme.pk):
        assert slugs() == ["acme"]
        connection.close()
        assert slugs() == ["acme"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("outer", [False, True])
def test_a_rollback_does_not_bring_back_an_earlier_context(cast: Cast, outer: bool) -> None:
    """PostgreSQL undoes a setting that was made in a transaction."""
    assert slugs() == ["acme", "globex", "initech"]

    with transaction.atomic():
        slugs()
        with tenancy.organizations(cast.acme.pk):
            with transaction.atomic():
                assert slugs() == ["acme"]
                transaction.set_rollback(True)
            assert slugs() == ["acme"]
        tenancy.enter(tenancy.NOTHING)
        slugs()
        transaction.set_rollback(outer)

    assert slugs() == []


# --- make isolation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", [*MUTANTS, NO_SECOND_WALL], ids=lambda mutant: mutant.name)
def test_the_scope_that_make_isolation_removes_is_there(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text().count(mutant.old) == 1
