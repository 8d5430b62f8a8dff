"""The hub: one subscription per process; events arrive in order and once, whatever Redis loses or reorders."""

import asyncio
import random
from collections.abc import AsyncIterator
from itertools import count
from uuid import uuid4

import pytest
from channels.layers import get_channel_layer
from django.conf import settings
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as some
from redis.asyncio import Redis

from registry.data import database, live
from registry.data.loop import end_loop
from tests.conftest import Api, eventually
from tests.depth import deep

_tenants = count(10**9)


class Shelf:
    """What PostgreSQL keeps: a source of numbered events that counts how often it is read."""

    name = "shelf"

    def __init__(self) -> None:
        self.events: dict[int, list[live.Event]] = {}
        self.reads = 0

    def add(self, tenant: int, many: int = 1, subject: str = "s") -> list[live.Event]:
        kept = self.events.setdefault(tenant, [])
        fresh = [
            live.Event(self.name, tenant, len(kept) + n, subject, len(kept) + n, b"{}") for n in range(1, many + 1)
        ]
        kept += fresh
        return fresh

    async def since(self, tenant: int, after: int, limit: int) -> list[live.Event]:
        self.reads += 1
        await asyncio.sleep(0)
        return [event for event in self.events.get(tenant, []) if event.position > after][:limit]

    async def positions(self, tenants: list[int]) -> dict[int, int]:
        return {tenant: len(self.events[tenant]) for tenant in tenants if tenant in self.events}


@pytest.fixture
def shelf() -> Shelf:
    """In PostgreSQL's place for what only order concerns; the tests over HTTP read the real one."""
    return Shelf()


@pytest.fixture(autouse=True)
def own_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hubs of a test have a Redis group of their own: others that run at the same time use the same Redis."""
    monkeypatch.setattr(live, "GROUP", f"live-{uuid4().hex[:8]}")


@pytest.fixture
def quick_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL is polled ten times as often as in the product, where it is once a second."""
    assert live.TICK == 1.0
    monkeypatch.setattr(live, "TICK", 0.1)


@pytest.fixture
async def hub() -> AsyncIterator[live.Hub]:
    """A hub that listens to Redis like a web process of its own."""
    hub = live.Hub()
    yield hub
    await hub.close()


@pytest.fixture
def tenant_id() -> int:
    return next(_tenants)


async def positions_read(subscription: live.LiveSubscription, last: int, within: float = 5) -> list[int]:
    """The numbers that arrive, up to `last`."""
    got: list[int] = []
    async with asyncio.timeout(within):
        while not got or got[-1] < last:
            got += [event.position for event in await subscription.get()]
    return got


# -- A slow database -----------------------------------------------------------------------------------------


class Turnstile(Shelf):
    """A shelf whose numbers of one tenant stand behind an advisory lock of the real database."""

    def __init__(self, slow: int) -> None:
        super().__init__()
        self.slow, self.asked = slow, 0

    async def positions(self, tenants: list[int]) -> dict[int, int]:
        if self.slow in tenants:
            self.asked += 1
            await database.fetch("SELECT pg_advisory_xact_lock(%s)", [self.slow])
        return await super().positions(tenants)


@pytest.fixture
def turnstile(tenant_id: int) -> Turnstile:
    return Turnstile(tenant_id)


async def first_of(hub: live.Hub, shelf: Shelf, tenant: int, last: int) -> list[int]:
    async with hub.subscribe(shelf, tenant) as subscription:
        return await positions_read(subscription, last)


async def test_slow_reads_of_one_tenant_delay_no_readers_of_others(hub: live.Hub, turnstile):
    other = next(_tenants)
    async with database.transaction() as conn:
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", [turnstile.slow])
        waiting = asyncio.create_task(first_of(hub, turnstile, turnstile.slow, 1))
        await eventually(lambda: turnstile.asked)
        await eventually(somebody_listens)  # else the message is lost, and found only with the next tick
        async with asyncio.timeout(5), hub.subscribe(turnstile, other) as subscription:
            live.publish(turnstile.add(other, 3))
            got = await positions_read(subscription, 3)
        held = not waiting.done()
    await eventually(lambda: ("shelf", turnstile.slow) in hub.feeds)
    live.publish(turnstile.add(turnstile.slow))

    assert got == [1, 2, 3]
    assert held
    assert await waiting == [1]


