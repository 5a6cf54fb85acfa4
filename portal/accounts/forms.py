"""allauth's forms, where ours differ (settings.ACCOUNT_FORMS)."""

from typing import Any

from allauth.account.forms import LoginForm


class SignInForm(LoginForm):  # type: ignore[misc] # allauth ships no types
    """The address is the name that people sign in with: `username` is what password managers look for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["login"].label = "E-mail address"
        self.fields["login"].widget.attrs |= {"autocomplete": "username", "autofocus": True}
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)
