"""Secrets that are planted everywhere a secret is kept or may be reported: none is ever shown, stored or logged."""

import io
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import TOTP
from django.core.cache import cache
from django.db import connection
from django.test import Client

from deployments.commands import create_deployment
from deployments.models import Deployment
from portal.aws import credentials
from portal.credential_shapes import mask_credentials
from portal.log_lines import TextFormatter
from portal.models import Membership, Organization, Role, User
from portal.sealing import seal
from tests.conftest import Cast, Engine, seed_platform
from tests.deployments.conftest import Runtime, make_agent
from tests.local_aws import LocalAws
from tests.notifications.conftest import make_channel
from tests.portal.isolation_table import HTMX, TENANT, get_address, make_place
from upgrades.commands.trigger import trigger_upgrade

SignIn = Callable[[User], Client]

# What AWS repeats in the error body of a call: the credentials of the call itself.
IN_ERRORS = {
    "access key id": "AKIAPLANTED000000001",
    "secret access key": "planted02SecretAccessKey/0123456789abcde",
    "session token": "FwoGZXIvYXdzEplanted03token0123456789",
    "external id": "planted04-external-id",
}
# What applications and registries write into ECS's texts about a service.
IN_REASONS = {
    "access key id of a task": "ASIAPLANTED000000005",
    "secret key of a task": "planted06SecretAccessKey/0123456789abcde",
    "session token of a task": "IQoJb3JpZ2luX2VjEplanted07token0123456789",
    "password": "planted08-password",
    "address with a password": "planted09-userinfo",
    "bearer token": "planted10-bearer-token",
    "Slack token": "xoxb-planted11-0123456789",
}
# What the portal itself keeps.
OWN = {
    "SECRET_KEY": "planted12-secret-key-" + "k" * 50,
    "METRICS_TOKEN": "planted13-metrics-token",
    "EMAIL_HOST_PASSWORD": "planted14-smtp-password",
    "webhook": "https://hooks.example.com/in/planted15-webhook",
    "signing secret": "whsec_planted16SigningSecret0123456789",
    "Slack webhook": "https://hooks.slack.com/services/T0/B0/planted17-slack",
    "seed of one-time codes": "PLANTED18SEEDPLANTED18SEED",
    "password of a person": "planted19-password-of-a-person",
    "AWS_SECRET_ACCESS_KEY": "planted20-own-secret",
}
ERROR = """The request signature we calculated does not match. The Canonical String should have been
'POST
x-amz-security-token:{session token}
'
Credential={access key id}, secret {secret access key}, external id {external id}"""
REASON = (
    "app failed: key {access key id of a task}, secret key {secret key of a task}, token={session token of a task} "
    "DB_PASSWORD={password} postgres://app:{address with a password}@db/app Authorization: Bearer {bearer token} "
    "posted with {Slack token}; exit"
)
WORD = "planted"
# The application's role may not read it. It has names, positions and hashes of chains.
UNREADABLE = {"portal_auditchain"}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Return what the process logs at DEBUG, formatted as in production."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(TextFormatter("%(name)s %(message)s"))
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def find_in_tables() -> list[str]:
    """Return each table and column value that contains a planted word."""
    tables = set(connection.introspection.table_names()) - UNREADABLE
    one = "SELECT '{0}: ' || found::text FROM \"{0}\" AS found WHERE found::text ILIKE %s"
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(one.format(table) for table in tables), [f"%{WORD}%"] * len(tables))
        return [found for (found,) in cursor.fetchall()]


def find_lines(text: str, secrets: list[str]) -> list[str]:
    words = [WORD, *secrets]
    return [line[:300] for line in text.splitlines() if any(word.lower() in line.lower() for word in words)]


def read_pages(client: Client, organization: Organization, place: Any) -> str:
    """Return every page, fragment, export and API answer about an organization."""
    heard = []
    for row in (row for row in TENANT if row.get):
        headers = {"X-Organization": organization.slug} if row.is_api else {}
        heard.append(client.get(get_address(row, place), headers=headers))
        if not row.is_api:
            heard.append(client.get(get_address(row, place), headers=HTMX))
    return "\n".join(b"".join(answer).decode() if answer.streaming else answer.content.decode() for answer in heard)


def read_admin(client: Client, cast: Cast) -> str:
    """Return the pages of Django admin, also those that test the connection to AWS."""
    organization = f"/admin/portal/organization/{cast.acme.pk}"
    paths = ["/admin/", "/admin/portal/organization/", f"{organization}/change/", f"{organization}/history/"]
    paths += [f"/admin/portal/user/{cast.viewer.pk}/change/", "/admin/portal/auditevent/", "/health", "/metrics"]
    answers = [client.get(path) for path in paths]
    answers.append(client.post(f"{organization}/test-connection/"))
    return "\n".join(answer.content.decode() for answer in answers)


