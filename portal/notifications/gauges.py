"""What /metrics tells of notifications, whoever's they are."""

from django.db.models import Count, Max

from portal.models.notifications import DeliveryStatus, NotificationDelivery
from portal.monitoring.prometheus import Gauges, gauge, gauge_by, seconds_since


def gauges() -> Gauges:
    """Two queries."""
    counted = dict(NotificationDelivery.objects.order_by().values_list("status").annotate(Count("pk")))
    by_status = [(status, counted.get(status, 0)) for status in DeliveryStatus.values]
    yield gauge_by("status", "notifications", "Messages of the last 30 days, and those that wait.", by_status)
    waiting = NotificationDelivery.objects.ready().aggregate(longest=Max(seconds_since("next_check_at")))["longest"]
    help_text = "How long the message has been due that waits longest of those that could be sent now."
    yield gauge("notification_due_seconds", help_text, waiting or 0)
