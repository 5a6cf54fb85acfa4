"""Formats messages: a webhook's body and signature, Slack's text, an e-mail. Does no I/O.

Webhooks follow Standard Webhooks 1.0.0:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from datetime import UTC, datetime
from email.utils import parseaddr
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.urls import reverse

from portal.models.notifications import NotificationDelivery, NotificationKind
from portal.notifications.outbox import link_to

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of every secret
# The specification requires 24 to 64.
SECRET_BYTES = 32
# The most characters of a section.
MAX_SLACK_TEXT = 3000
# What a person does on the page that the message leads to.
BUTTONS: dict[str, str] = {
    NotificationKind.UPGRADE_WAITING: "Decide",
    NotificationKind.UPGRADE_VALIDATION_MISSING: "Validate",
}


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def webhook_body(delivery: NotificationDelivery) -> bytes:
    """Return the body, the same for all attempts. `timestamp` is the time of the event."""
    happened_at = delivery.created_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {"type": delivery.kind, "timestamp": happened_at, "data": delivery.data}
    return json.dumps(body, separators=(",", ":")).encode()


def webhook_headers(delivery: NotificationDelivery, body: bytes, *, keys: list[str], now: datetime) -> dict[str, str]:
    """Return the headers, with one signature per key.

    `webhook-id` is the same for all attempts; `webhook-timestamp` is the time of this attempt.
    """
    timestamp = str(int(now.timestamp()))
    return {
        "content-type": "application/json",
        "webhook-id": delivery.message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signature(key, delivery.message_id, timestamp, body) for key in keys),
    }


def signature(key: str, message_id: str, timestamp: str, body: bytes) -> str:
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.digest(base64.b64decode(key.removeprefix(SECRET_PREFIX)), signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def slack_body(delivery: NotificationDelivery) -> bytes:
    """Return the message as blocks, with a button that opens the page, and as `text` for services that know no blocks.

    Without PORTAL_URL there is no button. https://docs.slack.dev/reference/block-kit/blocks
    """
    title = f"*{escape_slack(delivery.title)}*\n"
    said = title + escape_slack(delivery.text, most=MAX_SLACK_TEXT - len(title))
    url = delivery.data.get("url")
    if not url:
        return json.dumps({"text": said}).encode()
    label = BUTTONS.get(delivery.kind, "Open in the portal")
    button: dict[str, Any] = {"type": "button", "text": {"type": "plain_text", "text": label}, "url": url}
    if delivery.kind in BUTTONS:
        button["style"] = "primary"
    section = {"type": "section", "text": {"type": "mrkdwn", "text": said}}
    blocks = [section, {"type": "actions", "elements": [button]}]
    return json.dumps({"text": f"{said}\n<{escape_slack(url)}|{label}>", "blocks": blocks}).encode()


def escape_slack(text: str, *, most: int | None = None) -> str:
    """Escape text so that it contains no link or mention: https://docs.slack.dev/messaging/formatting-message-text

    `most`: cut it to so many characters, but never inside of an escaped one.

    >>> escape_slack("<!channel> R&D")
    '&lt;!channel&gt; R&amp;D'
    >>> escape_slack("R&D & more", most=7)
    'R&amp;D'
    """
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if most is None or len(escaped) <= most:
        return escaped
    return re.sub(r"&[a-z]*$", "", escaped[:most]).rstrip()


def build_email(delivery: NotificationDelivery) -> EmailMessage:
    """Return a plain-text e-mail. Its Message-ID is the same for all attempts, so that duplicates can be detected."""
    channel = delivery.channel
    page = link_to(reverse("settings:index", args=[channel.organization.slug]))
    where = f": {page}" if page else " in its settings."
    foot = f"Sent by {channel.organization.name} to its channel {channel.name}. Its admins can change this{where}"
    lines = [delivery.text, "", *([delivery.data["url"], ""] if delivery.data.get("url") else []), "-- ", foot]
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    headers = {"Message-ID": f"<{delivery.message_id}@{domain}>", "Auto-Submitted": "auto-generated"}
    return EmailMessage(delivery.title, "\n".join(lines), to=channel.addresses, headers=headers)
