"""The organization model: its properties and validation."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from portal.access import get_role
from portal.aws.credentials import AwsTarget
from portal.models import Membership, Organization, Role, User
from tests.conftest import Cast

ROLE_ARN = "arn:aws:iam::333333333333:role/portal"


def organization(**fields: Any) -> Organization:
    return Organization(slug="umbrella", name="Umbrella", **fields)


@pytest.mark.parametrize(
    ("fields", "cluster"),
    [
        ({}, None),
        ({"deployment_stack": "umbrella-prod"}, "umbrella-prod-cluster"),
        ({"deployment_cluster": "shared"}, "shared"),
        ({"deployment_cluster": "shared", "deployment_stack": "umbrella-prod"}, "shared"),
    ],
)
def test_the_cluster_is_given_or_named_after_the_stack(fields: dict[str, str], cluster: str | None) -> None:
    assert organization(**fields).cluster == cluster


def test_without_a_role_the_portal_uses_its_own_credentials() -> None:
    assert organization().aws_target == AwsTarget(
        region="eu-central-1", role_arn=None, external_id=None, reader="portal-umbrella", writer="portal-umbrella"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"deployment_role_arn": ROLE_ARN},
        {"deployment_external_id": "alone"},
        {"deployment_role_arn": "arn:aws:iam::333333333333:user/portal", "deployment_external_id": "x1"},
        {"deployment_role_arn": f"{ROLE_ARN}\n", "deployment_external_id": "x1"},
        {"deployment_role_arn": "arn:aws:iam::٣٣٣٣٣٣٣٣٣٣٣٣:role/portal", "deployment_external_id": "x1"},
        {"deployment_region": "eu-central"},
        {"deployment_region": "mars-north-1"},
        {"deployment_region": "aws-global"},
        {"deployment_region": "eusc-de-east-1\n"},
        {"deployment_role_arn": "arn:aws-mars:iam::333333333333:role/portal", "deployment_external_id": "x1"},
        {"deployment_region": "eu-central-1.evil.example/"},
        {"deployment_cluster": "a/b"},
        {"deployment_cluster": "shared\n"},
        {"deployment_cluster": "größer"},
        {"deployment_stack": "-starts-with-a-hyphen"},
        {"deployment_stack": "under_score"},
    ],
)
def test_values_that_aws_would_refuse_are_refused(db: None, fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        organization(**fields).full_clean()


@pytest.mark.parametrize(
    "fields",
    [
        {"deployment_role_arn": ROLE_ARN, "deployment_external_id": "x1"},
        {"deployment_role_arn": "arn:aws-us-gov:iam::333333333333:role/a/b", "deployment_external_id": "x1"},
        {"deployment_role_arn": "arn:aws-eusc:iam::333333333333:role/portal", "deployment_external_id": "x1"},
        {"deployment_region": "us-gov-west-1"},
        {"deployment_region": "eusc-de-east-1"},
        {"deployment_region": "cn-northwest-1"},
        {"deployment_region": "us-isob-east-1"},
        {"deployment_region": "ap-southeast-2"},
        {"deployment_cluster": "Shared_cluster-1"},
    ],
)
def test_values_that_aws_accepts_are_accepted(db: None, fields: dict[str, str]) -> None:
    organization(**fields).full_clean()


def test_a_person_is_a_member_once(cast: Cast) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Membership.objects.create(organization=cast.acme, user=cast.operator, role=Role.ADMIN)


def test_the_database_knows_the_roles(cast: Cast) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Membership.objects.create(organization=cast.acme, user=cast.stranger, role="owner")


def test_addresses_are_unique_in_any_case(cast: Cast) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create(email=cast.operator.email.upper())


def test_each_role_includes_the_ones_before_it() -> None:
    assert Role.ADMIN.includes(Role.OPERATOR)
    assert Role.OPERATOR.includes(Role.OPERATOR)
    assert not Role.VIEWER.includes(Role.OPERATOR)


def test_a_suspended_organization_has_no_members(cast: Cast) -> None:
    cast.acme.is_active = False
    cast.acme.save(update_fields=["is_active"])

    assert get_role(cast.operator, cast.acme) is None
    assert cast.acme not in Organization.objects.visible_to(cast.operator)


def test_people_see_only_their_own_organizations(cast: Cast) -> None:
    seen = {
        person.email.partition("@")[0]: {each.slug for each in Organization.objects.visible_to(person)}
        for person in (cast.viewer, cast.outsider, cast.consultant, cast.stranger, cast.staff)
    }

    assert seen == {
        "viewer": {"acme"},
        "outsider": {"globex"},
        "consultant": {"acme", "globex"},
        "stranger": set(),
        "staff": set(),
    }
