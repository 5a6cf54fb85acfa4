"""The form of a channel. targets.py validates targets; commands.py has the rules about states and roles."""

from typing import Any

from django import forms

from portal.models.notifications import SUBSCRIBABLE, ChannelKind, NotificationChannel
from portal.notifications.quiet import QuietHours
from portal.notifications.targets import MAX_ADDRESSES, read_target
from portal.outside_links import LABELS, MAX_LENGTH, check_template
from portal.times import zone_names
from portal.web.forms import QUIET, IdempotentForm

TARGET_LABELS = {
    ChannelKind.WEBHOOK: "URL",
    ChannelKind.SLACK: "Incoming webhook URL",
    ChannelKind.EMAIL: "Addresses",
}
TARGET_HELP = {
    ChannelKind.WEBHOOK: "Receives a signed POST with JSON (Standard Webhooks). The next page shows the secret once.",
    ChannelKind.SLACK: "From Slack, https://hooks.slack.com/services/.., or a compatible service such as Mattermost. "
    "It is a secret and is not shown again.",
    ChannelKind.EMAIL: f"Up to {MAX_ADDRESSES} e-mail addresses, separated by commas.",
}
KEEP_HELP = "Leave empty to keep the current URL."


QUIET_HELP = (
    "In these hours only urgent messages are sent: pauses that wait, stalled and overdue rollouts, upgrades that did not "
    "succeed, failed deployments. Others wait for the end."
)


def clock_field(label: str) -> forms.TimeField:
    widget = forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    return forms.TimeField(required=False, label=label, widget=widget)


class ChannelForm(IdempotentForm):
    name = forms.CharField(max_length=80, widget=forms.TextInput(attrs=QUIET))
    target = forms.CharField(
        max_length=2000, widget=forms.TextInput(attrs={**QUIET, "class": "code", "data-secret": True})
    )
    events = forms.MultipleChoiceField(
        choices=[(kind.value, kind.label) for kind in SUBSCRIBABLE],
        widget=forms.CheckboxSelectMultiple,
        label="Events",
        initial=[kind.value for kind in SUBSCRIBABLE],
        error_messages={"required": "Choose at least one. To receive nothing, switch the channel off."},
    )

    quiet_from = clock_field("From")
    quiet_until = clock_field("Until")
    quiet_zone = forms.ChoiceField(required=False, label="Time zone", help_text=QUIET_HELP)

    def __init__(self, kind: ChannelKind, data: Any = None, *, channel: NotificationChannel | None = None) -> None:
        super().__init__(data, initial=build_initial(channel) if channel else None)
        self.kind = kind
        zones: Any = self.fields["quiet_zone"]
        zones.choices = [(name, name) for name in zone_names()]
        target = self.fields["target"]
        target.label = TARGET_LABELS[kind]
        target.help_text = TARGET_HELP[kind]
        if channel and channel.kind == ChannelKind.SLACK and channel.target:
            target.required = False
            target.help_text = KEEP_HELP
        elif channel:
            target.help_text = ""

    def clean(self) -> dict[str, Any]:
        """Put QuietHours or None in place of their three fields."""
        cleaned = super().clean()
        begin, end = (cleaned.pop(name, None) for name in ("quiet_from", "quiet_until"))
        zone = cleaned.pop("quiet_zone", None) or "UTC"
        if "quiet_from" not in self.errors and "quiet_until" not in self.errors:
            if (begin is None) != (end is None):
                self.add_error("quiet_until" if end is None else "quiet_from", "Enter both times, or none.")
            elif begin is not None and begin == end:
                self.add_error(
                    "quiet_until", "Enter another time than the begin. To receive nothing, switch the channel off."
                )
        return cleaned | {"quiet": QuietHours(begin, end, zone) if begin and end else None}

    def clean_target(self) -> str | None:
        text = self.cleaned_data["target"]
        return read_target(self.kind, text) if text else None

    def clean_events(self) -> list[str]:
        """Return the events in a fixed order, so that equal choices are equal lists."""
        return [kind.value for kind in SUBSCRIBABLE if kind.value in self.cleaned_data["events"]]


def build_initial(channel: NotificationChannel) -> dict[str, Any]:
    """Return the form's initial values. A webhook's URL and addresses are included; a Slack URL is a secret."""
    target = {
        ChannelKind.WEBHOOK: channel.target or "",
        ChannelKind.SLACK: "",
        ChannelKind.EMAIL: ", ".join(channel.addresses),
    }[ChannelKind(channel.kind)]
    quiet = {"quiet_from": channel.quiet_from, "quiet_until": channel.quiet_until, "quiet_zone": channel.quiet_zone}
    return {"name": channel.name, "target": target, "events": channel.events} | quiet


LINK_HELP = {
    "ecs_link": "https://{region}.console.aws.amazon.com/ecs/v2/clusters/{cluster}/services/{service}/health?region={region}",
    "logs_link": "https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}"
    "#logsV2:log-groups/log-group/{log_group_in_console}",
    "runbook_link": "https://wiki.example.com/runbooks/{service}",
    "ticket_link": "https://tickets.example.com/new?title={service}%20{version}",
}


class LinksForm(forms.Form):
    """The templates of an organization's links to other systems, each with an example."""

    def __init__(self, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        for name, label in LABELS.items():
            self.fields[name] = forms.CharField(
                required=False,
                max_length=MAX_LENGTH,
                label=label,
                help_text=f"For example {LINK_HELP[name]}",
                widget=forms.TextInput(attrs={**QUIET, "class": "code", "inputmode": "url"}),
                validators=[check_template],
            )
