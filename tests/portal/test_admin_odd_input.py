"""Django admin with input that no form of it sends: 400, never 500."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast

SignIn = Callable[[User], Client]

ODD = ["x", "-1", "99999999999999999999", "\x00", "00000000-0000-0000-0000-00000000000g", "1' OR 1=1", "\ud800"]
INLINE = {
    "memberships-TOTAL_FORMS": "1",
    "memberships-INITIAL_FORMS": "0",
    "authenticator_set-TOTAL_FORMS": "0",
    "authenticator_set-INITIAL_FORMS": "0",
    "memberships-0-role": "viewer",
}


@pytest.fixture
def staff(cast: Cast, client_for: SignIn) -> Client:
    client = client_for(cast.staff)
    client.raise_request_exception = False
    return client


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_key_in_an_autocomplete_field_is_400(staff: Client, cast: Cast, odd: str) -> None:
    membership = cast.acme.memberships.get(user=cast.viewer)
    key = odd.encode("utf-8", "surrogatepass").decode("latin-1") if odd == "\ud800" else odd
    forms: list[tuple[str, dict[str, Any]]] = [
        ("/admin/portal/membership/add/", {"user": key, "organization": cast.acme.pk, "role": "viewer"}),
        ("/admin/portal/membership/add/", {"user": cast.viewer.pk, "organization": key, "role": "viewer"}),
        ("/admin/portal/organization/add/", INLINE | {"name": "N", "memberships-0-user": key}),
        (f"/admin/portal/organization/{cast.acme.pk}/change/", INLINE | {"memberships-0-user": key}),
        (f"/admin/portal/user/{cast.viewer.pk}/change/", INLINE | {"memberships-0-organization": key}),
        ("/admin/portal/user/add/", INLINE | {"email": "n@example.com", "memberships-0-organization": key}),
        (
            f"/admin/portal/user/{cast.viewer.pk}/change/",
            INLINE
            | {"memberships-INITIAL_FORMS": "1", "memberships-0-id": key, "memberships-0-organization": cast.acme.pk},
        ),
        ("/admin/portal/organization/", {"action": "test_connections", "_selected_action": key}),
        ("/admin/portal/membership/", {"action": "delete_selected", "_selected_action": key}),
        (f"/admin/portal/membership/{membership.pk}/change/", {"role": key}),
    ]
    answered = {(path, str(data)): staff.post(path, data).status_code for path, data in forms}

    assert {asked: status for asked, status in answered.items() if status >= 500} == {}
    if odd == "x":  # neither a number nor a UUID
        assert list(answered.values())[:6] == 6 * [400]


@pytest.mark.parametrize("odd", ODD[:-1])
def test_an_odd_query_of_the_admin_is_not_500(staff: Client, cast: Cast, odd: str) -> None:
    field = {"app_label": "portal", "model_name": "membership", "field_name": "user"}
    asked: list[tuple[str, dict[str, str]]] = [
        ("/admin/autocomplete/", field | {"term": odd}),
        ("/admin/autocomplete/", field | {"page": odd}),
        ("/admin/autocomplete/", field | {"field_name": odd}),
        ("/admin/portal/membership/", {"organization__id__exact": odd}),
        ("/admin/portal/user/", {"q": odd}),
        ("/admin/portal/user/", {"o": odd, "p": odd}),
        ("/admin/portal/membership/add/", {"organization": odd, "user": odd}),
        ("/admin/portal/user/add/", {"_to_field": odd}),
        ("/admin/portal/auditevent/", {"created_at__gte": odd}),
        ("/admin/deployments/deployment/", {"organization__id__exact": odd, "status__exact": odd}),
    ]
    answered = {(path, str(query)): staff.get(path, query).status_code for path, query in asked}

    assert {asked: status for asked, status in answered.items() if status >= 500} == {}
