"""What more than one command refuses."""

from portal.errors import PortalError
from portal.models import Organization


def refuse_invalid(errors: dict[str, list[str]]) -> None:
    if errors:
        raise PortalError("invalid", f"Not accepted: {', '.join(errors)}. See errors.", 400, errors=errors)


def refuse_bad_replicas(organization: Organization, replicas: int) -> None:
    most = organization.deployment_replica_limit
    if not 1 <= replicas <= most:
        refuse_invalid({"replicas": [f"Must be 1 to {most}, the limit for {organization.name}."]})
