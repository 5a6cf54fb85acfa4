"""Request forgery: internal addresses entered in the form and used by the test button never reach the canary."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from portal.models.notifications import NotificationChannel, NotificationDelivery
from portal.notifications.targets import read_url
from tests.conftest import Cast
from tests.notifications.conftest import deliver_now, make_channel, statuses
from tests.outside import Outside
from tests.portal.test_outbound import CONTROL, NEVER, PRIVATE, PUBLIC, SPELLINGS, canary, names

__all__ = ["canary", "names"]

SignIn = Callable[[User], Client]
Names = dict[str, list[list[str]]]

NEW = "/o/acme/settings/channels/new/"


def urls(port: int) -> list[str]:
    """Return every non-public address of the corpus, and public ones with other ports and by http."""
    inside = [*NEVER.split(), *PRIVATE.split(), "localhost", "innocent.example"]
    forms = [form.replace("{port}", str(port)).replace("{long}", "a" * 256) for form in (*SPELLINGS, *CONTROL)]
    forms += [
        f"{scheme}://{host}{end}" for host in inside for scheme in ("http", "https") for end in ("/", f":{port}/")
    ]
    return forms + [f"http://{host}:{port}/" for host in PUBLIC.split()]


@pytest.fixture(autouse=True)
def inside(settings: Any, names: Names) -> None:
    """Allow only the public internet, and make names resolve to internal addresses."""
    settings.WEBHOOK_NETWORKS = []
    for name in ("localhost", "innocent.example", "example.com", "xn--exmple-cua.com"):
        names[name] = [["127.0.0.1"]]


@pytest.mark.parametrize(("kind", "each"), [("webhook", 9), ("slack", 20)])
def test_form_and_test_button_reach_no_internal_address(
    cast: Cast, client_for: SignIn, canary: Outside, kind: str, each: int
) -> None:
    """Uses a part of the corpus; tests/portal/test_outbound.py covers all of it. Slack uses the same code."""
    client = client_for(cast.admin)
    saved = 0

    for url in urls(canary.port)[::each]:
        body = {"idempotency_key": f"key-{url!r}"[:250], "name": "Inside", "target": url, "events": ["upgrade.ended"]}
        answer = client.post(f"{NEW}{kind}", body)
        channel = NotificationChannel.objects.first()
        if channel is None:
            assert answer.status_code == 422, url
            continue
        saved += 1
        client.post(f"/o/acme/settings/channels/{channel.pk}/test")
        message = deliver_now(NotificationDelivery.objects.get())

        assert (message.status, message.failure) == ("failed", "refused_address"), url
        typed = channel.target or ""
        assert [each for each in ("127.0.0.1", "169.254") if each in message.result and each not in typed] == [], url
        channel.delete()

    assert saved > 200 / each
    assert canary.connections == 0


def test_a_name_that_later_resolves_elsewhere_is_refused(cast: Cast, canary: Outside, names: Names) -> None:
    """It was public when it was saved. The error does not reveal the new address."""
    names["rebind.example"] = [["93.184.216.34"]]
    target = read_url(f"https://rebind.example:{canary.port}/")
    channel = make_channel(cast.acme, by=cast.admin, target=target)
    names["rebind.example"] = [["127.0.0.1"]]
    message = NotificationDelivery.objects.create(
        organization=cast.acme, channel=channel, kind="upgrade.ended", next_check_at="2026-01-01T00:00:00Z"
    )

    deliver_now(message)

    assert message.failure == "refused_address"
    assert message.result == "rebind.example resolves to a non-public address that the settings do not allow."
    assert canary.connections == 0


def test_an_allowed_network_allows_no_other(cast: Cast, canary: Outside, settings: Any) -> None:
    settings.WEBHOOK_NETWORKS = ["10.0.0.0/8"]
    canary.otherwise = statuses(200)
    channel = make_channel(cast.acme, by=cast.admin, target=canary.url)
    message = NotificationDelivery.objects.create(
        organization=cast.acme, channel=channel, kind="upgrade.ended", next_check_at="2026-01-01T00:00:00Z"
    )

    assert deliver_now(message).failure == "refused_address"
    assert canary.connections == 0
