"""The choices of an upgrade as the address holds them, the form that starts it, and the history's filters."""

from typing import Any, ClassVar

from django import forms
from django.http import QueryDict

from portal.models import Organization
from portal.web.forms import QUIET, OnceForm, SkipField
from upgrades.commands.refusals import MAX_REASON_LENGTH, OVERRIDE_RULE
from upgrades.commands.sign import MAX_NOTE_LENGTH
from upgrades.inventory.images import LATEST
from upgrades.models import MAX_VERSION_LENGTH
from upgrades.pages.plan import Choices, needs_typing
from upgrades.scope import Change
from upgrades.states import (
    ALL_SERVICES,
    TARGETS,
    UPGRADE_STATUSES,
    CheckStatus,
    EventKind,
    PlatformService,
    Validation,
)

TARGET_CHOICES = [*PlatformService.choices, (ALL_SERVICES, "All three, in order")]


class ChoicesForm(forms.Form):
    """What changed, what to upgrade, to which version: what the plan is made from. Nothing of it is required.

    A value that is unknown is shown and named, never ignored; the others count.
    """

    changed = forms.MultipleChoiceField(required=False, choices=Change.choices, label="What changed?")
    service = forms.ChoiceField(required=False, choices=[("", ""), *TARGET_CHOICES], label="What to upgrade")
    version = forms.CharField(required=False, max_length=MAX_VERSION_LENGTH)
    force = forms.ChoiceField(required=False, choices=[("", ""), ("1", "1")], label="Force a new rollout")

    @classmethod
    def of_trigger(cls, posted: QueryDict) -> "ChoicesForm":
        """The choices that came with a trigger."""
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


class StartForm(OnceForm):
    """What starts an upgrade or a rollback: why, and for what is wide the organization's slug, typed."""

    reason_help: ClassVar[str]
    wide_help: ClassVar[str]

    reason = forms.CharField(required=False, max_length=MAX_REASON_LENGTH, widget=forms.Textarea(attrs={"rows": 2}))
    override_reason = forms.CharField(
        required=False,
        max_length=MAX_REASON_LENGTH,
        label="Why to start although pre-flight fails",
        # Shown only where pre-flight fails: there the browser does not send the form without it.
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
        """Whether it touches so much that the slug is typed."""
        raise NotImplementedError

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        if self.is_wide(cleaned) and cleaned.get("confirmation", "").strip() != self.organization.slug:
            self.add_error(
                "confirmation", f"Type {self.organization.slug} to confirm that this is the right organization."
            )
        return cleaned


class TriggerForm(StartForm):
    """Starts what the plan shows. The slug is typed only for what touches everything or rolls whatever runs."""

    reason_help = "Shown in the history: a ticket, what changed, why now."
    wide_help = "Needed for all three services, or a forced rollout."

    service = forms.ChoiceField(
        choices=TARGET_CHOICES,
        label="What to upgrade",
        error_messages={"required": f"Choose what to upgrade: {', '.join(TARGETS)}."},
    )
    version = forms.CharField(max_length=MAX_VERSION_LENGTH)
    # What the plan showed: `service=digest`, divided by spaces (Plan.images).
    images = forms.CharField(required=False, max_length=1000, widget=forms.HiddenInput)
    force_new_deployment = forms.BooleanField(required=False, label="Force a new rollout")

    def is_wide(self, cleaned: dict[str, Any]) -> bool:
        return needs_typing(cleaned.get("service"), force=bool(cleaned.get("force_new_deployment")))

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        pairs = (pair.partition("=") for pair in cleaned.get("images", "").split())
        return cleaned | {"images": {service: digest for service, _, digest in pairs}}


class RollbackForm(StartForm):
    """The slug is typed where several services go back. `services`: what the page said would."""

    reason_help = "Shown in the history: what was wrong, a ticket."
    wide_help = "Needed where more than one service goes back."

    services = forms.CharField(
        widget=forms.HiddenInput,
        max_length=100,
        error_messages={
            "required": "The form came without the services that it was shown for: look, and send it again."
        },
    )

    def is_wide(self, cleaned: dict[str, Any]) -> bool:
        return len(cleaned.get("services", "").split()) > 1

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        return cleaned | {"services": cleaned.get("services", "").split()}

    def show(self, services: list[str]) -> None:
        """Before it is shown: for what would go back now, and under a new key, for nothing was started."""
        now = " ".join(services)
        self.initial = {**self.initial, "services": now}
        if self.is_bound:
            self.renew_key(services=now)
        if len(services) < 2:
            del self.fields["confirmation"]


class SignForm(forms.Form):
    """A person's word about one row of the validation matrix. When a note is needed the command says."""

    status = forms.ChoiceField(
        choices=[(CheckStatus.PASS, "It passes"), (CheckStatus.FAIL, "It fails")],
        widget=forms.RadioSelect,
        label="What did you find?",
        error_messages={"required": "Choose whether it passes or fails."},
    )
    note = forms.CharField(
        required=False,
        max_length=MAX_NOTE_LENGTH,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="What you did and saw. Needed for a failure, and for a pass against the portal's own check.",
    )


class HistoryFilters(forms.Form):
    """The history's filters, from the address. A value that is unknown is shown and named, never ignored."""

    status = forms.ChoiceField(
        required=False, choices=[("", "Any status"), *[(status.value, status.label) for status in UPGRADE_STATUSES]]
    )
    service = forms.ChoiceField(required=False, choices=[("", "Any service"), *TARGET_CHOICES])
    version = forms.CharField(required=False, max_length=MAX_VERSION_LENGTH, label="Version asked for")
    initiated_by = forms.CharField(required=False, max_length=254, label="Who (e-mail)")
    validation = forms.ChoiceField(required=False, choices=[("", "Any"), *Validation.choices])
    skip = SkipField()


class TimelineFilters(forms.Form):
    """Which part of the timeline is shown, from the address."""

    kind = forms.ChoiceField(required=False, choices=[("", "All"), *EventKind.choices])
    skip = SkipField()


class PageNumber(forms.Form):
    """How far into a list without filters, from the address."""

    skip = SkipField()
