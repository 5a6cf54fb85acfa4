"""The pages of API tokens: a person's own under Account, an organization's under Settings.

Members see the tokens of the organization; only admins can make and revoke them, and see and revoke members' personal ones.
"""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from portal.access import Policy, get_page_organization, is_fresh, list_organizations, person, policy
from portal.errors import found_or_404
from portal.models import ApiToken, Organization, TokenKind
from portal.tokens.commands import Created, create_token, revoke_token
from portal.tokens.forms import PersonalTokenForm, TokenForm
from portal.web.context import settings_context
from portal.web.forms import submit

REPEATED = (
    "This form was already sent. It made this token and showed it. If you did not copy it, revoke it and make another."
)


@policy(Policy.SIGNED_IN)
@require_safe
def own(request: HttpRequest) -> HttpResponse:
    context = {"tokens": ApiToken.objects.personal(person(request)), "now": timezone.now()}
    return render(request, "portal/tokens/own.html", context)


@policy(Policy.SIGNED_IN)
@require_http_methods(["GET", "HEAD", "POST"])
def new_own(request: HttpRequest) -> HttpResponse:
    """Render the form and make a personal token. Only this response contains it."""
    form = PersonalTokenForm(list_organizations(request.user), request.POST or None)
    status = 200
    if request.method == "POST":
        made, status = submit(form, lambda: create_own(request, form))
        if made:
            return created(request, made, {}, reverse("tokens"))
    return render(request, "portal/tokens/new_own.html", {"form": form}, status=status)


def create_own(request: HttpRequest, form: PersonalTokenForm) -> Created:
    asked = dict(form.cleaned_data)
    organization = get_page_organization(request, asked.pop("organization"))
    return create_token(
        organization, actor=person(request), kind=TokenKind.PERSONAL, is_fresh=is_fresh(request), **asked
    )


@policy(Policy.SIGNED_IN)
@require_http_methods(["GET", "HEAD", "POST"])
def revoke_own(request: HttpRequest, token_id: UUID) -> HttpResponse:
    """Render the confirmation, and revoke the token. Raises PortalError 404, also for another person's."""
    token = found_or_404(ApiToken.objects.personal(person(request)).filter(pk=token_id).first())
    return revoke_page(request, token, {}, reverse("tokens"))


@policy(Policy.VIEWER)
@require_safe
def index(request: HttpRequest, slug: str) -> HttpResponse:
    organization = get_page_organization(request, slug)
    context = settings_context(request, organization)
    tokens = ApiToken.objects.listed().filter(organization=organization)
    if not context["may_act"]:
        tokens = tokens.filter(kind=TokenKind.ORGANIZATION)
    return render(request, "portal/tokens/list.html", context | {"tokens": tokens, "now": timezone.now()})


@policy(Policy.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def new(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the form and make a token of the organization. Only this response contains it."""
    organization = get_page_organization(request, slug)
    form = TokenForm(TokenKind.ORGANIZATION, request.POST or None)
    status = 200
    if request.method == "POST":
        made, status = submit(form, lambda: create(request, form, organization))
        if made:
            return created(
                request, made, settings_context(request, organization), reverse("org_tokens:list", args=[slug])
            )
    context = settings_context(request, organization) | {"form": form}
    return render(request, "portal/tokens/new.html", context, status=status)


def create(request: HttpRequest, form: TokenForm, organization: Organization) -> Created:
    return create_token(
        organization,
        actor=person(request),
        kind=TokenKind.ORGANIZATION,
        is_fresh=is_fresh(request),
        **form.cleaned_data,
    )


@policy(Policy.ADMIN)
@require_http_methods(["GET", "HEAD", "POST"])
def revoke(request: HttpRequest, slug: str, token_id: UUID) -> HttpResponse:
    """Render the confirmation, and revoke the token. Raises PortalError 404, also for another organization's."""
    organization = get_page_organization(request, slug)
    context = settings_context(request, organization)
    tokens = ApiToken.objects.listed().visible_to(request.user).filter(organization=organization)
    if not context["may_act"]:
        tokens = tokens.filter(kind=TokenKind.ORGANIZATION)
    token = found_or_404(tokens.filter(pk=token_id).first())
    return revoke_page(request, token, context, reverse("org_tokens:list", args=[slug]))


def revoke_page(request: HttpRequest, token: ApiToken, context: dict[str, Any], back: str) -> HttpResponse:
    if request.method == "POST":
        revoke_token(token, actor=person(request))
        messages.success(request, f"{token.name} is revoked. Its next request is refused.")
        return redirect(back)
    is_own = "organization" not in context
    more = {"token": token, "back": back, "may_revoke": is_own or context["may_act"], "now": timezone.now()}
    return render(request, "portal/tokens/revoke.html", context | more)


def created(request: HttpRequest, made: Created, context: dict[str, Any], back: str) -> HttpResponse:
    if made.secret is None:
        messages.warning(request, REPEATED)
        return redirect(back)
    more = {"token": made.token, "secret": made.secret, "back": back}
    return render(request, "portal/tokens/shown.html", context | more)
