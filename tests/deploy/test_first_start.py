"""The commands of a first start: roles of the database, the first member of staff."""

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from portal.models import AuditEvent, AuditKind, User
from tests.portal.conftest import acting_as

PASSWORD = "correct-horse-battery"
EMAIL = "first@portal.example"


def create_admin(monkeypatch: pytest.MonkeyPatch, *arguments: str, typed: str = PASSWORD) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{typed}\n"))
    call_command("create_admin", *arguments)


def test_the_first_admin_signs_in_and_opens_the_admin(
    db: None, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_admin(monkeypatch, "First@Portal.example", "--name", "First")

    client.post("/accounts/login/", {"login": EMAIL, "password": PASSWORD})

    assert client.get("/admin/").status_code == 200
    event = AuditEvent.objects.get(kind=AuditKind.PERSON_CREATED)
    assert (event.subject, event.actor_email, event.data["changes"]["is_staff"]["after"]) == (EMAIL, "system", True)


def test_an_admin_without_a_password_asks_for_a_link(
    db: None, client: Client, monkeypatch: pytest.MonkeyPatch, mailoutbox: list[Any]
) -> None:
    create_admin(monkeypatch, EMAIL, "--no-password")

    client.post("/accounts/password/reset/", {"email": EMAIL})

    assert [message.to for message in mailoutbox] == [[EMAIL]]


@pytest.mark.parametrize(
    ("email", "password", "why"),
    [
        ("nobody", PASSWORD, "valid email"),
        (EMAIL, "short", "at least 12 characters"),
        ("taken@portal.example", PASSWORD, "already exists"),
    ],
)
def test_a_wrong_admin_is_refused(
    db: None, monkeypatch: pytest.MonkeyPatch, email: str, password: str, why: str
) -> None:
    User.objects.create_user("taken@portal.example")

    with pytest.raises(CommandError, match=why):
        create_admin(monkeypatch, email, typed=password)

    assert User.objects.filter(is_staff=True).count() == 0


def test_the_roles_are_created_with_their_passwords(db: None, settings: Any) -> None:
    settings.OWNER_PASSWORD, settings.APP_PASSWORD = "it's the owner's", "the application's"

    with acting_as("postgres"), connection.cursor() as cursor:
        call_command("create_roles")
        call_command("create_roles")
        cursor.execute(
            "SELECT rolname, left(rolpassword, 14) FROM pg_authid "
            "WHERE rolname IN ('portal_app', 'portal_owner') ORDER BY rolname"
        )
        found = cursor.fetchall()

    assert found == [("portal_app", "SCRAM-SHA-256$"), ("portal_owner", "SCRAM-SHA-256$")]


def test_roles_without_passwords_are_refused(db: None) -> None:
    with pytest.raises(CommandError, match="Set OWNER_PASSWORD and APP_PASSWORD"):
        call_command("create_roles")
