"""Forms of the upgrade pages: choices and filters from the query string, and the forms that start or sign something."""

from typing import Any, ClassVar

from django import forms
from django.core.validators import URLValidator
from django.http import QueryDict

from portal.models import Organization
from portal.web.forms import QUIET, IdempotentForm, SkipField
from upgrades.commands.refusals import MAX_REASON_LENGTH, OVERRIDE_RULE
from upgrades.commands.sign import MAX_NOTE_LENGTH
from upgrades.inventory.tags import LATEST
from upgrades.models import MAX_HOOK_ID_LENGTH, MAX_VERSION_LENGTH
from upgrades.pages.plan import Choices, needs_confirmation
from upgrades.scope import Change
from upgrades.states import (
    ALL_SERVICES,
    TARGETS,
    UPGRADE_STATUSES,
    CheckStatus,
    DecisionAction,
    EventKind,
    PlatformService,
    Validation,
)

HISTORY_FILTERS = ("status", "service", "version", "initiated_by", "validation")
TARGET_CHOICES = [*PlatformService.choices, (ALL_SERVICES, "All three, in order")]


class ChoicesForm(forms.Form):
    """The choices that a plan is made from: what changed, what to upgrade, to which version. All are optional.

    An unknown value gets an error and is never ignored. The other values still apply.
    """

    changed = forms.MultipleChoiceField(required=False, choices=Change.choices, label="What changed?")
    service = forms.ChoiceField(required=False, choices=[("", ""), *TARGET_CHOICES], label="What to upgrade")
    version = forms.CharField(required=False, max_length=MAX_VERSION_LENGTH)
    force = forms.ChoiceField(required=False, choices=[("", ""), ("1", "1")], label="Force new deployment")

    @classmethod
    def from_trigger(cls, posted: QueryDict) -> "ChoicesForm":
        """Return the form with the choices that a trigger request carried."""
        query = QueryDict(mutable=True)
        query.setlist("changed", posted.getlist("changed"))
        query["service"], query["version"] = posted.get("service", ""), posted.get("version", "")
        query["force"] = "1" if posted.get("force_new_deployment") else ""
        return cls(query)

    def choices(self) -> Choices:
        self.full_clean()
        valid = self.cleaned_data
        return Choices(
            changed=tuple(Change(value) for value in valid.get("changed", [])),
            service=valid.get("service") or None,
            version=valid.get("version") or LATEST,
            force=valid.get("force") == "1",
        )


