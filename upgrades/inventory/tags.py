"""Tags of images: which one people know an image by, which ones look like a release, and which one a typo meant.

Pure functions.
"""

import re
from collections.abc import Iterable

from portal.aws.ecr import Image

LATEST = "latest"
# A version-like tag: v9.9.1, 9.9, 9.9.1-rc.2.
VERSION_LIKE = re.compile(r"(?P<numbers>v[0-9]+(\.[0-9]+)*|[0-9]+(\.[0-9]+)+)(?P<rest>[._+-].*)?")
# https://semver.org/#spec-item-9, restricted to the words that people use: v9.9.1-feature-x and v9.9.1-a1b2c3d are builds.
PRE_RELEASE = re.compile(r"-(alpha|beta|dev|m|pre|preview|rc)[.-]?[0-9]*(\.[0-9]+)*", re.I)
# A first number from here on is a year or a build's date: 2026.11.28.1432, 20261128.1.
FIRST_YEAR, LAST_YEAR = 1900, 2199
# By how many numbers a version has. A fourth one is a build's, so 9.9.1.1432 is less well known than v9.9.1.
SPECIFIC = {1: 2, 2: 3, 3: 5}
MORE_NUMBERS = 4


def choose_best_tag(tags: Iterable[str]) -> str | None:
    """Return the tag that people know an image by: the most exact version, else any name, with `latest` last.

    >>> choose_best_tag(["latest", "v9", "v9.9.1", "v9.9.1-rc.2"])
    'v9.9.1'
    >>> choose_best_tag(["2026.11.28.1432", "v9.9.1"]), choose_best_tag(["a1b2c3d", "latest"]), choose_best_tag([])
    ('v9.9.1', 'a1b2c3d', None)
    """
    return max(tags, key=rank_tag, default=None)


def rank_tag(tag: str) -> tuple[int, bool, str]:
    """Return a sort key by how specific a tag is: versions by their numbers, then build stamps, names and `latest`."""
    version = VERSION_LIKE.fullmatch(tag)
    if version is None:
        return (-1 if tag == LATEST else 0), False, tag
    numbers = parse_numbers(version)
    rank = 1 if numbers[0] >= FIRST_YEAR else SPECIFIC.get(len(numbers), MORE_NUMBERS)
    return rank, not version["rest"], tag


def rank_release(tag: str) -> tuple[int, list[int]] | None:
    """Return a sort key among releases; None for a branch, pull request, commit or build stamp.

    v9.9.1 ranks before v9.9 and v9, then come dates such as 2026.11.2, then pre-releases.

    >>> [rank_release(tag) for tag in ("v9.9.1", "9.9", "v9.9.1-rc.2", "v9.9.1-a1b2c3d", "main", "2026.11.28.1432")]
    [(3, [9, 9, 1]), (2, [9, 9]), (0, [9, 9, 1]), None, None, None]
    """
    version = VERSION_LIKE.fullmatch(tag)
    if version is None:
        return None
    numbers = parse_numbers(version)
    if len(numbers) > 3 or numbers[0] > LAST_YEAR:
        return None
    if version["rest"]:
        return (0, numbers) if PRE_RELEASE.fullmatch(version["rest"]) else None
    if numbers[0] >= FIRST_YEAR:
        return 1, numbers
    return (3 if len(numbers) == 3 else 2), numbers


def is_pre_release(tag: str) -> bool:
    rank = rank_release(tag)
    return rank is not None and rank[0] == 0


def choose_release(images: Iterable[Image]) -> tuple[Image, str] | None:
    """Return the image with the highest release and that tag; a pre-release only if there is no release.

    The highest, not the one pushed last: a correction of an older line, pushed today, must not become `latest`.
    """
    found = [
        (rank, image.pushed_at.timestamp() if image.pushed_at else 0.0, image.digest, tag, image)
        for image in images
        for tag in image.tags
        if (rank := rank_release(tag)) is not None
    ]
    if not found:
        return None
    *_, tag, image = max(found, key=lambda each: each[:4])
    return image, tag


def find_near(version: str, tags: Iterable[str]) -> str | None:
    """Return the tag that was probably meant: another case, with or without `v`, or a longer or shorter version.

    >>> find_near("9.9.1", ["v9.9.0", "v9.9.1"]), find_near("V9.9", ["v9.9.0", "v9.9.1"]), find_near("v8", ["v9.9.1"])
    ('v9.9.1', 'v9.9.1', None)
    """
    wanted, known = fold(version), {tag: fold(tag) for tag in tags}
    same = [tag for tag, folded in known.items() if folded == wanted]
    longer = [tag for tag, folded in known.items() if folded.startswith((f"{wanted}.", f"{wanted}-"))]
    shorter = [tag for tag, folded in known.items() if wanted.startswith((f"{folded}.", f"{folded}-"))]
    for found in (same, longer, shorter):
        if found:
            return max(found, key=lambda tag: (rank_release(tag) or (-1, []), rank_tag(tag)))
    return None


def fold(tag: str) -> str:
    """Return the tag in lower case and without the `v` of a version."""
    return re.sub(r"^v(?=[0-9])", "", tag.lower())


def is_earlier(version: str, than: str) -> bool:
    """Compare two versions by their numbers only. Names that are not versions are never earlier, nor are build stamps.

    >>> is_earlier("v9.8.2", "v9.10.0"), is_earlier("v9.9.0", "v9.9.0-rc.1"), is_earlier("a1b2c3d", "v9.9.0")
    (True, False, False)
    >>> is_earlier("v9.9.0", "2026.11.28.1432")
    False
    """
    found, other = VERSION_LIKE.fullmatch(version), VERSION_LIKE.fullmatch(than)
    if found is None or other is None:
        return False
    mine, theirs = parse_numbers(found), parse_numbers(other)
    is_comparable = (mine[0] >= FIRST_YEAR) == (theirs[0] >= FIRST_YEAR)
    return is_comparable and mine < theirs


def parse_numbers(version: re.Match[str]) -> list[int]:
    return [int(number) for number in version["numbers"].lstrip("v").split(".")]
