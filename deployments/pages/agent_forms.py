"""The agent form: converts input into the arguments of the command. container_spec.py holds the validation rules."""

from collections.abc import Iterator
from typing import Any

from django import forms

from deployments.container_spec import FARGATE_SIZES, MAX_IMAGE_LENGTH, is_secret_reference
from deployments.models import Agent
from portal.web.forms import QUIET, IdempotentForm

CODE = {**QUIET, "class": "code", "rows": 6, "autocapitalize": "off"}


def size_choices() -> Iterator[tuple[str, Any]]:
    """Yield every pair of CPU and memory that Fargate supports, grouped by CPU."""
    for cpu, memories in FARGATE_SIZES.items():
        yield (
            f"{cpu / 1024:g} vCPU",
            [(f"{cpu}/{memory}", f"{cpu / 1024:g} vCPU, {gib(memory)}") for memory in memories],
        )


def gib(memory: int) -> str:
    """Format MiB as text.

    >>> gib(512), gib(3072)
    ('512 MiB', '3 GiB')
    """
    return f"{memory // 1024} GiB" if memory % 1024 == 0 else f"{memory} MiB"


class AgentForm(IdempotentForm):
    name = forms.CharField(max_length=80, widget=forms.TextInput(attrs=QUIET))
    description = forms.CharField(required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 2}))
    image = forms.CharField(
        max_length=MAX_IMAGE_LENGTH,
        widget=forms.TextInput(attrs={**QUIET, "class": "code", "placeholder": "registry/repository:tag"}),
        help_text="The image for ECS to pull: registry, repository, and a tag or digest.",
    )
    size = forms.ChoiceField(
        choices=size_choices,
        initial="256/512",
        label="Task size",
        help_text="CPU and memory of each task, in the sizes that Fargate supports.",
    )
    environment = forms.CharField(
        required=False,
        max_length=200_000,
        widget=forms.Textarea(attrs={**CODE, "placeholder": "LOG_LEVEL=info"}),
        help_text="One NAME=value per line. Everyone in the organization can read these. Do not enter secrets here.",
    )
    not_secrets = forms.CharField(
        required=False,
        max_length=5_000,
        label="Not secrets",
        widget=forms.TextInput(attrs={**QUIET, "class": "code"}),
        help_text="Names of variables above that look like secrets and are none, such as GIT_SHA, separated by spaces. "
        "The activity log records that you said so.",
    )
    secrets = forms.CharField(
        required=False,
        max_length=200_000,
        widget=forms.Textarea(attrs={**CODE, "rows": 3, "placeholder": "API_KEY=arn:aws:secretsmanager:..."}),
        help_text="One NAME=ARN per line, from Secrets Manager or the SSM Parameter Store. ECS reads the value when a task "
        "starts. The portal never reads it.",
    )

    def clean_environment(self) -> dict[str, str]:
        return read_lines(self.cleaned_data["environment"])

    def clean_secrets(self) -> dict[str, str]:
        found = read_lines(self.cleaned_data["secrets"])
        for name, value in found.items():
            if not is_secret_reference(value):
                raise forms.ValidationError(
                    f"{name} is not an ARN. Enter one such as arn:aws:secretsmanager:<region>:<account>:secret:<name>."
                )
        return found

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        twice = set(cleaned.get("environment") or {}) & set(cleaned.get("secrets") or {})
        if twice:
            self.add_error("secrets", f"{', '.join(sorted(twice))}: also set as a plain variable. Keep only one.")
        return cleaned

    def fields_of_agent(self) -> dict[str, Any]:
        """Return the arguments of the command."""
        cleaned = self.cleaned_data
        cpu, memory = cleaned["size"].split("/")
        return {
            "name": cleaned["name"],
            "description": cleaned["description"],
            "image": cleaned["image"],
            "cpu": int(cpu),
            "memory": int(memory),
            "environment": {**cleaned["environment"], **cleaned["secrets"]},
            "not_secrets": cleaned["not_secrets"].replace(",", " ").split(),
        }


def build_initial(agent: Agent) -> dict[str, Any]:
    return {
        "name": agent.name,
        "description": agent.description,
        "image": agent.image,
        "size": f"{agent.cpu}/{agent.memory}",
        "environment": as_lines({k: v for k, v in agent.environment.items() if not is_secret_reference(v)}),
        "secrets": as_lines({k: v for k, v in agent.environment.items() if is_secret_reference(v)}),
    }


def read_lines(text: str) -> dict[str, str]:
    """Parse NAME=value lines. Skips empty lines and comments.

    *Raises* ValidationError, which names the line but never its value.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not name.strip():
            raise forms.ValidationError(f"Line {number} is not NAME=value.")
        if name.strip() in found:
            raise forms.ValidationError(f"Line {number}: {name.strip()[:80]} is already set above.")
        found[name.strip()] = value.strip()
    return found


def as_lines(variables: dict[str, str]) -> str:
    return "\n".join(f"{name}={value}" for name, value in sorted(variables.items()))
