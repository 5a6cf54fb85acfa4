"""The IAM policies of a site: of the role in an organization's account, whom that role trusts, and of the portal itself.

permissions.py limits each session further. docs/deploy/iam holds them as files, with the names of an example.
"""

from typing import Any

from portal.aws.partitions import find_partition
from portal.aws.permissions import ANY, PERMISSIONS, VERSION, build_statements

Policy = dict[str, Any]

# The calls of Celery's broker. https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/sqs.html
QUEUE_ACTIONS = [
    "sqs:SendMessage",
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes",
]
# Without SQS_QUEUE_URL, Celery finds the queue by its name and creates it.
QUEUE_BY_NAME_ACTIONS = ["sqs:CreateQueue", "sqs:ListQueues"]


def build_role_policy(*, account: str, region: str, cluster: str, roles: list[str]) -> Policy:
    """Return what the portal may do in an organization's account: every call that it makes, in this cluster only.

    `roles` are the execution and task roles of the cluster's task definitions, which the portal hands to ECS.
    """
    found = find_partition(region)
    names = {
        "region": region,
        "account": account,
        "cluster": cluster,
        "service": ANY,
        "log_group": ANY,
        "registry": account,
        "repository": ANY,
    }
    used = [permission for permission in PERMISSIONS if permission.uses]
    return as_policy(*build_statements(used, found.name if found else "aws", names, roles))


def build_trust_policy(*, principal: str, external_id: str) -> Policy:
    """Return whom the role trusts: the portal's own role or user, if it gives the organization's external id.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/confused-deputy.html
    """
    return as_policy(
        {
            "Effect": "Allow",
            "Principal": {"AWS": principal},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
        }
    )


def build_portal_policy(*, roles: list[str], queue: str | None = None) -> Policy:
    """Return what the portal's own role may do: assume the organizations' roles and, with SQS, use its queue (an ARN)."""
    assume = {"Effect": "Allow", "Action": ["sts:AssumeRole"], "Resource": roles}
    use = {"Effect": "Allow", "Action": QUEUE_ACTIONS, "Resource": [queue]}
    return as_policy(assume, *([use] if queue else []))


def build_queue_by_name_policy(queue: str) -> Policy:
    """Return what a portal without SQS_QUEUE_URL may do with SQS: also find and create its queue (an ARN)."""
    use = {"Effect": "Allow", "Action": [*QUEUE_ACTIONS, QUEUE_BY_NAME_ACTIONS[0]], "Resource": [queue]}
    find = {"Effect": "Allow", "Action": [QUEUE_BY_NAME_ACTIONS[1]], "Resource": [ANY]}  # IAM has no resource for it
    return as_policy(use, find)


def as_policy(*statements: Policy) -> Policy:
    return {"Version": VERSION, "Statement": list(statements)}