async def test_readers_of_one_feed_share_a_read_and_all_receive_everything_in_order(hub: live.Hub, turnstile):
    async with database.transaction() as conn:
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", [turnstile.slow])
        waiting = [asyncio.create_task(first_of(hub, turnstile, turnstile.slow, 20)) for _ in range(5)]
        await eventually(lambda: turnstile.asked)
        asked = turnstile.asked
    await eventually(
        lambda: ("shelf", turnstile.slow) in hub.feeds and len(hub.feeds["shelf", turnstile.slow].streams) == 5
    )
    events = turnstile.add(turnstile.slow, 20)
    for event in random.sample(events, len(events)):
        hub.feeds["shelf", turnstile.slow].offer(event)

    assert asked == 1
    assert await asyncio.gather(*waiting) == [list(range(1, 21))] * 5


async def test_a_reader_cancelled_while_its_feed_opens_affects_no_other_and_leaves_no_feed(hub: live.Hub, turnstile):
    async with database.transaction() as conn:
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", [turnstile.slow])
        gone, stays = (asyncio.create_task(first_of(hub, turnstile, turnstile.slow, 1)) for _ in range(2))
        await eventually(lambda: turnstile.asked)
        gone.cancel()
    await eventually(lambda: ("shelf", turnstile.slow) in hub.feeds and hub.feeds["shelf", turnstile.slow].streams)
    hub.feeds["shelf", turnstile.slow].offer(turnstile.add(turnstile.slow)[0])

    assert await stays == [1]
    assert hub.feeds == {}


async def test_a_feed_whose_readers_all_left_while_it_opened_is_dropped(hub: live.Hub, turnstile, monkeypatch):
    monkeypatch.setattr(live, "TICK", 0.05)
    async with database.transaction() as conn:
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", [turnstile.slow])
        gone = asyncio.create_task(first_of(hub, turnstile, turnstile.slow, 1))
        await eventually(lambda: turnstile.asked)
        gone.cancel()

    await eventually(lambda: not hub._opening)
    await eventually(lambda: hub.feeds == {})


# -- Order ---------------------------------------------------------------------------------------------------


async def test_events_published_through_redis_arrive_in_order(hub: live.Hub, shelf: Shelf, tenant_id: int):
    async with hub.subscribe(shelf, tenant_id) as subscription:
        for _ in range(20):
            live.publish(shelf.add(tenant_id, 5))

        assert await positions_read(subscription, 100) == list(range(1, 101))


async def test_a_gap_is_read_from_the_source_and_once_for_all_readers(hub: live.Hub, shelf: Shelf, tenant_id: int):
    async with hub.subscribe(shelf, tenant_id) as first, hub.subscribe(shelf, tenant_id) as second:
        shelf.add(tenant_id, 7)
        hub.feeds["shelf", tenant_id].offer(shelf.add(tenant_id)[0])

        assert await positions_read(first, 8) == list(range(1, 9))
        assert await positions_read(second, 8) == list(range(1, 9))
    assert shelf.reads == 1


async def test_a_message_that_was_only_overtaken_costs_no_read(hub: live.Hub, shelf: Shelf, tenant_id: int):
    async with hub.subscribe(shelf, tenant_id) as subscription:
        one, two, three = shelf.add(tenant_id, 3)
        for event in (three, one, two):
            hub.feeds["shelf", tenant_id].offer(event)
        got = await positions_read(subscription, 3)
        await eventually(lambda: hub.feeds["shelf", tenant_id]._filling is None)

    assert got == [1, 2, 3]
    assert shelf.reads == 0