class StartForm(IdempotentForm):
    """Base of the forms that start an upgrade or a rollback: the reason and, for a wide one, the organization's slug."""

    reason_help: ClassVar[str]
    wide_help: ClassVar[str]

    reason = forms.CharField(required=False, max_length=MAX_REASON_LENGTH, widget=forms.Textarea(attrs={"rows": 2}))
    override_reason = forms.CharField(
        required=False,
        max_length=MAX_REASON_LENGTH,
        label="Reason to start despite failed checks",
        # Shown only if pre-flight fails. The browser then does not submit the form without it.
        widget=forms.Textarea(attrs={"rows": 2, "required": True}),
        help_text=OVERRIDE_RULE,
    )
    confirmation = forms.CharField(required=False, max_length=60, widget=forms.TextInput(attrs=QUIET))

    def __init__(self, organization: Organization, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        self.organization = organization
        self.fields["reason"].help_text = self.reason_help
        self.fields["confirmation"].label = f"Type {organization.slug} to confirm"
        self.fields["confirmation"].help_text = self.wide_help

    def is_wide(self, cleaned: dict[str, Any]) -> bool:
        """Return whether the request affects so much that the slug must be typed."""
        raise NotImplementedError

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if self.is_wide(cleaned) and cleaned.get("confirmation", "").strip() != self.organization.slug:
            self.add_error(
                "confirmation", f"Type {self.organization.slug} to confirm that this is the right organization."
            )
        return cleaned


class TriggerForm(StartForm):
    """The form that starts the plan shown. The slug is required for all services and for a forced deployment."""

    reason_help = "What changed and why now. Required for all three services and for a forced deployment."
    wide_help = "Required to upgrade all three services or to force a new deployment."

    service = forms.ChoiceField(
        choices=TARGET_CHOICES,
        label="What to upgrade",
        error_messages={"required": f"Choose what to upgrade: {', '.join(TARGETS)}."},
    )
    version = forms.CharField(max_length=MAX_VERSION_LENGTH)
    ticket = forms.URLField(
        required=False,
        max_length=500,
        assume_scheme="https",
        label="Ticket link",
        validators=[URLValidator(schemes=["http", "https"])],
        help_text="Optional. Recorded at the end of the reason.",
    )
    # The images that the plan showed: `service=digest` pairs, separated by spaces (Plan.images).
    images = forms.CharField(required=False, max_length=1000, widget=forms.HiddenInput)
    force_new_deployment = forms.BooleanField(required=False, label="Force new deployment")

    def is_wide(self, cleaned: dict[str, Any]) -> bool:
        return needs_confirmation(cleaned.get("service"), force=bool(cleaned.get("force_new_deployment")))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        reason, ticket = cleaned.get("reason", ""), cleaned.pop("ticket", "")
        if self.is_wide(cleaned) and not reason and "reason" not in self.errors:
            self.add_error(
                "reason", "Give a reason: it is required for all three services and for a forced deployment."
            )
        if ticket:
            cleaned["reason"] = f"{reason}\n{ticket}".strip()
        if len(cleaned.get("reason", "")) > MAX_REASON_LENGTH:
            self.add_error("reason", f"Reason and ticket link may have {MAX_REASON_LENGTH} characters together.")
        pairs = (pair.partition("=") for pair in cleaned.get("images", "").split())
        return cleaned | {"images": {service: digest for service, _, digest in pairs}}


class RollbackForm(StartForm):
    """The form that starts a rollback. The slug is required for several services.

    `services` holds the services that the page offered to roll back.
    """

    reason_help = "Recorded with the rollback: ticket, what went wrong."
    wide_help = "Required to roll back more than one service."

    services = forms.CharField(
        widget=forms.HiddenInput,
        max_length=100,
        error_messages={"required": "The list of services was missing. Review the plan and submit it again."},
    )

    def is_wide(self, cleaned: dict[str, Any]) -> bool:
        return len(cleaned.get("services", "").split()) > 1

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        return cleaned | {"services": cleaned.get("services", "").split()}

    def show(self, services: list[str]) -> None:
        """Prepare the form for display with the services that would be rolled back now.

        A bound form gets a new idempotency key, because nothing was started.
        """
        now = " ".join(services)
        self.initial = {**self.initial, "services": now}
        if self.is_bound:
            self.renew_key(services=now)
        if len(services) < 2:
            del self.fields["confirmation"]


class DecideForm(forms.Form):
    """A decision at the pause that the page showed: `hook_id` names it. `action` is the button."""

    service = forms.ChoiceField(choices=PlatformService.choices, widget=forms.HiddenInput)
    hook_id = forms.CharField(max_length=MAX_HOOK_ID_LENGTH, widget=forms.HiddenInput)
    action = forms.ChoiceField(
        choices=DecisionAction.choices,
        error_messages={"required": "Choose Continue or Roll back.", "invalid_choice": "Choose Continue or Roll back."},
    )
    reason = forms.CharField(
        required=False,
        max_length=MAX_REASON_LENGTH,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text="Recorded with the decision: what you checked, ticket.",
    )


class SignForm(forms.Form):
    """A person's verdict on one row of the validation matrix. The command decides when a note is required."""

    status = forms.ChoiceField(
        choices=[(CheckStatus.PASS, "Pass"), (CheckStatus.FAIL, "Fail")],
        widget=forms.RadioSelect,
        label="Result",
        error_messages={"required": "Choose Pass or Fail."},
    )
    note = forms.CharField(
        required=False,
        max_length=MAX_NOTE_LENGTH,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="What you did and saw. Required for Fail, and for Pass if the portal's own check failed.",
    )


class HistoryFilters(forms.Form):
    """The history's filters, from the query string. An unknown value gets an error and is never ignored."""

    status = forms.ChoiceField(
        required=False, choices=[("", "Any status"), *[(status.value, status.label) for status in UPGRADE_STATUSES]]
    )
    service = forms.ChoiceField(required=False, choices=[("", "Any service"), *TARGET_CHOICES])
    version = forms.CharField(required=False, max_length=MAX_VERSION_LENGTH, label="Requested version")
    initiated_by = forms.CharField(required=False, max_length=254, label="Who (e-mail)")
    validation = forms.ChoiceField(required=False, choices=[("", "Any"), *Validation.choices])
    skip = SkipField()


class TimelineFilters(forms.Form):
    """The part of the timeline to show, from the query string."""

    kind = forms.ChoiceField(required=False, choices=[("", "All"), *EventKind.choices])
    skip = SkipField()


class PageNumber(forms.Form):
    """The offset into a list without filters, from the query string."""

    skip = SkipField()
