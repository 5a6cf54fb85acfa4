"""Prometheus gauges for notifications, summed over all organizations."""

from django.db.models import Count, Max

from portal.models.notifications import DeliveryStatus, NotificationDelivery
from portal.monitoring.prometheus import Gauges, gauge, gauge_by, seconds_since


def gauges() -> Gauges:
    """Yield the gauges. *Costs* two queries."""
    counted = dict(NotificationDelivery.objects.order_by().values_list("status").annotate(Count("pk")))
    by_status = [(status, counted.get(status, 0)) for status in DeliveryStatus.values]
    yield gauge_by("status", "notifications", "Messages by status: waiting, or ended and kept.", by_status)
    waiting = NotificationDelivery.objects.ready().aggregate(longest=Max(seconds_since("next_check_at")))["longest"]
    help_text = "Seconds that the longest waiting message which could be sent now has been due."
    yield gauge("notification_due_seconds", help_text, waiting or 0)
