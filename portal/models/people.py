"""People, organizations, memberships, and the heartbeats of background processes."""

import re
import uuid
from datetime import datetime
from typing import Any, ClassVar, Self, TypeVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import AnonymousUser, PermissionsMixin
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import DEFAULT_DB_ALIAS, models
from django.db.models.functions import Lower, Now
from django.utils.functional import cached_property

from portal.aws.credentials import AwsTarget
from portal.aws.partitions import find_partition, is_placed_arn
from portal.models.reading import QuicklyRead
from portal.outside_links import LABELS, MAX_LENGTH, OutsideLink, check_template, fill_templates

Row = TypeVar("Row", bound=models.Model)

cluster_name = RegexValidator(r"^[A-Za-z0-9_-]{1,255}\Z", "Use letters, digits, hyphens and underscores, 255 at most.")
stack_name = RegexValidator(
    r"^[A-Za-z][A-Za-z0-9-]{0,127}\Z", "Start with a letter; then letters, digits and hyphens, 128 at most."
)
ROLE_ARN = re.compile(r"arn:[a-z-]+:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}")
# A base address: host, port and path. No user, query or fragment, so that the host is unambiguous.
probe_address = RegexValidator(
    r"^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?\Z",
    "Use an address such as https://agent.example.com or http://orchestrator.acme.local:8081.",
)
account_ids = RegexValidator(r"^[0-9]{12}( *, *[0-9]{12})*\Z", "Use account ids of 12 digits, separated by commas.")
secret_prefix = RegexValidator(
    r"^[A-Za-z0-9_+=.@/-]*[/_.-]\Z", "Use letters, digits and _+=.@/- and end with one of / _ . - so that names differ."
)
external_id = RegexValidator(r"^[A-Za-z0-9_+=,.@:/-]{2,1224}\Z", "Use 2 to 1224 letters, digits and _+=,.@:/-")


def region_name(value: str) -> None:
    """Refuse what is no region in any AWS partition."""
    if find_partition(value) is None:
        raise ValidationError("Use an AWS region such as eu-central-1.", code="invalid")


def role_arn(value: str) -> None:
    """Refuse what is not the ARN of a role in any AWS partition."""
    if not ROLE_ARN.fullmatch(value) or not is_placed_arn(value):
        raise ValidationError("Use the role's ARN: arn:aws:iam::<account>:role/<name>.", code="invalid")


def resource_ids(kind: str) -> RegexValidator:
    """Return a validator for comma-separated EC2 ids of one kind."""
    one = rf"{kind}-[0-9a-f]{{8,17}}"
    return RegexValidator(rf"^{one}( *, *{one})*\Z", f"Use ids such as {kind}-0a1b2c3d, separated by commas.")


def link_template() -> "models.CharField[str, str]":
    """Return the column of a link to another system."""
    return models.CharField(
        max_length=MAX_LENGTH, blank=True, default="", db_default="", editable=False, validators=[check_template]
    )


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        if not email:
            raise ValueError("A person needs an e-mail address.")
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save()
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email__iexact=username)


class User(AbstractBaseUser, PermissionsMixin, QuicklyRead):
    """A person. They sign in with the e-mail address, which is unique regardless of case."""

    email = models.EmailField("e-mail address", unique=True)
    name = models.CharField(max_length=150, blank=True)
    is_staff = models.BooleanField("staff", default=False, help_text="May sign in to this admin.")
    is_active = models.BooleanField("active", default=True, help_text="Untick instead of deleting a person.")
    date_joined = models.DateTimeField(db_default=Now(), editable=False)
    # What an API request without X-Organization acts on. Used only while the person is a member of it.
    default_organization = models.ForeignKey(
        "portal.Organization", on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )

    # How pages show times to them (portal/times.py): the zone, and whether as dates in place of ages.
    time_zone = models.CharField(max_length=64, default="UTC", db_default="UTC", editable=False)
    has_absolute_times = models.BooleanField(default=False, db_default=False, editable=False)

    # What the first statement of a request read about them (portal/accounts/person.py). None: not read, or it has changed.
    access: "Access | None" = None

    # On an organization's page: the portal.Elevation with which a member of staff reads it (portal/elevation.py).
    entered: Any = None

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_any_case")]
        ordering = ["email"]

    def __str__(self) -> str:
        return self.email

    def get_full_name(self) -> str:
        return self.name or self.email

    def get_short_name(self) -> str:
        return self.get_full_name()


