"""The versions that the form offers, in words: when each was pushed, which services have it, where it runs.

A version that is not listed may still be named by a link: it is shown as chosen, and the plan says whether it can be had.
"""

from dataclasses import dataclass

from portal.templatetags.words import ago
from upgrades.inventory.catalogue import Catalogue, Version
from upgrades.inventory.images import LATEST, best_tag, short
from upgrades.states import PlatformService, in_a_sentence

NAMED_BY_TASK_DEFINITION = "latest: the image that each task definition names"
OFFERED = 60


@dataclass(frozen=True)
class Option:
    """`value` is empty for `latest`, so that the address stays short."""

    value: str
    label: str
    is_chosen: bool


def version_options(catalogue: Catalogue | None, chosen: str) -> list[Option]:
    """`latest` first, then those with a tag, newest first; the chosen one is always among them.

    `catalogue` None: nothing could be read.
    """
    labels = {LATEST: latest_in_words(catalogue)}
    if catalogue and catalogue.is_available:
        named = [version for version in catalogue.versions if version.has_tag and version.name != LATEST]
        labels |= {version.name: in_words(version) for version in named[:OFFERED]}
    labels.setdefault(chosen, f"{short(chosen)}, not listed here")
    return [Option("" if name == LATEST else name, label, name == chosen) for name, label in labels.items()]


def latest_in_words(catalogue: Catalogue | None) -> str:
    """`latest (v9.9.1)`; where the services differ, what it is for each."""
    if catalogue is None or not catalogue.is_available:
        return NAMED_BY_TASK_DEFINITION
    named = {service: latest_of(catalogue, service) for service in catalogue.registry.images}
    if len(set(named.values())) == 1 and not catalogue.limited:
        return f"latest ({next(iter(named.values())) or 'no image'})"
    known = [f"{in_a_sentence(service)} {name or 'no image'}" for service, name in named.items()]
    return f"latest ({', '.join(known)})"


def latest_of(catalogue: Catalogue, service: str) -> str | None:
    """What resolve() finds: the image tagged `latest`, else the newest that has a tag."""
    tagged = [image for image in catalogue.registry.images[service] if image.tags]
    image = next((image for image in tagged if LATEST in image.tags), tagged[0] if tagged else None)
    return best_tag(image.tags) if image else None


def in_words(version: Version) -> str:
    """`v9.9.1, pushed 3 d ago, all three, runs: agent service`."""
    parts = [version.name]
    if version.pushed_at:
        parts.append(f"pushed {ago(version.pushed_at)}")
    everywhere = len(version.services) == len(PlatformService.values)
    parts.append("all three" if everywhere else f"only {listed(version.services)}")
    if version.running:
        parts.append(f"runs: {listed(version.running)}")
    return ", ".join(parts)


def listed(services: list[str] | tuple[str, ...]) -> str:
    return " and ".join(in_a_sentence(service) for service in services)
