"""Demo data in the local AWS: Acme Robotics in the portal's own account, Globex reached by an assumed role.

Globex's orchestrator is deployed BLUE_GREEN with an approval pause, and its customer portal BLUE_GREEN without one.
"""

from typing import Any

from portal.sandbox import moto_state
from portal.sandbox.moto_state import ImageSeed
from portal.sandbox.scheduler import PACE
from portal.sandbox.seed import seed
from portal.sandbox.server import Sandbox

GLOBEX_ROLE = "arn:aws:iam::222222222222:role/portal-upgrades"
GLOBEX_EXTERNAL_ID = "globex-demo-external-id"

STACKS = (
    ("acme-prod", "111111111111", "eu-central-1"),
    ("globex-prod", "222222222222", "us-east-1"),
)

VERSIONS = (
    *("v9.4.0", "v9.4.1", "v9.4.2", "v9.5.0", "v9.5.1", "v9.5.2", "v9.5.3", "v9.6.0", "v9.6.1", "v9.6.2"),
    *("v9.7.0", "v9.7.1", "v9.7.2", "v9.7.3", "v9.8.0", "v9.8.1", "v9.8.2", "v9.8.3", "v9.9.0", "v9.9.1"),
)
# A release that did not change a service was not built for it.
NOT_BUILT = {
    "axonflow-agent": ("v9.5.3", "v9.7.3"),
    "axonflow-orchestrator": ("v9.4.2", "v9.6.2", "v9.8.3"),
    "axonflow-customer-portal": ("v9.4.1", "v9.5.1", "v9.5.2", "v9.7.1", "v9.8.1"),
}
# The image to deploy in the demo. The tag `crash` exits soon after its start; tags not listed here cannot be pulled.
AGENT_REPOSITORY = "demo-agent"
AGENT_IMAGES = (("crash",), ("v1.0.0",), ("v1.1.0",), ("v1.2.0",), ("v1.3.0", "latest"))
NEWEST_PUSHED_DAYS_AGO, DAYS_BETWEEN_RELEASES = 3, 9

SERVICES: tuple[dict[str, Any], ...] = (
    {"part": "agent", "desired_count": 4, "cpu": "1024", "memory": "2048", "version": "v9.9.0"},
    {"part": "orchestrator", "desired_count": 3, "cpu": "1024", "memory": "2048", "version": "v9.9.0"},
    {"part": "customer-portal", "desired_count": 2, "cpu": "512", "memory": "1024", "version": "v9.8.2"},
)

# Globex shows the other strategies. Acme's upgrades stay rolling and end within a minute.
BLUE_GREEN = {
    "strategy": "BLUE_GREEN",
    "bakeTimeInMinutes": 5,
    "alarms": {"alarmNames": ["globex-prod-5xx"], "enable": True, "rollback": True},
}
APPROVAL = {
    "targetType": "PAUSE",
    "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT"],
    "timeoutConfiguration": {"timeoutInMinutes": 60, "action": "ROLLBACK"},
}
STRATEGIES: dict[tuple[str, str], dict[str, Any]] = {
    ("globex-prod", "orchestrator"): {**BLUE_GREEN, "lifecycleHooks": [APPROVAL]},
    ("globex-prod", "customer-portal"): BLUE_GREEN,
}


def seed_demo(sandbox: Sandbox) -> None:
    """Seed both stacks and their ECR repositories, with all services in a steady state."""
    sandbox.identity.register(GLOBEX_ROLE, GLOBEX_EXTERNAL_ID)
    for stack, account, region in STACKS:
        put_images(sandbox, account, region)
        seed(
            sandbox,
            {
                "account": account,
                "region": region,
                "cluster": f"{stack}-cluster",
                "services": [service_seed(stack, account, region, each) for each in SERVICES],
            },
        )


def put_images(sandbox: Sandbox, account: str, region: str) -> None:
    """Put about twenty versions of each service, the newest also tagged `latest`, and the images of the demo agent."""
    now = sandbox.clock.now()
    for number, agent_tags in enumerate(reversed(AGENT_IMAGES)):
        pushed_at = now - (NEWEST_PUSHED_DAYS_AGO + number * DAYS_BETWEEN_RELEASES) * 86400
        moto_state.put_image(account, region, ImageSeed(AGENT_REPOSITORY, agent_tags, pushed_at))
    for repository, missing in NOT_BUILT.items():
        for number, version in enumerate(reversed(VERSIONS)):
            if version in missing:
                continue
            days_ago = NEWEST_PUSHED_DAYS_AGO + number * DAYS_BETWEEN_RELEASES
            tags = (version, "latest") if version == VERSIONS[-1] else (version,)
            moto_state.put_image(account, region, ImageSeed(repository, tags, now - days_ago * 86400))


def shorten_bake(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with the bake that suits the pace: whole minutes, and at least one."""
    minutes = configuration.get("bakeTimeInMinutes")
    return {**configuration, "bakeTimeInMinutes": max(1, round(minutes * PACE.tick))} if minutes else configuration


def load_balancer(stack: str, account: str, region: str, part: str) -> dict[str, Any]:
    """Return a load balancer with two target groups, between which ECS shifts the traffic of a service."""
    balancing = f"arn:aws:elasticloadbalancing:{region}:{account}"
    listener = f"{balancing}:listener-rule/app/{stack}/50dc6c495c0c9188"
    return {
        "targetGroupArn": f"{balancing}:targetgroup/{stack}-{part}-1/73e2d6bc24d8a067",
        "containerName": part,
        "containerPort": 8080,
        "advancedConfiguration": {
            "alternateTargetGroupArn": f"{balancing}:targetgroup/{stack}-{part}-2/8a4f1c0e95b7d263",
            "productionListenerRule": f"{listener}/f2f7dc8efc522ab2/{part}-live",
            "testListenerRule": f"{listener}/0467ef3c8400ae65/{part}-test",
            "roleArn": f"arn:aws:iam::{account}:role/{stack}-load-balancing",
        },
    }


def service_seed(stack: str, account: str, region: str, service: dict[str, Any]) -> dict[str, Any]:
    part = service["part"]
    registry = f"{account}.dkr.ecr.{region}.amazonaws.com"
    secret = f"arn:aws:secretsmanager:{region}:{account}:secret:{stack}/database-url-Ab12Cd"
    return {
        "name": f"{stack}-{part}-service",
        "family": f"{stack}-{part}",
        "container": part,
        "image": f"{registry}/axonflow-{part}:{service['version']}",
        "desired_count": service["desired_count"],
        "deployment_configuration": shorten_bake(STRATEGIES.get((stack, part), {})),
        "load_balancers": [load_balancer(stack, account, region, part)] if (stack, part) in STRATEGIES else [],
        "cpu": service["cpu"],
        "memory": service["memory"],
        "environment": {"STACK": stack, "AWS_REGION": region, "LOG_LEVEL": "info", "DEPLOYMENT_MODE": "saas"},
        "secrets": {"DATABASE_URL": secret},
        "tags": {"stack": stack, "managed-by": "cloudformation"},
        "age_seconds": 12 * 86400,
    }
