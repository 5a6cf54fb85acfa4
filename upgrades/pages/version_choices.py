"""The versions that the form offers, labelled with when each was pushed, which services have it, and where it runs.

A link may also name a version that is not listed. It is shown as selected, and the plan says whether it is available.
"""

from dataclasses import dataclass

from portal.templatetags.formatting import ago
from upgrades.inventory.catalogue import Catalogue, Version
from upgrades.inventory.images import shorten_digest
from upgrades.inventory.tags import LATEST, choose_best_tag, choose_release
from upgrades.states import PlatformService, inline_label

NAMED_BY_TASK_DEFINITION = "latest (the image that each task definition names)"
OFFERED = 60


@dataclass(frozen=True)
class Option:
    """One entry of the version list. `value` is empty for `latest`, so that the URL stays short."""

    value: str
    label: str
    is_chosen: bool


def version_options(catalogue: Catalogue | None, chosen: str) -> list[Option]:
    """Return `latest`, then the tagged versions, newest first. The chosen version is always included.

    `catalogue` None: nothing could be read.
    """
    labels = {LATEST: describe_latest(catalogue)}
    if catalogue and catalogue.is_available:
        named = [version for version in catalogue.versions if version.has_tag and version.name != LATEST]
        labels |= {version.name: describe_version(version) for version in named[:OFFERED]}
    labels.setdefault(chosen, f"{shorten_digest(chosen)} (not listed)")
    return [Option("" if name == LATEST else name, label, name == chosen) for name, label in labels.items()]


def describe_latest(catalogue: Catalogue | None) -> str:
    """Return the label of `latest`, for example `latest (v9.9.1)`, or with one version per service if they differ."""
    if catalogue is None or not catalogue.is_available:
        return NAMED_BY_TASK_DEFINITION
    named = {service: find_latest(catalogue, service) for service in catalogue.registry.images}
    if len(set(named.values())) == 1 and not catalogue.limited:
        return f"latest ({next(iter(named.values())) or 'no release'})"
    known = [f"{inline_label(service)} {name or 'no release'}" for service, name in named.items()]
    return f"latest ({', '.join(known)})"


def find_latest(catalogue: Catalogue, service: str) -> str | None:
    """Return the tag of the image that resolve() chooses: tagged `latest`, or else the highest release."""
    tagged = [image for image in catalogue.registry.images[service] if image.tags]
    image = next((image for image in tagged if LATEST in image.tags), None)
    if image is not None:
        return choose_best_tag(image.tags)
    chosen = choose_release(tagged)
    return chosen[1] if chosen else None


def describe_version(version: Version) -> str:
    """Return the label of a version, for example `v9.9.1, pushed 3 d ago, all three, runs: agent service`."""
    parts = [version.name]
    if version.pushed_at:
        parts.append(f"pushed {ago(version.pushed_at)}")
    everywhere = len(version.services) == len(PlatformService.values)
    parts.append("all three" if everywhere else f"only {listed(version.services)}")
    if version.running:
        parts.append(f"runs: {listed(version.running)}")
    return ", ".join(parts)


def listed(services: list[str] | tuple[str, ...]) -> str:
    return " and ".join(inline_label(service) for service in services)
