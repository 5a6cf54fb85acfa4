"""The short form of what ECS reports about a service, for pages. The record, the API and the evidence keep ECS's own words.

The sentences are those of https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html
"""

import re

from django.utils.text import capfirst

# What ECS names in brackets: the service, the deployment or task set, tasks, target groups, instances.
NAMES = re.compile(
    r"\s*\((?:service|deployment|task|taskSet|target-group|instance|container-instance|port|ecs-svc/)[^()]*\)"
)
DEPLOYMENT_ID = re.compile(r"\s+ecs-svc/\d+")
HINT = re.compile(r"\s*For more information, see the Troubleshooting section.*$", re.DOTALL)
COUNTED = re.compile(
    r"(?:has )?(?P<verb>started|stopped|deregistered|registered|begun draining connections on) (?P<count>\d+) "
    r"(?:(?P<state>running|pending) )?(?P<noun>task|target)s?(?: in)?\.?"
)
VERBS = {"begun draining connections on": "draining connections"}


def shorten_sentence(message: str) -> str:
    """Return an ECS event message without the names in it, and its counts first.

    >>> shorten_sentence("(service a) has started 2 tasks: (task 0f) (task 1e).")
    '2 tasks started'
    >>> shorten_sentence("(service a) (deployment ecs-svc/1) deployment failed: tasks failed to start.")
    'Deployment failed: tasks failed to start'
    """
    text = DEPLOYMENT_ID.sub("", HINT.sub("", NAMES.sub("", message))).strip().rstrip(".: ")
    counted = COUNTED.fullmatch(text)
    if counted:
        return describe_count(counted)
    text = text.removeprefix("has ").removeprefix("was ").removesuffix(" to deployment")
    return capfirst(text) or message


def describe_count(counted: re.Match[str]) -> str:
    count, verb = int(counted["count"]), counted["verb"]
    state = f"{counted['state']} " if counted["state"] == "pending" else ""
    return f"{count} {state}{counted['noun']}{'' if count == 1 else 's'} {VERBS.get(verb, verb)}"
