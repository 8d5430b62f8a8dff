"""A PostgreSQL pair under load: lists are read from the standby; it is promoted, and the service goes on with it by itself."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import aiohttp
import pytest

from tests.bed.standby import thaw
from tests.chaos.paired import AWAY, PairedService, TimedSender, fail_over, paired
from tests.chaos.service import RETURN
from tests.chaos.verdict import faults
from tests.depth import DEEP
from tests.waiting import SCALE, eventually

AT_MOST = 1.0 * SCALE  # seconds for an answer, whatever PostgreSQL does
BOUND = 3  # seconds, of DATABASE_READ_MAX_LAG
HANGS = 3.0  # seconds for which it hangs
QUICK = 1.5 * SCALE  # seconds for a list beside a replica that hangs: a look and its limit


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[PairedService]:
    async with paired(synchronous=True, reads=True, DATABASE_READ_MAX_LAG=str(BOUND)) as running:
        yield running


# -- Lists, exports and figures from the standby: at most so stale, and from the primary where it is not good enough ----


@pytest.fixture
async def session(service: PairedService) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {service.key}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session:
        await eventually(lambda: lag(session), within=RETURN)
        yield session


async def lag(session: aiohttp.ClientSession, *, below: float = BOUND) -> bool:
    """Whether lists are read from the replica, which the first one begins to look for."""
    await ids(session)
    async with session.get("/metrics") as response:
        said = await response.text()
    values = [line.split()[1] for line in said.splitlines() if line.startswith("registry_replica_lag_seconds")]
    return bool(values) and float(values[0]) < below


async def pay(session: aiohttp.ClientSession) -> str:
    name = str(uuid4())
    async with session.post("/payments", json={"correlationId": name, "amount": "1.00"}) as response:
        assert response.status == 202
    return name


async def ids(session: aiohttp.ClientSession) -> list[str]:
    async with session.get("/payments?limit=500") as response:
        assert response.status == 200, await response.text()
        return [item["correlationId"] for item in (await response.json())["items"]]


async def exported(session: aiohttp.ClientSession) -> str:
    async with session.get("/payments", headers={"Accept": "text/csv"}) as response:
        assert response.status == 200
        return await response.text()


async def by_id(session: aiohttp.ClientSession, name: str) -> int:
    async with session.get(f"/payments/{name}") as response:
        return response.status


@contextmanager
def standing_still(service: PairedService) -> Iterator[None]:
    """The replica answers, and shows nothing new."""
    with service.pair.standby.connect() as replica:
        replica.execute("SELECT pg_wal_replay_pause()")
        try:
            yield
        finally:
            replica.execute("SELECT pg_wal_replay_resume()")


async def test_a_payment_just_accepted_is_found_by_its_id_and_in_lists_within_the_bound(
    service: PairedService, session: aiohttp.ClientSession
):
    await pay(session)
    assert (await replica_in_health(session)).startswith("shows what was written ")
    with standing_still(service):
        began = time.monotonic()
        name = await pay(session)
        at_once = (await by_id(session, name), name in await ids(session), name in await exported(session))
        await eventually(lambda: contains(session, name))
        took = time.monotonic() - began
        assert await replica_in_health(session) == "not in use: everything is read from the primary"
    print(
        f"\na list showed a payment {took:.1f} s after it was accepted, with a replica that stood still; the bound is {BOUND} s"
    )

    assert at_once == (200, False, False)  # the last two: the replica was read
    assert took < BOUND + 1 * SCALE


async def replica_in_health(session: aiohttp.ClientSession) -> str:
    async with session.get("/health") as response:
        found = (await response.json())["checks"]["replica"]
    assert found["status"] == "ok"  # without it the service is as healthy
    return found["detail"]


async def contains(session: aiohttp.ClientSession, name: str) -> bool:
    return name in await ids(session) and name in await exported(session)


@pytest.mark.skipif(not DEEP, reason="a server that hangs and one that ends: part of the deep run")
async def test_a_replica_that_hangs_or_ends_delays_a_list_by_a_moment(
    service: PairedService, session: aiohttp.ClientSession
):
    await eventually(lambda: lag(session, below=1), within=RETURN)
    slowest = 0.0
    pids = service.pair.standby.pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        frozen_at = time.monotonic()
        while time.monotonic() - frozen_at < HANGS:
            began = time.monotonic()
            await ids(session)
            slowest = max(slowest, time.monotonic() - began)
    finally:
        thaw(pids)
    await eventually(lambda: lag(session), within=RETURN)
    await asyncio.to_thread(service.pair.standby.stop)
    name = await pay(session)
    found = name in await ids(session)
    await asyncio.to_thread(service.pair.standby.start)
    await eventually(lambda: lag(session), within=RETURN)
    print(f"\nthe slowest list beside a replica that hung took {slowest:.2f} s")

    assert slowest < QUICK
    assert found


# -- It takes over -----------------------------------------------------------------------------------------------


async def killed(sender: TimedSender) -> None:
    """kill -9, and what the service does without a primary."""
    pair = sender.service.pair
    await asyncio.to_thread(pair.kill)
    await sender.more(AWAY)
    await asyncio.to_thread(pair.promote)


async def frozen(sender: TimedSender) -> Callable[[], object]:
    """SIGSTOP, and SIGCONT after the promotion: it believes then that it is the primary still."""
    pair = sender.service.pair
    pids = await asyncio.to_thread(pair.freeze)
    await sender.more(AWAY)
    await asyncio.to_thread(pair.promote)
    return lambda: thaw(pids)


async def switched(sender: TimedSender) -> None:
    """A planned switch."""
    await asyncio.to_thread(sender.service.pair.switch)


deep_only = pytest.mark.skipif(not DEEP, reason="another fail-over, most of a minute: part of the deep run")


@pytest.mark.parametrize(
    "strike", [killed, pytest.param(frozen, marks=deep_only), pytest.param(switched, marks=deep_only)]
)
async def test_a_primary_that_ends_loses_nothing_and_delays_no_accept_by_a_second(
    service: PairedService, strike: Callable[[TimedSender], Awaitable[Callable[[], object] | None]]
):
    sender, took = await fail_over(service, strike)
    print(
        f"\n{strike.__name__}: {len(sender.accepted)} accepted, slowest answer {sender.slowest:.2f} s, {len(sender.refused)} refused,"
        f" whole {took:.1f} s after the promotion"
    )

    assert await faults(service, sender) == []
    assert sender.refused == []
    assert sender.slowest < AT_MOST
