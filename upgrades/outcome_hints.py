"""Hints on what to do first after a failure, by outcome: for the page (next_steps.py) and for notifications."""

from upgrades.states import Outcome

# The first thing to do, by why the service failed.
HINTS = {
    Outcome.ROLLED_BACK: "Find out why its new tasks stopped and fix the cause.",
    Outcome.STOPPED_BY_USER: "It was stopped by a person. Retry when ready.",
    Outcome.CIRCUIT_BREAKER: "Find out why its new tasks stopped. ECS may still be trying to run them.",
    Outcome.ALARM: "Check the alarm. The new tasks may still be running.",
    Outcome.REFUSED: "Read what ECS refused and fix the cause.",
    Outcome.ACCESS_DENIED: "Ask staff to grant the portal's AWS role the permission that the error names.",
    Outcome.SERVICE_MISSING: "Create the service in ECS, or ask staff to correct the stack and cluster in the admin.",
    Outcome.NOT_SUPPORTED: "Deploy it with its own controller, or switch it to the ECS controller before you try again.",
    Outcome.NOT_ATTEMPTED: "Nothing was changed.",
    Outcome.TIMED_OUT: "ECS may still be rolling it. Check in ECS whether it is.",
    Outcome.ROLLBACK_FAILED: "ECS could not restore its earlier tasks. Check in ECS what runs and how many tasks.",
    Outcome.SUPERSEDED: "Something else was deployed since. Find out by whom, and which version should run.",
    Outcome.CHANGED_SINCE: "Something else was deployed since. Find out by whom, and which version should run.",
    Outcome.STOPPED: "It was stopped outside the portal. Check in ECS what it runs.",
}
# After these outcomes it is not known what the service runs, or who else is changing it.
UNCLEAR = frozenset(
    {Outcome.TIMED_OUT, Outcome.ROLLBACK_FAILED, Outcome.SUPERSEDED, Outcome.CHANGED_SINCE, Outcome.STOPPED}
)
