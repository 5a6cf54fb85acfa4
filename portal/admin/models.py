"""Django admin for people, organizations and memberships, and the read-only audit trail.

Every change here writes an audit row in the same transaction. A change of a membership needs a re-authentication.
People and organizations are deactivated, never deleted, because history refers to them.
"""

import secrets
from typing import Any
from uuid import UUID

import allauth.account.admin
import allauth.mfa.admin
import allauth.usersessions.admin  # noqa: F401 - must be registered before they are unregistered below
from allauth.account.models import EmailAddress
from allauth.core.internal.httpkit import authenticated_user
from allauth.mfa.base.internal.flows import delete_dangling_recovery_codes
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.forms import AdminUserCreationForm, UserChangeForm
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.access import Policy, is_fresh, policy, require_fresh
from portal.admin.connection_test import test_connection
from portal.admin.iam_policies import NO_CLUSTER, build_documents
from portal.admin.site import CheckedAutocompletes, ReadOnlyAdmin, StaffAdmin, record_read
from portal.audit import record
from portal.elevation import end, enter
from portal.members.approvals import find_too_few_approvers
from portal.members.commands import clear_default_organization, delete_membership, record_membership
from portal.models import AuditEvent, AuditKind, Elevation, Membership, Organization, User
from portal.models.elevation import REASON_LENGTH
from portal.web.forms import submit

CONNECTIONS_AT_ONCE = 5
PLACE_FIELDS = ("deployment_stack", "deployment_cluster", "deployment_region", "deployment_role_arn")
ORGANIZATION_FIELDS = (
    "slug",
    "name",
    "environment",
    "is_active",
    "requires_second_approver",
    "requires_reauthentication",
    "requires_mfa",
    "upgrade_trigger_limit",
    "deployment_stack",
    "deployment_cluster",
    "deployment_region",
    "deployment_role_arn",
    "deployment_external_id",
    "deployment_subnets",
    "deployment_security_groups",
    "deployment_execution_role_arn",
    "deployment_task_role_arn",
    "secret_accounts",
    "secret_prefix",
    "deployment_replica_limit",
    "platform_agent_url",
    "platform_orchestrator_url",
    "platform_portal_url",
)

# Staff manage addresses, roles and two-factor authentication on a person's page instead.
for library_model in (Group, EmailAddress, Authenticator, UserSession):
    admin.site.unregister(library_model)


