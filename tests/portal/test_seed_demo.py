"""The demo's made-up past: what `make up` writes before anybody signs in."""

from typing import Any

import pytest
from django.core.management import call_command

from deployments.models import Deployment
from portal.management.commands.prepare_demo import SEEDS
from portal.models import AuditEvent, AuditKind
from upgrades.models import Rollout, Upgrade


@pytest.fixture
def seeded(db: None, settings: Any) -> None:
    settings.DEMO = True
    for seed in SEEDS:
        call_command(seed)


def test_every_agent_of_the_demo_has_a_deployment(seeded: None) -> None:
    assert Deployment.objects.filter(organization__slug="acme").count() == 6
    assert Deployment.objects.filter(events_count=0).count() == 0


def test_each_version_follows_from_the_one_before(seeded: None) -> None:
    runs: dict[str, str] = {}
    for rollout in Rollout.objects.filter(organization__slug="acme").order_by("upgrade__created_at", "position"):
        if rollout.from_version:
            assert rollout.from_version == runs.get(rollout.service, rollout.from_version), rollout
        if rollout.status == "SUCCESS":
            runs[rollout.service] = rollout.to_version or ""

    assert runs == {"agent": "v9.9.0", "orchestrator": "v9.9.0", "customer-portal": "v9.8.2"}


def test_activity_agrees_with_the_history(seeded: None) -> None:
    triggered = AuditEvent.objects.filter(kind__in=[AuditKind.UPGRADE_TRIGGERED, AuditKind.UPGRADE_ROLLBACK_TRIGGERED])

    assert dict(triggered.values_list("subject", "created_at")) == dict(
        Upgrade.objects.values_list("upgrade_id", "created_at")
    )
    created = AuditEvent.objects.filter(kind=AuditKind.DEPLOYMENT_CREATED).values_list("subject", flat=True)
    assert set(created) == {str(pk) for pk in Deployment.objects.values_list("pk", flat=True)}
