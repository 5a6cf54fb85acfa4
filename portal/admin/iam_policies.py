"""The IAM policies of one organization, filled in for staff to copy into AWS."""

import json
from dataclasses import dataclass
from typing import Any

from portal.aws.deadline import call_with_deadline
from portal.aws.errors import AwsError
from portal.aws.partitions import find_partition
from portal.aws.policies import build_portal_policy, build_role_policy, build_trust_policy
from portal.aws.sts import find_principal, own_arn
from portal.models import Organization

NO_CLUSTER = "Neither cluster nor stack is set. Fill in one of them first: the policy names the cluster."
NO_PRINCIPAL = (
    "AWS did not say who the portal is, so the trust policy names an example. Replace it with the portal's role."
)
FROM_SESSION = (
    "AWS names the portal's role without its path. Check its ARN in IAM: if it has a path, as role/ecs/portal has, put in "
    "that ARN. Otherwise IAM refuses this policy."
)
NO_ROLES = (
    "The roles of agents are not set, so any role of the account that ECS tasks may use can be passed. Replace it with the "
    "execution and task roles of the cluster's task definitions."
)
ROLES = (
    "Add the execution and task roles of the platform's task definitions to those that may be passed (iam:PassRole)."
)
SECONDS = 4


@dataclass(frozen=True)
class Document:
    """A policy as JSON, where it belongs, and what staff must do about it."""

    title: str
    text: str
    notes: tuple[str, ...] = ()


def build_documents(organization: Organization) -> list[Document]:
    """Return the policies of the role to assume, or of the portal's own role if none is set. *Costs* one call to AWS.

    Returns none if the organization has no cluster.
    """
    if organization.cluster is None:
        return []
    principal, doubts = find_own_principal(organization.deployment_region)
    role, external_id = organization.deployment_role_arn, organization.deployment_external_id
    account = (role or principal).split(":")[4]
    agents = (organization.deployment_execution_role_arn, organization.deployment_task_role_arn)
    passed = sorted({arn for arn in agents if arn})
    policy = build_role_policy(
        account=account,
        region=organization.deployment_region,
        cluster=organization.cluster,
        roles=passed or [f"arn:{role_partition(organization)}:iam::{account}:role/*"],
    )
    title = f"Policy of {role}" if role else f"Policy of the portal's own role, in account {account}"
    documents = [as_document(title, policy, ROLES if passed else NO_ROLES)]
    if role:
        trust = build_trust_policy(principal=principal, external_id=external_id)
        documents += [
            as_document(f"Trust policy of {role}", trust, *doubts),
            as_document(f"Addition to the policy of {principal}", build_portal_policy(roles=[role])),
        ]
    return documents


def find_own_principal(region: str) -> tuple[str, list[str]]:
    """Return the ARN of the portal's own role or user, or an example of one, and what staff must check about it."""
    try:
        arn = call_with_deadline(lambda: own_arn(region), "sts:GetCallerIdentity", seconds=SECONDS)
    except AwsError:
        found = find_partition(region)
        return f"arn:{found.name if found else 'aws'}:iam::111111111111:role/operations-portal", [NO_PRINCIPAL]
    principal = find_principal(arn)
    return principal, [FROM_SESSION] if principal != arn else []


def role_partition(organization: Organization) -> str:
    found = find_partition(organization.deployment_region)
    return found.name if found else "aws"


def as_document(title: str, policy: dict[str, Any], *notes: str) -> Document:
    return Document(title, json.dumps(policy, indent=2), notes)
