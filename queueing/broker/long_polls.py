"""Where long polls wait: without a database connection, woken by a push of this process at once and of another by Redis.

A wake-up is a hint. Whoever is parked looks again by himself every RECHECK seconds, and when the next message is due.
"""

import asyncio
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec

from registry.data import channels
from registry.data.loop import PerLoop

RECHECK = 1.0  # seconds between looks of somebody who is parked
SPREAD_EVERY = 0.02  # seconds between messages to other processes; what comes meanwhile shares the next
CHANNEL = "queues"

_ME = os.urandom(8)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[bytes, dict[int, int]])


class Spot:
    """Somebody who waits for messages of some groups."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    @property
    def woken(self) -> bool:
        return self._woken.is_set()

    def wake(self) -> None:
        self._woken.set()

    async def wait(self, seconds: float) -> bool:
        """Until woken, or that long; whether woken."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        woken = self.woken
        self._woken.clear()
        return woken


class Lot:
    """All who are parked in this process, by queue and group, and the task that hears of other processes' pushes."""

    def __init__(self) -> None:
        self._spots: dict[int, dict[tuple[int, bool], deque[Spot]]] = {}  # queue → (group, picky) → spots
        self._hearing: asyncio.Task | None = None
        self._news: dict[int, int] = {}
        self._spreading: asyncio.Task | None = None

    @contextmanager
    def park(self, places: Sequence[tuple[int, int]], *, picky: bool = False) -> Iterator[Spot]:
        """A spot for (queue, group) pairs; `picky`: for one partition, so that not every message will do.

        Look once more after entering: what came before is not told.
        """
        if self._hearing is None:
            self._hearing = asyncio.get_running_loop().create_task(channels.listen(CHANNEL, self._hear))
        spot = Spot()
        for queue, group in places:
            self._spots.setdefault(queue, {}).setdefault((group, picky), deque()).append(spot)
        try:
            yield spot
        finally:
            for queue, group in places:
                groups = self._spots[queue]
                groups[group, picky].remove(spot)
                if not groups[group, picky]:
                    del groups[group, picky]
                if not groups:
                    del self._spots[queue]

    @property
    def parked(self) -> int:
        return len({spot for groups in self._spots.values() for spots in groups.values() for spot in spots})

    def parked_at(self, queues: Iterable[int]) -> dict[int, int]:
        """How many are parked for each of these queues, where anybody is."""
        return {queue: sum(map(len, groups.values())) for queue in queues if (groups := self._spots.get(queue))}

    def wake(self, queue: int, messages: int) -> None:
        """As many of each group as there are messages, who has slept longest first."""
        for (_, picky), spots in self._spots.get(queue, {}).items():
            left = len(spots) if picky else messages
            for spot in spots:
                if left <= 0:
                    break
                if not spot.woken:
                    spot.wake()
                    left -= 1

    def tell(self, queue: int, messages: int) -> None:
        self._news[queue] = self._news.get(queue, 0) + messages
        if self._spreading is None:
            self._spreading = asyncio.get_running_loop().create_task(self._spread())

    async def _spread(self) -> None:
        try:
            while self._news:
                news, self._news = self._news, {}
                with suppress(Exception):  # they look by themselves
                    await channels.send(CHANNEL, _encoder.encode((_ME, news)))
                await asyncio.sleep(SPREAD_EVERY)
        finally:
            self._spreading = None

    def _hear(self, data: bytes) -> None:
        sender, news = _decoder.decode(data)
        if sender != _ME:
            for queue, messages in news.items():
                self.wake(queue, messages)

    async def close(self) -> None:
        tasks = [task for task in (self._hearing, self._spreading) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


lots: PerLoop[Lot] = PerLoop(Lot, close=Lot.close)
lot = lots.get


def wake(queue: int, messages: int = 1) -> None:
    """Tell everybody who is parked for this queue, here and in other processes. Never waits, never fails."""
    lot().wake(queue, messages)
    lot().tell(queue, messages)
