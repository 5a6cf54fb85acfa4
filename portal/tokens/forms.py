"""The forms of API tokens. The rules about scopes and roles are in commands.py."""

from collections.abc import Iterable
from typing import Any

from django import forms

from portal.models import Organization, Scope, TokenKind
from portal.models.tokens import NAME_LENGTH
from portal.web.forms import QUIET, IdempotentForm

LIFETIMES = [(7, "7 days"), (30, "30 days"), (90, "90 days"), (365, "a year")]
DEFAULT_DAYS = 90


class TokenForm(IdempotentForm):
    name = forms.CharField(
        max_length=NAME_LENGTH, help_text="Where it is used, such as the pipeline.", widget=forms.TextInput(attrs=QUIET)
    )
    scopes = forms.MultipleChoiceField(
        label="Scopes",
        initial=[Scope.READ.value],
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one."},
    )
    days = forms.TypedChoiceField(choices=LIFETIMES, initial=DEFAULT_DAYS, coerce=int, label="Expires after")

    def __init__(self, kind: TokenKind, data: Any = None) -> None:
        super().__init__(data)
        offered = [scope for scope in Scope if kind == TokenKind.PERSONAL or scope is not Scope.APPROVE]
        self.fields["scopes"].choices = [(scope.value, scope.label) for scope in offered]  # type: ignore[attr-defined] # its own

    def clean_scopes(self) -> list[Scope]:
        """Return the scopes in a fixed order, so that equal choices are equal lists."""
        return [scope for scope in Scope if scope.value in self.cleaned_data["scopes"]]


class PersonalTokenForm(TokenForm):
    organization = forms.ChoiceField(help_text="The token works in this organization only.")

    field_order = ["name", "organization", "scopes", "days"]

    def __init__(self, organizations: Iterable[Organization], data: Any = None) -> None:
        super().__init__(TokenKind.PERSONAL, data)
        self.fields["organization"].choices = [(each.slug, each.name) for each in organizations]  # type: ignore[attr-defined] # its own
