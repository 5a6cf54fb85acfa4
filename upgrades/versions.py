"""Which versions can be told: those that run and those that past rollouts recorded. Says that it is limited.

The registry is not read, so no other version can be chosen than the one that the task definition names: `latest`.
"""

from dataclasses import dataclass

from portal.models import Organization
from upgrades.models import Rollout
from upgrades.platform import read_platform
from upgrades.states import PlatformService

LATEST = "latest"
LIMITED = (
    "Version selection is limited: these are the versions that run now and those of past upgrades. "
    "An upgrade rolls `latest`, the image that the service's task definition names."
)
KNOWN_VERSIONS = 50


@dataclass(frozen=True)
class Versions:
    """`running` maps each platform service to its version, None where that is not known."""

    versions: list[str]
    running: dict[str, str | None]
    message: str


def known_versions(organization: Organization) -> Versions:
    """One query, and ECS as read_platform asks it. Running versions first, then past ones, newest first."""
    reading = read_platform(organization)
    running: dict[str, str | None] = dict.fromkeys(PlatformService.values)
    message = LIMITED
    if reading is None:
        message += " The organization has neither cluster nor stack, so nothing runs."
    else:
        running |= {row.service: row.version for row in reading.services}
        if reading.error:
            message += f" What runs now could not be read ({reading.error})."
    past = (
        Rollout.objects.filter(organization=organization, to_version__isnull=False)
        .order_by("-completed_at", "-id")
        .values_list("to_version", flat=True)[: 10 * KNOWN_VERSIONS]
    )
    versions = dict.fromkeys(version for version in [*running.values(), *past] if version)
    return Versions(list(versions)[:KNOWN_VERSIONS], running, message)
