"""Objects that are made without Django's constructor behave as all others do (portal/models/reading.py)."""

import pytest
from django.apps import apps
from django.db import models

from portal.models import Organization
from portal.models.reading import QuicklyRead
from tests.conftest import Cast

QUICK = [model for model in apps.get_models() if issubclass(model, QuicklyRead)]


@pytest.mark.parametrize("model", QUICK)
def test_an_object_has_what_djangos_has(model: type[models.Model]) -> None:
    names = [field.attname for field in model._meta.concrete_fields]
    for read in (names, names[:2]):
        values = [None] * len(read)
        quick = model.from_db("default", read, values)
        djangos = models.Model.from_db.__func__(model, "default", read, values)  # type: ignore[attr-defined]

        own, other = vars(quick), vars(djangos)
        assert vars(own.pop("_state")) == vars(other.pop("_state"))
        assert own == other
        assert quick.get_deferred_fields() == djangos.get_deferred_fields()


def test_a_column_that_was_not_read_is_read_when_used(cast: Cast) -> None:
    organization = Organization.objects.only("slug").get(slug="acme")

    assert organization.get_deferred_fields() > {"name"}
    assert organization.name == "Acme Robotics"


def test_saving_an_object_that_was_read_updates_its_row(cast: Cast) -> None:
    organization = Organization.objects.get(slug="acme")
    organization.name = "Acme"
    organization.save()

    assert Organization.objects.get(pk=organization.pk).name == "Acme"
