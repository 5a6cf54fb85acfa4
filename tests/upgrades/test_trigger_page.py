"""Starting an upgrade: what only the page has.

What it shares with the API is in test_trigger.py, and what it shows before the start in test_plan_page.py.
"""

import re
from collections.abc import Callable

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, sign_in
from tests.local_aws import LocalAws
from tests.upgrades.conftest import at_local_aws, make_upgrade
from upgrades.models import Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]

URL = "/o/acme/upgrades/new"
FORM = {"service": "agent", "version": "latest", "idempotency_key": "key-1"}


def test_each_form_carries_a_key_of_its_own(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.operator)

    keys = {re.findall(r'name="idempotency_key" value="([^"]+)"', client.get(URL).content.decode())[0] for _ in "ab"}

    assert len(keys) == 2


def key_in(page: str) -> str:
    return re.findall(r'name="idempotency_key" value="([^"]*)"', page)[0]


def test_a_refused_form_gets_a_new_key_and_can_be_sent_again(
    cast: Cast, platform: LocalAws, client_for: SignIn
) -> None:
    client = client_for(cast.operator)
    client.post(URL, FORM)

    refused = client.post(URL, FORM | {"service": "orchestrator"})
    key = key_in(refused.content.decode())

    assert (refused.status_code, key != "key-1") == (422, True)
    assert client.post(URL, FORM | {"service": "orchestrator", "idempotency_key": key}).status_code == 302


@pytest.mark.parametrize(("key", "said"), [("", "The form was sent without its key"), ("x" * 500, "at most")])
def test_an_invalid_idempotency_key_is_reported(
    cast: Cast, platform: LocalAws, client_for: SignIn, key: str, said: str
) -> None:
    text = client_for(cast.operator).post(URL, FORM | {"idempotency_key": key}).content.decode()

    assert said in text
    assert key_in(text) not in ("", key)
    assert not Upgrade.objects.exists()


