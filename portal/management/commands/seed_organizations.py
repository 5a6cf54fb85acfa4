"""Creates the demo's organizations and people (README: Run it). The local AWS seeds their AWS resources itself."""

import os
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from portal.models import Membership, Organization, Role, User
from portal.tenancy import all_organizations

PASSWORD = "portal-demo-1"  # noqa: S105 - the demo's, printed by `make up`

ORGANIZATIONS: dict[str, dict[str, str]] = {
    "acme": {"name": "Acme Robotics", "deployment_stack": "acme-prod", "deployment_region": "eu-central-1"},
    "globex": {
        "name": "Globex",
        "deployment_stack": "globex-prod",
        "deployment_region": "us-east-1",
        "deployment_role_arn": "arn:aws:iam::222222222222:role/portal-upgrades",
        "deployment_external_id": "globex-demo-external-id",
    },
    "initech": {"name": "Initech"},
}

# The platform services of a stack, and the field with the address of each.
PLATFORM_FIELDS = {
    "agent": "platform_agent_url",
    "orchestrator": "platform_orchestrator_url",
    "customer-portal": "platform_portal_url",
}

MEMBERS: dict[str, dict[str, Role]] = {
    "admin@acme.example": {"acme": Role.ADMIN},
    "operator@acme.example": {"acme": Role.OPERATOR},
    "viewer@acme.example": {"acme": Role.VIEWER},
    "admin@globex.example": {"globex": Role.ADMIN},
    "operator@globex.example": {"globex": Role.OPERATOR},
    "viewer@globex.example": {"globex": Role.VIEWER},
    "operator@initech.example": {"initech": Role.OPERATOR},
    "consultant@portal.example": {"acme": Role.OPERATOR, "globex": Role.OPERATOR},
    "staff@portal.example": {},
}


class Command(BaseCommand):
    help = "Create the demo's organizations and people once. Needs DEMO=1."

    @all_organizations("the demo has several")
    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEMO:
            raise CommandError(
                "Demo people have a known password, so seeding needs DEMO=1. Never set it in production."
            )
        if Organization.objects.filter(slug__in=ORGANIZATIONS).count() == len(ORGANIZATIONS):
            self.set_platform_addresses()
            return  # seeded before: keep what people have created and changed since
        foreign = Organization.objects.values_list("slug", flat=True)
        if foreign:
            raise CommandError(
                f"This database contains other organizations ({', '.join(foreign[:3])}). Nothing was seeded."
            )
        organizations = {
            slug: Organization.objects.create(
                slug=slug, **fields, **platform_addresses(fields.get("deployment_stack", ""))
            )
            for slug, fields in ORGANIZATIONS.items()
        }
        password = make_password(PASSWORD)  # hashed once: each time costs a third of a second
        for email, roles in MEMBERS.items():
            person = self.make_person(email, password)
            for slug, role in roles.items():
                Membership.objects.create(
                    organization=organizations[slug], user=person, role=role, accepted_at=timezone.now()
                )

    def set_platform_addresses(self) -> None:
        """Update the demo's platform addresses to those of the local AWS, unless a person has changed them.

        The local AWS may have had another port when they were seeded, or the fields did not exist yet.
        """
        for organization in Organization.objects.filter(slug__in=ORGANIZATIONS).order_by("slug"):
            addresses = platform_addresses(ORGANIZATIONS[organization.slug].get("deployment_stack", ""))
            stale = {}
            for field, address in addresses.items():
                current, path = getattr(organization, field), urlsplit(address).path
                if current != address and (not current or urlsplit(current).path == path):
                    stale[field] = address
            if stale:
                Organization.objects.filter(pk=organization.pk).update(**stale)

    def make_person(self, email: str, password: str) -> User:
        is_staff = email == "staff@portal.example"
        name = email.partition("@")[0].capitalize()
        return User.objects.create(email=email, password=password, name=name, is_staff=is_staff, is_superuser=is_staff)


def platform_addresses(stack: str) -> dict[str, str]:
    """Return the addresses at which the local AWS serves a stack's platform; empty without a stack or a local AWS."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "").rstrip("/")
    if not stack or not endpoint:
        return {}
    return {field: f"{endpoint}/_platform/{stack}/{service}" for service, field in PLATFORM_FIELDS.items()}
