"""The webhooks about upgrades in the OpenAPI document. upgrades/notifications.py sends them."""

from typing import Any

from rest_framework import serializers

from portal.api.webhooks import Notice, describe_webhook
from portal.models.notifications import NotificationKind
from upgrades.api.records import HookEntry
from upgrades.models import Kind
from upgrades.states import UPGRADE_STATUSES, Outcome, PlatformService, Status


class NoticeService(serializers.Serializer[Any]):
    service = serializers.ChoiceField(choices=PlatformService.values)
    status = serializers.ChoiceField(choices=[each.value for each in Status if each != Status.PARTIAL])
    outcome = serializers.ChoiceField(choices=Outcome.values, allow_null=True)
    from_version = serializers.CharField(allow_null=True)
    to_version = serializers.CharField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)


class UpgradeNotice(Notice):
    upgrade_id = serializers.CharField()
    kind = serializers.ChoiceField(choices=Kind.values)
    status = serializers.ChoiceField(choices=[each.value for each in UPGRADE_STATUSES])
    version = serializers.CharField()
    force_new_deployment = serializers.BooleanField()
    reason = serializers.CharField(allow_blank=True)
    override_reason = serializers.CharField(allow_blank=True)
    rolls_back = serializers.CharField(allow_null=True, help_text="The upgrade that a rollback rolls back.")
    actor = serializers.CharField()
    services = NoticeService(many=True)


class WaitingHook(HookEntry):
    service = serializers.ChoiceField(choices=PlatformService.values)


class WaitingNotice(UpgradeNotice):
    hook = WaitingHook(help_text="The pause that waits. Its `id` is the `hook_id` of the decision.")


started = describe_webhook(NotificationKind.UPGRADE_STARTED, UpgradeNotice())
ended = describe_webhook(NotificationKind.UPGRADE_ENDED, UpgradeNotice())
stalled = describe_webhook(NotificationKind.UPGRADE_STALLED, UpgradeNotice())
overdue = describe_webhook(NotificationKind.UPGRADE_OVERDUE, UpgradeNotice())
waiting = describe_webhook(NotificationKind.UPGRADE_WAITING, WaitingNotice())
validation_missing = describe_webhook(NotificationKind.UPGRADE_VALIDATION_MISSING, UpgradeNotice())
