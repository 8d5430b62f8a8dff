"""A tenant's stream: numbers without gaps in the order of commits, with concurrent writers."""

import asyncio
import random
from contextlib import suppress

import pytest

from payments.books import events, purge
from payments.errors import NotCancelable
from payments.settle import lifecycle
from registry.data import database
from tests.conftest import at_work, eventually
from tests.depth import deep
from tests.factories import in_thread, make_processor, make_tenant
from tests.settling import accept, count, payments, settle_due, tries, until_settled

TENANTS = 3
ROUNDS = deep(3, 8)


@pytest.fixture
async def tenants():
    found = [await in_thread(make_tenant) for _ in range(TENANTS)]
    for tenant in found:
        await in_thread(make_processor, tenant, "cheap", fee="0.01")
        await in_thread(make_processor, tenant, "dear", fee="0.02")
    return found


class Reader:
    """Resumes after what it has read last, as a socket does; a late commit of a lower number would be missed."""

    def __init__(self, tenant) -> None:
        self.tenant = tenant
        self.read: list = []

    async def follow(self) -> None:
        while True:
            self.read += await events.since(self.tenant.pk, self.read[-1].position if self.read else 0, 50)
            await asyncio.sleep(0.002)


async def _writes(tenants, number: int) -> None:
    """Accepts in batches over several tenants, and cancels some of its own while workers are after them."""
    for _ in range(ROUNDS):
        mine = random.sample(tenants, 2)
        for tenant in mine:
            ids = await accept(tenant, random.randint(1, 20))
            for one in ids[:3]:
                with suppress(NotCancelable):
                    await lifecycle.cancel(tenant_id=tenant.pk, correlation_id=one)


async def _deadlocks() -> int:
    return (await database.fetch("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))[0][0]


async def test_numbers_have_no_gaps_and_follow_the_order_of_commits_of_concurrent_writers(tenants):
    before = await _deadlocks()
    readers = [Reader(tenant) for tenant in tenants]
    following = [asyncio.create_task(reader.follow()) for reader in readers]

    async with at_work(), at_work():
        await asyncio.gather(*(_writes(tenants, number) for number in range(8)))
        await eventually(lambda: _nothing_open(tenants))
    for reader in readers:
        latest = (await events.positions([reader.tenant.pk]))[reader.tenant.pk]
        await eventually(lambda reader=reader, latest=latest: reader.read and reader.read[-1].position == latest)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    await database.pools.close()  # a backend that ends tells its statistics

    for reader in readers:
        assert [event.position for event in reader.read] == list(range(1, len(reader.read) + 1))
        assert len(reader.read) >= 100
    assert await _deadlocks() == before


async def _nothing_open(tenants) -> bool:
    return not any([await count(tenant, "queued", "processing", "uncertain") for tenant in tenants])


async def test_the_sequence_of_a_payment_follows_its_history(tenants):
    tenant = tenants[0]
    async with at_work():
        await accept(tenant, 10)
        await until_settled(tenant)

    for row in await payments(tenant):
        story = await events.of_payment(tenant.pk, row.correlation_id, 0)
        told = await database.fetch(
            "SELECT status, sequence, attempt FROM payments_paymentevent WHERE payment_id = %s ORDER BY position",
            [row.id],
        )
        assert [event.sequence for event in story] == [1, 2, 3]
        assert told == [("queued", 1, 0), ("processing", 2, 1), ("succeeded", 3, 1)]


async def test_either_a_concurrent_cancel_or_a_worker_gets_the_payment(tenants):
    """Either it is canceled and never sent, or it is sent and settles; nothing in between."""
    tenant = tenants[0]
    ids = await accept(tenant, 60)

    async def cancel(one) -> bool:
        try:
            await lifecycle.cancel(tenant_id=tenant.pk, correlation_id=one)
            return True
        except NotCancelable:
            return False

    async with at_work():
        canceled = dict(zip(ids, await asyncio.gather(*map(cancel, ids)), strict=True))
        await eventually(lambda: _nothing_open([tenant]))

    for row in await payments(tenant):
        assert row.status == ("canceled" if canceled[row.correlation_id] else "succeeded")
        assert bool(await tries(row.correlation_id)) != canceled[row.correlation_id]


async def test_numbering_makes_no_version_of_the_streams_row(tenants):
    """While some transaction might see them, each statement would read all versions that were made since."""
    mine = tenants[0]
    row = "SELECT ctid::text, xmin::text FROM payments_stream WHERE tenant_id = %s"
    await accept(mine, 1)
    before = await database.fetch(row, [mine.pk])

    for _ in range(3):
        await accept(mine, 2)
        await settle_due()

    assert await count(mine, "succeeded") == 7
    assert [e.position for e in await events.since(mine.pk, 0, 100)] == list(range(1, 22))
    assert await database.fetch(row, [mine.pk]) == before


async def test_numbers_of_purged_events_are_not_given_again(tenants):
    mine = tenants[0]
    await accept(mine, 3)
    await settle_due()

    await purge.purge(tenant_id=mine.pk, before=await purge.clock())
    latest = await events.STREAM.positions([mine.pk])
    await accept(mine, 1)

    assert latest == {mine.pk: 9}
    assert [e.position for e in await events.since(mine.pk, 0, 100)] == [10]
