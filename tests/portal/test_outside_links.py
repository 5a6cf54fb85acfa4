"""Links to other systems: templates that admins write in Settings, shown at deployments and services of upgrades."""

from collections.abc import Callable

import pytest
from django.test import Client

from portal.models import AuditEvent, User
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment, read_html
from tests.upgrades.conftest import make_upgrade

pytestmark = pytest.mark.django_db
SignedIn = Callable[[User], Client]
LINKS = "/o/acme/settings/links"
TEMPLATES = {
    "ecs_link": "https://{region}.console.aws.amazon.com/ecs/v2/clusters/{cluster}/services/{service}",
    "logs_link": "https://console.example.com/#log-group/{log_group_in_console}",
    "runbook_link": "https://wiki.example.com/{agent}?version={version}",
}


def test_links_are_filled_in_where_they_have_values(cast: Cast, client_for: SignedIn) -> None:
    agent = make_agent(cast, "Triage & more")
    deployment = make_deployment(cast, agent, log_group="/ecs/acme", version="v1/2", cluster="main")
    upgrade = make_upgrade(
        cast.acme, by=cast.operator, target="agent", cluster="main", region=cast.acme.deployment_region
    )

    saved = client_for(cast.admin).post(LINKS, TEMPLATES)
    client = client_for(cast.viewer)
    page = read_html(client.get(f"/o/acme/deployments/{deployment.pk}/"))
    lane = read_html(client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/"))

    assert saved.status_code == 302
    region, name = cast.acme.deployment_region, deployment.service_name
    ecs = f"https://{region}.console.aws.amazon.com/ecs/v2/clusters"
    assert f'href="{ecs}/main/services/{name}"' in page
    assert 'href="https://console.example.com/#log-group/$252Fecs$252Facme"' in page
    assert 'href="https://wiki.example.com/Triage%20%26%20more?version=v1%2F2"' in page
    assert f'href="{ecs}/{upgrade.cluster}/services/{upgrade.rollouts.get().service_name}"' in lane
    assert "wiki.example.com" not in lane
    assert AuditEvent.objects.get(kind="organization.changed").data["changes"]["ecs_link"]["before"] == ""


@pytest.mark.parametrize(
    "template",
    [
        "javascript:alert(1)",
        "https://{agent}.example.com/",
        "https://user@example.com/",
        "https://wiki.example.com/{secret}",
        'https://wiki.example.com/"onclick',
        "https://wiki.example.com/{",
        "wiki",
    ],
)
def test_a_bad_template_is_refused(cast: Cast, client_for: SignedIn, template: str) -> None:
    refused = client_for(cast.admin).post(LINKS, {"runbook_link": template})

    cast.acme.refresh_from_db()
    assert (refused.status_code, cast.acme.runbook_link) == (422, "")


def test_only_admins_change_links(cast: Cast, client_for: SignedIn) -> None:
    client = client_for(cast.operator)

    assert (client.get(LINKS).status_code, client.post(LINKS, TEMPLATES).status_code) == (200, 403)
