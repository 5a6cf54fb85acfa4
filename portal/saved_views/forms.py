"""The forms of saved views. The rules about who may share are in commands.py."""

from typing import Any

from django import forms

from portal.models import ViewedList
from portal.models.saved_views import NAME_LENGTH, QUERY_LENGTH
from portal.saved_views.lists import clean_query
from portal.web.forms import QUIET

NO_FILTER = "Choose a filter in the list first: a view without one is the list itself."
TOO_LONG = f"The filters are too long for a view: at most {QUERY_LENGTH} characters in the list's address."


class ChangeForm(forms.Form):
    name = forms.CharField(max_length=NAME_LENGTH, widget=forms.TextInput(attrs=QUIET))
    is_shared = forms.BooleanField(required=False, label="Share with the organization")

    def __init__(self, may_share: bool, data: Any = None, **options: Any) -> None:
        super().__init__(data, **options)
        shared = self.fields["is_shared"]
        shared.help_text = (
            "Every member sees it. Admins change and delete it." if may_share else "Only admins share views."
        )
        shared.disabled = not may_share


class SaveForm(ChangeForm):
    list = forms.ChoiceField(choices=ViewedList.choices, widget=forms.HiddenInput)
    query = forms.CharField(max_length=QUERY_LENGTH, widget=forms.HiddenInput, error_messages={"required": NO_FILTER})
    is_default = forms.BooleanField(
        required=False,
        label="Open the list with this view",
        help_text="For you, when you choose the list in the navigation.",
    )

    field_order = ["name", "is_default", "is_shared"]

    def clean_query(self) -> str:
        cleaned = clean_query(self.cleaned_data["query"])
        if not cleaned:
            raise forms.ValidationError(NO_FILTER)
        if len(cleaned) > QUERY_LENGTH:  # letters beyond ASCII are longer in an address
            raise forms.ValidationError(TOO_LONG)
        return cleaned
