"""The members pages of an organization, under its settings. Every member can read; only admins can make changes."""

from allauth.core.internal import ratelimit
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.access import Policy, get_page_organization, is_fresh, person, policy, require
from portal.accounts.adapter import mail_new_member
from portal.errors import PortalError, found_or_404
from portal.members.commands import MAX_MEMBERS, Added, add_member, change_role, last_admin_reason, remove_member
from portal.members.forms import AddForm, RoleForm
from portal.models import Membership, Organization, Role
from portal.pagination import DEFAULT_LIMIT, paginate
from portal.web.context import get_skip, settings_context
from portal.web.forms import attempt, submit

# Per organization. Each addition sends an e-mail, and each attempt may reveal a switched-off account (commands.py).
ADDITIONS = {"add_member": "20/h/key"}
ADDITIONS_SECONDS = 3600


@policy(Policy.VIEWER)
@require_safe
def index(request: HttpRequest, slug: str) -> HttpResponse:
    return members_page(request, get_page_organization(request, slug))


def members_page(
    request: HttpRequest, organization: Organization, *, refused: str | None = None, status: int = 200
) -> HttpResponse:
    members = Membership.objects.for_list(organization)
    context = settings_context(request, organization) | {
        "page": paginate(members, skip=get_skip(request), limit=DEFAULT_LIMIT),
        "query_without_skip": "",
        "roles": Role,
        "refused": refused,
    }
    return render(request, "portal/members/list.html", context, status=status)


@policy(Policy.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the form and add a member. Page and e-mail do not reveal whether the address had an account."""
    organization = get_page_organization(request, slug)
    form = AddForm(request.POST or None)
    status = 200
    if request.method == "POST":
        if form.is_valid():
            count_addition(request, organization)
        added, status = submit(form, lambda: add(request, organization, form))
        if added:
            notify_added(request, added)
            return redirect("members:list", slug)
    context = settings_context(request, organization) | {"form": form, "most": MAX_MEMBERS}
    return render(request, "portal/members/new.html", context, status=status)


def add(request: HttpRequest, organization: Organization, form: AddForm) -> Added:
    return add_member(organization, actor=person(request), is_fresh=is_fresh(request), **form.cleaned_data)


def count_addition(request: HttpRequest, organization: Organization) -> None:
    """Count an attempt against the organization's rate limit. Raises PortalError 403, 404, 429 `too_many_additions`."""
    require(person(request), organization, Role.ADMIN)
    key = str(organization.pk)
    if not ratelimit.consume(request, app="portal", action="add_member", config=ADDITIONS, key=key):
        message = f"Too many people were added to {organization.name} in the last hour. Try again later."
        raise PortalError("too_many_additions", message, 429, retry_after=ADDITIONS_SECONDS)


def notify_added(request: HttpRequest, added: Added) -> None:
    """E-mail the new member once, and show the result on the next page."""
    email = added.membership.user.email
    done = f"{email} is invited with the role {added.membership.role}, and becomes a member by accepting."
    if not added.is_new:
        messages.success(request, done)
    elif mail_new_member(request, added.membership):
        messages.success(request, f"{done} They get an e-mail, with a link to set a password if they have none.")
    else:
        messages.warning(
            request,
            f"{done} The e-mail to them could not be sent, so inform them yourself. They accept on their start page. "
            "Without a password they can set one with “Forgot your password?” on the sign-in page.",
        )


@policy(Policy.ADMIN)
@require_POST
def role(request: HttpRequest, slug: str, membership_id: int) -> HttpResponse:
    membership = find_member(request, slug, membership_id)
    form = RoleForm(request.POST)
    if not form.is_valid():
        return refused_on_page(request, membership, PortalError("invalid", "Choose one of the roles.", 422))
    new_role, fresh = form.cleaned_data["role"], is_fresh(request)
    _, refusal = attempt(lambda: change_role(membership, actor=person(request), role=new_role, is_fresh=fresh))
    if refusal:
        return refused_on_page(request, membership, refusal)
    messages.success(request, f"The role of {membership.user.email} is now {new_role}.")
    skip = get_skip(request)
    return redirect(reverse("members:list", args=[slug]) + (f"?skip={skip}" if skip else ""))


def refused_on_page(request: HttpRequest, membership: Membership, error: PortalError) -> HttpResponse:
    return members_page(request, membership.organization, refused=error.message, status=error.status)


@policy(Policy.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def remove(request: HttpRequest, slug: str, membership_id: int) -> HttpResponse:
    """Render the confirmation with its consequences, and remove the member."""
    membership = find_member(request, slug, membership_id)
    organization, status = membership.organization, 200
    is_you = membership.user_id == person(request).pk
    if request.method == "POST":
        fresh = is_fresh(request)
        _, refusal = attempt(lambda: remove_member(membership, actor=person(request), is_fresh=fresh))
        if refusal is None:
            messages.success(request, f"{membership.user.email} is no longer a member of {organization.name}.")
            return redirect("home") if is_you else redirect("members:list", slug)
        status = refusal.status
    context = settings_context(request, organization) | {
        "membership": membership,
        "is_you": is_you,
        "last_admin_reason": last_admin_reason(membership),
    }
    return render(request, "portal/members/remove.html", context, status=status)


def find_member(request: HttpRequest, slug: str, membership_id: int) -> Membership:
    """Return the membership. Raises PortalError 404, also for a member of another organization."""
    organization = get_page_organization(request, slug)
    visible = Membership.objects.visible_to(request.user).select_related("organization", "user")
    return found_or_404(visible.filter(organization=organization, pk=membership_id).first())
