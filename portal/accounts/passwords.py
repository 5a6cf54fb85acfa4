"""Refuses passwords that are long enough but easy to guess, such as `passwordpassword`."""

import re
from collections.abc import Collection
from typing import Any

from django.contrib.auth.password_validation import CommonPasswordValidator
from django.core.exceptions import ValidationError

from portal.models import Organization
from portal.tenancy import all_organizations

# What the API takes to sign in. The search for repetition costs the square of the length.
MAX_LENGTH = 128
FEWEST_LEFT = 6
# The length of words that count as parts of a password. Two of them are guessed soon, also with digits and signs before,
# between and after them, and however often they are repeated.
SHORTEST_WORD, FEWEST_WORDS, LONGEST_OF_WORDS = 3, 3, 64
PRODUCT_WORDS = {"operations", "operation", "portal"}
# Alphabet, digits, the rows of keyboards, and ways down and across their columns. Each is also read backwards.
LINES = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "qwertzuiop",
    "azertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "yxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "1q2w3e4r5t6y7u8i9o0p",
)
SHORTEST_RUN = 3
LEET = str.maketrans("0134578@$!", "oleastbasi")
REPEATED = re.compile(r"(.+?)\1+")


class GuessablePasswordValidator(CommonPasswordValidator):
    """Refuse a password of which names, patterns and repetition leave too little, or only a common password.

    Names are those of the product and of the person's organizations. Patterns are runs along LINES. What is left is
    compared with Django's list of common passwords, without digits and signs around it, and also with the letters that
    digits and signs stand for. Two passwords of the list, one after the other, are refused as well.
    """

    def validate(self, password: str, user: Any = None) -> None:
        if len(password) > MAX_LENGTH:
            message = f"This password is too long. It can have at most {MAX_LENGTH} characters."
            raise ValidationError(message, code="password_too_long")
        lower = password.lower()
        left = REPEATED.sub(r"\1", without_runs(without_names(lower, find_names(user))))
        bare = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", left)
        plain = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", lower).translate(LEET)
        words = {bare, bare.translate(LEET), plain, REPEATED.sub(r"\1", plain)}
        # Also as typed: a word may have a double letter or contain a run, as football and monkey do.
        texts = {left, left.translate(LEET), lower, lower.translate(LEET)}
        if (
            len(left) < FEWEST_LEFT
            or words & self.passwords
            or any(is_of_words(each, self.passwords) for each in texts)
        ):
            raise ValidationError(self.get_error_message(), code="password_guessable")

    def get_error_message(self) -> str:
        return "This password is easy to guess: a common word, a name or a pattern with little added."

    def get_help_text(self) -> str:
        return "Your password must not be a common word, a name or a pattern with little added."


def find_names(user: Any) -> set[str]:
    """Return the words of the product's name and of the person's organizations. *Costs* one query for a person."""
    names = set(PRODUCT_WORDS)
    if user is not None and user.pk:
        with all_organizations("a password is also reset without a session, and before the person accepts"):
            own = list(Organization.objects.filter(memberships__user=user).values_list("name", "slug"))
        for name, slug in own:
            names |= {word for word in re.split(r"[\W_]+", f"{name} {slug}".lower()) if len(word) > SHORTEST_RUN}
    return names


def is_of_words(text: str, words: Collection[str]) -> bool:
    """Return whether fewer than FEWEST_WORDS different words make up the text, apart from digits and signs.

    >>> is_of_words("monkey!dragon7", {"monkey", "dragon"}), is_of_words("monkey-wrens", {"monkey", "dragon"})
    (True, False)
    """
    if len(text) > LONGEST_OF_WORDS:
        return False
    # For each position, the sets of words that make up the text before it.
    before: list[set[frozenset[str]]] = [{frozenset()}, *(set() for _ in text)]
    for at, sign in enumerate(text):
        if not sign.isalpha():
            before[at + 1] |= before[at]
        for end in range(at + SHORTEST_WORD, len(text) + 1 if before[at] else 0):
            if text[at:end] in words:
                before[end] |= {
                    used for used in (each | {text[at:end]} for each in before[at]) if len(used) < FEWEST_WORDS
                }
    return bool(before[-1])


def without_names(text: str, names: set[str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, "")
    return text


def without_runs(text: str) -> str:
    """Return the text without its runs along a line.

    >>> without_runs("qwerty-kite-321")
    '-kite-'
    """
    lines = [*LINES, *(line[::-1] for line in LINES)]
    left, at = "", 0
    while at < len(text):
        end = at + SHORTEST_RUN
        while end <= len(text) and any(text[at:end] in line for line in lines):
            end += 1
        if end > at + SHORTEST_RUN:
            at = end - 1
        else:
            left += text[at]
            at += 1
    return left
