"""AWS's own error texts may repeat credentials, so no response, row or log line contains them."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.db.models.functions import Now
from django.test import Client

from deployments.commands import create_deployment, scale_deployment
from deployments.models import Deployment
from portal.aws import ecs
from portal.aws.errors import AwsError
from portal.models import Membership, Role, User
from tests.conftest import Cast, Engine
from tests.deployments.conftest import Runtime, make_agent
from tests.local_aws import LocalAws
from tests.portal.conftest import acting_as
from tests.portal.isolation_table import HTMX, TENANT, Place, ask, get_address, make_place, undone
from upgrades.checks.validation import open_missing_matrices, validate
from upgrades.commands.stop import stop_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, Upgrade, ValidationRun

SignIn = Callable[[User], Client]

# AWS's answer to a wrong signature. Each secret contains the word.
CANARY = "wagtail"
# The application's role may not read it. It has names, positions and hashes of chains.
UNREADABLE = {"portal_auditchain"}
WRONG_SIGNATURE = """The request signature we calculated does not match the signature you provided. Check your AWS Secret \
Access Key and signing method. The Canonical String for this request should have been
'POST
/

x-amz-security-token:FwoGZXIvYXdzEwagtailTOKEN
'
Credential=AKIAwagtailKEYID, secret wagtail/SECRET+KEY, external id wagtail-external-id"""
# The root paths of the API are the same views as those under /api/v1.
ROUTES = [row for row in TENANT if row.route.startswith(("o/", "api/"))]
SIGNATURE = "SignatureDoesNotMatch"
CODES = [SIGNATURE, "InvalidParameterException", "ServiceNotFoundException"]


@pytest.fixture
def refuse(platform: LocalAws) -> Callable[..., None]:
    """Make AWS answer every call, or those of one action, with a text that repeats the call's credentials."""

    def switch_on(action: str = "*", *, code: str = SIGNATURE) -> None:
        platform.fault("error", action=action, code=code, message=WRONG_SIGNATURE)
        cache.clear()

    return switch_on


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def rows_with_the_text() -> list[str]:
    """Return the tables with a row that contains the word in any column. One query."""
    tables = set(connection.introspection.table_names()) - UNREADABLE
    one = "SELECT '{0}' FROM \"{0}\" AS found WHERE found::text ILIKE %s"
    with acting_as("postgres"), connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(one.format(table) for table in tables), [f"%{CANARY}%"] * len(tables))
        return [table for (table,) in cursor.fetchall()]


def assert_never_repeated(log: pytest.LogCaptureFixture, *texts: str) -> None:
    for text in texts:
        assert CANARY not in text.lower()
    assert rows_with_the_text() == []
    assert [line for line in log.text.splitlines() if CANARY in line.lower()] == []


def read_answers(client: Client, place: Place) -> str:
    """Return the response of each route to a read: whole pages, and fragments that read AWS themselves."""
    heard: list[str] = []
    for row in (row for row in ROUTES if row.get):
        parts = [HTMX | {"HX-Target": name} for name in ("logs", "metrics")] if "deployment_id" in row.route else []
        organization = {"X-Organization": place.slug} if row.is_api else {}
        asked = [organization | headers for headers in [{}, *parts]]
        heard += [client.get(get_address(row, place), headers=headers).content.decode() for headers in asked]
    return "\n".join(heard)


# --- the error itself ------------------------------------------------------------------------------------------------


def refused(cast: Cast, names: Any = ("any",)) -> AwsError:
    with pytest.raises(AwsError) as caught:
        ecs.describe_services(cast.acme.aws_target, str(cast.acme.cluster), list(names))
    return caught.value


def assert_carries_no_text(error: AwsError) -> None:
    assert CANARY not in f"{error} {error!r} {error.args} {vars(error)}".lower()
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize("code", CODES)
def test_an_error_is_action_code_and_request_id(cast: Cast, refuse: Callable[..., None], code: str) -> None:
    refuse(code=code)

    error = refused(cast)

    assert error.request_id
    assert str(error) == f"ecs:DescribeServices: {code} (AWS request {error.request_id})"
    assert_carries_no_text(error)


def test_a_permission_other_than_the_action_is_named(platform: LocalAws, cast: Cast) -> None:
    message = "User: arn:aws:sts::1:wagtail is not authorized to perform: iam:PassRole on resource: wagtail"
    platform.fault("error", action="DescribeServices", code="AccessDeniedException", message=message)

    error = refused(cast)

    assert "AccessDeniedException (iam:PassRole is missing; AWS request " in str(error)
    assert_carries_no_text(error)


def test_a_code_that_is_a_text_is_dropped(platform: LocalAws, cast: Cast) -> None:
    platform.fault("error", action="DescribeServices", code="The wagtail said")

    error = refused(cast)

    assert error.code == "Unknown"
    assert_carries_no_text(error)


def test_a_value_that_botocore_refuses_is_not_repeated(cast: Cast) -> None:
    """Botocore's text contains the value, and an environment may contain a secret."""
    error = refused(cast, [{"wagtail": "wagtail"}])

    assert str(error) == "ecs:DescribeServices: ParamValidationError"
    assert_carries_no_text(error)


