"""The smallest safe scope for a set of changes: the guide's table row by row, then properties of any set of changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upgrades.scope import Change, left_out, not_needed, smallest_scope
from upgrades.states import TARGETS, PlatformService, get_services

AGENT, ORCHESTRATOR, PORTAL = PlatformService
changes = st.sets(st.sampled_from(Change))


@pytest.mark.parametrize(
    ("changed", "target"),
    [
        ({Change.REQUEST_PATH}, "agent"),
        ({Change.CONNECTORS}, "agent"),
        ({Change.REQUEST_PATH, Change.CONNECTORS}, "agent"),
        ({Change.WORKFLOWS}, "orchestrator"),
        ({Change.PROVIDERS}, "orchestrator"),
        ({Change.ORCHESTRATION}, "orchestrator"),
        ({Change.CONTROL_PLANE}, "customer-portal"),
        ({Change.PORTAL}, "customer-portal"),
        ({Change.TOGETHER}, "all"),
        ({Change.TOGETHER, Change.PORTAL}, "all"),
        ({Change.CONNECTORS, Change.PROVIDERS}, "all"),
    ],
)
def test_the_scope_follows_the_guides_table(changed: set[Change], target: str) -> None:
    scope = smallest_scope(changed)

    assert scope is not None
    assert scope.target == target


def test_nothing_changed_needs_nothing() -> None:
    assert smallest_scope([]) is None


def test_two_services_are_needed_in_rolling_order() -> None:
    scope = smallest_scope([Change.PORTAL, Change.CONNECTORS])

    assert scope is not None
    assert (scope.needed, not_needed(scope, scope.target)) == ((AGENT, PORTAL), (ORCHESTRATOR,))


def test_what_must_move_together_needs_all() -> None:
    scope = smallest_scope([Change.TOGETHER])

    assert scope is not None
    assert (scope.needed, not_needed(scope, scope.target)) == ((AGENT, ORCHESTRATOR, PORTAL), ())


@given(changes)
def test_the_target_is_the_smallest_that_covers_the_need(changed: set[Change]) -> None:
    scope = smallest_scope(changed)

    assert (scope is None) == (not changed)
    if scope is None:
        return
    covering = [target for target in TARGETS if not left_out(scope, target)]
    assert scope.target in covering
    assert len(get_services(scope.target)) == min(len(get_services(target)) for target in covering)


@given(changes.filter(bool), changes.filter(bool))
def test_more_changes_never_need_less(some: set[Change], more: set[Change]) -> None:
    small, large = smallest_scope(some), smallest_scope(some | more)

    assert small is not None
    assert large is not None
    assert set(small.needed) <= set(large.needed)


@given(changes.filter(bool), st.sampled_from(TARGETS))
def test_any_target_leaves_out_and_adds_exactly_the_difference(changed: set[Change], target: str) -> None:
    scope = smallest_scope(changed)

    assert scope is not None
    needed, rolled = set(scope.needed), set(get_services(target))
    assert set(left_out(scope, target)) == needed - rolled
    assert set(not_needed(scope, target)) == rolled - needed
