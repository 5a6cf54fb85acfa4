"""The overview leads with what needs attention: what it is, why, and where to act."""

import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from deployments.models import Deployment
from deployments.states import Status as DeploymentStatus
from portal.models import User
from portal.tasks import record_heartbeat
from tests.conftest import Cast, Engine
from tests.deployments.conftest import make_agent, make_deployment
from tests.local_aws import LocalAws
from tests.upgrades.conftest import make_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.states import EventKind, Outcome, Status, Validation

pytestmark = pytest.mark.django_db(transaction=True)

SignIn = Callable[[User], Client]
TAG = re.compile(r"<[^>]+>")


@pytest.fixture
def read(cast: Cast, platform: LocalAws, client_for: SignIn) -> Callable[[], str]:
    """Return a function that reads the part of the overview about attention, with the addresses of its links."""
    for name in ("scheduler", "worker"):
        record_heartbeat(name)

    def read_attention() -> str:
        cache.clear()  # a reading of ECS is cached for some seconds
        page = client_for(cast.viewer).get("/o/acme/").content.decode()
        part = page[page.index('<section class="attention"') :].partition("</section>")[0]
        links = " ".join(re.findall(r'href="(/[^"]*)"', part))
        return html.unescape(f"{' '.join(TAG.sub(' ', part).split())} {links}".strip())

    return read_attention


def test_nothing_wrong_is_one_quiet_line(read: Callable[[], str]) -> None:
    assert read() == "Needs attention Nothing needs attention."


def test_a_silent_runner_is_named_first(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = client_for(cast.viewer).get("/o/acme/").content.decode()

    assert page.index("has not been seen for 30 s") < page.index("Platform services")
    assert page.count("has not been seen for 30 s") == 2  # the title, and the name of its link


def test_a_failed_deployment_has_its_reason(cast: Cast, read: Callable[[], str]) -> None:
    deployment = make_deployment(cast, make_agent(cast, "Triage agent"))
    failed = {"status": DeploymentStatus.FAILED, "error_message": "image pull failed: not found"}
    Deployment.objects.filter(pk=deployment.pk).update(**failed)

    text = read()

    assert "Triage agent: the deployment failed" in text
    assert "Image pull failed: not found" in text
    assert f"/o/acme/deployments/{deployment.pk}/" in text


def test_of_many_failed_deployments_three_are_named(cast: Cast, read: Callable[[], str]) -> None:
    agent = make_agent(cast, "Triage agent")
    for _ in range(5):
        make_deployment(cast, agent)
    Deployment.objects.update(status=DeploymentStatus.FAILED, status_at=timezone.now())

    text = read()

    assert text.count("Triage agent: the deployment failed just now") == 3
    assert "/o/acme/deployments/?status=failed" in text


def test_a_failed_upgrade_leads_to_its_next_step(
    cast: Cast, engine: Engine, platform: LocalAws, read: Callable[[], str]
) -> None:
    service = f"{cast.acme.deployment_stack}-agent-service"
    platform.fault("crash", cluster=cast.acme.cluster, service=service)
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    engine.run(upgrade, seconds=15)

    text = read()

    assert "Agent service: the upgrade" in text
    assert "circuit breaker threshold was exceeded" in text
    assert f"/o/acme/upgrades/{upgrade.upgrade_id}/#next" in text


def test_a_stalled_rollout_has_the_short_sentence_of_ecs(cast: Cast, read: Callable[[], str]) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    rollout = upgrade.rollouts.get()
    Rollout.objects.filter(pk=rollout.pk).update(phase="watching", is_stalled=True)
    said = "(service web) (task 0a) (port 80) is unhealthy in (target-group x) due to (reason Request timed out)."
    UpgradeEvent.objects.create(organization=cast.acme, rollout=rollout, kind=EventKind.ECS, message=said)

    text = read()

    assert "1 task unhealthy: Request timed out" in text
    assert "(service web)" not in text


@pytest.mark.parametrize(
    ("observed", "said"),
    [
        ({"is_stalled": True}, "Agent service: the rollout has stalled"),
        ({"is_overdue": True}, "Agent service: the rollout is overdue"),
        ({"outcome": Outcome.ROLLING_BACK}, "Agent service: ECS is rolling back"),
        (
            {"outcome": Outcome.WAITING_FOR_DECISION, "hook": {"id": "1", "status": "AWAITING_ACTION"}},
            "Agent service: the rollout waits for a decision",
        ),
    ],
)
def test_an_open_rollout_that_needs_a_person(
    cast: Cast, read: Callable[[], str], observed: dict[str, Any], said: str
) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    Rollout.objects.filter(upgrade=upgrade).update(phase="watching", desired_count=4, **observed)

    text = read()

    assert said in text
    assert f"/o/acme/upgrades/{upgrade.upgrade_id}/" in text


@pytest.mark.parametrize(("hours", "said"), [(0, "the validation is due"), (24, "the validation is missing")])
def test_a_missing_validation_is_named(cast: Cast, read: Callable[[], str], hours: int, said: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    ended = {"validation": Validation.NEEDED, "completed_at": timezone.now() - timedelta(hours=hours)}
    Upgrade.objects.filter(pk=upgrade.pk).update(**ended)

    assert said in read()


def test_a_newer_release_is_news(cast: Cast, registry: dict[str, str], read: Callable[[], str]) -> None:
    text = read()

    assert text.startswith("Needs attention Nothing needs attention. New version v9.9.1 is available")
    assert "/o/acme/upgrades/new?service=all&version=v9.9.1" in text


@pytest.mark.parametrize("page", ["", "deployments/", "deployments/new", "upgrades/new"])
def test_what_is_not_set_up_says_so_and_whom_to_ask(cast: Cast, client_for: SignIn, page: str) -> None:
    text = " ".join(client_for(cast.newcomer).get(f"/o/initech/{page}").content.decode().split())

    assert "Initech is not set up yet" in text
    assert "Ask the staff of this portal to set it up, and give them:" in text
