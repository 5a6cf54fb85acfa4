"""What a person looks at first after a failure, by its outcome: on the page (next_steps.py) and in what is announced."""

from upgrades.states import Outcome

# What comes before anything else, by why a service failed.
LOOK = {
    Outcome.ROLLED_BACK: "Read why its new tasks stopped, and mend that.",
    Outcome.STOPPED_BY_USER: "Settle why it was stopped.",
    Outcome.CIRCUIT_BREAKER: "Read why its new tasks stopped: they are still what ECS tries to run.",
    Outcome.ALARM: "Look at the alarm: the new tasks may still run.",
    Outcome.REFUSED: "Mend what ECS refused.",
    Outcome.ACCESS_DENIED: "Let staff give the portal's AWS role the permission that the error names.",
    Outcome.SERVICE_MISSING: "Create the service in ECS, or let staff correct stack and cluster in the admin.",
    Outcome.NOT_SUPPORTED: "Deploy it with its own controller, or let ECS deploy it before you try again.",
    Outcome.NOT_ATTEMPTED: "Nothing of it was changed.",
    Outcome.TIMED_OUT: "ECS may still be rolling it: see there whether it is.",
    Outcome.ROLLBACK_FAILED: "ECS could not restore its earlier tasks: see there what runs, and how many.",
    Outcome.SUPERSEDED: "Somebody else deployed it: ask who, and whether theirs is what should run.",
    Outcome.CHANGED_SINCE: "Somebody else deployed it: ask who, and whether theirs is what should run.",
    Outcome.STOPPED: "Something outside the portal stopped it: see in ECS what it runs.",
}
# After these nobody here knows what the service runs, or who else is at work on it.
UNCLEAR = frozenset(
    {Outcome.TIMED_OUT, Outcome.ROLLBACK_FAILED, Outcome.SUPERSEDED, Outcome.CHANGED_SINCE, Outcome.STOPPED}
)