class OrganizationQuerySet(models.QuerySet["Organization"]):
    def visible_to(self, user: "User | AnonymousUser") -> Self:
        """Return the active organizations in which the person has an accepted membership, or that staff entered.

        Those of the person of a request were read by its first statement.
        """
        if not user.is_authenticated:
            return self.none()
        if user.access is not None:
            return self.filter(pk__in=user.access.ids(user.entered))
        of_member = self.filter(is_active=True, memberships__user=user, memberships__accepted_at__isnull=False)
        if user.entered is None:
            return of_member
        is_entered = models.Q(pk=user.entered.organization_id, is_active=True)
        return self.filter(is_entered | models.Q(pk__in=of_member.values("pk")))


class Organization(QuicklyRead):
    """A tenant, and where its platform runs on Amazon ECS. Staff edit it in Django admin."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    slug = models.SlugField(unique=True, help_text="Part of every URL. Do not change it once it is in use.")
    name = models.CharField(max_length=150)
    environment = models.CharField(
        max_length=40, default="production", help_text="Shown with every action, e.g. production or staging."
    )
    is_active = models.BooleanField(
        "active", default=True, help_text="Untick to suspend: members lose access. Running rollouts are still observed."
    )
    deployment_cluster = models.CharField(
        "ECS cluster", max_length=255, blank=True, validators=[cluster_name], help_text="Empty: <stack>-cluster."
    )
    deployment_stack = models.CharField(
        "stack",
        max_length=128,
        blank=True,
        validators=[stack_name],
        help_text="Services are <stack>-agent-service, <stack>-orchestrator-service, <stack>-customer-portal-service.",
    )
    deployment_region = models.CharField("AWS region", max_length=50, default="eu-central-1", validators=[region_name])
    deployment_role_arn = models.CharField(
        "role to assume",
        max_length=600,
        blank=True,
        validators=[role_arn],
        help_text="Empty: the portal's own credentials.",
    )
    deployment_external_id = models.CharField(
        "external id",
        max_length=1224,
        blank=True,
        validators=[external_id],
        help_text="The sts:ExternalId that the role's trust policy requires.",
    )
    deployment_subnets = models.CharField(
        "subnets of agents",
        max_length=600,
        blank=True,
        validators=[resource_ids("subnet")],
        help_text="Comma-separated ids. Empty: those of the platform's agent service.",
    )
    deployment_security_groups = models.CharField(
        "security groups of agents",
        max_length=300,
        blank=True,
        validators=[resource_ids("sg")],
        help_text="Comma-separated ids. Empty: those of the platform's agent service.",
    )
    deployment_execution_role_arn = models.CharField(
        "execution role of agents",
        max_length=600,
        blank=True,
        validators=[role_arn],
        help_text="Pulls images, reads secrets, writes logs. Empty: the platform's agent service's role.",
    )
    deployment_task_role_arn = models.CharField(
        "task role of agents",
        max_length=600,
        blank=True,
        validators=[role_arn],
        help_text="What agents may do in AWS. Empty: the platform's agent service's role.",
    )
    secret_accounts = models.CharField(
        "accounts of secrets",
        max_length=300,
        blank=True,
        db_default="",
        default="",
        validators=[account_ids],
        help_text="Comma-separated ids of AWS accounts, besides the organization's own, whose secrets its agents may use.",
    )
    secret_prefix = models.CharField(
        "prefix of secrets",
        max_length=200,
        blank=True,
        db_default="",
        default="",
        validators=[secret_prefix],
        help_text="Secrets of agents must begin with it, e.g. acme/. Needed where organizations share an AWS account.",
    )
    deployment_replica_limit = models.PositiveSmallIntegerField(
        "most replicas",
        default=10,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text="The most tasks that one deployment of an agent may have.",
    )
    requires_second_approver = models.BooleanField(
        "second person to continue",
        default=False,
        db_default=False,
        help_text="At a pause of an upgrade, only another person than the one who triggered it may continue.",
    )
    requires_reauthentication = models.BooleanField(
        "re-authentication before risky changes",
        default=False,
        db_default=False,
        help_text="Upgrading all services, forced upgrades and continuing a pause need the password or a code of the "
        "last 5 minutes.",
    )
    requires_mfa = models.BooleanField(
        "two-factor authentication",
        default=False,
        db_default=False,
        help_text="Members without an authenticator app or passkey have no access here until they set one up.",
    )
    upgrade_trigger_limit = models.PositiveSmallIntegerField(
        "upgrades an hour",
        default=60,
        db_default=60,
        validators=[MinValueValidator(1), MaxValueValidator(1000)],
        help_text="The most upgrades that may be triggered within an hour. Stop and rollbacks are never limited.",
    )
    # Pre-flight and validation send requests here (upgrades/checks/probes.py), so only staff may set them.
    platform_agent_url = models.CharField(
        "address of the agent service",
        max_length=300,
        blank=True,
        db_default="",
        default="",
        validators=[probe_address],
        help_text="Base address, probed at /health and /mcp/health. Empty: these checks stay not known.",
    )
    platform_orchestrator_url = models.CharField(
        "address of the orchestrator",
        max_length=300,
        blank=True,
        db_default="",
        default="",
        validators=[probe_address],
        help_text="Base address, probed at /health and /api/v1/llm-providers/status.",
    )
    platform_portal_url = models.CharField(
        "address of the customer portal",
        max_length=300,
        blank=True,
        db_default="",
        default="",
        validators=[probe_address],
        help_text="Base address, probed at /health and /api/v1/auth/session.",
    )
    # Templates of links to other systems (portal/outside_links.py). Admins edit them in Settings.
    ecs_link = link_template()
    logs_link = link_template()
    runbook_link = link_template()
    ticket_link = link_template()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = OrganizationQuerySet.as_manager()

    class Meta:
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if bool(self.deployment_role_arn) != bool(self.deployment_external_id):
            raise ValidationError("Set both the role to assume and the external id, or neither.")

    @property
    def link_templates(self) -> dict[str, str]:
        """The templates of the links to other systems, by column; empty for none."""
        return {name: getattr(self, name) for name in LABELS}

    def fill_links(self, **values: str | None) -> list[OutsideLink]:
        """Return the links to other systems. `values`: by placeholder, besides those of the organization."""
        own: dict[str, str | None] = {"organization": self.slug, "environment": self.environment}
        return fill_templates(self.link_templates, own | values)

    @property
    def cluster(self) -> str | None:
        """The ECS cluster's name; None when the record has neither cluster nor stack."""
        if self.deployment_cluster:
            return self.deployment_cluster
        return f"{self.deployment_stack}-cluster" if self.deployment_stack else None

    @property
    def account(self) -> str | None:
        """The AWS account of the role to assume; None for the portal's own account."""
        return self.deployment_role_arn.split(":")[4] if self.deployment_role_arn else None

    @property
    def aws_target(self) -> AwsTarget:
        return AwsTarget(
            region=self.deployment_region,
            role_arn=self.deployment_role_arn or None,
            external_id=self.deployment_external_id or None,
            cluster=self.cluster,
            reader=f"portal-{self.slug}",
            writer=f"portal-{self.slug}",
        )


