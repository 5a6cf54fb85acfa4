"""The form of an agent: what people type, turned into what the command takes. What an agent may be is environment.py's."""

from collections.abc import Iterator
from typing import Any

from django import forms

from deployments.container_spec import FARGATE_SIZES, MAX_IMAGE_LENGTH, is_secret_reference
from deployments.models import Agent
from portal.web.forms import QUIET, OnceForm

CODE = {**QUIET, "class": "code", "rows": 6, "autocapitalize": "off"}


def size_choices() -> Iterator[tuple[str, Any]]:
    """Every pair that Fargate has, by CPU."""
    for cpu, memories in FARGATE_SIZES.items():
        yield (
            f"{cpu / 1024:g} vCPU",
            [(f"{cpu}/{memory}", f"{cpu / 1024:g} vCPU, {gib(memory)}") for memory in memories],
        )


def gib(memory: int) -> str:
    """
    >>> gib(512), gib(3072)
    ('512 MiB', '3 GiB')
    """
    return f"{memory // 1024} GiB" if memory % 1024 == 0 else f"{memory} MiB"


class AgentForm(OnceForm):
    name = forms.CharField(max_length=80, widget=forms.TextInput(attrs=QUIET))
    description = forms.CharField(required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 2}))
    image = forms.CharField(
        max_length=MAX_IMAGE_LENGTH,
        widget=forms.TextInput(attrs={**QUIET, "class": "code", "placeholder": "registry/repository:tag"}),
        help_text="As ECS pulls it: registry, repository, and a tag or digest.",
    )
    size = forms.ChoiceField(
        choices=size_choices,
        initial="256/512",
        label="Size of a task",
        help_text="The pairs of CPU and memory that Fargate has.",
    )
    environment = forms.CharField(
        required=False,
        max_length=200_000,
        widget=forms.Textarea(attrs={**CODE, "placeholder": "LOG_LEVEL=info"}),
        help_text="One NAME=value a line. Everybody in the organization can read these: no secrets.",
    )
    secrets = forms.CharField(
        required=False,
        max_length=200_000,
        widget=forms.Textarea(attrs={**CODE, "rows": 3, "placeholder": "API_KEY=arn:aws:secretsmanager:..."}),
        help_text="One NAME=reference a line: the ARN in Secrets Manager or the SSM Parameter Store. ECS reads the "
        "value when a task starts; the portal never does.",
    )

    def clean_environment(self) -> dict[str, str]:
        return read_lines(self.cleaned_data["environment"])

    def clean_secrets(self) -> dict[str, str]:
        found = read_lines(self.cleaned_data["secrets"])
        for name, value in found.items():
            if not is_secret_reference(value):
                raise forms.ValidationError(
                    f"{name} is no reference: give an ARN such as arn:aws:secretsmanager:<region>:<account>:secret:<name>."
                )
        return found

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        twice = set(cleaned.get("environment") or {}) & set(cleaned.get("secrets") or {})
        if twice:
            self.add_error("secrets", f"{', '.join(sorted(twice))}: named as a plain variable too.")
        return cleaned

    def fields_of_agent(self) -> dict[str, Any]:
        """What the command takes."""
        cleaned = self.cleaned_data
        cpu, memory = cleaned["size"].split("/")
        return {
            "name": cleaned["name"],
            "description": cleaned["description"],
            "image": cleaned["image"],
            "cpu": int(cpu),
            "memory": int(memory),
            "environment": {**cleaned["environment"], **cleaned["secrets"]},
        }


def initial_of(agent: Agent) -> dict[str, Any]:
    return {
        "name": agent.name,
        "description": agent.description,
        "image": agent.image,
        "size": f"{agent.cpu}/{agent.memory}",
        "environment": as_lines({k: v for k, v in agent.environment.items() if not is_secret_reference(v)}),
        "secrets": as_lines({k: v for k, v in agent.environment.items() if is_secret_reference(v)}),
    }


def read_lines(text: str) -> dict[str, str]:
    """NAME=value lines; empty ones and comments are skipped. Raises ValidationError naming the line, never its value."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals or not name.strip():
            raise forms.ValidationError(f"Line {number} is not NAME=value.")
        if name.strip() in found:
            raise forms.ValidationError(f"Line {number}: {name.strip()[:80]} is there twice.")
        found[name.strip()] = value.strip()
    return found


def as_lines(variables: dict[str, str]) -> str:
    return "\n".join(f"{name}={value}" for name, value in sorted(variables.items()))
