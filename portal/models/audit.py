"""Audit rows. They are append-only and hash-chained by triggers of the database (migration 0018)."""

from datetime import UTC, date, datetime, time
from typing import Self

from django.db import models
from django.db.models.functions import Cast, Coalesce, Now

from portal.models.people import TenantQuerySet
from portal.models.reading import QuicklyRead

# The chain of the rows without an organization. Each other chain has the id of its organization as its name.
SITE_CHAIN = "site"


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
    TOKEN_CREATED = "token.created", "API token created"
    TOKEN_REVOKED = "token.revoked", "API token revoked"
    VIEW_SHARED = "view.shared", "Saved view shared"
    VIEW_CHANGED = "view.changed", "Shared view changed"
    VIEW_REMOVED = "view.removed", "Shared view deleted"
    PERSON_CREATED = "person.created", "Person created"
    PERSON_CHANGED = "person.changed", "Person changed"
    PERSON_PASSWORD_SET = "person.password_set", "Password set by staff"
    PERSON_TWO_FACTOR_REMOVED = "person.two_factor_removed", "Two-factor authentication removed by staff"
    PERSON_PASSWORD_CHANGED = "person.password_changed", "Password changed"
    PERSON_PASSWORD_RESET = "person.password_reset", "Password reset with the link of an e-mail"
    PERSON_SECOND_FACTOR_ADDED = "person.second_factor_added", "Second factor added"
    PERSON_SECOND_FACTOR_REMOVED = "person.second_factor_removed", "Second factor removed"
    PERSON_RECOVERY_CODES_GENERATED = "person.recovery_codes_generated", "Recovery codes generated"
    PERSON_RECOVERY_CODES_VIEWED = "person.recovery_codes_viewed", "Recovery codes viewed"
    PERSON_RECOVERY_CODES_DOWNLOADED = "person.recovery_codes_downloaded", "Recovery codes downloaded"
    SIGNED_IN = "session.signed_in", "Signed in"
    SIGNED_OUT = "session.signed_out", "Signed out"
    SIGN_IN_FAILED = "session.sign_in_failed", "Sign-in failed"
    UPGRADE_REFUSED = "upgrade.refused", "Upgrade action refused"
    DEPLOYMENT_REFUSED = "deployment.refused", "Deployment action refused"
    AGENT_REFUSED = "agent.refused", "Change of an agent refused"
    MEMBERSHIP_REFUSED = "membership.refused", "Change of a member refused"
    CHANNEL_REFUSED = "channel.refused", "Change of a notification channel refused"
    TOKEN_REFUSED = "token.refused", "Change of an API token refused"
    VIEW_REFUSED = "view.refused", "Change of a saved view refused"
    ORGANIZATION_REFUSED = "organization.refused", "Change of a setting refused"
    DATA_EXPORTED = "data.exported", "Data exported"
    STAFF_ENTERED = "staff.entered", "Staff entered the organization"
    STAFF_LEFT = "staff.left", "Staff left the organization"
    STAFF_ACCESS_EXPIRED = "staff.access_expired", "Staff access expired"
    STAFF_READ = "staff.read", "Read by staff"
    AUDIT_PRUNED = "audit.pruned", "Old audit rows exported and deleted"


class AuditQuerySet(TenantQuerySet["AuditEvent"]):
    """Events without an organization, such as sign-ins, are only in Django admin: nobody sees them elsewhere."""

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


class AuditEvent(QuicklyRead):
    organization = models.ForeignKey(
        "portal.Organization", on_delete=models.PROTECT, null=True, related_name="audit_events"
    )
    kind = models.CharField(max_length=60, choices=AuditKind.choices)
    actor = models.ForeignKey("portal.User", on_delete=models.PROTECT, null=True, related_name="+")
    actor_email = models.CharField(
        max_length=254, help_text="As it was then; `system` for the portal itself, `anonymous` for no one signed in."
    )
    # Fits the longest id, which is an e-mail address.
    subject = models.CharField(max_length=254, help_text="Id of the affected object.")
    data = models.JSONField(default=dict)
    request_id = models.CharField(max_length=64)
    client_ip = models.GenericIPAddressField(null=True, help_text="Of the request. Empty: the portal itself.")
    created_at = models.DateTimeField(db_default=Now())
    # Written by the database in the insert, whatever the caller gives: the place in the organization's chain (in the
    # site's for rows without one), the hash of the row before, and the SHA-256 of this row with both.
    position = models.BigIntegerField(db_default=0, editable=False)
    previous_hash = models.CharField(max_length=64, db_default="", editable=False)
    hash = models.CharField(max_length=64, db_default="", editable=False)

    objects = AuditQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                Coalesce(Cast("organization", models.TextField()), models.Value(SITE_CHAIN)),
                "position",
                name="audit_once_in_chain",
            ),
        ]
        indexes = [
            models.Index(fields=["organization", "-created_at", "-id"], name="audit_newest_first"),
            models.Index(fields=["organization", "subject", "created_at"], name="audit_of_subject"),
        ]
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} by {self.actor_email}"


class AuditRepeat(models.Model):
    """The repeats of an audit row within a minute. They become one row with their number.

    Not a tenant's table: no person reads it. `chain` is the organization's id, as a name, or SITE_CHAIN.
    """

    fingerprint = models.CharField(max_length=64, primary_key=True, help_text="SHA-256 of who, what and which target.")
    chain = models.CharField(max_length=36)
    kind = models.CharField(max_length=60)
    actor = models.ForeignKey("portal.User", on_delete=models.CASCADE, null=True, related_name="+")
    actor_email = models.CharField(max_length=254)
    subject = models.CharField(max_length=254)
    data = models.JSONField(default=dict)
    request_id = models.CharField(max_length=64)
    client_ip = models.GenericIPAddressField(null=True)
    is_counted = models.BooleanField(help_text="False: the repeats leave no row.")
    count = models.PositiveIntegerField(default=0, help_text="Without the first, which has its row.")
    first_at = models.DateTimeField(db_default=Now())
    last_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [models.Index(fields=["first_at"], name="audit_repeat_oldest")]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} by {self.actor_email}: {self.count} repeats"


class AuditChain(models.Model):
    """The last link of each chain. Its lock puts the rows of one chain in order. Only the database's function writes it."""

    chain = models.CharField(max_length=36, primary_key=True)
    position = models.BigIntegerField()
    hash = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"{self.chain} at {self.position}"


class AuditCheckpoint(models.Model):
    """Where a chain begins after older rows were exported and pruned. Append-only, as the rows."""

    chain = models.CharField(max_length=36)
    position = models.BigIntegerField(help_text="Of the last pruned row.")
    hash = models.CharField(max_length=64, help_text="Of the last pruned row.")
    rows = models.BigIntegerField(help_text="How many rows were pruned.")
    export_sha256 = models.CharField(max_length=64, help_text="Of the file with the pruned rows.")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["chain", "position"], name="audit_checkpoint_once")]

    def __str__(self) -> str:
        return f"{self.chain} begins after {self.position}"


class AuditVerification(models.Model):
    """The result of the last verification of all chains. One row, read by the metrics."""

    ONLY = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    chains = models.BigIntegerField(default=0)
    rows = models.BigIntegerField(default=0)
    findings = models.JSONField(default=list, help_text="The first broken link of each chain.")

    def __str__(self) -> str:
        return f"{self.rows} rows, {len(self.findings)} broken chains"
