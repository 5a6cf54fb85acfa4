"""`manage.py create_admin`: create a member of staff, the first one of a site."""

import sys
from argparse import ArgumentParser
from getpass import getpass
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from portal.audit import record
from portal.models import AuditKind, User
from portal.tenancy import all_organizations


class Command(BaseCommand):
    help = (
        "Create a person who may sign in to Django admin (staff): the first one of a site, or another one when nobody "
        "else can. Asks for the password; without a terminal it is the first line of the standard input."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--name", default="")
        parser.add_argument(
            "--no-password",
            action="store_true",
            help="the person sets one by “Forgot your password?” on the sign-in page, which needs EMAIL_URL",
        )

    @all_organizations("a person belongs to no organization yet")
    def handle(self, *args: Any, **options: Any) -> None:
        person = User(email=options["email"].lower(), name=options["name"], is_staff=True)
        try:
            person.full_clean(exclude=["password"])
            password = None if options["no_password"] else read_password(person)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        person.set_password(password)
        with transaction.atomic():
            person.save()
            changes = {"is_staff": {"before": False, "after": True}}
            kind = AuditKind.PERSON_CREATED
            record(kind, organization=None, actor=None, subject=person.email, data={"changes": changes})
        self.stdout.write(f"{person.email} may sign in, sets up a second factor there, and then opens /admin/.")


def read_password(person: User) -> str:
    """Return the password that was typed twice, or the first line of the standard input. *Raises* ValidationError."""
    if sys.stdin.isatty():
        password = getpass("Password: ")
        if getpass("The same again: ") != password:
            raise ValidationError("The two passwords differ. Nothing was created.")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    validate_password(password, person)
    return password
