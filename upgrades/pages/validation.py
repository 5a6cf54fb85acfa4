"""The pages of validation: signing a row, running the portal's own checks again, and the evidence to print."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from portal.access import Policy, get_page_organization, person, policy
from portal.errors import found_or_404
from portal.web.context import page_context
from portal.web.forms import submit
from upgrades.api.evidence import build_evidence
from upgrades.checks.matrix import get_matrix_rows
from upgrades.commands.sign import probe_again, sign_check
from upgrades.models import Upgrade
from upgrades.pages.context import find_upgrade
from upgrades.pages.detail import validation_context
from upgrades.pages.forms import SignForm
from upgrades.states import CheckStatus


@policy(Policy.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def sign(request: HttpRequest, slug: str, upgrade_id: str, check: str) -> HttpResponse:
    """Render one row of the matrix with the form that signs it; POST records the signature."""
    organization = get_page_organization(request, slug)
    upgrade = find_upgrade(organization, upgrade_id)
    row = found_or_404(next((each for each in get_matrix_rows(upgrade) if each.name == check), None))
    form = SignForm(request.POST if request.method == "POST" else None)
    status = 200
    if request.method == "POST":
        signed, status = submit(form, lambda: sign_row(request, form, upgrade, check))
        if signed:
            messages.success(request, f"Signed: {row.label.lower()}.")
            return redirect(f"{reverse('upgrades:detail', args=[slug, upgrade_id])}#validation")
    context = page_context(request, organization) | {
        "upgrade": upgrade,
        "check": row,
        "form": form,
        **validation_context(upgrade),
    }
    return render(request, "upgrades/sign.html", context, status=status)


def sign_row(request: HttpRequest, form: SignForm, upgrade: Upgrade, check: str) -> Upgrade:
    status, note = CheckStatus(form.cleaned_data["status"]), form.cleaned_data["note"]
    return sign_check(upgrade, actor=person(request), check=check, status=status, note=note)


@policy(Policy.OPERATOR)
@require_POST
def probe(request: HttpRequest, slug: str, upgrade_id: str) -> HttpResponse:
    """Start the portal's own checks again."""
    organization = get_page_organization(request, slug)
    probe_again(find_upgrade(organization, upgrade_id), actor=person(request))
    messages.success(request, "Checks started again. The results will appear below.")
    return redirect(f"{reverse('upgrades:detail', args=[slug, upgrade_id])}#validation")


@policy(Policy.VIEWER)
@require_safe
def evidence(request: HttpRequest, slug: str, upgrade_id: str) -> HttpResponse:
    """Render the evidence as a page to read and print. It is the same document as the API's."""
    organization = get_page_organization(request, slug)
    upgrade = find_upgrade(organization, upgrade_id)
    context = page_context(request, organization) | {"upgrade": upgrade, "document": build_evidence(upgrade)}
    return render(request, "upgrades/evidence.html", context)
