"""Compares notifications with the webhooks of the OpenAPI document."""

import json
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker

from portal.api.schema import openapi
from portal.models.notifications import NotificationDelivery
from portal.notifications.messages import webhook_body
from tests.portal.test_schema import components, strict


def assert_documented(delivery: NotificationDelivery) -> None:
    """Check that the webhook's body is as the OpenAPI document says, member by member."""
    document: Any = openapi()
    content = document["webhooks"][delivery.kind]["post"]["requestBody"]["content"]["application/json"]
    schema = {**strict(content["schema"]), "components": components()}
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(json.loads(webhook_body(delivery)))
