"""The forms of deployments and the filters of the list. The commands enforce the rules about state and role."""

from typing import Any

from django import forms

from deployments.models import Agent, Deployment
from deployments.states import Command, EventType, Status
from portal.models import Organization
from portal.web.forms import QUIET, IdempotentForm, SkipField

# Labels for the keys of models.SORTS.
SORT_LABELS = {
    "-created_at": "Newest first",
    "created_at": "Oldest first",
    "agent": "Agent name",
    "status": "Status",
    "-replicas": "Most tasks first",
}


class ListFilters(forms.Form):
    """The filters of the list, from the query string. An unknown value is reported, never ignored."""

    status = forms.ChoiceField(required=False, choices=[("", "Any status"), *Status.choices])
    agent = forms.ModelChoiceField(Agent.objects.none(), required=False)
    q = forms.CharField(required=False, max_length=100, label="Agent name or start of ID")
    sort = forms.ChoiceField(required=False, choices=[("", ""), *SORT_LABELS.items()])
    skip = SkipField()

    def __init__(self, agents: Any, data: Any) -> None:
        super().__init__(data)
        self.fields["agent"].queryset = agents  # type: ignore[attr-defined] # of this field's class


class TimelineFilters(forms.Form):
    """The filters of a deployment's events, from the query string."""

    event_type = forms.ChoiceField(required=False, choices=[("", "Any event"), *EventType.choices])
    status = forms.ChoiceField(required=False, choices=[("", "Any status"), *Status.choices])


class DeploymentForm(IdempotentForm):
    agent = forms.ModelChoiceField(Agent.objects.none(), empty_label="Choose an agent")
    replicas = forms.IntegerField(min_value=1, initial=1, label="Replicas", help_text="Number of tasks to run.")
    version = forms.CharField(
        required=False,
        max_length=128,
        label="Version",
        widget=forms.TextInput(attrs=QUIET),
        help_text="Image tag. Leave empty to use the agent's image.",
    )

    def __init__(self, organization: Organization, agents: Any, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        self.fields["agent"].queryset = agents  # type: ignore[attr-defined] # of this field's class
        bound_replicas(self.fields["replicas"], organization)


class ScaleForm(IdempotentForm):
    replicas = forms.IntegerField(min_value=1, label="Replicas")

    def __init__(self, deployment: Deployment, data: Any = None) -> None:
        super().__init__(data, initial={"replicas": deployment.replicas})
        bound_replicas(self.fields["replicas"], deployment.organization)


class PlainForm(IdempotentForm):
    """The form of a command without parameters."""

    def __init__(self, deployment: Deployment, data: Any = None) -> None:
        super().__init__(data)


class TypedForm(forms.Form):
    """A confirmation by typing, for commands that cannot be undone or affect many deployments."""

    confirmation = forms.CharField(required=False, max_length=200, widget=forms.TextInput(attrs=QUIET))

    def __init__(self, expected: str, data: Any = None) -> None:
        super().__init__(data)
        self.expected = expected
        self.fields["confirmation"].label = f"Type {expected} to confirm"

    def clean_confirmation(self) -> str:
        text = str(self.cleaned_data["confirmation"])
        if text.strip() != self.expected:
            raise forms.ValidationError(f"The text does not match. Type {self.expected} to confirm.")
        return text


class KillForm(TypedForm, IdempotentForm):
    def __init__(self, deployment: Deployment, data: Any = None) -> None:
        super().__init__(deployment.agent.name, data)


FORMS: dict[str, Any] = {
    Command.SCALE: ScaleForm,
    Command.STOP: PlainForm,
    Command.RESTART: PlainForm,
    Command.KILL: KillForm,
}


def bound_replicas(field: forms.Field, organization: Organization) -> None:
    """Show the organization's limit at the field. The command enforces it."""
    limit = organization.deployment_replica_limit
    field.help_text = f"1 to {limit}, the limit for {organization.name}."
    field.widget.attrs |= {"min": 1, "max": limit, "inputmode": "numeric"}


# Form fields for the field names that the commands share with the API.
FIELDS_OF_COMMANDS = {"agent_id": "agent", "cpu": "size", "memory": "size"}
