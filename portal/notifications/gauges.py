"""What /metrics tells of notifications, whoever's they are."""

from django.db.models import Count, Max

from portal.notifications.models import DeliveryStatus, NotificationDelivery
from portal.prometheus import Gauges, gauge, gauge_by, seconds_since


def gauges() -> Gauges:
    """Two queries."""
    counted = dict(NotificationDelivery.objects.order_by().values_list("status").annotate(Count("pk")))
    by_status = [(status, counted.get(status, 0)) for status in DeliveryStatus.values]
    yield gauge_by("status", "notifications", "Messages of the last 30 days, and those that wait.", by_status)
    waiting = NotificationDelivery.objects.ready().aggregate(longest=Max(seconds_since("next_check_at")))["longest"]
    yield gauge("notification_due_seconds", "How long the most overdue message has waited for a worker.", waiting or 0)
