"""Image references: registry, account, region, repository, tag and digest, and which tag is the most specific."""

import pytest

from portal.aws.ecr import Repository, ecr_repository, parse_image
from upgrades.inventory.images import own_container
from upgrades.inventory.tags import choose_best_tag

DIGEST = "sha256:" + 64 * "a"
ECR = "111111111111.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.mark.parametrize(
    ("reference", "repository", "tag", "digest"),
    [
        (f"{ECR}/axonflow-agent:v9.9.0", f"{ECR}/axonflow-agent", "v9.9.0", None),
        (f"{ECR}/axonflow-agent@{DIGEST}", f"{ECR}/axonflow-agent", None, DIGEST),
        (f"{ECR}/axonflow-agent:v9.9.0@{DIGEST}", f"{ECR}/axonflow-agent", "v9.9.0", DIGEST),
        (f"{ECR}/team/axonflow/agent", f"{ECR}/team/axonflow/agent", None, None),
        ("localhost:5000/agent", "localhost:5000/agent", None, None),
        ("localhost:5000/agent:v1", "localhost:5000/agent", "v1", None),
        ("agent:v1", "agent", "v1", None),
        ("agent", "agent", None, None),
    ],
)
def test_a_reference_is_split_into_its_parts(
    reference: str, repository: str, tag: str | None, digest: str | None
) -> None:
    parsed = parse_image(reference)

    assert (parsed.repository, parsed.tag, parsed.digest) == (repository, tag, digest)


@pytest.mark.parametrize(
    ("host", "account", "region"),
    [
        (ECR, "111111111111", "eu-central-1"),
        ("222222222222.dkr.ecr.us-gov-west-1.amazonaws.com", "222222222222", "us-gov-west-1"),
        ("222222222222.dkr.ecr-fips.us-east-1.amazonaws.com", "222222222222", "us-east-1"),
        ("333333333333.dkr.ecr.cn-north-1.amazonaws.com.cn", "333333333333", "cn-north-1"),
        ("444444444444.dkr-ecr.eu-west-1.on.aws", "444444444444", "eu-west-1"),
        ("555555555555.dkr.ecr.eusc-de-east-1.amazonaws.eu", "555555555555", "eusc-de-east-1"),
        ("555555555555.dkr-ecr.eusc-de-east-1.on.amazonwebservices.eu", "555555555555", "eusc-de-east-1"),
        ("666666666666.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "666666666666", "cn-north-1"),
        ("777777777777.dkr.ecr.us-iso-east-1.c2s.ic.gov", "777777777777", "us-iso-east-1"),
        ("777777777777.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "777777777777", "us-isob-east-1"),
        ("888888888888.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "888888888888", "eu-isoe-west-1"),
    ],
)
def test_account_and_region_come_from_the_host(host: str, account: str, region: str) -> None:
    repository = ecr_repository(parse_image(f"{host}/team/agent:v1"))

    assert repository == Repository(account, region, "team/agent")


@pytest.mark.parametrize(
    "reference",
    [
        "ghcr.io/getaxonflow/axonflow-agent:v9.9.0",
        "public.ecr.aws/axonflow/agent:v1",
        "agent:v1",
        ECR,
        f"{ECR}/",
        f"{ECR}.evil.example/agent:v1",
        f"evil.example/{ECR}/agent:v1",
        "111111111111.dkr.ecr.eusc-de-east-1.amazonaws.com/agent",
        "111111111111.dkr.ecr.eu-central-1.amazonaws.eu/agent",
        "111111111111.dkr.ecr.mars-north-1.amazonaws.com/agent",
        "11111111111.dkr.ecr.eu-central-1.amazonaws.com/agent",
        "111111111111.dkr.ecr.eu-central-1.amazonaws.com:443/agent",
        "x111111111111.dkr.ecr.eu-central-1.amazonaws.com/agent",
    ],
)
def test_any_other_registry_is_not_ecr(reference: str) -> None:
    assert ecr_repository(parse_image(reference)) is None


def test_a_pinned_image_has_the_documented_form() -> None:
    assert parse_image(f"{ECR}/agent:v1").pinned_to(DIGEST) == f"{ECR}/agent@{DIGEST}"
    assert parse_image(f"{ECR}/agent:v1@sha256:{64 * 'b'}").pinned_to(DIGEST) == f"{ECR}/agent@{DIGEST}"


@pytest.mark.parametrize(
    ("tags", "best"),
    [
        (["latest", "v9.9.1"], "v9.9.1"),
        (["v9", "v9.9", "v9.9.1"], "v9.9.1"),
        (["v9.9.1", "v9.9.1-rc.2"], "v9.9.1"),
        (["9.9.1", "stable"], "9.9.1"),
        (["a1b2c3d", "latest"], "a1b2c3d"),
        (["1234567", "v1"], "v1"),
        (["2026.11.28.1432", "v9.9.1"], "v9.9.1"),
        (["20261128.1432", "v9", "latest"], "v9"),
        (["9.9.1.1432", "v9.9.1"], "v9.9.1"),
        (["2026.11.28.1432", "main"], "2026.11.28.1432"),
        (["latest"], "latest"),
        ([], None),
    ],
)
def test_the_best_tag_is_the_most_specific(tags: list[str], best: str | None) -> None:
    assert choose_best_tag(tags) == choose_best_tag(reversed(tags)) == best


@pytest.mark.parametrize(
    ("names", "service", "own"),
    [
        (["agent"], "agent", "agent"),
        (["proxy", "agent"], "agent", "agent"),
        (["proxy", "axonflow-agent"], "agent", "axonflow-agent"),
        (["portal", "proxy"], "customer-portal", "portal"),
        (["portal", "proxy"], "agent", None),
        (["anything"], "agent", "anything"),
        (["one", "two"], "agent", None),
        ([], "agent", None),
    ],
)
def test_the_services_own_container_is_found(names: list[str], service: str, own: str | None) -> None:
    assert own_container(dict.fromkeys(names, "image"), service) == own
