"""Redis by Sentinel: three Sentinels, two servers, and every use of Redis finds the new master within seconds."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from uuid import uuid4

import pytest
import uvloop
from django.conf import settings as django_settings
from limits import RateLimitItemPerMinute

from queueing.spill.record import Record
from queueing.spill.stream import StreamEngine
from queueing.work import rq_queues
from queueing.work.entry import chore
from registry.data import channels, rates, redis_health, redis_servers
from registry.servers import embedded
from tests.bed.sentinels import Sentinels, freeze, kill, sentinels, thaw
from tests.depth import DEEP
from tests.waiting import SCALE, eventually

WITHIN = 5.0 * SCALE  # seconds from the end of the master until every use works with the new one


@pytest.fixture(scope="module")
def redis() -> Iterator[Sentinels]:
    with sentinels() as made:
        yield made


@pytest.fixture
async def here(redis: Sentinels, settings, monkeypatch) -> AsyncIterator[Sentinels]:
    """The settings name the Sentinels, and both servers are in step."""
    await eventually(lambda: asyncio.to_thread(redis.follows))
    for name in ("REDIS_URL", "LIVE_REDIS_URL", "RQ_REDIS_URL", "SPILL_REDIS_URL"):
        setattr(settings, name, redis.url)
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "registry.data.channels.OwnLayer", "CONFIG": {"hosts": [redis.url]}}
    }
    redis_health.reset()
    await channels.layers.close()
    await rates.limiters.close()
    yield redis
    await channels.layers.close()
    await rates.limiters.close()
    redis_health.reset()


async def test_a_client_closes_without_an_error_on_a_busy_loop(here: Sentinels):
    async def closing() -> None:
        limits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), redis_servers.SENTINEL_LIMIT)
        client = redis_servers.connect(here.url, **limits)
        await client.ping()
        loop = asyncio.get_running_loop()
        for step in (loop.call_soon, lambda *work: loop.call_soon(loop.call_soon, *work)):
            step(time.sleep, 1.2 * redis_servers.SENTINEL_LIMIT)
        await client.aclose()

    await asyncio.to_thread(uvloop.run, closing())  # whose sockets close in several steps, as in the service


@asynccontextmanager
async def listening(group: str) -> AsyncIterator[list[bytes]]:
    heard: list[bytes] = []
    task = asyncio.create_task(channels.listen(group, heard.append))
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def is_healthy() -> bool:
    return await redis_health.probe(django_settings.REDIS_URL) == ""


async def limits_count() -> bool:
    return await rates.count(RateLimitItemPerMinute(1000), uuid4().hex) is not None


async def job_is_enqueued() -> bool:
    def enqueue() -> bool:
        with rq_queues.connection() as connection:
            rq_queues.queue("housekeeping", connection).enqueue(chore, "none", result_ttl=0)
        return True

    return await asyncio.to_thread(enqueue)


async def until_works(use: Callable[[], Awaitable[bool]]) -> float:
    """Seconds until it does."""
    began = time.monotonic()
    while True:
        with suppress(Exception):
            if await use():
                return time.monotonic() - began
        assert time.monotonic() - began < 4 * WITHIN, use
        await asyncio.sleep(0.05)


async def until_all_work(heard: list[bytes], group: str) -> dict[str, float]:
    async def message_arrives() -> bool:
        sign = uuid4().hex.encode()
        await channels.send(group, sign)
        async with asyncio.timeout(0.5):
            while sign not in heard:
                await asyncio.sleep(0.01)
        return True

    uses = (is_healthy, limits_count, job_is_enqueued, message_arrives)
    took = await asyncio.gather(*map(until_works, uses))
    return {use.__name__: round(seconds, 1) for use, seconds in zip(uses, took, strict=True)}


async def test_every_use_works_through_the_sentinels(here: Sentinels):
    group = f"group-{uuid4().hex}"
    async with listening(group) as heard:
        await until_all_work(heard, group)
        assert redis_servers.is_replicated(here.url)


@pytest.mark.parametrize(
    "strike",
    [
        pytest.param(kill, id="killed"),
        pytest.param(
            freeze,
            id="frozen",
            marks=pytest.mark.skipif(not DEEP, reason="a second failover: part of the deep run"),
        ),
    ],
)
async def test_a_new_master_serves_every_use_within_seconds(
    here: Sentinels, strike: Callable[[embedded.Valkey], object]
):
    group = f"group-{uuid4().hex}"
    async with listening(group) as heard:
        await until_all_work(heard, group)
        old = here.master()
        assert old
        await asyncio.to_thread(strike, old)
        took = await until_all_work(heard, group)
        new = await asyncio.to_thread(here.master)
    print(f"\n{strike.__name__}: seconds until each use worked: {took}")
    await asyncio.to_thread(here.bring_back, old)

    assert new and new.port != old.port
    assert max(took.values()) < WITHIN
    await eventually(lambda: asyncio.to_thread(here.follows))


def record(data: bytes) -> Record:
    return Record(kind="payment", tenant_id=1, at=datetime.now(UTC), data=data)


async def test_an_entry_of_the_spill_is_accepted_only_when_a_replica_has_it(here: Sentinels):
    engine = StreamEngine(here.url, f"kind-{uuid4().hex[:8]}", limit=10**6)
    replica = next(server for server in here.servers if server.port != here.master().port)
    await engine.append([record(b"one")])
    pids = freeze(replica)
    try:
        with pytest.raises(Exception, match="cannot be written"):
            await engine.append([record(b"two")])
    finally:
        thaw(pids)
        await engine.close()
