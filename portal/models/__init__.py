"""The models that all apps share. Django finds them through this module."""

from portal.models.audit import AuditEvent, AuditKind, AuditQuerySet
from portal.models.idempotency import IdempotencyKey
from portal.models.metrics import MetricCount
from portal.models.notifications import (
    Attempt,
    ChannelKind,
    ChannelQuerySet,
    DeliveryQuerySet,
    DeliveryStatus,
    Failure,
    NotificationChannel,
    NotificationDelivery,
    NotificationKind,
)
from portal.models.people import (
    Heartbeat,
    Membership,
    MembershipQuerySet,
    Organization,
    OrganizationQuerySet,
    Role,
    User,
    UserManager,
)

__all__ = [
    "Attempt",
    "AuditEvent",
    "AuditKind",
    "AuditQuerySet",
    "ChannelKind",
    "ChannelQuerySet",
    "DeliveryQuerySet",
    "DeliveryStatus",
    "Failure",
    "Heartbeat",
    "IdempotencyKey",
    "Membership",
    "MembershipQuerySet",
    "MetricCount",
    "NotificationChannel",
    "NotificationDelivery",
    "NotificationKind",
    "Organization",
    "OrganizationQuerySet",
    "Role",
    "User",
    "UserManager",
]
