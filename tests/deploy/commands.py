"""Checks that the commands and settings that deployment files name exist."""

import re
from collections.abc import Iterable

from celery.bin.worker import worker
from django.core.management import get_commands
from gunicorn.config import KNOWN_SETTINGS

from tests.local_aws import ROOT

SETTINGS = ROOT / "portal" / "settings.py"
# Those of boto3: https://boto3.amazonaws.com/v1/documentation/api/latest/guide/configuration.html
OF_BOTO3 = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"}
# https://www.postgresql.org/docs/current/libpq-envars.html
OF_LIBPQ = {"PGPASSWORD"}


def find_unknown_settings(names: Iterable[str]) -> set[str]:
    """Return the names that neither the portal's settings nor boto3 nor PostgreSQL's client read."""
    known = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', SETTINGS.read_text()))
    return set(names) - known - OF_BOTO3 - OF_LIBPQ


def find_mistakes(command: list[str]) -> list[str]:
    """Return what is wrong with a command of the portal: an unknown program, module, command of manage.py or option."""
    program, *rest = command
    program = program.rpartition("/")[2]
    if program == "gunicorn":
        known = {flag for setting in KNOWN_SETTINGS for flag in setting.cli or []}
        return find_unknown_options(rest, known) + ([] if "portal.wsgi" in rest else ["gunicorn needs portal.wsgi"])
    if program == "celery":
        place, (name, *options) = rest[:2], rest[2:]
        known = {flag for option in worker.params for flag in (*option.opts, *option.secondary_opts)}
        right = (place, name) == (["-A", "portal"], "worker")
        return find_unknown_options(options, known) + ([] if right else [f"not a worker: {command}"])
    if program == "python" and rest[0].endswith("manage.py"):
        return [] if rest[1] in get_commands() else [f"no command of manage.py: {rest[1]}"]
    return [f"unknown program: {program}"]


def find_unknown_options(arguments: list[str], known: set[str]) -> list[str]:
    given = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    return [option for option in given if option not in known]
