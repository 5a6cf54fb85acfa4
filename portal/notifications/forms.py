"""The form of a channel. targets.py validates targets; commands.py has the rules about states and roles."""

from typing import Any

from django import forms

from portal.models.notifications import SUBSCRIBABLE, ChannelKind, NotificationChannel
from portal.notifications.targets import MAX_ADDRESSES, read_target
from portal.outside_links import LABELS, MAX_LENGTH, check_template
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

    def __init__(self, kind: ChannelKind, data: Any = None, *, channel: NotificationChannel | None = None) -> None:
        super().__init__(data, initial=build_initial(channel) if channel else None)
        self.kind = kind
        target = self.fields["target"]
        target.label = TARGET_LABELS[kind]
        target.help_text = TARGET_HELP[kind]
        if channel and channel.kind == ChannelKind.SLACK and channel.target:
            target.required = False
            target.help_text = KEEP_HELP
        elif channel:
            target.help_text = ""

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
    return {"name": channel.name, "target": target, "events": channel.events}


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
