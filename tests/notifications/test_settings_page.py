"""The settings pages, through HTTP: what each role sees, and how admins manage channels."""

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import AuditKind, User
from portal.models.notifications import Failure, NotificationChannel, NotificationDelivery
from portal.notifications.commands import MAX_CHANNELS
from portal.notifications.outbox import MAX_PENDING
from portal.sealing import unseal
from tests.conftest import Cast, audited_changes
from tests.notifications.conftest import (
    SECRET,
    TARGETS,
    deliver_now,
    deliveries,
    is_signed,
    make_channel,
    send_notification,
    statuses,
)
from tests.outside import Outside
from tests.portal.conftest import get_main

SignIn = Callable[[User], Client]

SETTINGS = "/o/acme/settings/"
# Session with its person; organization with role, heartbeats and the switcher's organizations.
PAGE_QUERIES = 2
EVENTS = ["upgrade.started", "upgrade.ended"]
SHOWN_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]+=*")


@pytest.fixture
def admin(cast: Cast, client_for: SignIn) -> Client:
    return client_for(cast.admin)


@pytest.fixture
def webhook(cast: Cast) -> NotificationChannel:
    return make_channel(cast.acme, by=cast.admin)


def get_page_url(channel: NotificationChannel, *rest: str) -> str:
    return f"{SETTINGS}channels/{channel.pk}/{'/'.join(rest)}"


def form(**fields: Any) -> dict[str, Any]:
    return {"idempotency_key": "form-1", "name": "Ops", "target": TARGETS["webhook"], "events": EVENTS} | fields


def get_text(response: Any) -> str:
    return html.unescape(response.content.decode())


def audited() -> list[tuple[str, str, Any]]:
    """Return kind, actor and data of the audit rows, oldest first."""
    return list(audited_changes().order_by("id").values_list("kind", "actor_email", "data"))


# --- reading ---------------------------------------------------------------------------------------------------------


def test_an_empty_page_says_what_will_be_here(admin: Client) -> None:
    page = get_text(admin.get(SETTINGS))

    assert "No notifications yet" in page
    for kind in TARGETS:
        assert f'href="{SETTINGS}channels/new/{kind}"' in page


def test_members_are_counted_by_role_and_linked(cast: Cast, client_for: SignIn) -> None:
    page = " ".join(get_main(client_for(cast.viewer).get(SETTINGS)).split())

    assert "<p>1 admin, 2 operators, 1 viewer.</p>" in page
    assert f'href="{SETTINGS}members/"' in page


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_non_admins_see_channels_without_secrets(cast: Cast, client_for: SignIn, role: str) -> None:
    channels = [make_channel(cast.acme, by=cast.admin, kind=kind) for kind in TARGETS]
    send_notification(cast.acme)
    client = client_for(getattr(cast, role))
    pages = [SETTINGS, *(get_page_url(each, *rest) for each in channels for rest in ((), ("edit",), ("remove",)))]
    pages += [get_page_url(channels[0], "secret"), f"{SETTINGS}channels/new/slack"]

    for path in pages:
        page = get_text(client.get(path))
        assert f"Your role is {role}: this needs admin." in page, path
        for secret in ("target-secret", SECRET, "/services/T000"):
            assert secret not in page, path
        assert not re.search(r'<form[^>]*action="/o/acme/settings', page), path
    page = get_text(client.get(SETTINGS))
    assert "https://hooks.example.com/…" in page
    assert "https://hooks.slack.com/…" in page
    assert (
        "Rollout overdue, Pause waits for a decision, Validation missing, Deployment failed, Deployment recovered"
        in page
    )


def test_an_admin_sees_webhook_urls_but_no_secrets(cast: Cast, admin: Client) -> None:
    webhook, slack = make_channel(cast.acme, by=cast.admin), make_channel(cast.acme, by=cast.admin, kind="slack")

    for path in ((), ("edit",)):
        assert "webhook-target-secret" in get_text(admin.get(get_page_url(webhook, *path)))
        assert "slack-target-secret" not in get_text(admin.get(get_page_url(slack, *path)))
    for path in (SETTINGS, get_page_url(webhook), get_page_url(webhook, "edit"), get_page_url(webhook, "secret")):
        assert SECRET not in get_text(admin.get(path))


