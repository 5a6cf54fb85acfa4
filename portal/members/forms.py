"""The forms of the members pages. The rules about members are in commands.py."""

from django import forms

from portal.models import Role
from portal.web.forms import QUIET, IdempotentForm


class RoleForm(forms.Form):
    role = forms.ChoiceField(choices=Role.choices)

    def clean_role(self) -> Role:
        return Role(self.cleaned_data["role"])


class AddForm(IdempotentForm, RoleForm):
    email = forms.EmailField(max_length=254, label="E-mail address", widget=forms.EmailInput(attrs=QUIET))

    field_order = ["email", "role"]

    def clean_email(self) -> str:
        return str(self.cleaned_data["email"]).lower()