def changes_between(before: Model | None, after: Model, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return `{field: {"before", "after"}}` for the fields that differ; for the external id only "changed"."""
    changes: dict[str, Any] = {}
    for field in fields:
        old, new = getattr(before, field, None), getattr(after, field)
        if old != new:
            changes[field] = "changed" if field == "deployment_external_id" else {"before": old, "after": new}
    return changes


class MembershipFormSet(forms.BaseInlineFormSet):
    def delete_existing(self, obj: Membership, commit: bool = True) -> None:
        if commit:
            delete_membership(obj)


class MembershipInline(CheckedAutocompletes, admin.TabularInline):
    model = Membership
    formset = MembershipFormSet
    extra = 0
    autocomplete_fields = ("user", "organization")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission


class AuthenticatorInline(admin.TabularInline):
    """A person's second factors. They can only be removed; their secrets are not shown."""

    model = Authenticator
    verbose_name_plural = "two-factor authentication (delete all entries for a person who lost the device)"
    fields = readonly_fields = ("type", "created_at", "last_used_at")
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return True

    has_delete_permission = has_view_permission

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_change_permission = has_add_permission


class AuditedAdmin(StaffAdmin):
    """Writes the form's changes to the audit trail."""

    audited_fields: tuple[str, ...]
    created: AuditKind
    changed: AuditKind

    def get_organization(self, obj: Any) -> Organization | None:
        return None

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        before = self.model._default_manager.get(pk=obj.pk) if change else None
        super().save_model(request, obj, form, change)
        changes = changes_between(before, obj, self.audited_fields)
        if not change or changes:
            self.record_audit(request, self.changed if change else self.created, obj, {"changes": changes})

    def record_audit(self, request: HttpRequest, kind: AuditKind, obj: Any, data: dict[str, Any] | None = None) -> None:
        organization = self.get_organization(obj)
        record(kind, organization=organization, actor=request.user, subject=self.get_subject(obj), data=data)

    def get_subject(self, obj: Any) -> str:
        return str(obj)

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Save the inlines and audit their changes: memberships and authenticators.

        *Raises* ReauthenticationRequired for a changed membership. The page's transaction then saves nothing.
        """
        if formset.model is Membership and formset.has_changed():
            require_fresh(is_fresh(request))
        before = {row.pk: row for row in formset.model.objects.filter(pk__in=[f.instance.pk for f in formset.forms])}
        super().save_formset(request, form, formset, change)
        if formset.model is Membership:
            audit_memberships(request, formset, before)
        for authenticator in formset.deleted_objects:
            if isinstance(authenticator, Authenticator):
                audit_two_factor_removed(request, authenticator)


def audit_memberships(request: HttpRequest, formset: Any, before: dict[int, Membership]) -> None:
    for membership in formset.new_objects:
        record_membership(AuditKind.MEMBERSHIP_ADDED, membership, actor=request.user)
    for membership, _ in formset.changed_objects:
        kind, was = AuditKind.MEMBERSHIP_CHANGED, before[membership.pk]
        record_membership(kind, membership, actor=request.user, before=was)
        if (was.user_id, was.organization_id) != (membership.user_id, membership.organization_id):
            clear_default_organization(was)
    for membership in formset.deleted_objects:
        record_membership(AuditKind.MEMBERSHIP_REMOVED, membership, actor=request.user)


def audit_two_factor_removed(request: HttpRequest, authenticator: Authenticator) -> None:
    person = authenticator.user
    delete_dangling_recovery_codes(person)
    kind, data = AuditKind.PERSON_TWO_FACTOR_REMOVED, {"type": authenticator.type}
    record(kind, organization=None, actor=request.user, subject=person.email, data=data)


class LowerCaseEmail(forms.ModelForm):
    def clean_email(self) -> str:
        return str(self.cleaned_data["email"]).lower()


class PersonCreationForm(LowerCaseEmail, AdminUserCreationForm):
    class Meta:
        model = User
        fields = ("email", "name")


class PersonChangeForm(LowerCaseEmail, UserChangeForm):
    class Meta:
        model = User
        fields = ("email", "name", "is_active", "is_staff")


@admin.register(User)
class PersonAdmin(AuditedAdmin, UserAdmin):
    form = PersonChangeForm
    add_form = PersonCreationForm
    audited_fields = ("email", "name", "is_active", "is_staff")
    created, changed = AuditKind.PERSON_CREATED, AuditKind.PERSON_CHANGED
    list_display = ("email", "name", "is_active", "is_staff", "last_login")
    list_filter = ("is_active", "is_staff", "memberships__organization")
    search_fields = ("email", "name")
    ordering = ("email",)
    filter_horizontal = ()
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("email", "name", "password")}),
        ("Permissions", {"fields": ("is_active", "is_staff")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = (
        (
            None,
            {
                "classes": ("wide",),
                "description": "Without a password the person sets one by “Forgot your password?” on the sign-in page.",
                "fields": ("email", "name", "usable_password", "password1", "password2"),
            },
        ),
    )

    def get_inlines(self, request: HttpRequest, obj: User | None) -> list[Any]:
        return [MembershipInline, AuthenticatorInline] if obj else [MembershipInline]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @policy(Policy.STAFF)
    @method_decorator(transaction.atomic)
    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        response = super().user_change_password(request, id, form_url)
        if request.method == "POST" and response.status_code == 302:
            self.record_audit(request, AuditKind.PERSON_PASSWORD_SET, self.get_object(request, id))
        return response


class OrganizationForm(forms.ModelForm):
    class Meta:
        model = Organization
        fields = ORGANIZATION_FIELDS
        # Django admin renders help texts as HTML.
        help_texts = {
            "deployment_stack": "Names the services: &lt;stack&gt;-agent-service, &lt;stack&gt;-orchestrator-service, "
            "&lt;stack&gt;-customer-portal-service.",
            "deployment_cluster": "Empty: &lt;stack&gt;-cluster.",
            "deployment_external_id": "The sts:ExternalId that the role's trust policy requires. "
            "If you leave it empty and set a role, the portal generates a random one.",
        }

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        given = cleaned.get("deployment_external_id")
        if given and Organization.objects.exclude(pk=self.instance.pk).filter(deployment_external_id=given).exists():
            # A shared one would let an organization point at another organization's account (the confused deputy).
            self.add_error("deployment_external_id", "Another organization uses this external id. Each needs its own.")
        for other in self.at_the_same_place():
            # Both would update the same services without knowing of each other's upgrades.
            self.add_error(None, f"{other.name} ({other.slug}) uses the same cluster and stack. Each needs its own.")
        if cleaned.get("deployment_role_arn") and not given and "deployment_external_id" not in self.errors:
            cleaned["deployment_external_id"] = secrets.token_urlsafe(32)
        if cleaned.get("requires_second_approver") and "requires_second_approver" in self.changed_data:
            why_not = find_too_few_approvers(self.instance)
            if why_not:
                self.add_error("requires_second_approver", why_not)
        return cleaned

    def at_the_same_place(self) -> list[Organization]:
        """Return the other organizations with the same account, region, cluster and stack. *Costs* one query."""
        given = {name: self.cleaned_data.get(name) or "" for name in PLACE_FIELDS}
        asked = Organization(**given)
        if asked.cluster is None:
            return []
        near = Organization.objects.exclude(pk=self.instance.pk).filter(
            deployment_region=asked.deployment_region, deployment_stack=asked.deployment_stack
        )
        return [
            other
            for other in near
            if (other.cluster, parse_account_id(other)) == (asked.cluster, parse_account_id(asked))
        ]


def parse_account_id(organization: Organization) -> str | None:
    """Return the AWS account of the role to assume; None for the portal's own account."""
    arn = organization.deployment_role_arn
    return arn.split(":")[4] if arn else None


class EnterForm(forms.Form):
    reason = forms.CharField(
        max_length=REASON_LENGTH,
        widget=forms.TextInput(attrs={"size": 80, "autocomplete": "off"}),
        help_text="For example the ticket and what you look for. The organization sees it.",
    )


@admin.register(Organization)
class OrganizationAdmin(AuditedAdmin):
    form = OrganizationForm
    audited_fields = ORGANIZATION_FIELDS
    created, changed = AuditKind.ORGANIZATION_CREATED, AuditKind.ORGANIZATION_CHANGED
    list_display = ("name", "slug", "environment", "deployment_region", "cluster_shown", "is_active")
    list_filter = ("is_active", "environment", "deployment_region")
    search_fields = ("name", "slug", "deployment_stack", "deployment_cluster")
    inlines = (MembershipInline,)
    actions = ("test_connections",)
    fieldsets = (
        (None, {"fields": ("name", "slug", "environment", "is_active")}),
        ("Approvals", {"fields": ("requires_second_approver", "requires_reauthentication", "requires_mfa")}),
        (
            "Platform",
            {"fields": ("deployment_stack", "deployment_cluster", "deployment_region", "upgrade_trigger_limit")},
        ),
        ("Access to AWS", {"fields": ("deployment_role_arn", "deployment_external_id")}),
        (
            "Health checks",
            {"fields": ("platform_agent_url", "platform_orchestrator_url", "platform_portal_url")},
        ),
        (
            "Agents",
            {
                "fields": (
                    "deployment_replica_limit",
                    "deployment_subnets",
                    "deployment_security_groups",
                    "deployment_execution_role_arn",
                    "deployment_task_role_arn",
                    "secret_accounts",
                    "secret_prefix",
                )
            },
        ),
    )

    @admin.display(description="cluster")
    def cluster_shown(self, organization: Organization) -> str:
        return organization.cluster or "not set up"

    def get_organization(self, obj: Organization) -> Organization:
        return obj

    def get_subject(self, obj: Organization) -> str:
        return obj.slug

    def get_readonly_fields(self, request: HttpRequest, obj: Organization | None = None) -> tuple[str, ...]:
        # The slug is part of every URL that people have bookmarked.
        return ("slug",) if obj else ()

    def get_prepopulated_fields(self, request: HttpRequest, obj: Organization | None = None) -> dict[str, Any]:
        return {} if obj else {"slug": ("name",)}

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Save the members, then say which external id was generated: not if the members were refused."""
        super().save_related(request, form, formsets, change)
        obj = form.instance
        if obj.deployment_external_id and not form.data.get("deployment_external_id"):
            messages.info(
                request,
                f"The portal generated an external id for {obj}: {obj.deployment_external_id}. "
                "Add it to the role's trust policy as sts:ExternalId, then test the connection.",
            )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.test_connection_view)
        name = "portal_organization_test_connection"
        policies = self.admin_site.admin_view(self.iam_policies_view)
        enter, leave = self.admin_site.admin_view(self.enter_view), self.admin_site.admin_view(self.leave_view)
        return [
            path("<uuid:pk>/test-connection/", view, name=name),
            path("<uuid:pk>/iam-policies/", policies, name="portal_organization_iam_policies"),
            path("<uuid:pk>/enter/", enter, name="portal_organization_enter"),
            path("<uuid:pk>/leave/", leave, name="portal_organization_leave"),
            *super().get_urls(),
        ]

    @policy(Policy.STAFF)
    @method_decorator(require_http_methods(["GET", "HEAD", "POST"]))
    def enter_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Ask for a reason, then open the organization's pages to this member of staff for a limited time."""
        organization = get_object_or_404(Organization, pk=pk)
        form = EnterForm(request.POST or None)
        status = 200
        if request.method == "POST":
            staff = authenticated_user(request)
            reason = form.data.get("reason", "")
            entered, status = submit(form, lambda: enter(organization, staff=staff, reason=reason))
            if entered:
                return redirect("overview", organization.slug)
        context = self.admin_site.each_context(request) | {
            "title": "Enter the organization",
            "opts": self.opts,
            "entered": organization,
            "form": form,
            "minutes": settings.STAFF_ACCESS_MINUTES,
        }
        return TemplateResponse(request, "admin/portal/organization/enter.html", context, status=status)

    @policy(Policy.STAFF)
    @method_decorator(require_POST)
    def leave_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        staff = authenticated_user(request)
        for elevation in Elevation.objects.open().filter(staff=staff, organization=pk).select_related("organization"):
            end(elevation, actor=staff)
            messages.success(request, f"You left {elevation.organization.name}.")
        return redirect("admin:portal_organization_change", pk)

    @policy(Policy.STAFF)
    @method_decorator(require_safe)
    def iam_policies_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Show the IAM policies that the organization's account and the portal's need. *Costs* one call to AWS."""
        organization = get_object_or_404(Organization, pk=pk)
        documents = build_documents(organization)
        record_read(request, organization)
        context = self.admin_site.each_context(request) | {
            "title": "IAM policies",
            "opts": self.opts,
            "original": organization,
            "documents": documents,
            "why_none": "" if documents else NO_CLUSTER,
        }
        return TemplateResponse(request, "admin/portal/organization/iam_policies.html", context)

    @policy(Policy.STAFF)
    @method_decorator(require_POST)
    def test_connection_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        return self.show_tests(request, [get_object_or_404(Organization, pk=pk)])

    @admin.action(description="Test the connection to AWS")
    def test_connections(self, request: HttpRequest, queryset: QuerySet[Organization]) -> HttpResponse | None:
        if queryset.count() > CONNECTIONS_AT_ONCE:
            messages.error(request, f"Choose {CONNECTIONS_AT_ONCE} organizations at most: each test takes seconds.")
            return None
        return self.show_tests(request, list(queryset))

    def show_tests(self, request: HttpRequest, organizations: list[Organization]) -> HttpResponse:
        staff = authenticated_user(request)
        results = [(organization, test_connection(organization, actor=staff)) for organization in organizations]
        context = self.admin_site.each_context(request) | {
            "title": "Connection test",
            "opts": self.opts,
            "results": results,
        }
        return TemplateResponse(request, "admin/portal/organization/test_connection.html", context)


@admin.register(Membership)
class MembershipAdmin(StaffAdmin):
    list_display = ("organization", "user", "role", "created_at", "accepted_at")
    list_filter = ("role", "organization")
    list_select_related = ("organization", "user")
    search_fields = ("user__email", "organization__name")
    autocomplete_fields = ("organization", "user")

    def save_model(self, request: HttpRequest, obj: Membership, form: Any, change: bool) -> None:
        require_fresh(is_fresh(request))
        before = Membership.objects.select_related("user").get(pk=obj.pk) if change else None
        super().save_model(request, obj, form, change)
        kind = AuditKind.MEMBERSHIP_CHANGED if change else AuditKind.MEMBERSHIP_ADDED
        record_membership(kind, obj, actor=request.user, before=before)

    def get_readonly_fields(self, request: HttpRequest, obj: Membership | None = None) -> tuple[str, ...]:
        return ("organization", "user") if obj else ()

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Membership]) -> None:
        for membership in queryset.select_related("organization", "user"):
            self.delete_model(request, membership)

    def delete_model(self, request: HttpRequest, obj: Membership) -> None:
        require_fresh(is_fresh(request))
        record_membership(AuditKind.MEMBERSHIP_REMOVED, obj, actor=request.user)
        delete_membership(obj)


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """The audit trail, read-only. The database itself refuses to change a row."""

    list_display = ("created_at", "kind", "organization", "actor_email", "subject", "request_id")
    list_filter = ("kind", "organization", "created_at")
    list_select_related = ("organization",)
    search_fields = ("subject", "actor_email", "request_id")
