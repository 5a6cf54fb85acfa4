"""The sandbox clock: wall time multiplied by a speed factor. It can be advanced and frozen."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Clock:
    """A clock in seconds since the epoch that never runs backwards.

    `anchor_wall` and `anchor_sandbox` are the same moment on both clocks. Every change of speed sets a new anchor.
    """

    speed: float = 1.0
    frozen: bool = False
    anchor_wall: float = 0.0
    anchor_sandbox: float = 0.0
    wall: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        if not self.anchor_wall:
            self.anchor_wall = self.anchor_sandbox = self.wall()

    def now(self) -> float:
        """Return the sandbox time in seconds since the epoch, rounded to the millisecond.

        AWS times have no finer resolution. With more digits, a time would change on its way through a client and back.
        """
        passed = 0.0 if self.frozen else max(0.0, self.wall() - self.anchor_wall) * self.speed
        return round(self.anchor_sandbox + passed, 3)

    def advance(self, seconds: float) -> None:
        """Move the clock forward by this many sandbox seconds."""
        self._set_anchor()
        self.anchor_sandbox += seconds

    def set_speed(self, speed: float) -> None:
        """Run sandbox time `speed` times as fast as wall time from now on."""
        self._set_anchor()
        self.speed = speed

    def set_frozen(self, frozen: bool) -> None:
        """Freeze the clock, or resume from where it was frozen."""
        self._set_anchor()
        self.frozen = frozen

    def _set_anchor(self) -> None:
        self.anchor_sandbox = self.now()
        self.anchor_wall = self.wall()

    def reset(self) -> None:
        """Return to wall time at speed 1."""
        self.speed, self.frozen = 1.0, False
        self.anchor_wall = self.anchor_sandbox = self.wall()

    def dump(self) -> dict[str, Any]:
        """Return the state for the snapshot."""
        return {key: value for key, value in asdict(self).items() if key != "wall"}

    def load(self, state: dict[str, Any]) -> None:
        """Restore the state from a snapshot. Wall time that passed while the server was down counts as well."""
        self.speed = float(state["speed"])
        self.frozen = bool(state["frozen"])
        self.anchor_wall = float(state["anchor_wall"])
        self.anchor_sandbox = float(state["anchor_sandbox"])
