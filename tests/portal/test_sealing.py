"""Stored secrets are sealed, can be read with earlier keys, and are sealed with the newest by `manage.py reseal`."""

from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator as AuthenticatorRow
from django.core.management import CommandError, call_command

from portal.models import NotificationChannel, User
from portal.sealing import Purpose, is_newest, seal, unseal
from tests.conftest import Cast
from tests.notifications.conftest import SECRET, make_channel
from tests.portal.conftest import ApiClient

Authenticator = Callable[[User], Callable[[], str]]
RecoveryCodes = Callable[[User], list[str]]
NEW_KEY = "a-new-key-of-more-than-thirty-two-characters"


def change_key(settings: Any, *, keep: bool = True) -> None:
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY] if keep else []
    settings.SECRET_KEY = NEW_KEY


def read_seeds() -> list[str]:
    return [row.data.get("secret") or row.data["seed"] for row in AuthenticatorRow.objects.order_by("pk")]


def sign_in(cast: Cast, code: str) -> int:
    return int(ApiClient().sign_in(cast.viewer, cast.password, code=code).status_code)


def test_seeds_are_stored_sealed_and_codes_work(
    cast: Cast, authenticator: Authenticator, recovery_codes: RecoveryCodes
) -> None:
    code, spare = authenticator(cast.viewer), recovery_codes(cast.viewer)[0]

    seeds = read_seeds()

    assert [is_newest(seed, Purpose.MFA) for seed in seeds] == [True, True]
    assert [sign_in(cast, code()), sign_in(cast, spare)] == [200, 200]


def test_a_secret_is_read_for_its_purpose_alone() -> None:
    sealed = seal("seed", Purpose.MFA)

    assert (unseal(sealed, Purpose.MFA), unseal(sealed, Purpose.NOTIFICATIONS)) == ("seed", None)


@pytest.mark.parametrize("stored", ["", "not sealed", "\uff1d1+1", "gAAAAABcut"])
def test_what_is_not_sealed_is_no_secret(stored: str) -> None:
    assert (unseal(stored), is_newest(stored, Purpose.NOTIFICATIONS)) == (None, False)


def test_codes_work_with_an_earlier_key(
    cast: Cast, authenticator: Authenticator, recovery_codes: RecoveryCodes, settings: Any
) -> None:
    code, spare = authenticator(cast.viewer), recovery_codes(cast.viewer)[0]
    change_key(settings)

    assert [sign_in(cast, code()), sign_in(cast, spare)] == [200, 200]


def test_no_code_works_without_the_key(cast: Cast, authenticator: Authenticator, settings: Any) -> None:
    code = authenticator(cast.viewer)
    change_key(settings, keep=False)

    response = ApiClient().sign_in(cast.viewer, cast.password, code=code())

    assert (response.status_code, response.json()["code"]) == (503, "second_factor_unreadable")


def test_reseal_seals_everything_with_the_newest_key(
    cast: Cast, authenticator: Authenticator, recovery_codes: RecoveryCodes, settings: Any
) -> None:
    code, spare = authenticator(cast.viewer), recovery_codes(cast.viewer)[0]
    channel = make_channel(cast.acme, by=cast.admin)
    NotificationChannel.objects.filter(pk=channel.pk).update(sealed_old_secret=seal("old"))
    target = channel.target
    change_key(settings)

    call_command("reseal")
    settings.SECRET_KEY_FALLBACKS = []

    channel.refresh_from_db()
    assert (channel.target, unseal(channel.sealed_secret), unseal(channel.sealed_old_secret)) == (target, SECRET, "old")
    assert [sign_in(cast, code()), sign_in(cast, spare)] == [200, 200]
    rows = [list(model.objects.order_by("pk").values()) for model in (NotificationChannel, AuthenticatorRow)]
    call_command("reseal")
    assert rows == [list(model.objects.order_by("pk").values()) for model in (NotificationChannel, AuthenticatorRow)]


def test_seeds_in_clear_still_work_and_reseal_seals_them(
    cast: Cast, authenticator: Authenticator, recovery_codes: RecoveryCodes
) -> None:
    code, spares = authenticator(cast.viewer), recovery_codes(cast.viewer)
    for row in AuthenticatorRow.objects.all():
        row.data = {
            name: unseal(value, Purpose.MFA) if name in ("secret", "seed") else value
            for name, value in row.data.items()
        }
        row.save()
    in_clear = sign_in(cast, code())

    call_command("reseal")

    assert [is_newest(seed, Purpose.MFA) for seed in read_seeds()] == [True, True]
    assert [in_clear, sign_in(cast, code()), sign_in(cast, spares[0])] == [200, 200, 200]


def test_reseal_keeps_and_reports_what_it_cannot_read(cast: Cast, authenticator: Authenticator, settings: Any) -> None:
    authenticator(cast.viewer)
    make_channel(cast.acme, by=cast.admin)
    before = read_seeds()
    change_key(settings, keep=False)

    with pytest.raises(CommandError, match=r"3 secrets cannot be read"):
        call_command("reseal")

    assert read_seeds() == before
