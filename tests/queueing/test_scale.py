"""The number of workers wanted: it grows with depth and age, shrinks after a calm period, within the limits."""

import pytest

from queueing.work import scale
from queueing.work.scale import PATIENCE, Scale
from registry.data import database
from tests.settling import seed

ROWS_PER_WORKER = 100  # a hundredth of the product's


@pytest.fixture(autouse=True)
def small_workers(monkeypatch):
    monkeypatch.setattr(scale, "ROWS_PER_WORKER", ROWS_PER_WORKER)


async def test_without_due_rows_the_minimum_of_workers_is_wanted():
    assert await Scale()(1, 4) == 1
    assert await Scale()(2, 4) == 2


@pytest.mark.parametrize(("rows", "workers"), [(1, 1), (ROWS_PER_WORKER, 1), (ROWS_PER_WORKER + 1, 2), (250, 3)])
async def test_the_number_of_workers_follows_the_depth(tenant, rows, workers):
    await seed(tenant, rows)

    assert await Scale()(1, 8) == workers


async def test_there_are_never_more_workers_than_the_maximum(tenant):
    await seed(tenant, 250)

    assert await Scale()(1, 2) == 2


async def test_a_few_rows_that_waited_too_long_add_one_worker(tenant):
    await seed(tenant, 3, due=f"now() - make_interval(secs => {PATIENCE + 1})")

    assert await Scale()(1, 4) == 2


async def test_scheduled_rows_add_no_worker(tenant):
    await seed(tenant, 250, due="now() + interval '1 hour'")

    assert await Scale()(1, 4) == 1


async def test_workers_are_removed_only_after_a_calm_period(tenant, monkeypatch):
    await seed(tenant, 250)
    wanted = Scale()
    busy = await wanted(1, 4)
    await database.fetch("DELETE FROM payments_payment WHERE tenant_id = %s", [tenant.pk])

    at_once = await wanted(1, 4)
    monkeypatch.setattr(scale, "CALM", 0.0)
    later = await wanted(1, 4)

    assert (busy, at_once, later) == (3, 3, 1)