@given(data=some.data())
@limits(max_examples=deep(15, 400), deadline=None)
async def test_readers_get_all_events_once_in_order_although_messages_are_lost_repeated_and_shuffled(data):
    many = data.draw(some.integers(1, 30))
    arriving = data.draw(some.lists(some.integers(0, many - 1), max_size=60))
    tenant, shelf, hub = next(_tenants), Shelf(), live.Hub()
    try:
        async with hub.subscribe(shelf, tenant) as subscription:
            events = shelf.add(tenant, many)
            for n in arriving:
                hub.feeds["shelf", tenant].offer(events[n])
            hub.feeds["shelf", tenant].fill()  # as the next tick would

            assert await positions_read(subscription, many) == list(range(1, many + 1))
    finally:
        await hub.close()


async def test_deleted_numbers_do_not_delay_later_events(hub: live.Hub, shelf: Shelf, tenant_id: int):
    async with hub.subscribe(shelf, tenant_id) as subscription:
        shelf.add(tenant_id, 5)
        del shelf.events[tenant_id][1:4]  # purged before this process heard of them
        late = live.Event(Shelf.name, tenant_id, 6, "s", 6, b"{}")
        shelf.events[tenant_id].append(late)
        hub.feeds["shelf", tenant_id].offer(late)

        assert await positions_read(subscription, 6) == [1, 5, 6]


async def test_a_gap_longer_than_one_read_is_read_to_its_end(hub: live.Hub, shelf: Shelf, tenant_id: int):
    async with hub.subscribe(shelf, tenant_id, frozenset({"mine"})) as subscription:
        shelf.add(tenant_id, live.FILL_LIMIT * 3)
        mine = shelf.add(tenant_id, subject="mine")[0]
        hub.feeds["shelf", tenant_id].fill()  # as the next tick would

        assert await positions_read(subscription, mine.position, within=10) == [mine.position]


# -- Without Redis --------------------------------------------------------------------------------------------


async def test_events_that_redis_lost_arrive_with_the_next_poll_of_postgresql(
    hub: live.Hub, shelf: Shelf, tenant_id: int, quick_tick
):
    async with hub.subscribe(shelf, tenant_id) as subscription:
        shelf.add(tenant_id, 3)  # and nothing is published

        assert await positions_read(subscription, 3, within=10) == [1, 2, 3]  # on a busy machine


async def test_with_redis_away_a_long_poll_gets_a_payments_event_from_postgresql(api: Api, settings, quick_tick):
    """The channel layer asks a port where nobody listens, here and in the hub."""
    nowhere = {
        **settings.CHANNEL_LAYERS["default"],
        "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"], "prefix": "registry"},
    }
    await end_loop()
    settings.CHANNEL_LAYERS = {"default": nowhere}
    payment = await api.pay()
    url = f"/payments/{payment['correlationId']}"

    waiting = asyncio.create_task(api.get(f"{url}/events?after=1&wait=20"))
    await eventually(lambda: live.hub().feeds)
    async with api.post(f"{url}/cancel") as response:
        assert response.status == 200
    async with asyncio.timeout(2.5), await waiting as response:
        events = (await response.json())["events"]
    await end_loop()

    assert [event["payment"]["status"] for event in events] == ["canceled"]


async def test_publishing_never_raises_and_never_waits_for_redis(settings):
    settings.CHANNEL_LAYERS = {
        "default": {**settings.CHANNEL_LAYERS["default"], "CONFIG": {"hosts": ["redis://127.0.0.1:1/0"], "prefix": "x"}}
    }

    live.publish([live.Event("shelf", 1, 1, "s", 1, b"{}")])

    await end_loop()


# -- Readers ----------------------------------------------------------------------------------------------------


async def test_a_reader_that_falls_behind_is_notified_and_delays_no_other(hub: live.Hub, shelf: Shelf, tenant_id: int):
    async with hub.subscribe(shelf, tenant_id) as slow, hub.subscribe(shelf, tenant_id) as quick:
        for _ in range(live.MAILBOX + 1):
            hub.feeds["shelf", tenant_id].offer(shelf.add(tenant_id)[0])
            await positions_read(quick, len(shelf.events[tenant_id]))

        with pytest.raises(live.TooSlow):
            await slow.get()
    assert len(slow._events) == live.MAILBOX


