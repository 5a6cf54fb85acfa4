"""Saved views: filters of the deployments list and of the history, own and shared, with a default for each person."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.test import Client
from django.utils.http import urlencode

from portal.errors import PortalError
from portal.models import AuditEvent, DefaultView, SavedView, User
from portal.saved_views.commands import MAX_VIEWS, change_view, choose_default, remove_view
from tests.conftest import Cast
from tests.deployments.conftest import read_html

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
VIEWS, DEPLOYMENTS, HISTORY = "/o/acme/views/", "/o/acme/deployments/", "/o/acme/upgrades/"
FAILED = {"name": "On fire", "list": "deployments", "query": "status=failed"}


def make_view(user: User, cast: Cast, **fields: Any) -> SavedView:
    return SavedView.objects.create(organization=cast.acme, user=user, **FAILED | fields)


def audited() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("kind", flat=True))


@pytest.mark.parametrize(("path", "listed"), [(DEPLOYMENTS, "deployments"), (HISTORY, "upgrades")])
def test_the_filters_of_a_list_become_a_view(cast: Cast, client_for: SignedIn, path: str, listed: str) -> None:
    client = client_for(cast.viewer)
    value = {"deployments": "failed", "upgrades": "FAILED"}[listed]
    asked = urlencode({"list": listed, "query": f"status={value}"})

    filtered = read_html(client.get(path, {"status": value, "skip": "0"}))
    form = read_html(client.get(f"{VIEWS}new?{asked}"))
    saved = client.post(f"{VIEWS}new", {"name": "On fire", "list": listed, "query": f"?status={value}&q=&skip=50"})
    shown = read_html(client.get(saved["Location"]))

    assert f'href="{VIEWS}new?{asked.replace("&", "&amp;")}"' in filtered
    assert f'Status <span class="mono">{value}</span>' in form
    assert saved["Location"] == f"{path}?status={value}"
    assert f'<a href="{path}?status={value}" aria-current="true">On fire' in shown
    assert audited() == []


def test_an_own_view_is_nobody_elses(cast: Cast, client_for: SignedIn) -> None:
    view = make_view(cast.viewer, cast)
    client = client_for(cast.admin)

    assert "On fire" not in read_html(client.get(VIEWS)) + read_html(client.get(DEPLOYMENTS))
    for path in ("edit", "remove", "default"):
        assert client.post(f"{VIEWS}{view.pk}/{path}", {"name": "Mine", "on": "1"}).status_code == 404
    assert SavedView.objects.get().name == "On fire"


def test_admins_share_a_view_with_everybody(cast: Cast, client_for: SignedIn) -> None:
    view = make_view(cast.admin, cast)
    admin, viewer = client_for(cast.admin), client_for(cast.viewer)
    one = f"{VIEWS}{view.pk}"

    shared = admin.post(f"{one}/edit", {"name": "On fire", "is_shared": "on"})
    seen = read_html(viewer.get(DEPLOYMENTS))
    refused = [viewer.post(f"{one}/edit", {"name": "Mine"}), viewer.post(f"{one}/remove")]
    admin.post(f"{one}/edit", {"name": "Burning", "is_shared": "on"})
    admin.post(f"{one}/remove")

    assert shared.status_code == 302
    assert f'href="{DEPLOYMENTS}?status=failed">On fire' in seen
    assert [answer.status_code for answer in refused] == [403, 403]
    assert not SavedView.objects.exists()
    assert audited() == ["view.shared", "view.refused", "view.refused", "view.changed", "view.removed"]


def test_only_admins_share(cast: Cast, client_for: SignedIn) -> None:
    """The box is disabled for others, so that the form cannot share either."""
    client_for(cast.operator).post(f"{VIEWS}new", FAILED | {"is_shared": "on"})

    assert SavedView.objects.get().is_shared is False


def test_a_list_opens_with_the_default_view(cast: Cast, client_for: SignedIn) -> None:
    view = make_view(cast.admin, cast, is_shared=True)
    client, other = client_for(cast.viewer), client_for(cast.operator)
    asked = f"{DEPLOYMENTS}?view=default"

    before = client.get(asked)
    client.post(f"{VIEWS}{view.pk}/default", {"on": "1"})
    chosen = client.get(asked)
    unfiltered, fragment = client.get(DEPLOYMENTS), client.get(asked, headers={"HX-Request": "true"})
    of_other = other.get(asked)
    client.post(f"{VIEWS}{view.pk}/default", {"on": "0"})

    assert f'href="{asked}"' in read_html(before)
    assert (chosen.status_code, chosen["Location"]) == (302, f"{DEPLOYMENTS}?status=failed")
    assert [each.status_code for each in (before, unfiltered, fragment, of_other)] == [200] * 4
    assert client.get(asked).status_code == 200


def test_a_view_that_is_no_longer_shared_is_no_default(cast: Cast, client_for: SignedIn) -> None:
    view = make_view(cast.admin, cast, is_shared=True)
    for user in (cast.admin, cast.viewer):
        DefaultView.objects.create(organization=cast.acme, user=user, list="deployments", view=view)

    client_for(cast.admin).post(f"{VIEWS}{view.pk}/edit", {"name": "On fire"})

    assert list(DefaultView.objects.values_list("user", flat=True)) == [cast.admin.pk]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "x" * 61}, "at most 60 characters"),
        ({"name": "All", "query": "skip=50&view=default"}, "a view without one is the list itself"),
        ({"name": "Long", "query": "q=" + "x" * 1000}, "at most 1000 characters"),
        ({"name": "Long in the address", "query": "q=" + "é" * 200}, "The filters are too long for a view"),
        ({"name": "Elsewhere", "list": "members"}, "members is not one of the available choices"),
    ],
)
def test_what_cannot_be_saved_is_refused(cast: Cast, client_for: SignedIn, body: dict[str, str], sentence: str) -> None:
    make_view(cast.viewer, cast)

    refused = client_for(cast.viewer).post(f"{VIEWS}new", FAILED | body)

    assert (refused.status_code, SavedView.objects.count()) == (422, 1)
    assert sentence in read_html(refused)


def test_a_name_is_used_once_for_each_list(cast: Cast, client_for: SignedIn) -> None:
    view = make_view(cast.viewer, cast, name="Other")
    make_view(cast.viewer, cast)
    client, body = client_for(cast.viewer), FAILED | {"name": "ON FIRE"}

    refused = [client.post(f"{VIEWS}{part}", body) for part in ("new", f"{view.pk}/edit")]

    assert [each.status_code for each in refused] == [409, 409]
    assert all("There is already a view of this list with this name." in read_html(each) for each in refused)


@pytest.mark.parametrize(
    "command",
    [
        partial(change_view, name="Burning", is_shared=False),
        remove_view,
        partial(choose_default, is_default=True),
    ],
)
def test_a_view_that_was_deleted_meanwhile_is_404(cast: Cast, command: Callable[..., Any]) -> None:
    view = make_view(cast.admin, cast, is_shared=True)
    SavedView.objects.all().delete()

    with pytest.raises(PortalError) as refused:
        command(view, actor=cast.admin)

    assert refused.value.status == 404
    assert audited() == []


def test_a_person_saves_a_limited_number_of_views(cast: Cast, client_for: SignedIn) -> None:
    many = [SavedView(organization=cast.acme, user=cast.viewer, **FAILED | {"name": str(n)}) for n in range(MAX_VIEWS)]
    SavedView.objects.bulk_create(many)

    refused = client_for(cast.viewer).post(f"{VIEWS}new", FAILED)

    assert (refused.status_code, SavedView.objects.count()) == (409, MAX_VIEWS)
    assert "already have 50 saved views" in read_html(refused)
