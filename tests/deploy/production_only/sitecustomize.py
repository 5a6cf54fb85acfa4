"""Refuses to import a package that requirements.txt does not lock. Python runs this first if PYTHONPATH has the folder."""

import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import packages_distributions
from pathlib import Path
from types import ModuleType

LOCK = Path(__file__).resolve().parents[3] / "requirements.txt"


class Blocker(MetaPathFinder):
    def __init__(self) -> None:
        locked = set(re.findall(r"^([\w.-]+)==", LOCK.read_text(), re.M))
        self.blocked = {
            module
            for module, distributions in packages_distributions().items()
            if not {re.sub(r"[-_.]+", "-", name.lower()) for name in distributions} & locked
        }

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self.blocked:
            raise ModuleNotFoundError(f"{fullname} is not a package of production", name=fullname)
        return None


sys.meta_path.insert(0, Blocker())