class Role(models.TextChoices):
    """The roles of members. Each role includes the ones before it."""

    VIEWER = "viewer", "Viewer"
    OPERATOR = "operator", "Operator"
    ADMIN = "admin", "Admin"

    def includes(self, needed: "Role") -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Access:
    """What a person may reach: their second factor, roles and organizations, as one statement has read them.

    `rows`: role and columns of each active organization whose membership the person has accepted, by name.
    """

    def __init__(self, has_second_factor: bool, rows: list[tuple[Any, ...]], columns: list[str]) -> None:
        self.has_second_factor = has_second_factor
        self.roles: dict[uuid.UUID, Role] = {row[1]: Role(row[0]) for row in rows}
        self._rows, self._columns = rows, columns

    @cached_property
    def organizations(self) -> list[Organization]:
        return [Organization.from_db(DEFAULT_DB_ALIAS, self._columns, row[1:]) for row in self._rows]

    def ids(self, entered: Any = None) -> list[uuid.UUID]:
        """Return the ids of the organizations, with the one that staff have `entered` (portal.Elevation)."""
        return [*self.roles, *([entered.organization_id] if entered and entered.organization.is_active else [])]


def visible_ids(user: "User | AnonymousUser") -> "list[uuid.UUID] | OrganizationQuerySet":
    """Return the ids of the organizations that the person sees, or a query for them, for `organization__in`."""
    if user.is_authenticated and user.access is not None:
        return user.access.ids(user.entered)
    return Organization.objects.visible_to(user)


