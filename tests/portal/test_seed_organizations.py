"""`manage.py seed_organizations`: creates the demo's organizations and people, and only in a demo."""

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from portal.management.commands.seed_organizations import PASSWORD
from portal.models import Membership, Organization, User


def test_the_demo_people_sign_in_and_see_their_organizations(db: None, client: Client) -> None:
    call_command("seed_organizations")

    signed_in = client.post("/accounts/login/", {"login": "consultant@portal.example", "password": PASSWORD})

    assert signed_in.status_code == 302
    session = client.get("/api/v1/auth/session").json()
    assert session["organizations"] == [
        {"slug": "acme", "name": "Acme Robotics", "role": "operator"},
        {"slug": "globex", "name": "Globex", "role": "operator"},
    ]


def test_the_organizations_are_those_of_the_local_aws(db: None) -> None:
    call_command("seed_organizations")

    acme, globex, initech = Organization.objects.order_by("slug")
    assert (acme.cluster, acme.deployment_region, acme.aws_target.role_arn) == (
        "acme-prod-cluster",
        "eu-central-1",
        None,
    )
    assert (globex.cluster, globex.deployment_region) == ("globex-prod-cluster", "us-east-1")
    assert globex.aws_target.role_arn == "arn:aws:iam::222222222222:role/portal-upgrades"
    assert initech.cluster is None


def test_their_platform_addresses_are_the_local_aws(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8001")

    call_command("seed_organizations")

    acme, globex, initech = Organization.objects.order_by("slug")
    assert acme.platform_agent_url == "http://127.0.0.1:8001/_platform/acme-prod/agent"
    assert acme.platform_portal_url == "http://127.0.0.1:8001/_platform/acme-prod/customer-portal"
    assert globex.platform_orchestrator_url == "http://127.0.0.1:8001/_platform/globex-prod/orchestrator"
    assert initech.platform_agent_url == ""


def test_seeding_again_updates_only_unchanged_addresses(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    call_command("seed_organizations")
    Organization.objects.filter(slug="acme").update(
        platform_agent_url="https://agent.example.com",
        platform_portal_url="http://127.0.0.1:9999/_platform/acme-prod/customer-portal",
    )

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8001/")
    call_command("seed_organizations")

    acme = Organization.objects.get(slug="acme")
    assert acme.platform_agent_url == "https://agent.example.com"
    assert acme.platform_orchestrator_url == "http://127.0.0.1:8001/_platform/acme-prod/orchestrator"
    assert acme.platform_portal_url == "http://127.0.0.1:8001/_platform/acme-prod/customer-portal"


def test_every_organization_passes_its_own_checks(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:8001")
    call_command("seed_organizations")

    for organization in Organization.objects.all():
        organization.full_clean()


def test_only_the_staff_person_opens_the_admin(db: None) -> None:
    call_command("seed_organizations")

    assert [user.email for user in User.objects.filter(is_staff=True)] == ["staff@portal.example"]


def test_seeding_again_keeps_peoples_changes(db: None) -> None:
    call_command("seed_organizations")
    Organization.objects.create(slug="added", name="Added by staff")
    Organization.objects.filter(slug="acme").update(name="Renamed")
    counts = (Organization.objects.count(), User.objects.count(), Membership.objects.count())

    call_command("seed_organizations")

    assert (Organization.objects.count(), User.objects.count(), Membership.objects.count()) == counts
    assert Organization.objects.get(slug="acme").name == "Renamed"


def test_seeding_is_refused_without_demo(db: None, settings: Any) -> None:
    settings.DEMO = False

    with pytest.raises(CommandError, match="DEMO=1"):
        call_command("seed_organizations")

    assert not User.objects.exists()


def test_seeding_is_refused_beside_other_organizations(db: None) -> None:
    Organization.objects.create(slug="real", name="Real")

    with pytest.raises(CommandError, match="real"):
        call_command("seed_organizations")

    assert not User.objects.exists()
    assert Organization.objects.count() == 1
