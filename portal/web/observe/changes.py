"""What changed in a time window: the deployments and upgrades of an organization, which the charts draw as bands.

Each app finds its own; settings.CHANGES names the functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.conf import settings
from django.utils.module_loading import import_string

from portal.models import Organization

# So many of each app are drawn, the newest ones.
MOST = 20


class Result(StrEnum):
    """How a change ended. Each has a pattern of its own in templates/portal/web/observe/_patterns.html."""

    RUNNING = "running"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    STOPPED = "stopped"  # by a person, or by the next change, before it was over

    @property
    def label(self) -> str:
        return self.replace("_", " ").capitalize()


@dataclass(frozen=True)
class Change:
    """One deployment or upgrade. `ended` is None while it goes on. `url`: the page that tells more."""

    result: Result
    title: str
    url: str
    began: datetime
    ended: datetime | None


def find_changes(organization: Organization, since: datetime, until: datetime) -> list[Change]:
    """Return the changes that overlap [since, until]. *Costs* what settings.CHANGES costs, whatever the window."""
    sources: list[Callable[[Organization, datetime, datetime], list[Change]]] = [
        import_string(name) for name in settings.CHANGES
    ]
    return [change for source in sources for change in source(organization, since, until)]
