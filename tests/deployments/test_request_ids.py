"""The id of a request follows a deployment's command to AWS."""

from collections.abc import Callable

from django.test import Client

from deployments.models import Deployment
from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import Runtime, send_json

REQUEST_ID = "click-1f3a"


def test_the_calls_of_a_command_carry_its_request_id(
    cast: Cast, client_for: Callable[[User], Client], runtime: Runtime, deployment: Deployment
) -> None:
    runtime.run(deployment, "ready")
    scale = f"/deployments/{deployment.pk}/scale"

    send_json(client_for(cast.operator), "post", scale, {"replicas": 3}, X_Request_ID=REQUEST_ID)
    runtime.turn()

    (sent,) = runtime.local_aws.ledger(action="UpdateService")
    assert f"md/request#{REQUEST_ID}" in sent["user_agent"]
