"""Notifications about upgrades, sent to webhooks, Slack and e-mail addresses that an organization's admins choose.

    notify() -> outbox rows in the caller's transaction -> delivery.py, under a lease -> portal/outbound.py or e-mail

Apps call `outbox.py`. `messages.py` formats and signs messages. `commands.py`, `forms.py` and `views.py` are the
settings pages. The models are in portal/models/notifications.py; encryption at rest is in portal/sealing.py.
"""

from portal.notifications.outbox import notify

__all__ = ["notify"]