def test_the_log_shows_every_attempt_newest_message_first(
    cast: Cast, admin: Client, webhook: NotificationChannel, receiver: Outside
) -> None:
    webhook.target = f"{receiver.url}/in"
    webhook.save()
    receiver.answers["/in"] = statuses(503, 404)
    send_notification(cast.acme, subject="upgrade-first")
    send_notification(cast.acme, subject="upgrade-second")
    first, _ = deliveries(webhook)
    deliver_now(first)
    deliver_now(first)

    page = " ".join(get_main(admin.get(get_page_url(webhook))).split())

    assert page.index("upgrade-second") < page.index("upgrade-first")
    row = page[page.index("upgrade-first") :]
    assert "Failed</span>" in row
    assert "HTTP 404. The receiver rejected it." in row
    assert row.index("HTTP 404.") < row.index("HTTP 503. The receiver failed.")
    assert "Send again" in row


def test_the_next_attempt_is_shown_with_its_date(cast: Cast, admin: Client, webhook: NotificationChannel) -> None:
    send_notification(cast.acme)
    webhook.deliveries.update(failure="broken", http_status=503, tries=6, next_check_at="2026-03-01T23:50:00Z")

    assert ">2026-03-01 23:50:00 UTC</time>" in get_main(admin.get(get_page_url(webhook)))


def test_the_log_is_paged(cast: Cast, admin: Client, webhook: NotificationChannel) -> None:
    for number in range(23):
        send_notification(cast.acme, subject=f"upgrade-{number:02}")

    first, second = get_text(admin.get(get_page_url(webhook))), get_text(admin.get(get_page_url(webhook) + "?skip=20"))

    assert "1 to 20 of 23" in first
    assert "upgrade-22" in first
    assert "upgrade-02" not in first
    assert "upgrade-02" in second


def test_the_log_refreshes_only_while_messages_are_sent(
    cast: Cast, admin: Client, webhook: NotificationChannel, receiver: Outside
) -> None:
    webhook.target = f"{receiver.url}/in"
    webhook.save()
    send_notification(cast.acme)
    htmx = {"HX-Request": "true"}
    live = admin.get(get_page_url(webhook), headers=htmx)
    assert 'data-live="2"' in live.content.decode()
    assert "<html" not in live.content.decode()

    deliver_now(deliveries(webhook)[0])

    assert "hx-trigger" not in admin.get(get_page_url(webhook), headers=htmx).content.decode()


@pytest.mark.parametrize("channels", [1, 4])
def test_reading_costs_a_fixed_number_of_queries(
    cast: Cast, admin: Client, django_assert_num_queries: Any, channels: int
) -> None:
    made = [make_channel(cast.acme, by=cast.admin, name=f"Channel {number}") for number in range(channels)]
    for _ in range(channels):
        send_notification(cast.acme)
    admin.get(SETTINGS)

    with django_assert_num_queries(PAGE_QUERIES + 3):  # members by role, channels, approvers
        admin.get(SETTINGS)
    with django_assert_num_queries(PAGE_QUERIES + 3):  # channel, deliveries and their count
        admin.get(get_page_url(made[0]))


# --- adding ----------------------------------------------------------------------------------------------------------


def test_a_webhook_gets_a_secret_that_is_shown_once(cast: Cast, admin: Client) -> None:
    response = admin.post(f"{SETTINGS}channels/new/webhook", form())

    channel = NotificationChannel.objects.get()
    secret = SHOWN_SECRET.findall(get_text(response))
    assert (response.status_code, secret) == (200, [unseal(channel.sealed_secret)])
    assert response.headers["Cache-Control"] == "no-store"
    assert (channel.name, channel.kind, channel.target) == ("Ops", "webhook", TARGETS["webhook"])
    assert (channel.events, channel.is_active, channel.created_by) == (EVENTS, True, cast.admin)
    data = {"name": "Ops", "kind": "webhook", "target": "https://hooks.example.com/…", "events": EVENTS}
    assert audited() == [(AuditKind.CHANNEL_CREATED, cast.admin.email, data)]
    for path in (SETTINGS, get_page_url(channel), get_page_url(channel, "edit")):
        assert not SHOWN_SECRET.search(get_text(admin.get(path)))


