"""The short form of what ECS reports about a service, for pages. The record, the API and the evidence keep ECS's own words.

The sentences are those of https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html
"""

import re

from django.utils.text import capfirst

from upgrades.models import Rollout, UpgradeEvent
from upgrades.states import EventKind, Outcome

# `(deployment ecs-svc/1) deployment completed.`
DEPLOYMENT = re.compile(r"\(deployment (ecs-svc/\w+)\) deployment ")
# The outcomes of a rollout after which another deployment's end in its events is that of the rollback.
AFTER_ROLLBACK = (Outcome.ROLLING_BACK, Outcome.ROLLED_BACK, Outcome.ROLLBACK_FAILED, Outcome.STOPPED_BY_USER)
# What ECS names in brackets, with the preposition or colon before it.
NAMES = (
    r":?(?: (?:in|for))?\s*"
    r"\((?:service|deployment|task|taskSet|target-group|instance|container-instance|port|ecs-svc/)[^()]*\)"
)
# What is left out or said more briefly, in this order.
SHORTER = [
    (re.compile(pattern, re.DOTALL), shorter)
    for pattern, shorter in (
        (r"\s*For more information, see the Troubleshooting section.*$", ""),
        (r"^service \([^()]*\) ", ""),
        (r"^.* is (?:un|not )healthy in .*? due to ", "1 task unhealthy: "),
        (
            r"matching (?:\(container-instance [^()]*\)|container-instance(?: [0-9a-f-]{8,})?)",
            "matching container instance",
        ),
        (r"because \(taskSet [^()]*\)", "because a task set"),
        (NAMES, ""),
        (r"(?: (?:to|for) deployment)? ecs-svc/\w+", ""),
        (r"\b1 ((?:running |pending )?(?:task|target))s\b", r"1 \1"),
        (r"\. Amazon ECS replaced (\d+) (tasks?) due to an unhealthy status", r", \1 unhealthy \2 replaced"),
        (r"(?: with| due to|:) \((?:error|reason) (.+)\)", r": \1"),
        (r"\. Reason: ", ": "),
        (r"^\s*(?:(?:has|was|is) )?", ""),
        # Its count comes first: `started 2 tasks` becomes `2 tasks started`.
        (
            r"^(started|stopped|deregistered|registered) (\d+) (?:running )?((?:pending )?(?:task|target)s?)\b",
            r"\2 \3 \1",
        ),
        (r"^begun draining connections on (\d+ tasks?)", r"\1 draining connections"),
    )
]


def shorten_sentence(message: str) -> str:
    """Return an ECS event message without the names in it, and its counts first.

    >>> shorten_sentence("(service a) has started 2 tasks: (task 0f) (task 1e).")
    '2 tasks started'
    >>> shorten_sentence("(service a) (deployment ecs-svc/1) deployment failed: tasks failed to start.")
    'Deployment failed: tasks failed to start'
    """
    text = message
    for pattern, shorter in SHORTER:
        text = pattern.sub(shorter, text)
    return capfirst(text.strip(" .:")) or message


def shorten_event(event: UpgradeEvent) -> str:
    """Return the short form of an entry of a timeline. The entries of the portal itself are short."""
    return shorten_of_rollout(event.message, event.rollout) if event.kind == EventKind.ECS else event.message


def shorten_of_rollout(message: str, rollout: Rollout | None) -> str:
    """Return the short form of an ECS event message of a rollout. It says whose end it is, if not the rollout's own."""
    text, named = shorten_sentence(message), DEPLOYMENT.search(message)
    if rollout is None or rollout.deployment_id is None or named is None or named[1] == rollout.deployment_id:
        return text
    subject = "Rollback" if rollout.outcome in AFTER_ROLLBACK else "Another deployment"
    return f"{subject}{text.removeprefix('Deployment')}"
