"""The webhooks of the OpenAPI document: what the portal sends to an organization's channels (docs/notifications.md)."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse, OpenApiWebhook, extend_schema, inline_serializer
from rest_framework import serializers

from portal.models.notifications import NotificationKind

HEADERS = {
    "webhook-id": "The same for each attempt of one message.",
    "webhook-timestamp": "When this attempt was made, in seconds since 1970. Refuse old ones.",
    "webhook-signature": "`v1,` and the signature of id, timestamp and body (Standard Webhooks 1.0.0); or several.",
}
ANSWER = (
    "Any 2xx: received. 408, 425, 429 and 5xx: sent again later. 410: the channel is switched off. Others are final."
)


class Notice(serializers.Serializer[Any]):
    """What the `data` of every message has."""

    organization = serializers.CharField()
    title = serializers.CharField()
    url = serializers.CharField(allow_null=True, help_text="The page about it. Null without PORTAL_URL.")


class TestNotice(Notice):
    actor = serializers.CharField()


def describe_webhook(kind: NotificationKind, data: serializers.Serializer[Any]) -> OpenApiWebhook:
    """Return the webhook of this kind, with this `data`."""
    name = "".join(part.capitalize() for part in kind.value.replace("_", ".").split("."))
    message = inline_serializer(
        f"{name}Message",
        {
            "type": serializers.ChoiceField(choices=[kind.value]),
            "timestamp": serializers.DateTimeField(help_text="When it happened."),
            "data": data,
        },
    )
    answer = OpenApiResponse(description=ANSWER)
    return OpenApiWebhook(
        kind.value, extend_schema(summary=kind.label, tags=["webhooks"], request=message, responses=answer)
    )


test = describe_webhook(NotificationKind.TEST, TestNotice())


def complete_webhooks(result: dict[str, Any], generator: Any, **_: Any) -> dict[str, Any]:
    """Declare the headers that every webhook is sent with, and the schemas of their bodies. A hook of spectacular.

    Spectacular 0.30 collects the schemas before it describes the webhooks (SchemaGenerator.get_schema).
    """
    result["components"]["schemas"] |= generator.registry.build({})["schemas"]
    for operations in result.get("webhooks", {}).values():
        for operation in operations.values():
            operation["parameters"] = [
                {"in": "header", "name": name, "required": True, "schema": {"type": "string"}, "description": said}
                for name, said in HEADERS.items()
            ]
    return result