def test_a_double_click_creates_one_channel(admin: Client) -> None:
    admin.post(f"{SETTINGS}channels/new/webhook", form())
    again = admin.post(f"{SETTINGS}channels/new/webhook", form(), follow=True)

    assert NotificationChannel.objects.count() == audited_changes().count() == 1
    assert "This form was already sent." in get_text(again)
    assert not SHOWN_SECRET.search(get_text(again))


def test_a_form_whose_channel_was_removed_says_so(admin: Client) -> None:
    admin.post(f"{SETTINGS}channels/new/webhook", form())
    admin.post(get_page_url(NotificationChannel.objects.get(), "remove"))

    again = admin.post(f"{SETTINGS}channels/new/webhook", form())

    assert again.status_code == 409
    assert "has since been removed. Open the form again" in get_text(again)
    assert not NotificationChannel.objects.exists()


@pytest.mark.parametrize(
    ("kind", "target", "kept"),
    [
        ("slack", TARGETS["slack"], TARGETS["slack"]),
        ("slack", "  http://mattermost.acme.local:8065/hooks/x  ", "http://mattermost.acme.local:8065/hooks/x"),
        ("email", "a@example.com; b@example.com\tA@example.com", "A@example.com,b@example.com"),
    ],
)
def test_slack_and_email_are_added(admin: Client, kind: str, target: str, kept: str) -> None:
    response = admin.post(f"{SETTINGS}channels/new/{kind}", form(target=target), follow=True)

    channel = NotificationChannel.objects.get()
    assert (channel.kind, channel.target, channel.sealed_secret) == (kind, kept, "")
    assert "Send a test to check it." in get_text(response)


BAD_TARGETS = [
    ("webhook", "not a url", "This is not a plain address"),
    ("webhook", "ftp://example.com/", "This is not a plain address"),
    ("webhook", "https://user:password@example.com/", "This is not a plain address"),
    ("webhook", "https://2130706433/", "is not an IP address in its usual notation"),
    ("slack", "javascript:alert(1)", "This is not a plain address"),
    ("email", "nobody", "nobody is not an e-mail address."),
    ("email", "a@example.com\r\nBcc: all@example.com", "Bcc: is not an e-mail address."),
    ("email", ", ".join(f"p{number}@example.com" for number in range(6)), "Enter 1 to 5 addresses, not 6."),
    ("email", ";,", "Enter 1 to 5 addresses, not 0."),
    ("email", f"{'x' * 60}@{'y' * 60}.{'z' * 60}.{'w' * 60}.{'v' * 60}.com", "is longer than 254"),
]


@pytest.mark.parametrize(("kind", "target", "sentence"), BAD_TARGETS)
def test_an_invalid_target_is_refused_at_its_field(admin: Client, kind: str, target: str, sentence: str) -> None:
    response = admin.post(f"{SETTINGS}channels/new/{kind}", form(target=target))

    assert response.status_code == 422
    assert sentence in get_text(response)
    assert 'aria-describedby="id_target_helptext id_target_error"' in get_text(response)
    assert not NotificationChannel.objects.exists()
    assert audited() == []


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"name": ""}, "This field is required"),
        ({"name": "x" * 81}, "at most 80 characters"),
        ({"name": "a\x00b"}, "Null characters are not allowed"),
        ({"events": []}, "Choose at least one"),
        ({"events": ["notification.test"]}, "Select a valid choice"),
        ({"target": ""}, "This field is required"),
        ({"target": "https://example.com/" + "x" * 2000}, "at most 2000 characters"),
        ({"name": "OUR WEBHOOK"}, "A channel named OUR WEBHOOK already exists"),
    ],
)
def test_other_bad_input_is_refused(
    admin: Client, webhook: NotificationChannel, fields: dict[str, Any], sentence: str
) -> None:
    response = admin.post(f"{SETTINGS}channels/new/webhook", form(**fields))

    assert response.status_code in (409, 422)
    assert sentence in get_text(response)
    assert NotificationChannel.objects.get() == webhook
    assert audited() == []


