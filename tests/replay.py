"""Replays AWS's replies with one member changed, as botocore's model of the service allows.

Replaces only botocore's transport. Each reply is made once by the local AWS, over HTTP, and answered from memory afterwards
through botocore's own `before-call` event, which its Stubber uses as well. A changed read takes less than a millisecond.
"""

import json
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import botocore
from botocore.model import ListShape, MapShape, OperationModel, Shape, StringShape, StructureShape

from portal.aws import credentials
from portal.aws.errors import AwsUnavailable

READS = ("Describe", "List", "Get", "Filter", "Assume")
# The parameters that follow the clock. Two reads that differ only in them have the same reply.
MOVING = ("createdAt", "startTime", "endTime")

# The name of a missing member in a ServicesReading: it is only shown.
LEFT_OUT = re.compile(r"(?<=-service': )'\w+'")

Read = Callable[[], Any]


@dataclass(frozen=True)
class Change:
    """A member of an action's reply that is left out (`empty` is None) or empty, in every entry of a list."""

    action: str
    path: tuple[str, ...]
    empty: Any = None

    def __str__(self) -> str:
        how = "without" if self.empty is None else f"with {self.empty!r} as"
        return f"{self.action} {how} {'.'.join(self.path)}"

    def apply(self, value: Any, path: tuple[str, ...] | None = None) -> None:
        name, *rest = self.path if path is None else path
        for entry in value if isinstance(value, list) else [value]:
            if rest:
                self.apply(entry.get(name, {}), tuple(rest))
            elif self.empty is not None:
                entry[name] = type(self.empty)()
            else:
                entry.pop(name, None)


