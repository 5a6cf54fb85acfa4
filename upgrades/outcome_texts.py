"""Texts about an ended rollout, by outcome: its state (the page's card), and what to do first after a failure.

The labels of the outcomes are in states.py.
"""

from dataclasses import dataclass

from upgrades.states import Outcome


@dataclass(frozen=True)
class OutcomeTexts:
    """Texts of one outcome.

    `state`: what the service runs, and whether anything still happens.
    `hint`: what to do first. Empty if the outcome is no failure.
    """

    state: str
    hint: str = ""


# Every outcome except plain success.
OUTCOME_TEXTS = {
    Outcome.COMPLETED_EARLY: OutcomeTexts(
        "ECS ended the rollout by early success. Old tasks may still run, and ECS watches neither breaker nor alarms.",
    ),
    Outcome.WAITING_FOR_DECISION: OutcomeTexts(
        "ECS paused the rollout until a person decides, or until the pause ends.",
    ),
    Outcome.HOOK_RUNNING: OutcomeTexts(
        "ECS waits for the answer of a lifecycle hook.",
    ),
    Outcome.BAKING: OutcomeTexts(
        "The new version serves all traffic. The earlier tasks still run, so ECS can roll back within seconds.",
    ),
    Outcome.ROLLING_BACK: OutcomeTexts(
        "ECS is restoring the earlier version.",
    ),
    Outcome.NO_CHANGE: OutcomeTexts(
        "No task was replaced. To replace the tasks anyway, force a new deployment.",
    ),
    Outcome.DISABLED: OutcomeTexts(
        "Nothing was changed. Scale the service up in ECS if it should run.",
    ),
    Outcome.ROLLED_BACK: OutcomeTexts(
        "ECS restored the earlier tasks. The service runs the version that it ran before.",
        hint="Find out why its new tasks stopped and fix the cause.",
    ),
    Outcome.STOPPED_BY_USER: OutcomeTexts(
        "ECS stopped the rollout as requested. It restores the earlier tasks if an earlier deployment had completed.",
        hint="It was stopped by a person. Retry when ready.",
    ),
    Outcome.ROLLBACK_FAILED: OutcomeTexts(
        "ECS could not restore the earlier tasks and will not try again. Too few may be running.",
        hint="ECS could not restore its earlier tasks. Check in ECS what runs and how many tasks.",
    ),
    Outcome.CIRCUIT_BREAKER: OutcomeTexts(
        "ECS gave up and did not roll back. The failed deployment stays the newest, beside any earlier tasks "
        "that still run. Automatic rollback is off, or there is nothing to roll back to.",
        hint="Find out why its new tasks stopped. ECS may still be trying to run them.",
    ),
    Outcome.ALARM: OutcomeTexts(
        "ECS stopped the rollout and did not roll back. New and earlier tasks may run side by side. "
        "Automatic rollback is off, or there is nothing to roll back to.",
        hint="Check the alarm. The new tasks may still be running.",
    ),
    Outcome.SUPERSEDED: OutcomeTexts(
        "The service runs, or is rolling to, a later deployment. The portal no longer watches it.",
        hint="Something else was deployed since. Find out by whom, and which version should run.",
    ),
    Outcome.CHANGED_SINCE: OutcomeTexts(
        "The portal changed nothing. The service keeps running the later deployment.",
        hint="Something else was deployed since. Find out by whom, and which version should run.",
    ),
    Outcome.STOPPED: OutcomeTexts(
        "ECS stopped the rollout and had nothing to roll back to. New and earlier tasks may run side by side.",
        hint="It was stopped outside the portal. Check in ECS what it runs.",
    ),
    Outcome.ACCESS_DENIED: OutcomeTexts(
        "Nothing was changed in ECS. The service runs the version that it ran before.",
        hint="Ask staff to grant the portal's AWS role the permission that the error names.",
    ),
    Outcome.REFUSED: OutcomeTexts(
        "Nothing was changed in ECS. The service runs the version that it ran before.",
        hint="Read what ECS refused and fix the cause.",
    ),
    Outcome.SERVICE_MISSING: OutcomeTexts(
        "The service does not exist in ECS, so there is nothing to watch.",
        hint="Create the service in ECS, or ask staff to correct the stack and cluster in the admin.",
    ),
    Outcome.NOT_SUPPORTED: OutcomeTexts(
        "Nothing was changed in ECS. The service runs what its own controller deployed.",
        hint="Deploy it with its own controller, or switch it to the ECS controller before you try again.",
    ),
    Outcome.TIMED_OUT: OutcomeTexts(
        "The portal stopped watching, and the service can be upgraded again. ECS may still be rolling it.",
        hint="ECS may still be rolling it. Check in ECS whether it is.",
    ),
    Outcome.NOT_ATTEMPTED: OutcomeTexts(
        "The service runs the version that it ran before.",
        hint="Nothing was changed.",
    ),
}
# After these outcomes it is not known what the service runs, or who else is changing it.
UNCLEAR = frozenset(
    {Outcome.TIMED_OUT, Outcome.ROLLBACK_FAILED, Outcome.SUPERSEDED, Outcome.CHANGED_SINCE, Outcome.STOPPED}
)