def test_an_organization_has_a_limited_number_of_channels(cast: Cast, admin: Client) -> None:
    for number in range(MAX_CHANNELS):
        make_channel(cast.acme, by=cast.admin, name=f"Channel {number}")

    response = admin.post(f"{SETTINGS}channels/new/webhook", form())

    assert response.status_code == 409
    assert f"already has {MAX_CHANNELS} channels, the maximum" in get_text(response)
    assert audited() == []


def test_an_unknown_kind_is_refused(admin: Client) -> None:
    assert admin.get(f"{SETTINGS}channels/new/pager").status_code == 404


# --- changing --------------------------------------------------------------------------------------------------------


def test_a_change_is_audited_without_secrets(cast: Cast, admin: Client, webhook: NotificationChannel) -> None:
    changed = form(name="Renamed", target="https://other.example.com/very-secret-path", events=["upgrade.ended"])

    assert admin.post(get_page_url(webhook, "edit"), changed).status_code == 302

    before = webhook.events
    webhook.refresh_from_db()
    assert (webhook.name, webhook.target) == ("Renamed", "https://other.example.com/very-secret-path")
    ((kind, who, data),) = audited()
    assert (kind, who) == (AuditKind.CHANNEL_CHANGED, cast.admin.email)
    assert data["changes"] == {
        "name": {"before": "Our webhook", "after": "Renamed"},
        "events": {"before": before, "after": ["upgrade.ended"]},
        "target": {"before": "https://hooks.example.com/…", "after": "https://other.example.com/…"},
    }


def test_equal_values_change_nothing(cast: Cast, admin: Client) -> None:
    """A Slack URL is left out, because the form does not contain it."""
    slack = make_channel(cast.acme, by=cast.admin, kind="slack")

    admin.post(get_page_url(slack, "edit"), form(name=slack.name, target="", events=slack.events))

    slack.refresh_from_db()
    assert slack.target == TARGETS["slack"]
    assert audited() == []


def test_an_unreadable_target_can_be_entered_again(
    cast: Cast, admin: Client, client_for: SignIn, settings: Any
) -> None:
    slack = make_channel(cast.acme, by=cast.admin, kind="slack")
    settings.SECRET_KEY = "another-secret-key-that-is-long-enough-for-a-test"
    admin = client_for(cast.admin)
    assert "not readable, because SECRET_KEY was changed" in get_text(admin.get(get_page_url(slack)))

    refused = admin.post(get_page_url(slack, "edit"), form(target=""))
    accepted = admin.post(get_page_url(slack, "edit"), form(target=TARGETS["slack"]))

    assert (refused.status_code, accepted.status_code) == (422, 302)
    assert NotificationChannel.objects.get().target == TARGETS["slack"]


def test_a_taken_name_is_refused_at_a_change_too(cast: Cast, admin: Client, webhook: NotificationChannel) -> None:
    make_channel(cast.acme, by=cast.admin, name="Taken")
    make_channel(cast.globex, by=cast.outsider, name="Free")

    refused = admin.post(get_page_url(webhook, "edit"), form(name="taken"))
    accepted = admin.post(get_page_url(webhook, "edit"), form(name="Free"))

    assert (refused.status_code, accepted.status_code) == (409, 302)


def test_a_channel_is_switched_off_and_on(cast: Cast, admin: Client, webhook: NotificationChannel) -> None:
    send_notification(cast.acme)
    NotificationChannel.objects.update(off_reason="earlier")

    for _ in range(2):
        admin.post(get_page_url(webhook, "switch"), {"on": "0"})
    send_notification(cast.acme)
    webhook.refresh_from_db()
    (waited,) = deliveries(webhook)
    assert (webhook.is_active, webhook.off_reason) == (False, "")
    assert (waited.status, waited.failure) == ("failed", Failure.SWITCHED_OFF)

    admin.post(get_page_url(webhook, "switch"), {"on": "1"})
    send_notification(cast.acme)
    assert len(deliveries(webhook)) == 2
    assert [data["is_active"] for _, _, data in audited()] == [False, True]


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", ""])
def test_a_switch_that_is_not_a_form_is_415(admin: Client, webhook: NotificationChannel, media_type: str) -> None:
    response = admin.post(get_page_url(webhook, "switch"), '{"on": "1"}', content_type=media_type)

    webhook.refresh_from_db()
    assert (response.status_code, webhook.is_active) == (415, True)
    assert "application/x-www-form-urlencoded" in get_text(response)


