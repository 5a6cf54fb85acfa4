"""Switches that make parts of a stack's platform unhealthy, set by hand in the demo and by tests.

The resulting responses are in `platform.py`.
"""

from dataclasses import asdict, dataclass
from typing import Any

Json = dict[str, Any]

COMPONENTS = ("policy_engine", "llm_router", "response_processor", "audit_logger", "workflow_engine", "planning_engine")
CONNECTORS = {"postgres": "database", "salesforce": "crm", "slack": "messaging"}
PROVIDERS = {"anthropic": "claude-sonnet-4", "bedrock": "amazon.nova-pro", "openai": "gpt-4o"}
SLOW_SECONDS = 30.0

# The parts and their possible statuses besides `healthy`, which removes the switch.
ANY_SERVICE = ("down", "slow", "not_json", "huge", "redirect", "locked")
STATUSES: dict[str, tuple[str, ...]] = {
    "agent": ("starting", *ANY_SERVICE),
    "orchestrator": ANY_SERVICE,
    "customer-portal": ANY_SERVICE,
    "mcp": ("down",),
    **{f"component/{name}": ("unhealthy",) for name in COMPONENTS},
    **{f"connector/{name}": ("unhealthy", "error") for name in CONNECTORS},
    **{f"provider/{name}": ("degraded", "unhealthy", "unknown", "unchecked", "test_fails") for name in PROVIDERS},
}


class SwitchError(ValueError):
    """An invalid switch. The message names the field."""


@dataclass
class Switch:
    """One unhealthy part of one stack's platform. `seconds` is the delay of `slow`; `message` is the reason to report."""

    stack: str
    part: str
    status: str
    message: str = ""
    seconds: float = SLOW_SECONDS


class Switches:
    """The switches by stack and part. Everything else is healthy."""

    def __init__(self) -> None:
        self._by_part: dict[tuple[str, str], Switch] = {}

    def set(self, body: Json) -> Switch:
        """Set a part's status from JSON; `healthy` removes the switch. Raises SwitchError that names the invalid field."""
        switch = Switch(**checked(body))
        if switch.status == "healthy":
            self._by_part.pop((switch.stack, switch.part), None)
        else:
            self._by_part[switch.stack, switch.part] = switch
        return switch

    def clear(self, stack: str | None = None) -> int:
        """Remove all switches of one stack, or of all stacks, and return the number removed."""
        before = len(self._by_part)
        self._by_part = {key: each for key, each in self._by_part.items() if stack is not None and key[0] != stack}
        return before - len(self._by_part)

    def find(self, stack: str, part: str) -> Switch | None:
        return self._by_part.get((stack, part))

    def dump(self) -> list[Json]:
        return [asdict(self._by_part[key]) for key in sorted(self._by_part)]

    def load(self, state: list[Json]) -> None:
        self._by_part = {(each["stack"], each["part"]): Switch(**each) for each in state}


def checked(body: Json) -> Json:
    """Return the body if it describes a switch. Raises SwitchError otherwise."""
    for name, value in body.items():
        if name not in Switch.__dataclass_fields__:
            raise SwitchError(f"`{name}` is not a known field. Known fields: {', '.join(Switch.__dataclass_fields__)}.")
        if name == "seconds":
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise SwitchError(f"`seconds` must be a number of at least 0, not {value!r}.")
        elif not isinstance(value, str):
            raise SwitchError(f"`{name}` must be a string, not {value!r}.")
    if not body.get("stack"):
        raise SwitchError("`stack` is missing. Each stack has its own platform.")
    part = body.get("part", "")
    if part not in STATUSES:
        raise SwitchError(f"`part` must be one of {', '.join(STATUSES)}, not {part!r}.")
    known = ("healthy", *STATUSES[part])
    if body.get("status") not in known:
        raise SwitchError(f"`status` of {part} must be one of {', '.join(known)}, not {body.get('status')!r}.")
    return body
