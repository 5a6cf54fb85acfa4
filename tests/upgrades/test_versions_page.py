"""The page of versions: which exist, which services have them, what runs where."""

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, seed_images, seed_platform
from tests.local_aws import LocalAws
from tests.upgrades.conftest import SIGNED_IN_QUERIES, make_upgrade, push_untagged
from upgrades.inventory.catalogue import FRESH_SECONDS

SignIn = Callable[[User], Client]

URL = "/o/acme/versions/"
HTMX = {"HX-Request": "true"}


def read(client: Client, url: str = URL) -> str:
    response = client.get(url)
    assert response.status_code == 200
    return html.unescape(" ".join(response.content.decode().split()))


def get_row(text: str, version: str) -> str:
    """Return the row of one version, without its tags."""
    (row,) = [row for row in text.split("<tr")[1:] if f">{version}</span>" in row.partition("</th>")[0]]
    return re.sub(r"<[^>]+>", " ", row.partition("</tr>")[0])


def test_versions_newest_first_with_a_column_for_each_service(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    text = read(client_for(cast.viewer))

    assert text.index(">v9.9.1<") < text.rindex(">v9.9.0<") < text.index(">v9.8.0<")
    for service in ("agent", "orchestrator", "customer-portal"):
        assert registry[f"{service}:v9.9.1"][7:19] in get_row(text, "v9.9.1")
    assert "latest" in get_row(text, "v9.9.1")
    assert get_row(text, "v9.9.0").count("Runs") == 3
    assert "Runs" not in get_row(text, "v9.9.1")
    assert "Amazon ECR" in text


def test_beyond_the_end_leads_back_to_the_newest(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    text = read(client_for(cast.viewer), f"{URL}?skip=50")

    assert f'No more versions. <a href="{URL}">Back to the newest</a>' in text
    assert "No versions yet." not in text


def test_a_version_that_a_service_lacks_is_marked(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_images(local_aws, cast.acme, lacking={"orchestrator": "v9.8.0"})
    seed_platform(local_aws, cast.acme)

    text = read(client_for(cast.viewer))

    assert get_row(text, "v9.8.0").count("missing") == 1
    assert "missing" not in get_row(text, "v9.9.1")


def test_an_unreadable_repository_is_not_called_missing(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    platform.client("ecr").delete_repository(repositoryName="axonflow-orchestrator", force=True)

    text = read(client_for(cast.viewer))

    assert "missing" not in get_row(text, "v9.8.0")
    assert get_row(text, "v9.8.0").count("not known") == 1
    assert "For these services, only" in text
    assert "already running" in get_row(text, "v9.9.0")


def test_each_version_leads_to_its_upgrade(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    seed_images(local_aws, cast.acme, lacking={"orchestrator": "v9.8.0", "customer-portal": "v9.9.0"})
    seed_platform(local_aws, cast.acme)

    text = read(client_for(cast.operator))

    assert 'href="/o/acme/upgrades/new?service=all&version=v9.9.1"' in text
    assert 'href="/o/acme/upgrades/new?version=v9.8.0"' in text  # two services have it, so a person chooses
    assert "already running" in get_row(text, "v9.9.0")


def test_the_link_opens_the_form_with_the_version(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    text = read(client_for(cast.operator), "/o/acme/upgrades/new?service=agent&version=v9.9.1")

    assert 'value="v9.9.1"' in text
    assert re.search(r"v9\.9\.0</span> → <span class=\"mono\">v9\.9\.1</span>, every task replaced", text)


def test_images_without_a_tag_are_folded_away(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    digest = push_untagged(platform)

    text = read(client_for(cast.viewer))

    assert "1 untagged image" in text
    assert f"version={digest.replace(':', '%3A')}" in text


def test_a_limited_registry_shows_its_reason(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    make_upgrade(cast.acme, by=cast.operator).rollouts.update(to_version="v9.8.0")

    text = read(client_for(cast.viewer))

    assert "Orchestrator: Amazon ECR has no repository axonflow-orchestrator in eu-central-1." in text
    assert get_row(text, "v9.9.0").count("Runs") == 3
    assert "Runs" not in get_row(text, "v9.8.0")
    assert 'Upgrade<span class="visually-hidden"> to' not in text


def test_a_deleted_image_is_reported(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    platform.client("ecr").batch_delete_image(repositoryName="axonflow-agent", imageIds=[{"imageTag": "v9.9.0"}])

    text = read(client_for(cast.viewer))

    assert text.count("Not in the registry") == 1
    assert "The image of the agent service was deleted from its repository" in text


def test_an_old_reading_is_shown_with_its_age(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn, time_machine: Any
) -> None:
    client = client_for(cast.viewer)
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    client.get(URL)
    platform.fault("throttle", action="DescribeImages")
    time_machine.shift(FRESH_SECONDS)

    text = read(client)

    assert "Amazon ECR could not be read. The list shows the state of" in text
    assert "(12:00:00 UTC)" in text
    assert "ecr:DescribeImages: ThrottlingException" in text
    assert ">v9.9.1<" in text


def test_if_aws_never_answered_nothing_is_invented(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    platform.fault("server_error", action="*", account="111111111111")

    text = read(client_for(cast.viewer))

    assert "what runs now is not known" in text
    assert "No versions yet." in text


def test_more_versions_than_fit_come_in_pages(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    now = local_aws.now()
    images = [{"repository": "axonflow-agent", "tags": [f"v1.{n}.0"], "pushed_at": now - n} for n in range(60)]
    local_aws.seed(images=images)
    seed_platform(local_aws, cast.acme)
    client = client_for(cast.viewer)

    first, second = read(client), read(client, f"{URL}?skip=50")

    assert ">v1.49.0<" in first
    assert ">v1.50.0<" not in first
    assert "1 to 50 of 60" in first
    assert ">v1.50.0<" in second


@pytest.mark.parametrize("skip", ["-1", "x", "9" * 30])
def test_an_invalid_page_is_the_first_page(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn, skip: str
) -> None:
    assert ">v9.9.1<" in read(client_for(cast.viewer), f"{URL}?skip={skip}")


def test_without_a_cluster_the_page_says_what_comes_next(cast: Cast, client_for: SignIn) -> None:
    assert "has no ECS cluster yet" in read(client_for(cast.newcomer), "/o/initech/versions/")


def test_the_block_polls_itself(cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn) -> None:
    text = client_for(cast.viewer).get(f"{URL}?skip=0", headers=HTMX).content.decode()

    assert "<!doctype html>" not in text
    assert f'hx-get="{URL}?skip=0"' in text


def test_its_queries_do_not_grow(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn, django_assert_num_queries: Any
) -> None:
    for _ in range(5):
        make_upgrade(cast.acme, by=cast.operator, target="all")
    client = client_for(cast.viewer)
    client.get(URL)

    # The frame, the record of the services.
    with django_assert_num_queries(SIGNED_IN_QUERIES + 2):
        client.get(URL)


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404(cast: Cast, client_for: SignIn, person: str, headers: dict[str, str]) -> None:
    response = client_for(getattr(cast, person)).get(URL, headers=headers)

    assert response.status_code == 404
    assert "Acme" not in response.content.decode()


def test_anonymous_is_sent_to_sign_in(cast: Cast) -> None:
    response = Client().get(URL)

    assert (response.status_code, response.headers["Location"].partition("?")[0]) == (302, "/accounts/login/")


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_another_method_is_405(cast: Cast, client_for: SignIn, method: str) -> None:
    assert getattr(client_for(cast.admin), method)(URL).status_code == 405