def test_a_channel_that_the_receiver_switched_off_says_why(admin: Client, webhook: NotificationChannel) -> None:
    NotificationChannel.objects.update(is_active=False, off_reason="The receiver answered 410 Gone.")

    assert "The receiver answered 410 Gone." in get_text(admin.get(get_page_url(webhook)))


def test_a_new_secret_is_shown_once_and_the_old_one_expires(
    cast: Cast, admin: Client, webhook: NotificationChannel, receiver: Outside
) -> None:
    webhook.target = f"{receiver.url}/in"
    webhook.save()
    once = {"idempotency_key": "secret-1"}

    response = admin.post(get_page_url(webhook, "secret"), once)
    again = admin.post(get_page_url(webhook, "secret"), once, follow=True)

    (secret,) = SHOWN_SECRET.findall(get_text(response))
    assert not SHOWN_SECRET.search(get_text(again))
    send_notification(cast.acme)
    deliver_now(deliveries(webhook)[0])
    assert is_signed(receiver.requests[0], secret)
    assert is_signed(receiver.requests[0], SECRET)
    assert [data["secret"] for _, _, data in audited()] == ["renewed"]
    assert secret not in str(audited())


def test_an_unreadable_secret_is_reported_and_replaced(
    cast: Cast, webhook: NotificationChannel, client_for: SignIn, settings: Any
) -> None:
    settings.SECRET_KEY = "another-secret-key-that-is-long-enough-for-a-test"
    webhook.target = TARGETS["webhook"]
    webhook.save()
    admin = client_for(cast.admin)
    assert "until you create a new secret" in get_text(admin.get(get_page_url(webhook)))
    assert "create a new one" in get_text(admin.get(SETTINGS))
    assert "Only the new one will sign" in get_text(admin.get(get_page_url(webhook, "secret")))

    shown = get_text(admin.post(get_page_url(webhook, "secret"), {"idempotency_key": "secret-1"}))

    webhook.refresh_from_db()
    assert [unseal(webhook.sealed_secret)] == SHOWN_SECRET.findall(shown)
    assert (webhook.sealed_old_secret, webhook.old_secret_until) == ("", None)
    assert "also signs" not in shown
    assert "create a new secret" not in get_text(admin.get(get_page_url(webhook)))


def test_only_a_webhook_has_a_secret(cast: Cast, admin: Client) -> None:
    email = make_channel(cast.acme, by=cast.admin, kind="email")

    assert admin.post(get_page_url(email, "secret"), {"idempotency_key": "1"}).status_code == 409
    assert audited() == []


def test_removing_a_channel_deletes_its_log(cast: Cast, admin: Client, webhook: NotificationChannel) -> None:
    send_notification(cast.acme)
    assert "and 1 waiting message will not be sent" in " ".join(
        get_text(admin.get(get_page_url(webhook, "remove"))).split()
    )

    assert admin.post(get_page_url(webhook, "remove")).headers["Location"] == SETTINGS

    assert not NotificationChannel.objects.exists()
    assert not NotificationDelivery.objects.exists()
    data = {"name": "Our webhook", "kind": "webhook", "target": "https://hooks.example.com/…"}
    assert audited() == [(AuditKind.CHANNEL_REMOVED, cast.admin.email, data)]
    assert admin.post(get_page_url(webhook, "remove")).status_code == 404


# --- sending again ---------------------------------------------------------------------------------------------------


def test_a_test_goes_through_the_outbox(
    cast: Cast, admin: Client, webhook: NotificationChannel, receiver: Outside
) -> None:
    webhook.target = f"{receiver.url}/in"
    webhook.save()

    response = admin.post(get_page_url(webhook, "test"), follow=True)
    (test,) = deliveries(webhook)
    assert "Waiting" in get_text(response)
    deliver_now(test)

    assert (test.kind, test.status) == ("notification.test", "sent")
    assert is_signed(receiver.requests[0], SECRET)
    assert "HTTP 204." in get_text(admin.get(get_page_url(webhook)))
    assert [(kind, data["delivery"]) for kind, _, data in audited()] == [(AuditKind.CHANNEL_TESTED, str(test.pk))]


