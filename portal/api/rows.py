"""Finds the row that a route names, for a command. Lists and records are read as JSON (json_rows.py)."""

import uuid
from functools import cache
from typing import Any, Protocol, TypeVar

from django.db.models import Model
from rest_framework.request import Request

from portal.access import list_organizations, person, require_second_factor
from portal.database.statements import Given, RowStatement
from portal.errors import found_or_404
from portal.models import Organization


class OfOrganization(Protocol):
    """A row of an organization."""

    objects: Any
    organization: Any
    organization_id: uuid.UUID


Row = TypeVar("Row", bound=OfOrganization)


def find_row(
    request: Request, model: type[Row], pk: uuid.UUID, *related: str, within: Organization | None = None
) -> Row:
    """Return the row with its organization and these `related` rows, if the person may see it.

    `within`: the only organization to look in.

    *Raises* PortalError 404 if it does not exist or belongs to another organization, 403 `mfa_required_by_organization`.
    *Costs* one query.
    """
    found: Row = found_or_404(make_find(model, *related).read_first(user=person(request).pk, pk=pk))
    seen = [within] if within else list_organizations(person(request))
    found.organization = found_or_404(next((each for each in seen if each.pk == found.organization_id), None))
    require_second_factor(request.user, found.organization)
    return found


@cache
def make_find(model: Any, *related: str) -> RowStatement[Any]:
    rows: Any = model.objects.visible_to(Given("user")).filter(pk=Given("pk"))
    return RowStatement[Model](rows.select_related(*related or (None,)).order_by())