@pytest.fixture
def planted(local_aws: LocalAws, cast: Cast, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plant the secrets that the portal itself keeps."""
    for name in ("SECRET_KEY", "METRICS_TOKEN", "EMAIL_HOST_PASSWORD"):
        setattr(settings, name, OWN[name])
    settings.DEPLOYMENTS_LAG_SECONDS = -60
    settings.DEPLOYMENTS_READS_PER_MINUTE = 10_000_000
    settings.UPGRADE_ADOPT_SECONDS = 0
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", OWN["AWS_SECRET_ACCESS_KEY"])
    credentials._target_sessions.clear()  # clients keep the credentials that they were made with
    Organization.objects.filter(pk=cast.globex.pk).update(deployment_external_id=IN_ERRORS["external id"])
    cast.globex.refresh_from_db()
    seed_platform(local_aws, cast.acme)
    seed_platform(local_aws, cast.globex)
    channel = make_channel(cast.acme, by=cast.admin, target=OWN["webhook"], name="First")
    channel.sealed_secret = seal(OWN["signing secret"])
    channel.save()
    make_channel(cast.acme, by=cast.admin, kind="slack", target=OWN["Slack webhook"], name="Second")
    TOTP.activate(cast.consultant, OWN["seed of one-time codes"])
    cast.consultant.set_password(OWN["password of a person"])
    cast.consultant.save()
    yield
    credentials._target_sessions.clear()


def fail_with_reasons(local_aws: LocalAws, cast: Cast, organization: Organization) -> Deployment:
    """Let an upgrade and an agent's deployment fail with ECS texts that repeat secrets."""
    person = cast.outsider if organization == cast.globex else cast.operator
    local_aws.fault("crash", cluster=organization.cluster, reason=REASON.format(**IN_REASONS), exit_code=1)
    trigger_upgrade(organization, actor=person, service="agent", force_new_deployment=True)
    deployment = create_deployment(make_agent(cast, organization=organization, name="Fails"), actor=person, replicas=1)
    engine, runtime = Engine(local_aws), Runtime(local_aws)
    for _ in range(40):
        engine.step()
        runtime.turn()
        deployment.refresh_from_db()
        if deployment.status == "failed":
            return deployment
        local_aws.advance(20)
    raise AssertionError(f"still {deployment.status}")


def test_twenty_two_secrets_appear_nowhere(
    local_aws: LocalAws, cast: Cast, planted: None, client_for: SignIn, log: io.StringIO
) -> None:
    Membership.objects.update(role=Role.ADMIN)
    consultant, staff = client_for(cast.consultant), client_for(cast.staff)
    issued = [consultant.cookies["sessionid"].value, staff.cookies["sessionid"].value]
    client = Client()
    client.post("/accounts/login/", {"login": cast.consultant.email, "password": OWN["password of a person"]})
    seen = []
    for organization in (cast.acme, cast.globex):
        place = make_place(cast, organization)
        failed = fail_with_reasons(local_aws, cast, organization)
        assert "app failed: key ***, secret key ***, token=*** DB_PASSWORD=*** postgres://***@db/app" in str(
            failed.error_message
        )
        seen.append(read_pages(consultant, organization, place))
        assert "app failed: key ***" in seen[-1]
        fault = local_aws.fault("error", action="*", code="SignatureDoesNotMatch", message=ERROR.format(**IN_ERRORS))
        cache.clear()
        seen += [read_pages(consultant, organization, place), read_admin(staff, cast)]
        assert "SignatureDoesNotMatch" in seen[-1] + seen[-2]
        Engine(local_aws).step()
        Runtime(local_aws).turn()
        local_aws.clear_faults(fault["id"])
    for session in credentials._target_sessions:
        keys = credentials._target_sessions[session].session.get_credentials().get_frozen_credentials()
        issued += [keys.secret_key, keys.token] if session.role_arn else []

    assert len({*IN_ERRORS, *IN_REASONS, *OWN, "secret of an assumed role", "token of an assumed role"}) == 22
    # Staff enter the external id and see it; the sealed values of channels are not among what is found.
    shown = "\n".join(seen).replace(f'value="{IN_ERRORS["external id"]}"', "")
    stored = [found for found in find_in_tables() if not found.startswith("portal_organization: ")]
    assert find_lines(shown, issued) == []
    assert stored == []
    assert find_lines(log.getvalue(), issued) == []
    assert WORD.encode() not in b"".join(pickle.dumps(each) for each in cache._cache.values()).lower()


def test_a_traceback_outside_our_calls_has_no_text_of_aws(log: io.StringIO) -> None:
    """Celery's own calls to Amazon SQS raise botocore's errors, which repeat AWS's text."""
    from botocore.exceptions import ClientError

    message = ERROR.format(**IN_ERRORS)
    error = ClientError({"Error": {"Code": "SignatureDoesNotMatch", "Message": message}}, "ReceiveMessage")
    try:
        try:
            raise error
        except ClientError as inner:
            raise RuntimeError("the consumer stopped") from inner
    except RuntimeError:
        logging.getLogger("celery.worker").exception("consumer: %s", error)

    assert "An error occurred (SignatureDoesNotMatch) when calling the ReceiveMessage operation" in log.getvalue()
    assert "the consumer stopped" in log.getvalue()
    assert find_lines(log.getvalue(), []) == []


@pytest.mark.parametrize(
    "text",
    [
        "(service acme-agent-service) has started 2 tasks: (task 0123456789abcdef0123456789abcdef).",
        "ECS deployment circuit breaker: tasks failed to start.",
        "unable to retrieve secret from asm: arn:aws:secretsmanager:eu-west-1:111111111111:secret:db-1a2b3c",
        "not authorized to perform: secretsmanager:GetSecretValue on resource: arn:aws:ssm:eu-west-1:1:parameter/token",
        "CannotPullContainerError: repository@sha256:" + "0a" * 32 + ": not found",
        "invalid token, password is wrong",
        "no basic auth credentials; basic authentication failed",
        "exec: docker run -u 1000:1000 agent, update-user: done",
        "curl -v https://x:8443 failed, app -upstream:8080 is down",
        'container definition [{"name":"LOG_LEVEL","value":"info"},{"name":"TOKENIZER","value":"fast"}]',
        "{Name:ServiceName Value:token-service} {Value:info Name:LOG_LEVEL}",
    ],
)
def test_an_ordinary_reason_is_shown_whole(text: str) -> None:
    assert mask_credentials(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "entrypoint: DB_PASS=hunter2 PGPASSWORD=hunter2 pass=hunter2 pwd=hunter2",
        "cannot start: app --password a,hunter2 --api-token 'hunter2'",
        '{"auths": {"registry.example": {"auth": "hunter2"}}, "client_secret": "hunter2"}',
        "401 of https://robot:hunter2@registry.example, header Basic hunter2Hunter2==",
        "mount failed: AccountKey=hunter2; session_id=hunter2, x-api-key: hunter2",
        "npm_hunter2hunter2hunter2hunter2hunter2 and hf_hunter2hunter2hunter2hunter2hunter2",
        "dckr_pat_hunter2hunter2hunter2 whsec_hunter2hunter2hunter2 SG.hunter2hunter2hunter2.hunter2hunter2hunter2",
        r"body {\"password\":\"hunter2Xy\"} and password=\"hunter2Xy\"",
        r'{"SecretString":"{\"password\":\"hunter2Xy\"}", "token": "a\"hunter2Xy"}',
        '[{"name":"DB_PASSWORD","value":"hunter2Xy"}, {"value": "hunter2Xy", "name": "API_TOKEN"}]',
        "[{Name:DB_PASSWORD Value:hunter2Xy} {Value:hunter2Xy Name:DB_PASS}] {'key': 'token', 'value': 'hunter2Xy'}",
        """{\n  Name: "DB_PASSWORD",\n  Value: "hunter2Xy"\n} ParameterKey=Password,ParameterValue=hunter2Xy""",
        """password => hunter2Xy, :token => "hunter2Xy", PASSWORD := hunter2Xy, PASSCODE=hunter2Xy DB_PW=hunter2Xy""",
        "curl -u admin:hunter2Xy https://x; curl --proxy-user 'admin:hunter2Xy' https://x",
        "curl -fsS -uadmin:hunter2Xy https://x; curl -u'admin:hunter2Xy' https://x",
        'cut short: {"password": "hunter2Xy',
    ],
)
def test_a_credential_in_a_reason_is_masked(text: str) -> None:
    assert "hunter2" not in mask_credentials(text).lower()


HOSTILE = [
    "-",
    "a-",
    " ",
    "\n",
    "\\",
    "password",
    'password="',
    "password=\\'",
    "--password ",
    "secret ",
    "basic a",
    "a://",
    "name:password ",
    "name:password value",
    "key=" + "." * 30,
    'value:"',
    "value:a name:a",
    "-u a:",
    "curl -ua:",
    "curl  ",
]


@pytest.mark.parametrize("part", HOSTILE)
def test_a_long_reason_is_masked_soon(part: str) -> None:
    text = "pass " + part * (256 * 1024 // len(part))
    started_at = time.thread_time()

    mask_credentials(text)

    assert time.thread_time() - started_at < 3
