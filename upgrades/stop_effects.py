"""What a stop does to a rollout, and about how long that takes: one of three ways back, or nothing.

While old tasks of a blue/green, linear or canary deployment run, only the traffic moves. Otherwise ECS starts tasks of the
earlier version again. After a deployment has succeeded, only a new deployment undoes it (commands/rollback.py).
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/blue-green-deployment-how-it-works.html
"""

from collections.abc import Mapping
from dataclasses import dataclass

from portal.aws.ecs import ROLLING
from upgrades.estimates import format_seconds
from upgrades.models import Rollout, Upgrade
from upgrades.states import ROLLED_OUT, Outcome, Phase

# From this stage on, ECS stops the earlier tasks.
LAST_STAGE = "CLEAN_UP"


@dataclass(frozen=True)
class StopEffect:
    """What a stop does to one rollout. `sentence` follows the service's name."""

    rollout: Rollout
    sentence: str


def describe_stops(upgrade: Upgrade, usual_seconds: Mapping[str, float]) -> list[StopEffect]:
    """Return the effect on each rollout, in rolling order. `usual_seconds`: a rollout's usual duration, by service."""
    return [StopEffect(rollout, describe_stop(rollout, usual_seconds)) for rollout in upgrade.rollouts.all()]


def describe_stop(rollout: Rollout, usual_seconds: Mapping[str, float]) -> str:
    """Return what a stop does to the rollout now. `usual_seconds`: a rollout's usual duration, by service."""
    if rollout.is_terminal:
        return describe_ended(rollout, usual_seconds)
    if rollout.phase in (Phase.WAITING, Phase.DUE):
        return "It has not started: it will not be touched."
    if rollout.outcome == Outcome.ROLLING_BACK:
        return "ECS is already rolling it back."
    earlier = rollout.from_version or "the earlier version"
    if is_traffic_only(rollout):
        return describe_traffic_back(rollout)
    sentence = f"ECS rolls it back and starts tasks of {earlier} again. {estimate(rollout, usual_seconds)}"
    if rollout.lifecycle_stage == LAST_STAGE:
        sentence += (
            " The earlier tasks are already being stopped. If ECS refuses the stop, use Roll back after the end."
        )
    return sentence


def is_traffic_only(rollout: Rollout) -> bool:
    """Return whether the tasks of the earlier version still run beside the new ones, so that only traffic must move."""
    has_both = rollout.strategy not in (None, ROLLING) and rollout.lifecycle_stage not in (None, LAST_STAGE)
    return has_both and rollout.source_running > 0


def describe_traffic_back(rollout: Rollout) -> str:
    """Return what a stop does while earlier tasks run beside the new ones. Both may be of the same version."""
    earlier = f"earlier tasks ({rollout.from_version})" if rollout.from_version else "earlier tasks"
    # ECS reports no weights for a service without a load balancer.
    if rollout.production_weight or rollout.traffic_shifted_at:
        return f"ECS moves the traffic back within seconds: the {earlier} still run."
    return f"ECS rolls it back within seconds: no production traffic has moved, and the {earlier} still run."


def describe_ended(rollout: Rollout, usual_seconds: Mapping[str, float]) -> str:
    """Return the effect on an ended rollout: none. If it rolled out, Roll back is the way back."""
    label = rollout.get_status_display().lower()
    if rollout.outcome not in ROLLED_OUT:
        return f"It has ended ({label}): it will not change."
    minutes = (rollout.configuration or {}).get("bake_minutes")
    bake = f" It bakes for {minutes} min again." if rollout.strategy not in (None, ROLLING) and minutes else ""
    return (
        f"It has ended ({label}): a stop does not change it. Roll back starts a new deployment once the upgrade has "
        f"ended. {estimate(rollout, usual_seconds)}{bake}"
    )


def estimate(rollout: Rollout, usual_seconds: Mapping[str, float]) -> str:
    """Return about how long starting tasks of the earlier version takes, as a sentence."""
    usual = usual_seconds.get(rollout.service)
    if usual is None:
        return "There is no past rollout to estimate the time from."
    return f"Rollouts of this service usually take {format_seconds(round(usual))}."
