"""What the page suggests after a failed or partial upgrade: a retry, a rollback, or nothing while it is unclear."""

import html
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Kind, Upgrade
from upgrades.outcome_texts import OUTCOME_TEXTS, UNCLEAR
from upgrades.pages.next_steps import next_steps
from upgrades.states import Outcome, Status

SignIn = Callable[[User], Client]

OF_OUTCOME = {
    Outcome.COMPLETED: Status.SUCCESS,
    Outcome.COMPLETED_EARLY: Status.SUCCESS,
    Outcome.NO_CHANGE: Status.SUCCESS,
    Outcome.DISABLED: Status.SKIPPED,
}
NOT_ENDED = {Outcome.WAITING_FOR_DECISION, Outcome.HOOK_RUNNING, Outcome.BAKING, Outcome.ROLLING_BACK}
FAILURES = [outcome for outcome in Outcome if outcome not in {*OF_OUTCOME, *NOT_ENDED}]
CLEAR = [outcome for outcome in FAILURES if outcome not in UNCLEAR]


def ended(cast: Cast, *outcomes: Outcome, **fields: Any) -> Upgrade:
    """Return an upgrade of acme from v9.9.0 to v9.9.1: of `all` with an outcome for each, or of only the orchestrator."""
    upgrade = make_upgrade(
        cast.acme,
        by=cast.operator,
        target="all" if len(outcomes) > 1 else "orchestrator",
        statuses=[OF_OUTCOME.get(outcome, Status.FAILED) for outcome in outcomes],
        cluster=cast.acme.cluster,
        region=cast.acme.deployment_region,
        **{"version": "latest", "force_new_deployment": False, "reason": "OPS-7"} | fields,
    )
    for rollout, outcome in zip(upgrade.rollouts.all(), outcomes, strict=True):
        rollout.outcome, rollout.wanted_version = outcome, "v9.9.1"
        if outcome != Outcome.NOT_ATTEMPTED:
            rollout.from_version, rollout.to_version = "v9.9.0", "v9.9.1"
            rollout.previous_task_definition, rollout.task_definition = "family:1", "family:2"
        rollout.save()
    return Upgrade.objects.for_record().select_related("rolls_back").get(pk=upgrade.pk)


def partial(cast: Cast, outcome: Outcome = Outcome.ROLLED_BACK, **fields: Any) -> Upgrade:
    """Return an upgrade that advanced the agent service, failed in the orchestrator and did not attempt the portal."""
    return ended(cast, Outcome.COMPLETED, outcome, Outcome.NOT_ATTEMPTED, **fields)


def card(client: Client, upgrade: Upgrade) -> str:
    """Return the card of the page; empty if there is none."""
    text = html.unescape(client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode())
    return text.partition('id="next"')[2].partition("</section>")[0]


def buttons(text: str) -> dict[str, str]:
    """Return the URLs of the buttons by their labels."""
    found = re.findall(r'<a class="button[^"]*" href="([^"]*)">([^<]*)</a>', text)
    return {label: address for address, label in found}


def choices(address: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(address).query)


def test_a_partial_upgrade_offers_retry_and_rollback(cast: Cast, client_for: SignIn) -> None:
    upgrade = partial(cast)

    text = card(client_for(cast.operator), upgrade)

    offered = buttons(text)
    assert list(offered) == ["Retry the orchestrator", "Roll back the agent service"]
    assert choices(offered["Retry the orchestrator"]) == {
        "service": ["orchestrator"],
        "version": ["v9.9.1"],
        "reason": ["OPS-7"],
    }
    assert offered["Roll back the agent service"] == f"/o/acme/upgrades/{upgrade.upgrade_id}/rollback"
    assert '<a href="#rollout-card-orchestrator">Orchestrator</a>: Find out why its new tasks stopped' in text
    assert "Then upgrade what also failed or was not attempted: customer portal." in text


def test_a_forced_upgrade_is_retried_forced(cast: Cast, client_for: SignIn) -> None:
    offered = buttons(card(client_for(cast.operator), partial(cast, force_new_deployment=True)))

    assert choices(offered["Retry the orchestrator"])["force"] == ["1"]


