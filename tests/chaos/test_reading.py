"""Lists, exports and figures read from a replica: at most so stale, and from the primary where it is not good enough."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import uuid4

import aiohttp
import pytest

from tests.bed.standby import thaw
from tests.chaos.service import RETURN
from tests.chaos.test_failover import AFTER, BEFORE, PairedService, TimedSender, paired, whole
from tests.chaos.verdict import faults, until_settled
from tests.depth import DEEP
from tests.waiting import SCALE, eventually

BEHIND = 50  # payments that the standby lacks when it takes over
BOUND = 3  # seconds, of DATABASE_READ_MAX_LAG
HANGS = 3.0  # seconds for which it hangs
QUICK = 1.5 * SCALE  # seconds for a list beside a replica that hangs: a look and its limit


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[PairedService]:
    async with paired(synchronous=False, reads=True, DATABASE_READ_MAX_LAG=str(BOUND)) as running:
        yield running


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
    with standing_still(service):
        began = time.monotonic()
        name = await pay(session)
        at_once = (await by_id(session, name), name in await ids(session), name in await exported(session))
        await eventually(lambda: contains(session, name))
        took = time.monotonic() - began
    print(
        f"\na list showed a payment {took:.1f} s after it was accepted, with a replica that stood still; the bound is {BOUND} s"
    )

    assert at_once == (200, False, False)  # the last two: the replica was read
    assert took < BOUND + 1 * SCALE


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


@pytest.mark.skipif(not DEEP, reason="half a minute: part of the deep run")
async def test_an_asynchronous_standby_lacks_what_it_had_not_received_and_senders_repeat_it_without_a_second_booking(
    service: PairedService,
):
    """How much is lost is what the standby was behind; here it is cut off before, so that there is something to see."""
    await until_settled(service, before=datetime.now(UTC), within=RETURN)
    sender = TimedSender(service)
    async with sender.sending():
        await sender.more(BEFORE)
        await asyncio.to_thread(service.pair.hold_back)
        at_risk_from = set(sender.accepted)
        await sender.more(BEHIND)
        await asyncio.to_thread(service.pair.kill)
        at_risk = set(sender.accepted) - at_risk_from
        await asyncio.to_thread(service.pair.promote)
        await whole(service)
        await sender.more(AFTER)
    lost = set(sender.accepted) - await asyncio.to_thread(stored, service)
    print(f"\nasynchronous, {len(at_risk)} accepted after the standby was cut off: {len(lost)} lost")
    headers = {"Authorization": f"Bearer {service.key}"}
    async with aiohttp.ClientSession(service.url, headers=headers) as session:
        for name in lost:
            cents = sender.accepted[name]
            body = {"correlationId": name, "amount": f"{cents // 100}.{cents % 100:02d}"}
            async with session.post("/payments", json=body) as response:
                assert response.status == 202
    wrong = await faults(service, sender, ledger=False)

    assert 0 < len(lost) <= len(at_risk)
    assert lost <= at_risk
    # The processors have the times of the first sending, we those of the second: windows of the summaries differ.
    assert [fault for fault in wrong if not fault.startswith("summary")] == []


def stored(service: PairedService) -> set[str]:
    with service.connect() as connection:
        return {name for (name,) in connection.execute("SELECT correlation_id::text FROM payments_payment")}
