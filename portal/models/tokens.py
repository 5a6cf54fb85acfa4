"""API tokens: bearer secrets of pipelines. The rules are in portal/tokens/commands.py."""

import uuid
from typing import ClassVar, Self

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from portal.models.people import Organization, Role, TenantQuerySet, User

NAME_LENGTH = 80


class Scope(models.TextChoices):
    """What a token may do. None includes another one."""

    READ = "read", "Read: everything that a viewer sees"
    DEPLOY = "deploy", "Deploy: change agents and deployments"
    UPGRADE = "upgrade", "Upgrade: trigger, stop and roll back upgrades"
    APPROVE = "approve", "Approve: decide at pauses, sign validations"

    @property
    def needed_role(self) -> Role:
        return Role.VIEWER if self is Scope.READ else Role.OPERATOR


class TokenKind(models.TextChoices):
    PERSONAL = "personal", "Personal"
    ORGANIZATION = "organization", "Organization"


class ApiTokenQuerySet(TenantQuerySet["ApiToken"]):
    def listed(self) -> Self:
        """Return those that were not revoked, the expired ones included, newest first."""
        rows = self.filter(revoked_at__isnull=True).select_related("organization", "user")
        return rows.order_by("-created_at", "-id")

    def personal(self, user: User) -> Self:
        return self.listed().filter(kind=TokenKind.PERSONAL, user=user, organization__is_active=True)


class ApiToken(models.Model):
    """A token for one organization. It acts for its person: the owner, or the admin who made an organization's token."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=12, choices=TokenKind.choices)
    name = models.CharField(max_length=NAME_LENGTH)
    secret_hash = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the whole token, in hexadecimal.")
    hint = models.CharField(max_length=12, help_text="The beginning of the token, by which people recognize it.")
    scopes = ArrayField(models.CharField(max_length=10, choices=Scope.choices))
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects: ClassVar[ApiTokenQuerySet] = ApiTokenQuerySet.as_manager()  # type: ignore[assignment] # as_manager is untyped

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(kind__in=TokenKind.values), name="api_token_kind_known"),
        ]
        indexes = [models.Index(fields=["organization", "-created_at"], name="api_token_newest_first")]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"

    def allows(self, scope: Scope) -> bool:
        """Return whether the token has the scope. A decision or signature is a person's, whatever is stored."""
        return scope in self.scopes and not (self.kind == TokenKind.ORGANIZATION and scope == Scope.APPROVE)

    @property
    def scope_names(self) -> str:
        return ", ".join(self.scopes)
