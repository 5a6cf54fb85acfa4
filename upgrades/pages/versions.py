"""The page of versions: which exist, which services have them, what runs where, and drift from the record."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, policy
from portal.pagination import DEFAULT_LIMIT, paginate_list
from portal.web.context import page_context
from portal.web.htmx import render_page
from upgrades.inventory.catalogue import Catalogue, Version, read_catalogue
from upgrades.pages.forms import PageNumber
from upgrades.states import PlatformService


@policy(Policy.VIEWER)
@require_safe
def versions(request: HttpRequest, slug: str) -> HttpResponse:
    """Render the versions, newest first, with a column for each service. The block polls while the page is open."""
    organization = get_page_organization(request, slug)
    catalogue = read_catalogue(organization)
    form = PageNumber(request.GET)
    skip = (form.cleaned_data.get("skip") if form.is_valid() else None) or 0
    tagged = [version for version in catalogue.versions if version.has_tag]
    page = paginate_list(tagged, skip=skip, limit=DEFAULT_LIMIT)
    context = page_context(request, organization) | {
        "catalogue": catalogue,
        "page": page,
        "rows": [as_row(catalogue, version) for version in page.items],
        "untagged": [as_row(catalogue, version) for version in catalogue.versions if not version.has_tag],
        "services": PlatformService,
        "running": [
            (row, catalogue.is_gone(row)) for row in (catalogue.platform.services if catalogue.platform else [])
        ],
        "limited": find_limited(catalogue),
    }
    return render_page(request, "upgrades/versions.html", "upgrades/_versions_live.html", context)


def as_row(catalogue: Catalogue, version: Version) -> dict[str, Any]:
    """Return the version with a cell for each platform service, in rolling order.

    A cell is missing only if the repository was read and does not have the version.
    """
    cells = [
        {
            "label": service.label,
            "image": version.images.get(service.value),
            "is_missing": service.value in catalogue.registry.images and service.value not in version.images,
            "runs": service.value in version.running,
        }
        for service in PlatformService
    ]
    return {"version": version, "cells": cells}


def find_limited(catalogue: Catalogue) -> list[tuple[str, str]]:
    """Return the labels of the services whose versions cannot be chosen, with the reasons."""
    return [(PlatformService(service).label, reason) for service, reason in catalogue.limited.items()]
