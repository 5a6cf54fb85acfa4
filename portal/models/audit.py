"""Audit rows. They are append-only: a database trigger refuses to change or delete one (migration 0002)."""

from datetime import UTC, date, datetime, time
from typing import Any, Self

from django.db import models
from django.db.models.functions import Now

from portal.models.people import Organization


class AuditKind(models.TextChoices):
    """Kinds of audit event, named `<subject>.<past participle>`."""

    UPGRADE_TRIGGERED = "upgrade.triggered", "Upgrade triggered"
    UPGRADE_STOP_REQUESTED = "upgrade.stop_requested", "Upgrade stop requested"
    UPGRADE_DECIDED = "upgrade.decided", "Decided at a pause"
    UPGRADE_ENDED = "upgrade.ended", "Upgrade ended"
    UPGRADE_ROLLBACK_TRIGGERED = "upgrade.rollback_triggered", "Rollback triggered"
    UPGRADE_CHECK_SIGNED = "upgrade.check_signed", "Validation check signed"
    UPGRADE_VALIDATED = "upgrade.validated", "Upgrade validated"
    UPGRADE_PROBED_AGAIN = "upgrade.probed_again", "Checks rerun"
    CHANNEL_CREATED = "channel.created", "Notification channel created"
    CHANNEL_CHANGED = "channel.changed", "Notification channel changed"
    CHANNEL_REMOVED = "channel.removed", "Notification channel removed"
    CHANNEL_TESTED = "channel.tested", "Notification channel tested"
    AGENT_CREATED = "agent.created", "Agent created"
    AGENT_CHANGED = "agent.changed", "Agent changed"
    DEPLOYMENT_CREATED = "deployment.created", "Deployment created"
    DEPLOYMENT_SCALED = "deployment.scaled", "Deployment scaled"
    DEPLOYMENT_STOP_REQUESTED = "deployment.stop_requested", "Deployment stop requested"
    DEPLOYMENT_RESTARTED = "deployment.restarted", "Deployment restarted"
    DEPLOYMENT_KILLED = "deployment.killed", "Deployment killed"
    DEPLOYMENT_CHANGED_OUTSIDE = "deployment.changed_outside", "Deployment changed outside the portal"
    ORGANIZATION_CREATED = "organization.created", "Organization created"
    ORGANIZATION_CHANGED = "organization.changed", "Organization changed"
    CONNECTION_TESTED = "organization.connection_tested", "AWS connection tested"
    MEMBERSHIP_ADDED = "membership.added", "Member added"
    MEMBERSHIP_ACCEPTED = "membership.accepted", "Membership accepted"
    MEMBERSHIP_DECLINED = "membership.declined", "Membership declined"
    MEMBERSHIP_LEFT = "membership.left", "Left the organization"
    MEMBERSHIP_CHANGED = "membership.changed", "Membership changed"
    MEMBERSHIP_REMOVED = "membership.removed", "Member removed"
    PERSON_CREATED = "person.created", "Person created"
    PERSON_CHANGED = "person.changed", "Person changed"
    PERSON_PASSWORD_SET = "person.password_set", "Password set by staff"
    PERSON_TWO_FACTOR_REMOVED = "person.two_factor_removed", "Two-factor authentication removed by staff"
    SIGNED_IN = "session.signed_in", "Signed in"
    SIGNED_OUT = "session.signed_out", "Signed out"


class AuditQuerySet(models.QuerySet["AuditEvent"]):
    def visible_to(self, user: Any) -> Self:
        """Return the events of the person's organizations. Events without one (sign-ins) are only in Django admin."""
        return self.filter(organization__in=Organization.objects.visible_to(user))

    def matching(
        self, *, kind: str | None = None, who: str | None = None, subject: str | None = None, since: date | None = None
    ) -> Self:
        """Apply the page's filters. None does not filter; `who` and `subject` match a part; `since` is a day in UTC."""
        found = self
        if kind:
            found = found.filter(kind=kind)
        if who:
            found = found.filter(actor_email__icontains=who)
        if subject:
            found = found.filter(subject__icontains=subject)
        if since:
            found = found.filter(created_at__gte=datetime.combine(since, time.min, tzinfo=UTC))
        return found

    def newest_first(self) -> Self:
        return self.order_by("-created_at", "-id")


class AuditEvent(models.Model):
    organization = models.ForeignKey(
        "portal.Organization", on_delete=models.PROTECT, null=True, related_name="audit_events"
    )
    kind = models.CharField(max_length=60, choices=AuditKind.choices)
    actor = models.ForeignKey("portal.User", on_delete=models.PROTECT, null=True, related_name="+")
    actor_email = models.CharField(max_length=254, help_text="As it was then; `system` for the portal itself.")
    # Fits the longest id, which is an e-mail address.
    subject = models.CharField(max_length=254, help_text="Id of the affected object.")
    data = models.JSONField(default=dict)
    request_id = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=Now())

    objects = AuditQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["organization", "-created_at", "-id"], name="audit_newest_first"),
            models.Index(fields=["organization", "subject", "created_at"], name="audit_of_subject"),
        ]
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} by {self.actor_email}"
