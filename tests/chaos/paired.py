"""A service beside two PostgreSQL servers, and what a client of it sees while one takes over from the other."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg

from registry.servers import embedded
from tests.bed import template
from tests.bed.standby import Pair
from tests.chaos.sender import Sender
from tests.chaos.service import RETURN, Service
from tests.waiting import eventually

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

    def __init__(self, service: PairedService) -> None:
        super().__init__(service.url, service.key, rate=RATE, others=service.booked())
        self.service = service
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


async def whole(service: PairedService) -> None:
    """Everything works on the new primary, and what was spilled is stored."""
    await eventually(lambda: asyncio.to_thread(service.is_ready), within=RETURN)
    await eventually(lambda: not service.spilled(), within=RETURN)


async def fail_over(
    service: PairedService, strike: Callable[[TimedSender], Awaitable[Callable[[], object] | None]]
) -> tuple[TimedSender, float]:
    """A client before, during and after a fail-over, and the seconds from the promotion until everything works. `strike`: from the
    first trouble of the primary to the promotion of the standby; returns what happens when all is well again."""
    if not await asyncio.to_thread(service.pair.is_followed):
        await asyncio.to_thread(service.pair.follow)  # the one that was struck before
    sender = TimedSender(service)
    async with sender.sending():
        await sender.more(BEFORE)
        at_last = await strike(sender)
        promoted = time.monotonic()
        await whole(service)
        took = time.monotonic() - promoted
        if at_last:
            await asyncio.to_thread(at_last)
        await sender.more(AFTER)
    return sender, took
