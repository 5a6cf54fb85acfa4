"""The words and the wire: a webhook's body and signature, Slack's text, an e-mail. Pure.

Webhooks follow Standard Webhooks 1.0.0:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import json
import secrets
from datetime import UTC, datetime
from email.utils import parseaddr

from django.conf import settings
from django.core.mail import EmailMessage
from django.urls import reverse

from portal.models.notifications import NotificationDelivery
from portal.notifications.outbox import link_to

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with
# The specification asks for 24 to 64.
SECRET_BYTES = 32
# Slack cuts what is longer than 40,000 characters; nobody reads so much in a channel.
MOST_SLACK_TEXT = 3000


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def webhook_body(delivery: NotificationDelivery) -> bytes:
    """The same over all tries: `timestamp` is when it happened."""
    happened_at = delivery.created_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {"type": delivery.kind, "timestamp": happened_at, "data": delivery.data}
    return json.dumps(body, separators=(",", ":")).encode()


def webhook_headers(delivery: NotificationDelivery, body: bytes, *, keys: list[str], now: datetime) -> dict[str, str]:
    """`webhook-id` is the same over all tries, `webhook-timestamp` is this try's; a signature for each of the keys."""
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
    """`text` alone, which everything that calls itself Slack-compatible takes."""
    lines = [f"*{escape_slack(delivery.title)}*", escape_slack(delivery.text[:MOST_SLACK_TEXT])]
    url = delivery.data.get("url")
    if url:
        lines.append(f"<{escape_slack(url)}|Open it in the portal>")
    return json.dumps({"text": "\n".join(lines)}).encode()


def escape_slack(text: str) -> str:
    """What people wrote becomes neither a link nor a mention: https://docs.slack.dev/messaging/formatting-message-text

    >>> escape_slack("<!channel> R&D")
    '&lt;!channel&gt; R&amp;D'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def email_of(delivery: NotificationDelivery) -> EmailMessage:
    """Plain text. Its Message-ID is the same over all tries, so that a mail program can tell a double."""
    channel = delivery.channel
    page = link_to(reverse("settings:index", args=[channel.organization.slug]))
    where = f": {page}" if page else " in its settings."
    foot = f"{channel.organization.name} sends this to its channel {channel.name}; its admins can change that{where}"
    lines = [delivery.text, "", *([delivery.data["url"], ""] if delivery.data.get("url") else []), "-- ", foot]
    domain = parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2]
    headers = {"Message-ID": f"<{delivery.message_id}@{domain}>", "Auto-Submitted": "auto-generated"}
    return EmailMessage(delivery.title, "\n".join(lines), to=channel.addresses, headers=headers)
