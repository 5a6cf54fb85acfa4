"""Which versions can be told: those that run and those that past rollouts recorded. Says that it is limited.

The registry is not read, so no other version can be chosen than the one that the task definition names: `latest`.
"""

from dataclasses import dataclass
from functools import partial

from portal.aws import ecs
from portal.aws.errors import AwsError, AwsUnavailable
from portal.connection import within_time
from portal.errors import PortalError
from portal.models import Organization
from upgrades.images import LATEST, RegistryLimited, VersionMissing, Wanted, look_up, own_image
from upgrades.models import Rollout
from upgrades.platform import read_platform, service_name, task_definition
from upgrades.states import PlatformService, in_a_sentence

# A trigger waits for these reads of ECS and ECR.
RESOLVE_SECONDS = 4
LIMITED = (
    "Version selection is limited: these are the versions that run now and those of past upgrades. "
    "An upgrade rolls `latest`, the image that the service's task definition names."
)
KNOWN_VERSIONS = 50


@dataclass(frozen=True)
class Versions:
    """`running` maps each platform service to its version, None where that is not known."""

    versions: list[str]
    running: dict[str, str | None]
    message: str


def resolve(organization: Organization, services: list[str], version: str) -> dict[str, Wanted]:
    """What each service is to run, found in its registry now: version, image and digest.

    A service that is missing or disabled keeps the version alone (it is not rolled, or looked up when its turn comes).
    `latest` is never refused: where the registry is limited it is what the task definition names, and where AWS does not
    answer it is found when the rollout starts. Raises PortalError 400 `version_unavailable` naming the services that
    cannot have another version, 502 `registry_unavailable`. Waits RESOLVE_SECONDS at most.
    """
    try:
        question = partial(ask_registries, organization, services, version)
        answers = within_time(question, "ecr:DescribeImages", seconds=RESOLVE_SECONDS)
    except AwsError as error:
        if version == LATEST:
            return {service: Wanted(LATEST) for service in services}
        raise registry_unavailable(version, error) from error
    refuse_unavailable(version, answers)
    return {service: answer for service, answer in answers.items() if isinstance(answer, Wanted)}


Answer = Wanted | RegistryLimited | VersionMissing | AwsUnavailable


def ask_registries(organization: Organization, services: list[str], version: str) -> dict[str, Answer]:
    """Two or three AWS calls for each service. Raises AwsError where ECS cannot be asked. Runs without the database."""
    names = {service: service_name(organization, service) for service in services}
    target, cluster = organization.aws_target, str(organization.cluster)
    found = ecs.describe_services(target, cluster, list(names.values())).services
    answers: dict[str, Answer] = {}
    for service, name in names.items():
        live = found.get(name)
        answer: Answer = Wanted(version)
        if live is not None:
            image = own_image(task_definition(organization, live.task_definition).images, service)
            try:
                answer = look_up(target, image, service, version)
            except (RegistryLimited, VersionMissing, AwsUnavailable) as error:
                answer = error
        if version == LATEST and isinstance(answer, RegistryLimited):
            answer = Wanted(None)
        elif not isinstance(answer, Wanted) and (version == LATEST or (live and live.desired_count == 0)):
            answer = Wanted(version)
        answers[service] = answer
    return answers


def refuse_unavailable(version: str, answers: dict[str, Answer]) -> None:
    lacking = {
        service: answer for service, answer in answers.items() if isinstance(answer, RegistryLimited | VersionMissing)
    }
    if lacking:
        reasons = "; ".join(f"{in_a_sentence(service)}: {reason}" for service, reason in lacking.items())
        raise PortalError(
            "version_unavailable",
            f"Nothing was started: version {version} cannot be rolled ({reasons}). The versions page, and GET "
            "/api/v1/deployments/versions, list what each service has.",
            400,
        )
    for answer in answers.values():
        if isinstance(answer, AwsUnavailable):
            raise registry_unavailable(version, answer) from answer


def registry_unavailable(version: str, error: AwsError) -> PortalError:
    return PortalError(
        "registry_unavailable",
        f"Nothing was started: whether {version} exists could not be read ({error.action}: {error.code}). "
        "Try again in a minute.",
        502,
    )


def known_versions(organization: Organization) -> Versions:
    """One query, and ECS as read_platform asks it. Running versions first, then past ones, newest first."""
    reading = read_platform(organization)
    running: dict[str, str | None] = dict.fromkeys(PlatformService.values)
    message = LIMITED
    if reading is None:
        message += " The organization has neither cluster nor stack, so nothing runs."
    else:
        running |= {row.service: row.version for row in reading.services}
        if reading.error:
            message += f" What runs now could not be read ({reading.error})."
    past = (
        Rollout.objects.filter(organization=organization, to_version__isnull=False)
        .order_by("-completed_at", "-id")
        .values_list("to_version", flat=True)[: 10 * KNOWN_VERSIONS]
    )
    versions = dict.fromkeys(version for version in [*running.values(), *past] if version)
    return Versions(list(versions)[:KNOWN_VERSIONS], running, message)
