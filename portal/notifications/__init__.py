"""NOTIFICATIONS: what happens to upgrades, told to webhooks, Slack and e-mail that an organization's admins chose.

    notify() -> outbox rows in the caller's transaction -> delivery.py, under a lease -> portal/outbound.py or e-mail

`outbox.py` what apps call; `models.py` channels and deliveries; `messages.py` the words and the signature; `sealing.py`
secrets at rest; `commands.py`, `forms.py`, `views.py` the settings page.
"""

from portal.notifications.outbox import notify

__all__ = ["notify"]
