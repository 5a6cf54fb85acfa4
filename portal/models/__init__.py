"""The models that all apps share. Django finds them through this module."""

from portal.models.audit import (
    SITE_CHAIN,
    AuditChain,
    AuditCheckpoint,
    AuditEvent,
    AuditKind,
    AuditQuerySet,
    AuditRepeat,
    AuditVerification,
)
from portal.models.elevation import Elevation, ElevationQuerySet
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
    Access,
    Heartbeat,
    Membership,
    MembershipQuerySet,
    Organization,
    OrganizationQuerySet,
    Role,
    TenantQuerySet,
    User,
    UserManager,
    visible_ids,
)
from portal.models.saved_views import DefaultView, SavedView, SavedViewQuerySet, ViewedList
from portal.models.tokens import ApiToken, ApiTokenQuerySet, Scope, TokenKind

__all__ = [
    "SITE_CHAIN",
    "Access",
    "ApiToken",
    "ApiTokenQuerySet",
    "Attempt",
    "AuditChain",
    "AuditCheckpoint",
    "AuditEvent",
    "AuditKind",
    "AuditQuerySet",
    "AuditRepeat",
    "AuditVerification",
    "ChannelKind",
    "ChannelQuerySet",
    "DefaultView",
    "DeliveryQuerySet",
    "DeliveryStatus",
    "Elevation",
    "ElevationQuerySet",
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
    "SavedView",
    "SavedViewQuerySet",
    "Scope",
    "TenantQuerySet",
    "TokenKind",
    "User",
    "UserManager",
    "ViewedList",
    "visible_ids",
]