def test_the_link_fills_in_the_form(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    offered = buttons(card(client, partial(cast, force_new_deployment=True)))

    text = client.get(offered["Retry the orchestrator"]).content.decode()

    assert '<input type="hidden" name="service" value="orchestrator">' in text
    assert '<input type="hidden" name="version" value="v9.9.1">' in text
    assert '<input type="hidden" name="force_new_deployment" value="on">' in text
    assert "OPS-7</textarea>" in text


def test_if_nothing_advanced_the_whole_request_is_retried(cast: Cast, client_for: SignIn) -> None:
    upgrade = ended(cast, Outcome.ROLLED_BACK, Outcome.NOT_ATTEMPTED, Outcome.NOT_ATTEMPTED)

    offered = buttons(card(client_for(cast.operator), upgrade))

    assert list(offered) == ["Retry all three services"]
    assert choices(offered["Retry all three services"])["service"] == ["all"]


@pytest.mark.parametrize("outcome", [Outcome.CIRCUIT_BREAKER, Outcome.ALARM])
def test_a_service_left_broken_returns_to_its_earlier_version(cast: Cast, client_for: SignIn, outcome: Outcome) -> None:
    offered = buttons(card(client_for(cast.operator), ended(cast, outcome)))

    assert list(offered) == ["Return the orchestrator to v9.9.0"]
    assert choices(offered["Return the orchestrator to v9.9.0"]) == {
        "service": ["orchestrator"],
        "version": ["v9.9.0"],
        "force": ["1"],
        "reason": ["OPS-7"],
    }


@pytest.mark.parametrize("outcome", sorted(UNCLEAR))
def test_an_unclear_outcome_offers_no_action(cast: Cast, client_for: SignIn, outcome: Outcome) -> None:
    text = card(client_for(cast.operator), partial(cast, outcome))

    assert buttons(text) == {}
    assert OUTCOME_TEXTS[outcome].hint in text
    assert "Do not start anything until this is clear." in text
    assert 'href="/o/acme/"' in text


@pytest.mark.parametrize("outcome", FAILURES)
def test_every_failure_gives_a_hint_and_at_most_one_action(cast: Cast, client_for: SignIn, outcome: Outcome) -> None:
    text = card(client_for(cast.operator), ended(cast, outcome))

    assert OUTCOME_TEXTS[outcome].hint in text
    assert len(buttons(text)) == (outcome in CLEAR)


@pytest.mark.parametrize("target", ["agent", "all"])
def test_a_success_needs_no_next_step(cast: Cast, client_for: SignIn, target: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target=target)

    assert card(client_for(cast.operator), upgrade) == ""


def test_a_running_upgrade_has_no_next_steps_yet(cast: Cast, client_for: SignIn) -> None:
    statuses = [Status.FAILED, Status.IN_PROGRESS, Status.PENDING]
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="all", statuses=statuses)

    assert card(client_for(cast.operator), upgrade) == ""


# --- what happened since -------------------------------------------------------------------------------------------


def test_after_a_good_retry_the_service_not_attempted_is_next(cast: Cast, client_for: SignIn) -> None:
    upgrade = partial(cast)
    retry = make_upgrade(cast.acme, by=cast.operator, target="orchestrator")

    text = card(client_for(cast.operator), upgrade)

    assert list(buttons(text)) == ["Upgrade the customer portal", "Roll back the agent service"]
    assert "Upgraded again since: orchestrator." in text
    assert retry.upgrade_id in text


@pytest.mark.parametrize("status", [Status.FAILED, Status.IN_PROGRESS])
def test_an_open_or_failed_retry_replaces_the_suggestions(cast: Cast, client_for: SignIn, status: Status) -> None:
    upgrade = partial(cast)
    retry = make_upgrade(cast.acme, by=cast.operator, target="orchestrator", statuses=[status])

    text = card(client_for(cast.operator), upgrade)

    assert buttons(text) == {}
    assert retry.upgrade_id in text


def test_what_advanced_and_was_rolled_again_is_not_rolled_back(cast: Cast, client_for: SignIn) -> None:
    upgrade = partial(cast)
    make_upgrade(cast.acme, by=cast.operator, target="agent")

    assert list(buttons(card(client_for(cast.operator), upgrade))) == ["Retry the orchestrator"]


def test_an_attempt_that_started_nothing_changes_nothing(cast: Cast, client_for: SignIn) -> None:
    upgrade = partial(cast)
    ended(cast, Outcome.NOT_ATTEMPTED)

    assert len(buttons(card(client_for(cast.operator), upgrade))) == 2


def test_another_organizations_upgrades_do_not_count(cast: Cast, client_for: SignIn) -> None:
    upgrade = partial(cast)
    make_upgrade(cast.globex, by=cast.outsider, target="all")

    assert len(buttons(card(client_for(cast.operator), upgrade))) == 2


# --- after a rollback -------------------------------------------------------------------------------------------------


def test_a_failed_rollback_links_to_its_plan_again(cast: Cast, client_for: SignIn) -> None:
    original = ended(cast, Outcome.COMPLETED, Outcome.COMPLETED, Outcome.COMPLETED)
    rollback = partial(cast, kind=Kind.ROLLBACK, rolls_back=original)

    assert buttons(card(client_for(cast.operator), rollback)) == {
        "Retry the rollback of the orchestrator": f"/o/acme/upgrades/{original.upgrade_id}/rollback",
        "Undo the rollback of the agent service": f"/o/acme/upgrades/{rollback.upgrade_id}/rollback",
    }


def test_a_rollback_of_two_services_names_both(cast: Cast, client_for: SignIn) -> None:
    original = ended(cast, Outcome.COMPLETED, Outcome.COMPLETED, Outcome.COMPLETED)
    failed = (Outcome.ROLLED_BACK, Outcome.NOT_ATTEMPTED, Outcome.NOT_ATTEMPTED)
    rollback = ended(cast, *failed, kind=Kind.ROLLBACK, rolls_back=original)
    rollback.rollouts.filter(service="customer-portal").delete()

    offered = buttons(card(client_for(cast.operator), rollback))

    assert list(offered) == ["Retry the rollback of the agent service and orchestrator"]


# --- who may -------------------------------------------------------------------------------------------------------


def test_a_viewer_reads_it_without_buttons(cast: Cast, client_for: SignIn) -> None:
    text = card(client_for(cast.viewer), partial(cast))

    assert buttons(text) == {}
    assert "Retry the orchestrator, or roll back the agent service: this needs an operator." in text


def test_it_costs_one_query(cast: Cast, django_assert_num_queries: Any) -> None:
    upgrade = partial(cast)

    with django_assert_num_queries(1):
        next_steps(upgrade)
