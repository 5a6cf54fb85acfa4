"""Saves the state of the local AWS in one JSON file that is replaced atomically, so that a crash leaves a valid file.

Logs and metrics of tasks are computed from the services' history and so are restored with it. Not saved: lines and points
written to moto's CloudWatch, and the throttling buckets.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import moto

from portal.sandbox import moto_state
from portal.sandbox.clock import Clock
from portal.sandbox.engine import Engine
from portal.sandbox.faults import Faults
from portal.sandbox.ledger import Ledger
from portal.sandbox.platform_switches import Switches
from portal.sandbox.records import Service, ServiceKey, dump_service, load_service
from portal.sandbox.sts import Identity

FORMAT = 1


class BadSnapshotError(Exception):
    """The file is not a snapshot of this version. The message says why."""


class Snapshot:
    """The snapshot file of one data folder, and the parts it is made of."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        engine: Engine,
        identity: Identity,
        faults: Faults,
        platform: Switches,
        ledger: Ledger,
    ) -> None:
        self.path = path
        self.clock = clock
        self.engine = engine
        self.identity = identity
        self.faults = faults
        self.platform = platform
        self.ledger = ledger
        self._services: dict[ServiceKey, tuple[Service, int, str]] = {}
        self._places = ""

    def save(self, *, moto_changed: bool = True) -> None:
        """Write the whole state to a temporary file and move it into place.

        Only changed services are serialized again, and moto's part only if it may have changed.
        """
        if moto_changed or not self._places:
            self._places = json.dumps([[place, moto_state.dump_place(place)] for place in moto_state.places()])
        state = {
            "format": FORMAT,
            "moto": moto.__version__,
            "clock": self.clock.dump(),
            "identity": self.identity.dump(),
            "faults": self.faults.dump(),
            "platform": self.platform.dump(),
            "ledger_sequence": self.ledger.sequence,
        }
        services = ",".join(self._service_text(service) for service in self.engine.services.values())
        text = f'{json.dumps(state)[:-1]}, "services": [{services}], "places": {self._places}}}'
        temporary = self.path.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, self.path)

    def _service_text(self, service: Service) -> str:
        known = self._services.get(service.key)
        if known is None or known[0] is not service or known[1] != service.changes:
            known = (service, service.changes, dump_service(service))
            self._services[service.key] = known
        return known[2]

    def restore(self) -> bool:
        """Restore the state. Returns False if there is none or it is unusable; then the file is renamed to `*.bad`."""
        if not self.path.exists():
            return False
        try:
            self._load(read_state(self.path))
        except (BadSnapshotError, KeyError, TypeError, ValueError, AttributeError) as error:
            aside = self.path.with_suffix(".bad")
            os.replace(self.path, aside)
            reason = error if isinstance(error, BadSnapshotError) else f"a field is missing or wrong ({error!r})"
            print(f"local AWS: {self.path} cannot be used: {reason}.", file=sys.stderr)
            print(f"local AWS: it was renamed to {aside}; starting with an empty state.", file=sys.stderr)
            for part in (self.engine, self.identity, self.faults, self.platform):
                part.clear()
            moto_state.reset()
            return False
        return True

    def _load(self, state: dict[str, Any]) -> None:
        self.engine.services.update({service.key: service for service in map(load_service, state["services"])})
        for place, content in state["places"]:
            moto_state.load_place((place[0], place[1]), content)
        self.faults.load(state["faults"])
        self.platform.load(state.get("platform", []))
        self.identity.load(state["identity"])
        self.ledger.restore(int(state["ledger_sequence"]))
        self.clock.load(state["clock"])


def read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadSnapshotError("it is not JSON") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise BadSnapshotError("it was not written by this version of the local AWS")
    if state.get("moto") != moto.__version__:
        raise BadSnapshotError(f"it was written with moto {state.get('moto')}, this is moto {moto.__version__}")
    return state
