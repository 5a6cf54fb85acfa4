"""The portal's own views, opened as the person who started the upgrade would see them: by the release that validates it,
with its templates, against its database. What the web answers to others is asked by probes.py.
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


def open_own_views(upgrade: Upgrade) -> Finding:
    """Overview, history and the upgrade's own page. Costs what these pages cost."""
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
            detail = f"{upgrade.initiated_by_email} may no longer open {path}: open it and sign this row."
            return Finding(CheckStatus.UNKNOWN, detail, facts | {"code": error.code})
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            logger.exception("%s does not open", path)
            return Finding(CheckStatus.FAIL, f"{path} of this portal does not open; the log says why.", facts)
    return Finding(CheckStatus.PASS, "This portal's overview, history and this upgrade's page open.", facts)


class OwnRequest(HttpRequest):
    """A request that nobody sent: its host is the portal's own, as links and commands on the page name it."""

    def get_host(self) -> str:
        return urlsplit(settings.PORTAL_URL).netloc or "localhost"


def open_view(path: str, user: User) -> None:
    """Render the page at this address for this person. Raises what its view raises."""
    request = OwnRequest()
    request.method, request.path, request.path_info, request.user = "GET", path, path, user
    request.htmx = HtmxDetails(request)  # type: ignore[attr-defined]
    request.resolver_match = found = resolve(path)
    found.func(request, *found.args, **found.kwargs)
