"""How many workers the work needs: more with depth and with age, fewer after a while of calm, within the limits."""

import pytest

from queueing.work import scale
from queueing.work.scale import PATIENCE, ROWS_PER_WORKER, Scale
from registry.data import database
from tests.settling import seed


async def test_with_nothing_to_do_there_are_as_many_as_must_be():
    assert await Scale()(1, 4) == 1
    assert await Scale()(2, 4) == 2


@pytest.mark.parametrize(("rows", "workers"), [(1, 1), (ROWS_PER_WORKER, 1), (ROWS_PER_WORKER + 1, 2), (25_000, 3)])
async def test_they_follow_the_depth(tenant, rows, workers):
    await seed(tenant, rows)

    assert await Scale()(1, 8) == workers


async def test_there_are_never_more_than_allowed(tenant):
    await seed(tenant, 25_000)

    assert await Scale()(1, 2) == 2


async def test_a_few_that_have_waited_too_long_are_worth_one_more(tenant):
    await seed(tenant, 3, due=f"now() - make_interval(secs => {PATIENCE + 1})")

    assert await Scale()(1, 4) == 2


async def test_what_is_for_later_wants_nobody(tenant):
    await seed(tenant, 25_000, due="now() + interval '1 hour'")

    assert await Scale()(1, 4) == 1


async def test_they_leave_only_after_a_while_of_calm(tenant, monkeypatch):
    await seed(tenant, 25_000)
    wanted = Scale()
    busy = await wanted(1, 4)
    await database.fetch("DELETE FROM payments_payment WHERE tenant_id = %s", [tenant.pk])

    at_once = await wanted(1, 4)
    monkeypatch.setattr(scale, "CALM", 0.0)
    later = await wanted(1, 4)

    assert (busy, at_once, later) == (3, 3, 1)