def test_it_redirects_to_the_live_page(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    response = client_for(cast.operator).post(URL, FORM, follow=True)

    upgrade = Upgrade.objects.get()
    assert response.redirect_chain == [(f"/o/acme/upgrades/{upgrade.upgrade_id}/", 302)]
    assert response.status_code == 200


@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404(cast: Cast, client_for: SignIn, person: str) -> None:
    response = client_for(getattr(cast, person)).get(URL)

    assert response.status_code == 404
    assert "Acme" not in response.content.decode()


def test_anonymous_is_sent_to_sign_in_and_back(cast: Cast) -> None:
    page = Client().get(URL)
    fragment = Client().post(URL, FORM, headers={"HX-Request": "true"})

    assert (page.status_code, page.headers["Location"]) == (302, "/accounts/login/?next=%2Fo%2Facme%2Fupgrades%2Fnew")
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (401, "/accounts/login/")
    assert fragment.content == b""


def test_without_csrf_token_a_page_says_what_to_do(cast: Cast, platform: LocalAws) -> None:
    client = sign_in(Client(enforce_csrf_checks=True), cast.operator)

    response = client.post(URL, FORM)

    assert response.status_code == 403
    assert "Reload the page and try again" in response.content.decode()
    assert not Upgrade.objects.exists()


def test_a_conflict_links_to_the_blocker_and_keeps_input(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    blocker = make_upgrade(cast.acme, by=cast.admin, statuses=[Status.IN_PROGRESS])

    chosen = {"reason": "OPS-17", "changed": ["connectors", "request-path"], "force_new_deployment": "on"}

    response = client_for(cast.operator).post(URL, FORM | chosen | {"confirmation": "acme"})

    text = response.content.decode()
    alert = text.partition('role="alert"')[2].partition("</div>")[0]
    assert response.status_code == 409
    assert f'href="/o/acme/upgrades/{blocker.upgrade_id}/"' in alert
    assert "OPS-17" in text
    for kept in ('value="connectors"', 'value="request-path"', 'value="agent"', 'name="force"', 'name="force_new_dep'):
        assert re.search(rf'<input[^>]*{kept}[^>]*(checked|type="hidden")|<input type="hidden"[^>]*{kept}', text), kept


@pytest.mark.parametrize("wide", [{"service": "all"}, {"force_new_deployment": "on"}])
@pytest.mark.parametrize("typed", ["", "globex", "Acme"])
def test_a_wide_upgrade_needs_the_slug_typed(
    cast: Cast, platform: LocalAws, client_for: SignIn, wide: dict[str, str], typed: str
) -> None:
    response = client_for(cast.operator).post(URL, FORM | wide | {"confirmation": typed})

    assert response.status_code == 422
    assert "Type acme to confirm that this is the right organization." in response.content.decode()
    assert not Upgrade.objects.exists()


@pytest.mark.parametrize("wide", [{"service": "all"}, {"force_new_deployment": "on"}])
def test_a_wide_upgrade_needs_a_reason_and_keeps_the_ticket(
    cast: Cast, platform: LocalAws, client_for: SignIn, wide: dict[str, str]
) -> None:
    client, ticket = client_for(cast.operator), "https://tickets.example.com/OPS-7"
    form = FORM | wide | {"confirmation": "acme", "ticket": ticket}

    refused = client.post(URL, form)
    accepted = client.post(URL, form | {"reason": "A fix for sign-in"})

    assert refused.status_code == 422
    assert "Give a reason" in refused.content.decode()
    assert accepted.status_code == 302
    assert Upgrade.objects.get().reason == f"A fix for sign-in\n{ticket}"


def test_a_ticket_must_be_a_web_address(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = client_for(cast.operator).post(URL, FORM | {"ticket": "javascript:alert(1)"})

    assert page.status_code == 422
    assert "Enter a valid URL." in page.content.decode()


def test_a_single_unforced_service_needs_no_confirmation(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    assert client_for(cast.operator).post(URL, FORM).status_code == 302


@pytest.mark.parametrize(
    "form", [{}, {"service": "agent"}, FORM | {"idempotency_key": "x" * 256}, FORM | {"idempotency_key": ""}]
)
def test_a_broken_form_is_422(cast: Cast, platform: LocalAws, client_for: SignIn, form: dict[str, str]) -> None:
    response = client_for(cast.operator).post(URL, form)

    assert response.status_code == 422
    assert "Nothing was started." in response.content.decode()
    assert not Upgrade.objects.exists()


def test_input_is_returned_escaped(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    hostile = "</textarea><script>alert(1)</script>"

    response = client_for(cast.operator).post(URL, {"reason": hostile, "service": hostile})

    assert response.status_code == 422
    assert hostile not in response.content.decode()


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_another_method_is_405(cast: Cast, client_for: SignIn, method: str) -> None:
    assert getattr(client_for(cast.operator), method)(URL).status_code == 405


# --- pre-flight ----------------------------------------------------------------------------------------------------


def test_a_failed_check_blocks_until_a_reason_is_given(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    at_local_aws(platform, cast.acme)
    platform.set_platform(cast.acme.deployment_stack, "agent", "starting")
    client = client_for(cast.operator)

    refused = client.post(URL, FORM | {"reason": "OPS-17", "changed": "connectors"})
    text = refused.content.decode()

    assert refused.status_code == 409
    assert "Pre-flight failed." in text.partition('role="alert"')[2].partition("</div>")[0]
    assert re.search(r'id="preflight-agent_health">\s*<span class="chip failed"', text)
    assert re.search(r'<textarea name="override_reason"[^>]* required', text)
    assert re.search(r'value="connectors"[^>]* checked', text)
    assert "OPS-17" in text
    assert not Upgrade.objects.exists()

    overridden = FORM | {"override_reason": "the vendor asked for it", "idempotency_key": key_in(text)}
    assert client.post(URL, overridden).status_code == 302
    assert Upgrade.objects.get().override_reason == "the vendor asked for it"


def test_a_meaningless_override_reason_is_refused(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    at_local_aws(platform, cast.acme)
    platform.set_platform(cast.acme.deployment_stack, "agent", "starting")

    response = client_for(cast.operator).post(URL, FORM | {"override_reason": "..."})

    text = response.content.decode()
    assert response.status_code == 400
    assert "at least 5 letters" in text.partition('id="id_override_reason_error"')[2]
    assert re.search(r"<textarea name=\"override_reason\"[^>]*>\s*\.\.\.</textarea>", text)


def test_an_override_reason_survives_another_refusal(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    chosen = {"service": "all", "override_reason": "the vendor asked for it", "confirmation": "wrong"}

    text = client_for(cast.operator).post(URL, FORM | chosen).content.decode()

    assert "the vendor asked for it</textarea>" in text
    assert 'hx-trigger="load, refresh"' in text
