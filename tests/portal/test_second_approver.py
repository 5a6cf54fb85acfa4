"""Requiring a second person to continue an upgrade: the switch under Settings, and in Django admin."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.errors import PortalError
from portal.members.approvals import require_second_approver
from portal.models import Membership, Organization, Role, User
from tests.conftest import Cast, audited_changes
from tests.portal.conftest import get_main
from tests.portal.test_admin import change_page, organization_form

SignIn = Callable[[User], Client]

SETTINGS = "/o/acme/settings/"
SWITCH = f"{SETTINGS}second-approver"


def get_text(response: Any) -> str:
    return " ".join(get_main(response).split())


def is_required(organization: Organization) -> bool:
    return Organization.objects.get(pk=organization.pk).requires_second_approver


def leave_one_approver(cast: Cast) -> None:
    Membership.objects.filter(user=cast.operator).update(role=Role.VIEWER)
    User.objects.filter(pk=cast.consultant.pk).update(is_active=False)


def test_an_admin_switches_it_on_and_off(cast: Cast, client_for: SignIn) -> None:
    admin = client_for(cast.admin)

    switched_on = admin.post(SWITCH, {"on": "1"}, follow=True)
    was_required = is_required(cast.acme)
    admin.post(SWITCH, {"on": "0"})

    assert "A second person is required." in get_text(switched_on)
    assert (was_required, is_required(cast.acme)) == (True, False)
    events = audited_changes().order_by("id").values_list("kind", "actor_email", "subject", "data")
    changes = [{"before": False, "after": True}, {"before": True, "after": False}]
    changed = ("organization.changed", cast.admin.email, "acme")
    assert list(events) == [(*changed, {"changes": {"requires_second_approver": each}}) for each in changes]


def test_the_current_value_changes_nothing(cast: Cast, client_for: SignIn) -> None:
    assert client_for(cast.admin).post(SWITCH, {"on": "0"}).status_code == 302
    assert not audited_changes().exists()


@pytest.mark.parametrize(("person", "status"), [("operator", 403), ("viewer", 403), ("outsider", 404)])
def test_only_admins_may_switch_it(cast: Cast, client_for: SignIn, person: str, status: int) -> None:
    actor = getattr(cast, person)

    response = client_for(actor).post(SWITCH, {"on": "1"})

    with pytest.raises(PortalError) as refused:
        require_second_approver(cast.acme, actor=actor, is_required=True)
    assert (response.status_code, refused.value.status) == (status, status)
    assert not is_required(cast.acme)
    assert not audited_changes().exists()


def test_it_needs_two_active_people_who_may_approve(cast: Cast, client_for: SignIn) -> None:
    leave_one_approver(cast)
    admin = client_for(cast.admin)

    shown, response = admin.get(SETTINGS), admin.post(SWITCH, {"on": "1"})

    assert response.status_code == 409
    assert f"only {cast.admin.email} may approve. Add a member" in get_text(response)
    assert "disabled" in get_text(shown).partition("Require a second person")[0].rpartition("<button")[2]
    assert not is_required(cast.acme)
    assert not audited_changes().exists()


def test_settings_say_when_too_few_are_left(cast: Cast, client_for: SignIn) -> None:
    client_for(cast.admin).post(SWITCH, {"on": "1"})
    leave_one_approver(cast)

    text = get_text(client_for(cast.viewer).get(SETTINGS))

    assert f"only {cast.admin.email} may approve." in text
    assert "no one can continue an upgrade that the only approver triggered" in text


# --- Django admin --------------------------------------------------------------------------------------------------


def test_staff_switch_it_in_django_admin(cast: Cast, client_for: SignIn) -> None:
    response = client_for(cast.staff).post(
        change_page(cast.acme), organization_form(cast.acme, requires_second_approver="on")
    )

    assert response.status_code == 302
    assert is_required(cast.acme)
    event = audited_changes().get()
    assert event.data == {"changes": {"requires_second_approver": {"before": False, "after": True}}}


def test_django_admin_refuses_it_for_too_few_people(cast: Cast, client_for: SignIn) -> None:
    leave_one_approver(cast)

    response = client_for(cast.staff).post(
        change_page(cast.acme), organization_form(cast.acme, requires_second_approver="on")
    )

    assert "A second person needs 2 active members" in response.content.decode()
    assert not is_required(cast.acme)
