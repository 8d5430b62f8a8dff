"""A PostgreSQL that fails over under load: the standby is promoted, and the service goes on with it by itself."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from registry.servers import embedded
from tests.bed import template
from tests.bed.standby import Pair, thaw
from tests.chaos.sender import Sender
from tests.chaos.service import RETURN, Service
from tests.chaos.verdict import faults
from tests.depth import DEEP
from tests.waiting import SCALE, eventually

AT_MOST = 1.0 * SCALE  # seconds for an answer, whatever PostgreSQL does
# Payments that are accepted before a strike, without a primary, and with the new one.
BEFORE, AWAY, AFTER = 100, 100, 200
RATE = 60  # payments a second: the sender, two processors and two PostgreSQL share the machine with the service


class PairedService(Service):
    """The service with the addresses of both servers."""

    def __init__(self, data: Path, pair: Pair, **settings: str) -> None:
        super().__init__(data, DATABASE_URL=pair.url, **settings)
        self.pair = pair

    def connect(self) -> psycopg.Connection:
        return self.pair.connect()


class TimedSender(Sender):
    """Notes the slowest answer, and every answer but 202."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.url, service.key, rate=RATE, others=service.booked())
        self.slowest = 0.0
        self.refused: list[str] = []

    async def _accepted(self, session: aiohttp.ClientSession, path: str, **request: Any) -> Any:
        began = time.monotonic()
        answer = await super()._accepted(session, path, **request)
        self.slowest = max(self.slowest, time.monotonic() - began)
        if answer is None:
            self.refused.append(f"after {time.monotonic() - began:.2f} s")
        return answer

    async def more(self, number: int) -> None:
        """Wait until so many more are accepted."""
        wanted = len(self.accepted) + number
        await eventually(lambda: len(self.accepted) >= wanted, within=RETURN)


@asynccontextmanager
async def paired(*, synchronous: bool, reads: bool = False, **settings: str) -> AsyncIterator[PairedService]:
    """`reads`: lists and figures are read from the standby."""
    data = template.empty_folder("registry-failover-")
    await asyncio.to_thread(template.fill, data)
    first = embedded.Postgres(data)
    await asyncio.to_thread(first.start)
    pair = await asyncio.to_thread(lambda: Pair(first, synchronous=synchronous))
    if reads:
        settings["DATABASE_READ_URL"] = pair.standby.url
    service = PairedService(data, pair, **settings)
    try:
        yield await service.start()
    finally:
        await asyncio.to_thread(pair.close)
        await asyncio.to_thread(service.close)
        shutil.rmtree(data)


@pytest.fixture(scope="module")
async def service() -> AsyncIterator[PairedService]:
    async with paired(synchronous=True) as running:
        yield running


async def whole(service: PairedService) -> None:
    """Everything works on the new primary, and what was spilled is stored."""
    await eventually(lambda: asyncio.to_thread(service.is_ready), within=RETURN)
    await eventually(lambda: not service.spilled(), within=RETURN)


async def verdict(service: PairedService, sender: TimedSender, *, what: str, back: float) -> None:
    print(
        f"\n{what}: {len(sender.accepted)} accepted, slowest answer {sender.slowest:.2f} s, {len(sender.refused)} refused,"
        f" whole {back:.1f} s after the promotion"
    )
    assert await faults(service, sender) == []
    assert sender.refused == []
    assert sender.slowest < AT_MOST


async def test_a_killed_primary_loses_nothing_and_delays_no_accept_by_a_second(service: PairedService):
    sender = TimedSender(service)
    async with sender.sending():
        await sender.more(BEFORE)
        await asyncio.to_thread(service.pair.kill)
        await sender.more(AWAY)
        await asyncio.to_thread(service.pair.promote)
        promoted = time.monotonic()
        await whole(service)
        back = time.monotonic() - promoted
        await sender.more(AFTER)

    await verdict(service, sender, what="kill -9", back=back)


@pytest.mark.skipif(not DEEP, reason="most of a minute: part of the deep run")
async def test_a_frozen_primary_is_left_for_the_new_one_and_not_used_when_it_comes_back(service: PairedService):
    await asyncio.to_thread(service.pair.follow)  # the one that was killed
    sender = TimedSender(service)
    async with sender.sending():
        await sender.more(BEFORE)
        frozen = await asyncio.to_thread(service.pair.freeze)
        await sender.more(AWAY)
        await asyncio.to_thread(service.pair.promote)
        promoted = time.monotonic()
        await whole(service)
        back = time.monotonic() - promoted
        await asyncio.to_thread(thaw, frozen)  # it believes that it is the primary still
        await sender.more(AFTER)

    await verdict(service, sender, what="SIGSTOP, and SIGCONT after the promotion", back=back)


@pytest.mark.skipif(not DEEP, reason="half a minute: part of the deep run")
async def test_a_planned_switch_loses_nothing(service: PairedService):
    await asyncio.to_thread(service.pair.follow)
    sender = TimedSender(service)
    async with sender.sending():
        await sender.more(BEFORE)
        await asyncio.to_thread(service.pair.switch)
        promoted = time.monotonic()
        await whole(service)
        back = time.monotonic() - promoted
        await sender.more(AFTER)

    await verdict(service, sender, what="planned switch", back=back)
