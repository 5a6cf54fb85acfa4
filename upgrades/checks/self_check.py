"""Smoke test: renders three of the portal's pages in process, as the user who started the upgrade.

It uses the templates of the release that validates, on the live database. probes.py checks what the web process answers.
"""

import logging
from urllib.parse import urlsplit

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest
from django.urls import resolve, reverse
from django_htmx.middleware import HtmxDetails

from portal.errors import PortalError
from portal.models import User
from upgrades.checks.probes import Finding
from upgrades.models import Upgrade
from upgrades.states import CheckStatus

logger = logging.getLogger(__name__)


def run_self_check(upgrade: Upgrade) -> Finding:
    """Render the overview, the history and the upgrade's own page. *Costs* the queries of these pages."""
    slug = upgrade.organization.slug
    paths = [
        reverse("overview", args=[slug]),
        reverse("upgrades:history", args=[slug]),
        reverse("upgrades:detail", args=[slug, upgrade.upgrade_id]),
    ]
    facts = {"opened": paths, "as": upgrade.initiated_by_email}
    for path in paths:
        try:
            open_view(path, upgrade.initiated_by)
        except PortalError as error:
            detail = f"{upgrade.initiated_by_email} may no longer open {path}. Open it and sign this row."
            return Finding(CheckStatus.UNKNOWN, detail, facts | {"code": error.code})
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            logger.exception("%s could not be rendered", path)
            return Finding(CheckStatus.FAIL, f"This portal failed to render {path}. See its log for the reason.", facts)
    return Finding(CheckStatus.PASS, "This portal's overview, history and this upgrade's page open.", facts)


class OwnRequest(HttpRequest):
    """A request that no client sent. Its host is the portal's own, so that links and commands on the page are valid."""

    def get_host(self) -> str:
        return urlsplit(settings.PORTAL_URL).netloc or "localhost"


def open_view(path: str, user: User) -> None:
    """Render the page at this path as this user. *Raises* what its view raises."""
    request = OwnRequest()
    request.method, request.path, request.path_info, request.user = "GET", path, path, user
    request.htmx = HtmxDetails(request)  # type: ignore[attr-defined]
    request.resolver_match = found = resolve(path)
    found.func(request, *found.args, **found.kwargs)
