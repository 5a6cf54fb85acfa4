"""The form of a channel. What a target may be is targets.py's; rules about state and role are the commands'."""

from typing import Any

from django import forms

from portal.models.notifications import SUBSCRIBABLE, ChannelKind, NotificationChannel
from portal.notifications.targets import MOST_ADDRESSES, read_target
from portal.web.forms import QUIET, OnceForm

TARGET_LABELS = {
    ChannelKind.WEBHOOK: "URL",
    ChannelKind.SLACK: "Incoming webhook's URL",
    ChannelKind.EMAIL: "Addresses",
}
TARGET_HELP = {
    ChannelKind.WEBHOOK: "Gets a signed POST with JSON (Standard Webhooks). The signing secret is shown once, after this.",
    ChannelKind.SLACK: "As Slack gives it, https://hooks.slack.com/services/..; Mattermost and others take the same. "
    "It is a secret: it is not shown again.",
    ChannelKind.EMAIL: f"Up to {MOST_ADDRESSES}, separated by commas.",
}
KEEP_HELP = "Empty: the one that it has stays."


class ChannelForm(OnceForm):
    name = forms.CharField(max_length=80, widget=forms.TextInput(attrs=QUIET))
    target = forms.CharField(max_length=2000, widget=forms.TextInput(attrs={**QUIET, "class": "code"}))
    events = forms.MultipleChoiceField(
        choices=[(kind.value, kind.label) for kind in SUBSCRIBABLE],
        widget=forms.CheckboxSelectMultiple,
        label="What it is told",
        initial=[kind.value for kind in SUBSCRIBABLE],
        error_messages={"required": "Choose at least one. A channel that is to be quiet can be switched off."},
    )

    def __init__(self, kind: ChannelKind, data: Any = None, *, channel: NotificationChannel | None = None) -> None:
        super().__init__(data, initial=initial_of(channel) if channel else None)
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
        """In the order in which they are listed, so that the same choice is the same list."""
        return [kind.value for kind in SUBSCRIBABLE if kind.value in self.cleaned_data["events"]]


def initial_of(channel: NotificationChannel) -> dict[str, Any]:
    """A webhook's URL and addresses may be read by those who change them; Slack's URL is typed anew."""
    target = {
        ChannelKind.WEBHOOK: channel.target or "",
        ChannelKind.SLACK: "",
        ChannelKind.EMAIL: ", ".join(channel.addresses),
    }[ChannelKind(channel.kind)]
    return {"name": channel.name, "target": target, "events": channel.events}
