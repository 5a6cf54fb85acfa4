"""The sandbox's clock: wall time by a speed factor, with an offset that may be turned, and a switch to stand still."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Clock:
    """Seconds since the epoch, as the sandbox sees them; it never runs backwards.

    `anchor_wall` and `anchor_sandbox` are one moment on both clocks; every change of speed sets a new anchor.
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
        """The sandbox's time in seconds since the epoch, to the millisecond.

        AWS's times have no finer parts; with them a time would not survive its way through a client and back.
        """
        passed = 0.0 if self.frozen else max(0.0, self.wall() - self.anchor_wall) * self.speed
        return round(self.anchor_sandbox + passed, 3)

    def advance(self, seconds: float) -> None:
        """Turn the clock on by so many sandbox seconds."""
        self._set_anchor()
        self.anchor_sandbox += seconds

    def set_speed(self, speed: float) -> None:
        """Let sandbox time run `speed` times as fast as wall time from now on."""
        self._set_anchor()
        self.speed = speed

    def set_frozen(self, frozen: bool) -> None:
        """Let the clock stand still, or go on from where it stood."""
        self._set_anchor()
        self.frozen = frozen

    def _set_anchor(self) -> None:
        self.anchor_sandbox = self.now()
        self.anchor_wall = self.wall()

    def reset(self) -> None:
        """Back to wall time, at its own speed."""
        self.speed, self.frozen = 1.0, False
        self.anchor_wall = self.anchor_sandbox = self.wall()

    def dump(self) -> dict[str, Any]:
        """What the snapshot keeps."""
        return {key: value for key, value in asdict(self).items() if key != "wall"}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a snapshot; wall time that passed while the server was down counts as well."""
        self.speed = float(state["speed"])
        self.frozen = bool(state["frozen"])
        self.anchor_wall = float(state["anchor_wall"])
        self.anchor_sandbox = float(state["anchor_sandbox"])
