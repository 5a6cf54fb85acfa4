"""The webhooks about agents' deployments in the OpenAPI document. deployments/notifications.py sends them."""

from rest_framework import serializers

from deployments.states import Status
from portal.api.webhooks import Notice, describe_webhook
from portal.models.notifications import NotificationKind


class DeploymentNotice(Notice):
    deployment_id = serializers.UUIDField()
    agent_id = serializers.UUIDField()
    agent_name = serializers.CharField()
    status = serializers.ChoiceField(choices=Status.values)
    version = serializers.CharField(allow_null=True)
    replicas = serializers.IntegerField()
    error_message = serializers.CharField(allow_null=True)


failed = describe_webhook(NotificationKind.DEPLOYMENT_FAILED, DeploymentNotice())
recovered = describe_webhook(NotificationKind.DEPLOYMENT_RECOVERED, DeploymentNotice())
