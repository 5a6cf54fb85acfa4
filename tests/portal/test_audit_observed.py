"""What changes nothing leaves an audit row too: refused attempts, failed sign-ins, exports, a person's own account."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.account.utils import user_pk_to_url_str
from allauth.mfa.totp.internal import auth as totp
from allauth.mfa.webauthn.internal.auth import WebAuthn
from cryptography.hazmat.primitives.asymmetric import ec
from django.core import mail
from django.db import connection
from django.test import Client
from fido2.cose import ES256
from fido2.utils import websafe_encode
from fido2.webauthn import AttestationObject, AttestedCredentialData, AuthenticatorData

from portal import tasks
from portal.models import AuditEvent, AuditQuerySet, AuditRepeat, Membership, User
from tests.conftest import Cast, get_session
from tests.deployments.conftest import make_agent, make_deployment
from tests.local_aws import LocalAws
from tests.portal.conftest import ApiClient, audit_kinds
from tests.portal.isolation_table import AGENT_FORM, ONCE
from tests.upgrades.conftest import UPGRADE, make_upgrade, post_json
from upgrades.states import Status

SignIn = Callable[[User], Client]
CHANNEL = ONCE | {"name": "Hook", "target": "https://hooks.example.com/", "events": ["upgrade.ended"]}
DEPLOYMENT = ONCE | {"agent": "{agent}", "replicas": "1"}
ON = {"on": "1"}
NEW_PASSWORD = "another-long-password-1"


def events() -> AuditQuerySet:
    """Return the audit rows without those of the arrangement, oldest first."""
    return AuditEvent.objects.exclude(kind__endswith=".created").order_by("id")


def rows() -> list[tuple[str, str, str]]:
    """Return kind, actor and target of these rows."""
    return list(events().values_list("kind", "actor_email", "subject"))


def end_the_minute() -> None:
    """Let the minute of all repeats be over, and let the scheduler write them."""
    connection.cursor().execute("UPDATE portal_auditrepeat SET first_at = first_at - interval '61 seconds'")
    tasks.write_audit_repeats()


# --- refused attempts ----------------------------------------------------------------------------------------------


def test_a_refused_stop_is_recorded_from_page_and_api(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    client = client_for(cast.viewer)

    page = client.post(f"/o/acme/upgrades/{upgrade.upgrade_id}/stop", headers={"X-Request-ID": "r-1"})
    api = post_json(client, f"{UPGRADE}/{upgrade.upgrade_id}/stop", {})

    assert (page.status_code, api.status_code) == (403, 403)
    by_page, by_api = events()
    assert rows() == [("upgrade.refused", cast.viewer.email, upgrade.upgrade_id)] * 2
    assert (by_page.organization, by_page.actor) == (cast.acme, cast.viewer)
    assert (by_page.request_id, by_page.client_ip) == ("r-1", "127.0.0.1")
    reason = "Your role in Acme Robotics is viewer; this needs operator. An admin of the organization can change it."
    assert by_page.data == {"action": "stop", "code": "forbidden", "via": "page", "reason": reason}
    assert by_api.data["via"] == "api"


@pytest.mark.parametrize(
    ("who", "path", "body", "status", "kind", "subject", "action"),
    [
        ("viewer", "deployments/{deployment}/kill", ONCE, 403, "deployment.refused", "{deployment}", "kill"),
        ("viewer", "deployments/new", DEPLOYMENT, 403, "deployment.refused", "acme", "new"),
        ("viewer", "agents/{agent}/edit", AGENT_FORM, 403, "agent.refused", "{agent}", "edit"),
        ("operator", "settings/second-approver", ON, 403, "organization.refused", "acme", "second approver"),
        ("operator", "settings/channels/new/webhook", CHANNEL, 403, "channel.refused", "acme", "new"),
        ("admin", "settings/members/{member}/remove", {}, 409, "membership.refused", "admin@example.com", "remove"),
        ("operator", "upgrades/{ended}/stop", {}, 409, "upgrade.refused", "{ended}", "stop"),
    ],
)
def test_each_kind_of_refusal_names_its_target(
    cast: Cast,
    client_for: SignIn,
    who: str,
    path: str,
    body: dict[str, Any],
    status: int,
    kind: str,
    subject: str,
    action: str,
) -> None:
    agent = make_agent(cast)
    names = {
        "agent": str(agent.pk),
        "deployment": str(make_deployment(cast, agent, "ready").pk),
        "member": Membership.objects.get(organization=cast.acme, user=cast.admin).pk,
        "ended": make_upgrade(cast.acme, by=cast.operator).upgrade_id,
    }
    filled = {name: value.format(**names) if isinstance(value, str) else value for name, value in body.items()}

    response = client_for(getattr(cast, who)).post(f"/o/acme/{path.format(**names)}", filled)

    event = events().get()
    assert (response.status_code, event.kind) == (status, kind)
    assert (event.subject, event.data["action"]) == (subject.format(**names), action)


def test_a_refused_trigger_leaves_only_the_refusal(
    cast: Cast, platform: LocalAws, client_for: SignIn, registry: Any
) -> None:
    make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])

    response = post_json(client_for(cast.operator), UPGRADE, {"service": "agent"})

    assert response.status_code == 409
    assert rows() == [("upgrade.refused", cast.operator.email, "acme")]
    assert events().get().data["code"] == response.json()["code"]


def test_a_refusal_within_a_bulk_action_is_recorded(cast: Cast, client_for: SignIn) -> None:
    deployment = make_deployment(cast, make_agent(cast), "ready")

    client_for(cast.viewer).post("/o/acme/deployments/bulk", {"command": "stop", "id": [str(deployment.pk)]})

    assert rows() == [("deployment.refused", cast.viewer.email, "acme")]


def test_repeats_within_a_minute_are_one_row_with_a_count(cast: Cast, client_for: SignIn) -> None:
    first, second = (
        make_upgrade(cast.acme, by=cast.operator, statuses=[s]) for s in (Status.IN_PROGRESS, Status.SUCCESS)
    )
    client = client_for(cast.viewer)
    for upgrade in (first, first, first, second):
        client.post(f"/o/acme/upgrades/{upgrade.upgrade_id}/stop")
    tasks.write_audit_repeats()
    before = rows()

    end_the_minute()
    client.post(f"/o/acme/upgrades/{first.upgrade_id}/stop")

    refused = [("upgrade.refused", cast.viewer.email, upgrade.upgrade_id) for upgrade in (first, second)]
    assert before == refused
    assert rows() == [*refused, refused[0], refused[0]]
    counted = events()[2]
    assert (counted.data["repeats"], counted.organization, counted.actor) == (2, cast.acme, cast.viewer)
    assert counted.data.keys() >= {"action", "code", "reason", "first_at", "last_at"}


@pytest.mark.parametrize("who", ["outsider", "anonymous"])
def test_who_is_not_a_member_leaves_no_row(cast: Cast, client_for: SignIn, who: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    client = Client() if who == "anonymous" else client_for(cast.outsider)

    client.post(f"/o/acme/upgrades/{upgrade.upgrade_id}/stop")

    assert rows() == []


# --- sign-in -------------------------------------------------------------------------------------------------------


def sign_in_by_page(email: str, password: str, code: str) -> None:
    client = Client()
    client.post("/accounts/login/", {"login": email, "password": password})
    if code:
        client.post("/accounts/2fa/authenticate/", {"code": code})


def sign_in_by_api(email: str, password: str, code: str) -> None:
    body = {"email": email, "password": password} | ({"code": code} if code else {})
    ApiClient().send("/api/v1/auth/login", body)


DOORS = pytest.mark.parametrize("sign_in", [sign_in_by_page, sign_in_by_api])


@DOORS
@pytest.mark.parametrize(
    ("email", "is_right", "code", "step", "subject"),
    [
        ("operator@example.com", False, "", "password", "operator@example.com"),
        ("nobody@example.com", True, "", "password", "no account"),
        ("operator@example.com", True, "000000", "second factor", "operator@example.com"),
        ("switched-off@example.com", True, "", "account switched off", "switched-off@example.com"),
    ],
)
def test_a_failed_sign_in_is_recorded(
    cast: Cast,
    authenticator: Callable[[User], Any],
    sign_in: Any,
    email: str,
    is_right: bool,
    code: str,
    step: str,
    subject: str,
) -> None:
    authenticator(cast.operator)
    User.objects.filter(pk=cast.stranger.pk).update(email="switched-off@example.com", is_active=False)

    sign_in(email, cast.password if is_right else "wrong", code)

    event = events().get()
    assert (event.kind, event.actor_email, event.subject) == ("session.sign_in_failed", "anonymous", subject)
    assert event.data["step"] == step
    assert (event.organization, event.client_ip) == (None, "127.0.0.1")


@DOORS
def test_strangers_cannot_fill_the_trail(cast: Cast, settings: Any, sign_in: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {}
    for number in range(8):
        sign_in(f"guess-{number}@example.com", "wrong", "")

    end_the_minute()

    assert rows() == [("session.sign_in_failed", "anonymous", "no account")] * 2
    assert events().reverse()[0].data["repeats"] == 7
    assert not AuditRepeat.objects.exists()


def test_a_wrong_password_when_asked_again_names_the_person(cast: Cast, client_for: SignIn) -> None:
    client_for(cast.operator).post("/accounts/reauthenticate/", {"password": "wrong"})

    assert rows() == [("session.sign_in_failed", cast.operator.email, cast.operator.email)]
    assert events().get().data == {"step": "reauthentication"}


def add_passkey(user: User) -> None:
    """Give the person a security key, as its registration stores it."""
    public = ES256.from_cryptography_key(ec.generate_private_key(ec.SECP256R1()).public_key())
    held = AttestedCredentialData.create(bytes(16), b"known key", public)
    flags = AuthenticatorData.FLAG.AT | AuthenticatorData.FLAG.UP
    attested = AttestationObject.create("none", AuthenticatorData.create(bytes(32), flags, 0, held), {})
    client_data = {"type": "webauthn.create", "challenge": "AAAA", "origin": "http://testserver"}
    response = {
        "clientDataJSON": websafe_encode(json.dumps(client_data).encode()),
        "attestationObject": websafe_encode(bytes(attested)),
    }
    key = websafe_encode(b"known key")
    WebAuthn.add(user, "Key", {"id": key, "rawId": key, "type": "public-key", "response": response})


def make_passkey_answer(user: User) -> dict[str, str]:
    """Return the form of a passkey that the portal does not know, for this person."""
    client_data = {"type": "webauthn.get", "challenge": "AAAA", "origin": "http://testserver"}
    response = {
        "clientDataJSON": websafe_encode(json.dumps(client_data).encode()),
        "authenticatorData": websafe_encode(bytes(32) + b"\5" + bytes(4)),
        "signature": websafe_encode(b"signed"),
        "userHandle": websafe_encode(user_pk_to_url_str(user).encode()),
    }
    key = websafe_encode(b"unknown key")
    return {"credential": json.dumps({"id": key, "rawId": key, "type": "public-key", "response": response})}


@pytest.mark.parametrize(
    ("path", "is_signed_in", "step"),
    [
        ("login", False, "passkey"),
        ("reauthenticate", True, "reauthentication"),
        ("second factor", False, "second factor"),
    ],
)
def test_a_failed_passkey_is_recorded(cast: Cast, client_for: SignIn, path: str, is_signed_in: bool, step: str) -> None:
    client = client_for(cast.operator) if is_signed_in else Client()
    add_passkey(cast.operator)
    if path == "second factor":
        client.post("/accounts/login/", {"login": cast.operator.email, "password": cast.password})
        address = "/accounts/2fa/authenticate/"
    else:
        address = f"/accounts/2fa/webauthn/{path}/"
        client.get(address, headers={"X-Requested-With": "XMLHttpRequest"})

    client.post(address, make_passkey_answer(cast.operator))

    actor = cast.operator.email if is_signed_in else "anonymous"
    assert rows() == [("session.sign_in_failed", actor, cast.operator.email)]
    assert events().get().data == {"step": step, "type": "webauthn"}


@pytest.mark.parametrize("sent", [{}, {"credential": "{"}, {"credential": "[]"}, {"credential": '{"id": 1}'}])
def test_a_passkey_of_no_one_is_recorded(client: Client, db: None, sent: dict[str, str]) -> None:
    client.post("/accounts/2fa/webauthn/login/", sent)

    assert rows() == [("session.sign_in_failed", "anonymous", "no account")]


def test_a_malformed_new_passkey_is_refused(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    client.post("/accounts/reauthenticate/", {"password": cast.password})

    response = client.post("/accounts/2fa/webauthn/add/", {"name": "Key", "credential": '{"id": 1}'})

    assert (response.status_code, "Incorrect code" in response.content.decode()) == (200, True)


@DOORS
@pytest.mark.parametrize(
    ("rates", "password", "code", "subject"),
    [
        ({"login": "1/m/ip"}, "wrong", "", "no account"),
        ({"login_failed": "1/m/key"}, "wrong", "", "operator@example.com"),
        ({"login_failed": "1/m/key"}, "", "000000", "operator@example.com"),
    ],
)
def test_a_sign_in_that_a_limit_refuses_is_recorded(
    cast: Cast,
    settings: Any,
    authenticator: Callable[[User], Any],
    sign_in: Any,
    rates: dict[str, str],
    password: str,
    code: str,
    subject: str,
) -> None:
    settings.ACCOUNT_RATE_LIMITS = rates
    authenticator(cast.operator)

    for _ in range(3):
        sign_in(cast.operator.email, password or cast.password, code)
    end_the_minute()

    refused = [event for event in events() if event.data["step"] == "too many attempts"]
    assert [(event.actor_email, event.subject) for event in refused] == [("anonymous", subject)] * 2
    assert refused[1].data["repeats"] == 1


@pytest.mark.parametrize(
    ("path", "rates"),
    [
        ("/accounts/2fa/webauthn/login/", {"MFA_RATE_LIMITS": {"webauthn_login": "1/m/ip"}}),
        ("/accounts/reauthenticate/", {"ACCOUNT_RATE_LIMITS": {"reauthenticate": "1/m/user"}}),
        ("/api/v1/auth/reauthenticate", {"ACCOUNT_RATE_LIMITS": {"reauthenticate": "1/m/user"}}),
    ],
)
def test_the_other_limits_of_sign_in_leave_a_row(
    cast: Cast, client_for: SignIn, settings: Any, path: str, rates: dict[str, Any]
) -> None:
    for name, value in rates.items():
        setattr(settings, name, value)
    client = Client() if "login" in path else client_for(cast.operator)

    for _ in range(2):
        client.post(path, {"password": "wrong"})

    steps = [event.data["step"] for event in events()]
    assert steps[-1:] == ["too many attempts"]


# --- a person's own account ----------------------------------------------------------------------------------------


def test_a_changed_password_is_recorded(cast: Cast, client_for: SignIn) -> None:
    new = {"oldpassword": cast.password, "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}

    client_for(cast.operator).post("/accounts/password/change/", new)

    assert ("person.password_changed", cast.operator.email, cast.operator.email) in rows()


def test_a_reset_password_is_recorded(cast: Cast, client: Client) -> None:
    client.post("/accounts/password/reset/", {"email": cast.operator.email})
    link = re.search(r"http://testserver(/\S+)", mail.outbox[0].body)
    assert link
    form = client.get(link[1], follow=True)

    client.post(form.redirect_chain[-1][0], {"password1": NEW_PASSWORD, "password2": NEW_PASSWORD})

    assert ("person.password_reset", cast.operator.email, cast.operator.email) in rows()


@pytest.mark.django_db(transaction=True)  # allauth signals some of them after the commit
def test_second_factor_and_recovery_codes_are_recorded(cast: Cast, client_for: SignIn, settings: Any) -> None:
    settings.MFA_TOTP_TOLERANCE = 1
    client = client_for(cast.operator)
    client.post("/accounts/reauthenticate/", {"password": cast.password})
    client.get("/accounts/2fa/totp/activate/")
    secret = get_session(client)["mfa.totp.secret"]
    code = totp.format_hotp_value(totp.hotp_value(secret, next(totp.yield_hotp_counters_from_time()) + 1))

    client.post("/accounts/2fa/totp/activate/", {"code": code})
    for path in ("recovery-codes/", "recovery-codes/download/"):
        assert client.get(f"/accounts/2fa/{path}").status_code == 200
    client.post("/accounts/2fa/recovery-codes/generate/")
    client.post("/accounts/2fa/totp/deactivate/")

    assert [kind.removeprefix("person.") for kind in audit_kinds()] == [
        "second_factor_added",
        "recovery_codes_generated",
        "recovery_codes_viewed",
        "recovery_codes_downloaded",
        "recovery_codes_generated",
        "second_factor_removed",
        "second_factor_removed",
    ]
    assert [event.data.get("type") for event in events().reverse()[:2]] == ["recovery_codes", "totp"]
    assert secret not in str(list(AuditEvent.objects.values_list("data", flat=True)))


# --- exports -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("/o/acme/activity.csv?who=operator", "acme-activity.csv"),
        ("/o/acme/upgrades/history.csv", "acme-upgrades.csv"),
        (f"{UPGRADE}/{{upgrade}}/evidence", "{upgrade}-evidence.json"),
    ],
)
def test_an_export_is_recorded_with_its_filters(cast: Cast, client_for: SignIn, path: str, file: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator).upgrade_id

    response = client_for(cast.viewer).get(path.format(upgrade=upgrade))

    assert response.status_code == 200
    assert rows() == [("data.exported", cast.viewer.email, file.format(upgrade=upgrade))]
    event = events().get()
    assert (event.organization, event.data) == (cast.acme, {"filters": path.partition("?")[2]})


def test_a_log_download_is_recorded(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    deployment = make_deployment(cast, make_agent(cast), "ready")

    response = client_for(cast.viewer).get(f"/o/acme/deployments/{deployment.pk}/logs.txt")

    assert response.status_code == 200
    ((kind, who, file),) = rows()
    assert (kind, who) == ("data.exported", cast.viewer.email)
    assert f'filename="{file}"' in response.headers["Content-Disposition"]


def test_the_activity_page_reads_well(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    client_for(cast.operator).post(f"/o/acme/upgrades/{upgrade.upgrade_id}/stop")
    client_for(cast.operator).post("/o/acme/settings/second-approver", ON)

    page = " ".join(client_for(cast.admin).get("/o/acme/activity/").content.decode().split())

    assert "Upgrade action refused</th>" in page
    assert f'href="/o/acme/upgrades/{upgrade.upgrade_id}/" title="{upgrade.upgrade_id}">' in page
    assert f"{upgrade.upgrade_id} has ended SUCCESS, so there is nothing to stop." in page
    assert '<span class="mono" title="acme">acme</span>' in page