class TenantQuerySet(models.QuerySet[Row]):
    """Rows that belong to an organization, by their field `organization`."""

    def visible_to(self, user: "User | AnonymousUser") -> Self:
        """Return the rows of the organizations that the person sees."""
        return self.filter(organization__in=visible_ids(user))


class MembershipQuerySet(TenantQuerySet["Membership"]):
    def accepted(self) -> Self:
        """Return the memberships that count: those that the person has accepted."""
        return self.filter(accepted_at__isnull=False)

    def invitations(self, user: "User") -> Self:
        """Return the memberships that the person can still accept, with their organizations, by name."""
        pending = self.filter(user=user, accepted_at=None, organization__is_active=True)
        return pending.select_related("organization").order_by("organization__name", "pk")

    def for_list(self, organization: Organization) -> Self:
        """Return the organization's memberships with their users, by e-mail address. *Costs* one query."""
        return self.filter(organization=organization).select_related("user").order_by("user__email", "pk")

    def who_may_approve(self, organization: Organization) -> Self:
        """Return the memberships of those who may decide at a pause of an upgrade, by e-mail address."""
        may_act = [role for role in Role if role.includes(Role.OPERATOR)]
        return self.for_list(organization).accepted().filter(role__in=may_act, user__is_active=True)

    def count_by_role(self, organization: Organization) -> dict["Role", int]:
        """Return the number of members per role, admins first, without unused roles. *Costs* one query."""
        members = self.accepted().filter(organization=organization)
        counts = dict(members.values_list("role").annotate(models.Count("pk")).order_by())
        return {role: counts[role] for role in reversed(Role) if role in counts}


class Membership(models.Model):
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the person accepted it. Until then it is an invitation, which gives no access and counts nowhere.
    accepted_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "user"], name="membership_once_per_organization"),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="membership_role_known"),
        ]
        ordering = ["organization__name", "user__email"]

    def __str__(self) -> str:
        return f"{self.user} as {self.role} of {self.organization}"

    @property
    def signed_in_at(self) -> datetime | None:
        """When the person last signed in, if they have accepted and that was after they were added.

        Other sign-ins are hidden, because they would reveal to the admin who adds an address that it has an account.
        """
        at = self.user.last_login
        return at if at and self.accepted_at and at >= self.created_at else None


# The background processes, and the age in seconds after which one counts as silent.
HEARTBEATS = ("scheduler", "worker")
HEARTBEAT_FRESH_SECONDS = 30


class Heartbeat(models.Model):
    """The last sign of life of a background process, on the database's clock. Read by /health and the pages."""

    name = models.CharField(max_length=20, primary_key=True)
    beat_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.name} at {self.beat_at:%H:%M:%S}"
