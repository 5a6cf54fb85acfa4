"""The forms of deployments and agents, and the list's filters. Rules about state and role are the commands'."""

from typing import Any

from django import forms

from deployments.models import Agent, Deployment
from deployments.states import Command, Status
from portal.errors import PortalError
from portal.models import Organization
from portal.web.forms import QUIET, OnceForm, SkipField
from portal.web.forms import refuse as portal_refuse

# The words for the keys of models.SORTS.
SORT_WORDS = {
    "-created_at": "Newest first",
    "created_at": "Oldest first",
    "agent": "Agent's name",
    "status": "Status",
    "-replicas": "Most tasks first",
}


class ListFilters(forms.Form):
    """The list's filters, from the address. A value that is unknown is shown and named, never ignored."""

    status = forms.ChoiceField(required=False, choices=[("", "Any status"), *Status.choices])
    agent = forms.ModelChoiceField(Agent.objects.none(), required=False)
    q = forms.CharField(required=False, max_length=100, label="Agent's name, or start of an id")
    sort = forms.ChoiceField(required=False, choices=[("", ""), *SORT_WORDS.items()])
    skip = SkipField()

    def __init__(self, agents: Any, data: Any) -> None:
        super().__init__(data)
        self.fields["agent"].queryset = agents  # type: ignore[attr-defined]


class DeploymentForm(OnceForm):
    agent = forms.ModelChoiceField(Agent.objects.none(), empty_label="Choose an agent")
    replicas = forms.IntegerField(min_value=1, initial=1, label="Replicas", help_text="How many tasks run at once.")
    version = forms.CharField(
        required=False,
        max_length=128,
        label="Version",
        widget=forms.TextInput(attrs=QUIET),
        help_text="The image's tag. Empty: the image as the agent names it.",
    )

    def __init__(self, organization: Organization, agents: Any, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        self.fields["agent"].queryset = agents  # type: ignore[attr-defined]
        bound_replicas(self.fields["replicas"], organization)


class ScaleForm(OnceForm):
    replicas = forms.IntegerField(min_value=1, label="Replicas")

    def __init__(self, deployment: Deployment, data: Any = None) -> None:
        super().__init__(data, initial={"replicas": deployment.replicas})
        bound_replicas(self.fields["replicas"], deployment.organization)


class PlainForm(OnceForm):
    """A command that takes nothing."""

    def __init__(self, deployment: Deployment, data: Any = None) -> None:
        super().__init__(data)


class TypedForm(forms.Form):
    """What cannot be undone, or is done to many, is typed, so that the hand does not outrun the eye."""

    confirmation = forms.CharField(required=False, max_length=200, widget=forms.TextInput(attrs=QUIET))

    def __init__(self, wanted: str, data: Any = None) -> None:
        super().__init__(data)
        self.wanted = wanted
        self.fields["confirmation"].label = f"Type {wanted} to confirm"

    def clean_confirmation(self) -> str:
        text = str(self.cleaned_data["confirmation"])
        if text.strip() != self.wanted:
            raise forms.ValidationError(f"Type {self.wanted} to confirm that this is what you mean.")
        return text


class KillForm(TypedForm, OnceForm):
    def __init__(self, deployment: Deployment, data: Any = None) -> None:
        super().__init__(deployment.agent.name, data)


FORMS: dict[str, Any] = {
    Command.SCALE: ScaleForm,
    Command.STOP: PlainForm,
    Command.RESTART: PlainForm,
    Command.KILL: KillForm,
}


def bound_replicas(field: forms.Field, organization: Organization) -> None:
    """The organization's limit, at the field and in its words; the command holds the rule."""
    limit = organization.deployment_replica_limit
    field.help_text = f"1 to {limit}, the limit of {organization.name}."
    field.widget.attrs |= {"min": 1, "max": limit, "inputmode": "numeric"}


# The commands name fields as the API does.
FIELDS_OF_COMMANDS = {"agent_id": "agent", "cpu": "size", "memory": "size"}


def refuse(form: forms.Form, error: PortalError) -> int:
    """Show a command's refusal at its field, or above the form. Returns the status of the answer; raises 403 and 404."""
    return portal_refuse(form, error, names=FIELDS_OF_COMMANDS)
