"""Rollouts of acme on the local AWS: start them, read their verdicts, and deploy beside them."""

from typing import Any

from portal.models import Organization
from tests.conftest import Cast
from tests.local_aws import LocalAws
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Upgrade


def trigger(cast: Cast, service: str = "agent", **options: Any) -> Upgrade:
    return trigger_upgrade(cast.acme, actor=cast.operator, service=service, **{"force_new_deployment": True} | options)


def verdicts(upgrade: Upgrade) -> dict[str, tuple[str, str | None]]:
    return {rollout.service: (rollout.status, rollout.outcome) for rollout in upgrade.rollouts.all()}


def deployments_started(local_aws: LocalAws, organization: Organization) -> int:
    """Count the UpdateService calls in the organization's cluster that started a deployment, by the ledger."""
    calls = local_aws.ledger(action="UpdateService", cluster=organization.cluster, effect=True)
    return sum(1 for call in calls if call["deployment_id"])


def get_service_name(cast: Cast, service: str = "agent") -> str:
    return f"{cast.acme.deployment_stack}-{service}-service"


def deploy_from_outside(local_aws: LocalAws, cast: Cast) -> None:
    local_aws.client().update_service(
        cluster=cast.acme.cluster, service=get_service_name(cast), forceNewDeployment=True
    )


def configure(local_aws: LocalAws, cast: Cast, **configuration: Any) -> None:
    local_aws.client().update_service(
        cluster=cast.acme.cluster, service=get_service_name(cast), deploymentConfiguration=configuration
    )
