"""Several query sets that are read in one statement (portal/database/together.py)."""

from typing import Any

import pytest

from portal.database.statements import Given
from portal.database.together import Together, attach
from tests.conftest import Cast
from tests.upgrades.conftest import make_upgrade
from upgrades.models import Rollout, Upgrade, UpgradeCheck

pytestmark = pytest.mark.django_db


def values(row: Any) -> dict[str, str]:
    return {field.attname: repr(getattr(row, field.attname)) for field in row._meta.concrete_fields}


def test_it_reads_what_the_orm_reads(cast: Cast, django_assert_num_queries: Any) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="all", reason="100% of 'it' — {now}")
    upgrade.rollouts.update(hook={"id": "1", "after": None}, production_weight=100, strategy="LINEAR")
    make_upgrade(cast.globex, by=cast.outsider)
    mine = Upgrade.objects.filter(organization=Given("organization"))
    together = Together(
        upgrades=mine.select_related("initiated_by", "rolls_back"),
        rollouts=Rollout.objects.filter(upgrade__in=mine.order_by().values("pk")).order_by("position"),
        checks=UpgradeCheck.objects.filter(upgrade__in=mine.order_by().values("pk")),
        durations=Rollout.objects.filter(organization=Given("organization")).values_list("service", "started_at"),
    )

    with django_assert_num_queries(1):
        read = together.read(organization=cast.acme.pk)
        attach(read["upgrades"], "rollouts", read["rollouts"])
        (found,) = read["upgrades"]
        rollouts = list(found.rollouts.all())
        assert found.initiated_by.email == cast.operator.email
        assert found.rolls_back is None
        assert all(each.upgrade is found for each in rollouts)

    assert values(found) == values(Upgrade.objects.get(pk=upgrade.pk))
    assert [values(each) for each in rollouts] == [values(each) for each in upgrade.rollouts.order_by("position")]
    assert read["checks"] == list(upgrade.checks.all())
    assert sorted(read["durations"]) == sorted(upgrade.rollouts.values_list("service", "started_at"))
