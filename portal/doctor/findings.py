"""What a check finds: a level, what does not hold, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """A problem makes `doctor` fail. A warning does not."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What was found, and what to do about it: a sentence each."""

    level: Level
    what: str
    advice: str = ""


def problem(what: str, advice: str) -> Finding:
    return Finding(Level.PROBLEM, what, advice)


def warning(what: str, advice: str) -> Finding:
    return Finding(Level.WARNING, what, advice)
