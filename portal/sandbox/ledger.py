"""The append-only ledger of all write calls, used as the oracle of the fault tests.

With a data folder, each entry is one JSON line that is on disk before the reply is sent.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILTERS = ("account", "region", "action", "cluster", "service", "error", "effect")


class Ledger:
    """The entries, in the order in which the calls took effect. `path` is None to keep them in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []

    @property
    def sequence(self) -> int:
        return int(self.entries[-1]["sequence"]) if self.entries else 0

    def append(self, entry: dict[str, Any]) -> None:
        """Number the entry and append it to the file."""
        numbered = {"sequence": self.sequence + 1, **entry}
        self.entries.append(numbered)
        if self.path:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(numbered) + "\n")

    def select(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        """Return the entries whose fields equal the filters. `since` keeps those with a greater sequence number."""
        since = int(filters.get("since", 0))
        wanted = {name: value for name, value in filters.items() if name != "since"}
        return [
            entry
            for entry in self.entries
            if entry["sequence"] > since and all(as_text(entry.get(name)) == value for name, value in wanted.items())
        ]

    def restore(self, sequence: int) -> None:
        """Read the file up to the snapshot's sequence number. Later lines are calls whose effect the crash undid."""
        if self.path is None or not self.path.exists():
            return
        entries = [json.loads(line) for line in whole_lines(self.path)]
        self.entries = [entry for entry in entries if entry["sequence"] <= sequence]
        self._rewrite()

    def clear(self) -> None:
        self.entries = []
        self._rewrite()

    def _rewrite(self) -> None:
        if self.path:
            temporary = self.path.with_suffix(".new")
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in self.entries), encoding="utf-8")
            os.replace(temporary, self.path)


def whole_lines(path: Path) -> Iterable[str]:
    """Return the file's complete lines, without a last one that a kill cut off."""
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def as_text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
