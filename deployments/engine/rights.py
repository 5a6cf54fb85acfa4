"""Checks before each write to ECS that the organization is active and the person who asked may still ask.

What is wanted stays in the row. It is applied once the organization is active again, or another operator asks for it.
"""

from deployments.engine.read_budget import DeploymentLease
from deployments.models import Deployment
from portal.access import get_role
from portal.models import Organization, Role, User


class WriteRefused(Exception):
    """A write to ECS that must not be made. The message is a sentence for the deployment's page."""


def renew_to_write(lease: DeploymentLease) -> None:
    """Renew the lease before a write to ECS. Raises WriteRefused and LeaseLost. *Costs* up to four queries."""
    why = find_reason_not_to_write(lease.row)
    if why:
        raise WriteRefused(why)
    lease.renew()


def find_reason_not_to_write(row: Deployment) -> str | None:
    """Return why nothing may be written to ECS for this deployment now, or None. Reads everything afresh."""
    organization = Organization.objects.get(pk=row.organization_id)
    if not organization.is_active:
        return f"{organization.name} is suspended, so nothing was changed in ECS."
    if row.requested_by_id is None:
        return None  # asked for before the person was recorded
    person = User.objects.get(pk=row.requested_by_id)
    role = get_role(person, organization)
    if role is None or not role.includes(Role.OPERATOR):
        return (
            f"{person.email} may no longer change deployments of {organization.name}, so nothing was changed in ECS. "
            "An operator can ask for it again."
        )
    return None