class Replay:
    """The recorded replies. They are replayed while `change` is set, those of its action changed; otherwise recorded."""

    def __init__(self) -> None:
        self.change: Change | None = None
        self.asked: set[str] = set()
        self.is_kept = False
        self._recorded: dict[tuple[str, str], tuple[Any, bytes]] = {}
        self._shapes: dict[str, Shape] = {}

    def listen(self, session: Any) -> None:
        session.register("before-call", self._answer)
        session.register("after-call", self._record)

    def forget(self) -> None:
        self._recorded.clear()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record all replies, and no others from then on. Writes too are then answered from memory, not made again."""
        self.forget()
        self.is_kept = False
        yield
        self.is_kept = True

    def _answer(self, model: OperationModel, params: dict[str, Any], context: Any, **_: Any) -> Any:
        self.asked.add(model.name)
        context["asked"] = asked = (model.name, identify(params))
        if not self._is_replayed(model.name) or asked not in self._recorded:
            return None
        http, kept = self._recorded[asked]
        reply = pickle.loads(kept)  # noqa: S301 # made by _record(); quicker than a deep copy
        if self.change and self._is_changed(model.name):
            self.change.apply(reply)
        return http, reply

    def _is_replayed(self, action: str) -> bool:
        # A replayed call is not signed, so it never assumes a role.
        is_read = (self.is_kept or action.startswith(READS)) and not self._is_changed("AssumeRole")
        return self.change is not None and (is_read or self._is_changed(action))

    def _is_changed(self, action: str) -> bool:
        return self.change is not None and self.change.action == action

    def _record(self, http_response: Any, parsed: Any, model: OperationModel, context: Any, **_: Any) -> None:
        is_recorded = self.change is not None and context["asked"] in self._recorded
        if self.is_kept or is_recorded or http_response.status_code >= 300 or model.output_shape is None:
            return
        self._recorded[context["asked"]] = http_response, pickle.dumps(parsed)
        self._shapes[model.name] = model.output_shape
        if self.change and self._is_changed(model.name):
            self.change.apply(parsed)

    def actions(self, call: Callable[[], Any]) -> set[str]:
        """Make a call and return the actions that it asked AWS for. The replies of others cannot matter to it."""
        self.asked.clear()
        call()
        return set(self.asked)

    def changes(self, action: str) -> list[Change]:
        """Return the changes of every member that is not required: left out, and empty where its type allows it.

        A member that no recorded reply has is set to empty only.
        """
        found: dict[tuple[tuple[str, ...], str], Change] = {}
        for (recorded, _), (_, kept) in self._recorded.items():
            if recorded == action:
                for path, empty in optional_members(pickle.loads(kept), self._shapes[action], ()):  # noqa: S301 # as above
                    found[path, repr(empty)] = Change(action, path, empty)
        return list(found.values())

    def distinct(self, action: str, parse: Callable[[Any], Any]) -> Iterator[Change]:
        """Yield the changes whose replies `parse` reads differently from each other and from the complete one."""
        (complete,) = [kept for (recorded, _), (_, kept) in self._recorded.items() if recorded == action]
        seen = [repr(parse(pickle.loads(complete)))]  # noqa: S301 # as above
        for change in self.changes(action):
            reply = pickle.loads(complete)  # noqa: S301 # as above
            change.apply(reply)
            reading = repr(read_or_error(partial(parse, reply)))
            if reading not in seen:
                seen.append(reading)
                yield change

    def wrong_errors(self, action: str, reads: list[Read]) -> dict[str, str]:
        """Return the errors of these reads by change. An incomplete reply is the only one that a read may raise."""
        errors: dict[str, str] = {}
        for change in self.changes(action):
            self.change = change
            for read in reads:
                found = read_or_error(read)
                is_allowed = isinstance(found, AwsUnavailable) and found.code == "IncompleteReply"
                if isinstance(found, Exception) and not is_allowed:
                    errors[str(change)] = repr(found)
        self.change = None
        return errors

    def different(self, action: str, reads: list[Read]) -> Iterator[Change]:
        """Yield the changes that these reads notice, each with another result. The change lasts until the next one.

        The portal knows AWS's replies by its reads only. Two changes that they read alike are alike to pages and engine.
        """
        self.change = None
        seen = [repr([read_or_error(read) for read in reads])]
        try:
            for change in self.changes(action):
                self.change = change
                reading = LEFT_OUT.sub("", repr([read_or_error(read) for read in reads]))
                if reading not in seen:
                    seen.append(reading)
                    yield change
        finally:
            self.change = None


def identify(params: dict[str, Any]) -> str:
    """Return what a call asks for. Calls of other protocols than JSON are alike."""
    try:
        asked = json.loads(params["body"])
    except (TypeError, ValueError):
        return ""
    return json.dumps({name: value for name, value in asked.items() if name not in MOVING}, sort_keys=True)


def optional_members(value: Any, shape: Shape, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path of each member that is not required, once for each change: None for left out, or the empty value."""
    if isinstance(shape, ListShape):
        for each in value:
            yield from optional_members(each, shape.member, path)
    elif isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            inner = (*path, name)
            if name not in shape.required_members:
                if name in value:
                    yield inner, None
                empty = find_empty(member)
                if empty is not None and value.get(name) != empty:
                    yield inner, empty
            if name in value:
                yield from optional_members(value[name], member, inner)


def find_empty(shape: Shape) -> Any:
    """Return the empty value of a type, None for a type without one (numbers, booleans, times)."""
    empties: list[tuple[type[Shape], Any]] = [(ListShape, []), (MapShape, {}), (StructureShape, {}), (StringShape, "")]
    return next((empty for kind, empty in empties if isinstance(shape, kind)), None)


def read_or_error(read: Read) -> Any:
    """Return what the portal reads from the reply, or the error that it raises."""
    try:
        return read()
    except Exception as error:
        return error


@contextmanager
def replaying() -> Iterator[Replay]:
    """Let the portal's AWS clients answer from recorded replies."""
    replay = Replay()
    credentials._target_sessions.clear()  # clients listen to the events that were registered before they were made
    botocore.register_initializer(replay.listen)
    try:
        yield replay
    finally:
        botocore.unregister_initializer(replay.listen)
        credentials._target_sessions.clear()
