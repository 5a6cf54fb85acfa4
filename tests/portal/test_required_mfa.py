"""An organization that requires two-factor authentication: members without it see nothing of it, and only of it."""

from collections.abc import Callable

import pytest
from django.test import Client

from portal.models import Organization, User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.portal.conftest import get_main
from tests.portal.isolation_table import TENANT, ask, make_place, read_rows

SignIn = Callable[[User], Client]
Authenticator = Callable[[User], Callable[[], str]]
SWITCH = "/o/acme/settings/safeguards"
ON = {"name": "requires_mfa", "on": "1"}


@pytest.fixture
def required(cast: Cast) -> None:
    Organization.objects.filter(pk=cast.acme.pk).update(requires_mfa=True)
    cast.acme.refresh_from_db()


@pytest.mark.usefixtures("required")
def test_without_it_every_route_of_the_organization_is_403(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    place, client = make_place(cast, cast.acme), client_for(cast.admin)
    before = read_rows(cast.acme, audit=False)

    for row in TENANT:
        for method in row.allowed:
            answer = ask(client, row, method, place)

            assert (row, method, answer.status_code) == (row, method, 403)
            assert method == "head" or b"mfa_required_by_organization" in answer.content
            assert not [each for each in place.ids if each in answer.content.decode()]
    assert read_rows(cast.acme, audit=False) == before


@pytest.mark.usefixtures("required")
def test_without_it_other_organizations_and_the_account_stay(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.consultant)

    page = client.get("/o/acme/settings/")

    assert 'href="/accounts/2fa/"' in get_main(page)
    assert [client.get(path).status_code for path in ("/o/globex/settings/", "/account/", "/")] == [200, 200, 200]
    assert client.get("/account/organizations/acme/leave").status_code == 200


@pytest.mark.usefixtures("required")
@pytest.mark.parametrize("default", [False, True])
def test_an_api_client_is_told_without_a_header(cast: Cast, client_for: SignIn, default: bool) -> None:
    user = cast.consultant if default else cast.viewer
    User.objects.filter(pk=user.pk).update(default_organization=cast.acme if default else None)

    response = client_for(user).get("/api/v1/deployments/upgrades")

    assert (response.status_code, response.json()["code"]) == (403, "mfa_required_by_organization")


@pytest.mark.usefixtures("required")
def test_with_it_everything_is_as_before(cast: Cast, client_for: SignIn, authenticator: Authenticator) -> None:
    authenticator(cast.viewer)
    client = client_for(cast.viewer)

    assert client.get("/o/acme/settings/").status_code == 200
    assert client.get("/api/v1/deployments/upgrades").status_code == 200


@pytest.mark.usefixtures("required")
def test_recovery_codes_alone_do_not_count(
    cast: Cast, client_for: SignIn, recovery_codes: Callable[[User], list[str]]
) -> None:
    recovery_codes(cast.viewer)

    assert client_for(cast.viewer).get("/o/acme/settings/").status_code == 403


def test_an_admin_requires_it_after_setting_it_up(cast: Cast, client_for: SignIn, authenticator: Authenticator) -> None:
    client = client_for(cast.admin)
    refused = client.post(SWITCH, ON)
    was_required = Organization.objects.get(pk=cast.acme.pk).requires_mfa
    authenticator(cast.admin)

    done = client.post(SWITCH, ON)

    assert (refused.status_code, was_required) == (409, False)
    assert "Set up two-factor authentication for yourself first." in get_main(refused)
    assert (done.status_code, Organization.objects.get(pk=cast.acme.pk).requires_mfa) == (302, True)
