"""Queues of many partitions are dropped, and groups moved and deleted, in slices that fit the statement timeout."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from django.db import connection

from queueing.broker import catalog, groups, manage
from queueing.models import Consumer, Group, Partition, Queue
from registry.data import database
from registry.models import Tenant
from tests.factories import in_thread
from tests.registry.test_database import fresh_pool, with_options  # noqa: F401 - a fixture

MANY, SLICE = 390, 40

SLOW = """
    CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.001); RETURN coalesce(NEW, OLD); END $$;
    CREATE TRIGGER slowly BEFORE UPDATE OR DELETE ON queueing_consumer FOR EACH ROW EXECUTE FUNCTION slowly();
"""


@pytest.fixture
async def orders(tenant: Tenant, fresh_pool, settings, monkeypatch) -> AsyncIterator[str]:  # noqa: F811 - the fixture
    """A queue of many partitions with a group in each, where that many changes take longer than a statement may."""
    await in_thread(make, tenant)
    await in_thread(execute, SLOW)
    options = settings.DATABASES["default"]["OPTIONS"]
    limited = {**options, "options": options["options"].replace("statement_timeout=30000", "statement_timeout=250")}
    for module in (catalog, manage):
        monkeypatch.setattr(module, "SLICE", SLICE)
    try:
        with with_options(limited):
            yield "orders"
    finally:
        await in_thread(execute, "DROP TRIGGER slowly ON queueing_consumer")


def make(tenant: Tenant) -> None:
    queue = Queue.objects.create(tenant=tenant, name="orders")
    group = Group.objects.create(tenant=tenant, queue=queue, name="g")
    Partition.objects.bulk_create(Partition(tenant=tenant, queue=queue, name=f"p{n}") for n in range(MANY))
    made = Partition.objects.filter(tenant=tenant, queue=queue)
    Consumer.objects.bulk_create(Consumer(tenant=tenant, partition=one, group=group) for one in made)


def execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


async def count(table: str, tenant: Tenant, where: str = "true") -> int:
    [(found,)] = await database.fetch(f"SELECT count(*) FROM {table} WHERE tenant_id = %s AND {where}", [tenant.pk])
    return found


async def test_a_queue_is_dropped_slice_by_slice(tenant: Tenant, orders: str):
    existed = await manage.drop(tenant.pk, orders)

    assert existed
    assert await count("queueing_queue", tenant) == await count("queueing_consumer", tenant) == 0
    assert await count("queueing_partition", tenant, "queue_id IS NOT NULL") == 0
    assert await manage.drop(tenant.pk, orders) is False


async def test_an_interrupted_drop_continues(tenant: Tenant, orders: str):
    await manage._drop_slice(tenant.pk, orders)
    left = await count("queueing_partition", tenant, "queue_id IS NOT NULL")

    await manage.drop(tenant.pk, orders)

    assert left == MANY - SLICE
    assert await count("queueing_queue", tenant) == 0


async def test_a_group_moves_in_all_partitions(tenant: Tenant, orders: str):
    assert await groups.seek(tenant.pk, "g", orders, since=datetime.now(UTC)) == MANY


async def test_a_group_is_deleted_in_all_partitions(tenant: Tenant, orders: str):
    assert await groups.delete(tenant.pk, "g") == {orders: MANY}

    assert await count("queueing_consumer", tenant) == 0
