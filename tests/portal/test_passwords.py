"""New passwords: what is guessed first is refused, whatever its length."""

import time

import pytest
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.test import Client

from portal.models import User
from tests.conftest import Cast, sign_in
from tests.portal.conftest import get_main

GUESSABLE = [
    "passwordpassword",
    "Password12345678",
    "P@ssw0rd!2024",
    "Summer2026!!!!",
    "aaaaaaaaaaaaaaaa",
    "abcabcabcabcabc",
    "abcdefghijklmn",
    "987654321098",
    "qwertyuiopasdf",
    "1qaz2wsx3edc4rfv",
    "1q2w3e4r5t6y7u",
    "operationsportal",
    "AcmeRobotics2026",
    "acme-robotics-1!",
    "letmeinletmein",
    "password-password",
    "Password!Password?",
    "trustno1trustno1",
    "passwordletmein",
    "monkeydragon12",
    "Spring2026Spring",
    "pass1word2pass3word",
    "footballmonkey",
    "passworddragon",
    "killerpassword",
    "letmeinfootball",
    "baseballdragon!",
    "dragonmonkey1",
    "f00tb@llm0nkey",
    "letmein-letmein-",
]
STRONG = [
    "correct-horse-battery-staple",
    "a-long-password-of-mine-1",
    "another-long-password-1",
    "tide Kelp oversaw 41 wrens",
    "vK9#qLm2!xTz",
    "acme-robotics-plum-otter",
    "kitten-forest-sunshine",
]


@pytest.mark.parametrize("password", GUESSABLE)
def test_a_guessable_password_is_refused(cast: Cast, password: str) -> None:
    with pytest.raises(ValidationError):
        validate_password(password, cast.viewer)


@pytest.mark.parametrize("password", STRONG)
def test_a_strong_password_is_accepted(cast: Cast, password: str) -> None:
    validate_password(password, cast.viewer)


def test_a_password_of_128_characters_is_accepted(cast: Cast) -> None:
    validate_password(("tide Kelp oversaw 41 wrens. " * 5)[:100] + "vK9#qLm2!xTz" + "plum-otter-mends", cast.viewer)


def test_a_long_password_is_refused_at_little_cost(cast: Cast) -> None:
    long = "".join(chr(0x4E00 + number % 20_000) for number in range(15_000))
    new = {"oldpassword": cast.password, "password1": long, "password2": long}
    client = sign_in(Client(), cast.viewer)
    started_at = time.process_time()

    page = get_main(client.post("/accounts/password/change/", new))

    assert time.process_time() - started_at < 5
    assert "This password is too long. It can have at most 128 characters." in page


def test_anothers_organization_is_no_known_name(cast: Cast) -> None:
    validate_password("AcmeRobotics-41", cast.outsider)


def test_the_page_refuses_a_guessable_password(cast: Cast) -> None:
    new = {"oldpassword": cast.password, "password1": "passwordpassword", "password2": "passwordpassword"}

    page = get_main(sign_in(Client(), cast.viewer).post("/accounts/password/change/", new))

    assert "This password is easy to guess" in page
    assert User.objects.get(pk=cast.viewer.pk).check_password(cast.password)
