"""Schemathesis against the portal's own OpenAPI document, as each role: valid and invalid requests to every operation.

No request may fail with a server error, and each answer must have a documented status, type, header and shape.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from django.conf import settings
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import Client
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from portal.api.schema import openapi
from portal.models import User
from portal.wsgi import application
from tests.conftest import Cast
from tests.fuzz.conftest import CASES
from tests.local_aws import LocalAws
from tests.portal.isolation_table import make_place, undone
from upgrades.api.waiting import MAX_WAIT_SECONDS

SignIn = Callable[[User], Client]

pytestmark = pytest.mark.fuzz

ROLES = ("viewer", "operator", "admin")
CSRF = "f" * 32
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]


def from_loopback(environ: dict[str, Any], start_response: Any) -> Any:
    """Call the portal as a server does, which names the client's address."""
    return application(environ | {"REMOTE_ADDR": "127.0.0.1"}, start_response)


document = schemathesis.openapi.from_dict(openapi())
document.app = from_loopback
OPERATIONS = [each.ok() for each in document.get_all_operations()]
EACH = max(1, round(CASES / len(ROLES) / len(OPERATIONS)))


@pytest.fixture
def kept_connection() -> Iterator[None]:
    """Keep the connection, and so the test's transaction, from request to request, as Django's test client does."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.mark.usefixtures("kept_connection")
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: str(each.label).replace(" ", ""))
def test_every_answer_is_documented(
    cast: Cast, platform: LocalAws, client_for: SignIn, count: Callable[[int], None], operation: Any, role: str
) -> None:
    place = make_place(cast, cast.acme)
    client = client_for(getattr(cast, role))
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    cookies = {settings.SESSION_COOKIE_NAME: session, settings.CSRF_COOKIE_NAME: CSRF}
    # schemathesis calls the application without a server, and then does not decompress the answer.
    headers = {"X-CSRFToken": CSRF, "X-Organization": "acme", "Accept-Encoding": "identity"}
    ids = {"upgrade_id": place.upgrade_id, "agent_id": place.agent_id, "deployment_id": place.deployments["ready"]}

    @given(case=operation.as_strategy())
    @examples(
        max_examples=EACH,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        # Most requests name an object that exists.
        for name, value in (case.path_parameters or {}).items():
            if name in ids and not str(value)[:1].isdigit():
                case.path_parameters[name] = ids[name]
        # An upgrade that does not end is waited for: as valid, and the full form does not take hours.
        if "wait" in (case.query or {}):
            timeout = str(case.query.get("timeout", MAX_WAIT_SECONDS))
            if timeout.isdigit() and 1 <= int(timeout) <= MAX_WAIT_SECONDS:
                case.query["timeout"] = 1
        with undone():
            response = case.call(headers=headers, cookies=cookies)
        count(response.status_code)
        case.validate_response(response, checks=CHECKS)

    ask()
