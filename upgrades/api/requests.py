"""Serializers for the request bodies and query strings of the upgrade routes. Responses are in records.py."""

from typing import Any

from rest_framework import serializers

from portal.api.routes import PageQuery, StrictBoolean, StrictSerializer, StrictString, choice, describe_choices
from portal.pagination import MAX_SKIP
from upgrades.api.records import DEFAULT_EVENTS, MAX_EVENTS
from upgrades.api.waiting import MAX_WAIT_SECONDS, Wait
from upgrades.commands.refusals import MAX_REASON_LENGTH, OVERRIDE_RULE
from upgrades.commands.sign import MAX_NOTE_LENGTH
from upgrades.inventory.tags import LATEST
from upgrades.models import MAX_HOOK_ID_LENGTH, MAX_VERSION_LENGTH
from upgrades.states import (
    ALL_SERVICES,
    TARGETS,
    UPGRADE_STATUSES,
    CheckStatus,
    DecisionAction,
    EventKind,
    MatrixRow,
    PlatformService,
    Validation,
)

SIGNABLE = [CheckStatus.PASS.value, CheckStatus.FAIL.value]


def override_field() -> StrictString:
    return StrictString(
        max_length=MAX_REASON_LENGTH,
        allow_blank=True,
        default="",
        help_text=f"The reason to start despite failed checks. {OVERRIDE_RULE}",
    )


class TriggerBody(StrictSerializer):
    service = serializers.ChoiceField(
        choices=TARGETS,
        error_messages={
            "required": f"Required: {describe_choices(TARGETS)}",
            "null": describe_choices(TARGETS),
            "invalid_choice": describe_choices(TARGETS),
        },
    )
    version = StrictString(
        max_length=MAX_VERSION_LENGTH,
        default=LATEST,
        help_text="`latest`, a tag that each targeted service has, or the digest of an untagged image.",
    )
    force_new_deployment = StrictBoolean(
        default=False, help_text="Replace all tasks even if the service already runs this version."
    )
    reason = StrictString(max_length=MAX_REASON_LENGTH, allow_blank=True, default="")
    override_reason = override_field()

    def validate_service(self, value: Any) -> str:
        return str(value)


class StatusQuery(StrictSerializer):
    wait = serializers.ChoiceField(
        choices=[each.value for each in Wait],
        default=None,
        error_messages={"invalid_choice": describe_choices([each.value for each in Wait])},
        help_text="Hold the answer until the new version serves all traffic, the upgrade has ended, or its validation has.",
    )
    timeout = serializers.IntegerField(
        min_value=1, max_value=MAX_WAIT_SECONDS, default=None, help_text="Seconds, together with `wait`. Default 25."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["timeout"] and not attrs["wait"]:
            raise serializers.ValidationError({"timeout": ["Only together with wait."]})
        return attrs


class PreflightQuery(StrictSerializer):
    service = serializers.ChoiceField(
        choices=TARGETS, default=ALL_SERVICES, error_messages={"invalid_choice": describe_choices(TARGETS)}
    )


class RollbackBody(StrictSerializer):
    reason = StrictString(max_length=MAX_REASON_LENGTH, allow_blank=True, default="")
    override_reason = override_field()


class DecisionBody(StrictSerializer):
    service = serializers.ChoiceField(
        choices=PlatformService.values,
        error_messages={
            "required": f"Required: {describe_choices(PlatformService.values)}",
            "invalid_choice": describe_choices(PlatformService.values),
        },
    )
    hook_id = StrictString(
        max_length=MAX_HOOK_ID_LENGTH, help_text="`hook.id` of the service's entry, as the person saw it."
    )
    action = serializers.ChoiceField(
        choices=DecisionAction.values,
        error_messages={
            "required": f"Required: {describe_choices(DecisionAction.values)}",
            "invalid_choice": describe_choices(DecisionAction.values),
        },
    )
    reason = StrictString(max_length=MAX_REASON_LENGTH, allow_blank=True, default="")

    def validate_service(self, value: Any) -> str:
        return str(value)

    def validate_action(self, value: Any) -> DecisionAction:
        return DecisionAction(value)


class HistoryQuery(PageQuery):
    status = choice([status.value for status in UPGRADE_STATUSES])
    service = choice(TARGETS)
    version = serializers.CharField(max_length=MAX_VERSION_LENGTH, default=None)
    initiated_by = serializers.CharField(max_length=254, default=None)
    validation = choice(Validation.values)


class SignBody(StrictSerializer):
    check = serializers.ChoiceField(
        choices=MatrixRow.values,
        error_messages={
            "required": f"Required: {describe_choices(MatrixRow.values)}",
            "invalid_choice": describe_choices(MatrixRow.values),
        },
    )
    status = serializers.ChoiceField(
        choices=SIGNABLE,
        error_messages={
            "required": f"Required: {describe_choices(SIGNABLE)}",
            "invalid_choice": describe_choices(SIGNABLE),
        },
    )
    note = StrictString(max_length=MAX_NOTE_LENGTH, allow_blank=True, default="")

    def validate_check(self, value: Any) -> str:
        return str(value)

    def validate_status(self, value: Any) -> CheckStatus:
        return CheckStatus(value)


class TimelineQuery(StrictSerializer):
    skip = serializers.IntegerField(min_value=0, max_value=MAX_SKIP, default=0)
    limit = serializers.IntegerField(min_value=1, max_value=MAX_EVENTS, default=DEFAULT_EVENTS)
    kind = choice(EventKind.values)