# --- responses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["acme", "globex"])
def test_no_response_repeats_the_text(
    cast: Cast,
    client_for: SignIn,
    refuse: Callable[..., None],
    log: pytest.LogCaptureFixture,
    slug: str,
) -> None:
    """Calls for globex fail when its role is assumed."""
    Membership.objects.update(role=Role.ADMIN)
    organization = getattr(cast, slug)
    place = make_place(cast, organization)
    Deployment.objects.update(log_group="/ecs/any")
    client = client_for(cast.consultant)
    refuse()

    reads = read_answers(client, place)
    assert_never_repeated(log, reads)
    assert "logs:FilterLogEvents" in reads or "sts:AssumeRole" in reads
    for row in ROUTES:
        for method in row.sends:
            with undone():
                answer = ask(client, row, method, place)
                assert CANARY not in answer.content.decode().lower()
                assert rows_with_the_text() == []
    assert_never_repeated(log)


@pytest.mark.parametrize("slug", ["acme", "globex"])
def test_the_connection_test_does_not_repeat_the_text(
    cast: Cast, client_for: SignIn, refuse: Callable[..., None], log: pytest.LogCaptureFixture, slug: str
) -> None:
    refuse()

    organization = getattr(cast, slug)
    page = client_for(cast.staff).post(f"/admin/portal/organization/{organization.pk}/test-connection/")

    assert "AWS request" in page.content.decode()
    assert_never_repeated(log, page.content.decode())


# --- the engines -----------------------------------------------------------------------------------------------------


@pytest.fixture
def runtime(platform: LocalAws, settings: Any) -> Runtime:
    settings.DEPLOYMENTS_LAG_SECONDS = -60
    settings.DEPLOYMENTS_READS_PER_MINUTE = 10_000_000
    return Runtime(platform)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("action", ["DescribeServices", "RegisterTaskDefinition", "CreateService"])
def test_a_refused_create_does_not_repeat_the_text(
    cast: Cast, runtime: Runtime, refuse: Callable[..., None], log: pytest.LogCaptureFixture, action: str, code: str
) -> None:
    deployment = create_deployment(make_agent(cast), actor=cast.operator, replicas=2)
    refuse(action, code=code)

    runtime.turn()

    deployment.refresh_from_db()
    assert f"ecs:{action}" in f"{deployment.error_message} {deployment.check_error}"
    assert "AWS request" in f"{deployment.error_message} {deployment.check_error}"
    assert_never_repeated(log)


@pytest.mark.parametrize("action", ["*", "UpdateService"])
def test_a_deployment_that_runs_does_not_repeat_the_text(
    cast: Cast, runtime: Runtime, refuse: Callable[..., None], log: pytest.LogCaptureFixture, action: str
) -> None:
    deployment = create_deployment(make_agent(cast), actor=cast.operator, replicas=2)
    runtime.run(deployment, "ready")
    scale_deployment(deployment, actor=cast.operator, replicas=3)
    refuse(action)

    runtime.turn()

    deployment.refresh_from_db()
    assert "AWS request" in (deployment.check_error or "")
    assert_never_repeated(log)


def trigger(cast: Cast) -> Upgrade:
    return trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("action", ["DescribeServices", "UpdateService"])
def test_a_refused_rollout_does_not_repeat_the_text(
    cast: Cast,
    engine: Engine,
    client_for: SignIn,
    refuse: Callable[..., None],
    log: pytest.LogCaptureFixture,
    action: str,
    code: str,
) -> None:
    upgrade = trigger(cast)
    refuse(action, code=code)

    engine.run(upgrade)

    page = client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()
    assert upgrade.rollouts.get().outcome in ("refused", "access_denied", "service_missing")
    assert "AWS request" in (upgrade.error_message or "")
    assert_never_repeated(log, page)


def test_a_watched_rollout_does_not_repeat_the_text(
    cast: Cast, engine: Engine, client_for: SignIn, refuse: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    upgrade = trigger(cast)
    engine.start(upgrade)
    stop_upgrade(upgrade, actor=cast.operator)
    refuse("StopServiceDeployment")
    engine.step()
    refuse()
    Rollout.objects.update(next_check_at=Now())
    engine.step()

    rollout = upgrade.rollouts.get()
    page = client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()
    assert "ecs:StopServiceDeployment" in (rollout.stop_error or "")
    assert_never_repeated(log, page)


@pytest.mark.django_db(transaction=True)
def test_a_validation_does_not_repeat_the_text(
    cast: Cast, engine: Engine, client_for: SignIn, refuse: Callable[..., None], log: pytest.LogCaptureFixture
) -> None:
    upgrade = engine.run(trigger(cast))
    refuse()

    open_missing_matrices()
    for run in ValidationRun.objects.all():
        ValidationRun.objects.update(next_check_at=Now(), lease_until=None)
        assert validate(run.pk)

    page = client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()
    assert_never_repeated(log, page)