def test_a_channel_is_tested_once_in_ten_seconds(cast: Cast, admin: Client, webhook: NotificationChannel) -> None:
    other = make_channel(cast.acme, by=cast.admin, name="Other")
    admin.post(get_page_url(webhook, "test"))

    refused = admin.post(get_page_url(webhook, "test"))
    elsewhere = admin.post(get_page_url(other, "test"))

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")
    assert "was tested less than" in get_text(refused)
    assert elsewhere.status_code == 302
    assert len(deliveries(webhook)) == len(deliveries(other)) == 1


@pytest.fixture
def failed(cast: Cast, webhook: NotificationChannel) -> NotificationDelivery:
    send_notification(cast.acme)
    webhook.deliveries.update(
        status="failed", failure="broken", http_status=503, tries=7, next_check_at=None, ended_at="2026-01-01T00:00:00Z"
    )
    return deliveries(webhook)[0]


def send_again(client: Client, delivery: NotificationDelivery) -> Any:
    return client.post(get_page_url(delivery.channel, "deliveries", str(delivery.pk), "again"))


def test_a_failed_message_is_sent_again_under_its_id(
    cast: Cast, admin: Client, failed: NotificationDelivery, receiver: Outside
) -> None:
    channel = failed.channel
    channel.target = f"{receiver.url}/in"
    channel.save()

    assert send_again(admin, failed).status_code == 302
    deliver_now(failed)

    assert (failed.status, failed.tries) == ("sent", 1)
    assert failed.message_id in receiver.requests[0]
    assert [data["sent_again"] for _, _, data in audited()] == [str(failed.pk)]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"status": "sent"}, "The message is sent, so it cannot be sent again."),
        ({"status": "pending"}, "The message is pending"),
        ({"kind": "notification.test"}, "Send a new one."),
    ],
)
def test_only_failed_messages_are_sent_again(
    admin: Client, failed: NotificationDelivery, fields: dict[str, str], sentence: str
) -> None:
    NotificationDelivery.objects.update(**fields)

    response = send_again(admin, failed)

    assert response.status_code == 409
    assert sentence in get_text(response)
    assert audited() == []


def test_resending_to_a_channel_that_is_off_or_full_fails(
    cast: Cast, admin: Client, failed: NotificationDelivery
) -> None:
    NotificationChannel.objects.update(is_active=False)
    assert "Switch it on first." in get_text(send_again(admin, failed))

    NotificationChannel.objects.update(is_active=True)
    for _ in range(MAX_PENDING):
        send_notification(cast.acme)
    assert f"{MAX_PENDING} messages are already waiting" in get_text(send_again(admin, failed))
    assert audited() == []


def test_another_channels_message_is_not_found(cast: Cast, admin: Client, failed: NotificationDelivery) -> None:
    other = make_channel(cast.acme, by=cast.admin, name="Other")

    assert admin.post(get_page_url(other, "deliveries", str(failed.pk), "again")).status_code == 404


# --- permissions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["viewer", "operator", "consultant"])
def test_non_admins_change_nothing(cast: Cast, client_for: SignIn, failed: NotificationDelivery, who: str) -> None:
    """The isolation matrix covers outsiders, anonymous people and all other routes."""
    channel, client = failed.channel, client_for(getattr(cast, who))
    before = NotificationChannel.objects.values().get()

    answers = [
        client.post(f"{SETTINGS}channels/new/webhook", form()),
        client.post(get_page_url(channel, "edit"), form()),
        client.post(get_page_url(channel, "switch"), {"on": "0"}),
        client.post(get_page_url(channel, "secret"), {"idempotency_key": "1"}),
        client.post(get_page_url(channel, "test")),
        client.post(get_page_url(channel, "remove")),
        send_again(client, failed),
    ]

    assert [answer.status_code for answer in answers] == [403] * 7
    assert NotificationChannel.objects.values().get() == before
    assert NotificationDelivery.objects.count() == 1
    assert audited() == []