async def test_a_reader_of_some_subjects_gets_those_and_no_others(hub: live.Hub, shelf: Shelf, tenant_id: int):
    async with hub.subscribe(shelf, tenant_id, frozenset({"a", "b"})) as subscription:
        for subject in random.Random(1).choices("abcd", k=50):
            hub.feeds["shelf", tenant_id].offer(shelf.add(tenant_id, subject=subject)[0])
        wanted = [event.position for event in shelf.events[tenant_id] if event.subject in "ab"]

        assert await positions_read(subscription, wanted[-1]) == wanted


async def test_a_tenants_events_reach_no_other_tenants_readers(hub: live.Hub, shelf: Shelf, tenant_id: int):
    other = next(_tenants)
    async with hub.subscribe(shelf, tenant_id) as mine, hub.subscribe(shelf, other) as others:
        await eventually(somebody_listens)  # else the messages are lost, and found only with the next tick
        live.publish(shelf.add(tenant_id))
        live.publish(shelf.add(other))

        assert [event.tenant for event in await mine.get()] == [tenant_id]
        assert [event.tenant for event in await others.get()] == [other]


async def test_two_streams_of_one_tenant_are_numbered_and_filled_apart(hub: live.Hub, shelf: Shelf, tenant_id: int):
    other = Shelf()
    other.name = "other"
    async with hub.subscribe(shelf, tenant_id) as here, hub.subscribe(other, tenant_id) as there:
        shelf.add(tenant_id, 3)  # lost on the way: read back from this stream's own source
        live.publish([*shelf.add(tenant_id), *other.add(tenant_id, 2)])

        assert await positions_read(here, 4) == [1, 2, 3, 4]
        assert await positions_read(there, 2) == [1, 2]
    assert (shelf.reads, other.reads) == (1, 0)


async def test_a_feed_is_closed_with_its_last_reader(hub: live.Hub, shelf: Shelf, tenant_id: int):
    async with hub.subscribe(shelf, tenant_id):
        async with hub.subscribe(shelf, tenant_id, frozenset({"a"})):
            pass
        still = ("shelf", tenant_id) in hub.feeds
        subjects = dict(hub.feeds["shelf", tenant_id].by_subject)

    assert still
    assert subjects == {}
    assert hub.feeds == {}


async def test_cancelled_readers_leave_no_feed(hub: live.Hub, shelf: Shelf, tenant_id: int):
    async def read() -> None:
        async with hub.subscribe(shelf, tenant_id, frozenset({"a"})) as subscription:
            await subscription.get()

    readers = [asyncio.create_task(read()) for _ in range(300)]
    await eventually(lambda: ("shelf", tenant_id) in hub.feeds)

    for reader in random.Random(1).sample(readers, 300):
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)

    assert hub.feeds == {}


async def test_a_process_has_one_subscription_however_many_readers(hub: live.Hub, shelf: Shelf, tenant_id: int):
    readers = [hub.subscribe(shelf, tenant, None) for tenant in [tenant_id, *(next(_tenants) for _ in range(100))]]
    for reader in readers:
        await reader.__aenter__()

    try:
        await eventually(somebody_listens)
        live.publish(shelf.add(tenant_id))
        await eventually(lambda: hub.feeds["shelf", tenant_id].position == 1)
        assert await subscriptions() == 1
    finally:
        for reader in readers:
            await reader.__aexit__(None, None, None)


async def somebody_listens() -> bool:
    return await subscriptions() > 0


async def subscriptions() -> int:
    """Subscribers of this test's group at Redis, over all processes that share it."""
    channel = f"{get_channel_layer().prefix}__group__{live.GROUP}"
    async with Redis.from_url(settings.REDIS_URL) as client:
        [(_, many)] = await client.pubsub_numsub(channel)
    return many
