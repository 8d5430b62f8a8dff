"""Parked long polls: they wait without a database connection. A push in this process wakes them at once, others by Redis.

A wake-up is a hint. A parked long poll also claims again every RECHECK seconds, and when the next message is due.
"""

import asyncio
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from registry.data import channels
from registry.data.loop import PerLoop
from registry.data.publisher import Publisher

RECHECK = 1.0  # seconds between two claims of a parked long poll
CHANNEL = "queues"

_ME = os.urandom(8)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[bytes, dict[int, int]])


class LongPoll:
    """A long poll that waits for messages of some groups."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    @property
    def woken(self) -> bool:
        return self._woken.is_set()

    def wake(self) -> None:
        self._woken.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until woken, `seconds` at most. Returns whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        woken = self.woken
        self._woken.clear()
        return woken


class ParkedLongPolls:
    """The parked long polls of this process, by queue and group, and the task that receives other processes' wake-ups."""

    def __init__(self) -> None:
        self._polls: dict[int, dict[tuple[int, bool], deque[LongPoll]]] = {}  # queue → (group, one_partition) → polls
        self._listening: asyncio.Task | None = None
        self._others: Publisher[tuple[int, int]] = Publisher(_send)

    @contextmanager
    def park(self, waits_for: Sequence[tuple[int, int]], *, one_partition: bool = False) -> Iterator[LongPoll]:
        """Park for (queue, group) pairs. `one_partition`: it reads one partition only, so that not every message is for it.

        The caller must claim once more after entering: earlier pushes do not wake it.
        """
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(channels.listen(CHANNEL, self._receive))
        poll = LongPoll()
        for queue, group in waits_for:
            self._polls.setdefault(queue, {}).setdefault((group, one_partition), deque()).append(poll)
        try:
            yield poll
        finally:
            for queue, group in waits_for:
                groups = self._polls[queue]
                groups[group, one_partition].remove(poll)
                if not groups[group, one_partition]:
                    del groups[group, one_partition]
                if not groups:
                    del self._polls[queue]

    @property
    def count(self) -> int:
        return len({poll for groups in self._polls.values() for polls in groups.values() for poll in polls})

    def count_by_queue(self, queues: Iterable[int]) -> dict[int, int]:
        """Number of parked long polls of each of these queues, without those that have none."""
        return {queue: sum(map(len, groups.values())) for queue in queues if (groups := self._polls.get(queue))}

    def wake(self, queue: int, messages: int) -> None:
        """Wake as many of each group as there are messages, the longest parked first."""
        for (_, one_partition), polls in self._polls.get(queue, {}).items():
            left = len(polls) if one_partition else messages
            for poll in polls:
                if left <= 0:
                    break
                if not poll.woken:
                    poll.wake()
                    left -= 1

    def wake_others(self, queue: int, messages: int) -> None:
        self._others.publish([(queue, messages)])

    def _receive(self, data: bytes) -> None:
        sender, woken = _decoder.decode(data)
        if sender != _ME:
            for queue, messages in woken.items():
                self.wake(queue, messages)

    async def close(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self._others.close()


async def _send(woken: list[tuple[int, int]]) -> None:
    messages: Counter[int] = Counter()
    for queue, count in woken:
        messages[queue] += count
    await channels.send(CHANNEL, _encoder.encode((_ME, dict(messages))))


loops: PerLoop[ParkedLongPolls] = PerLoop(ParkedLongPolls, close=ParkedLongPolls.close)
parked = loops.get


def wake(queue: int, messages: int = 1) -> None:
    """Wake the long polls of a queue, here and in other processes. Never waits, never fails."""
    parked().wake(queue, messages)
    parked().wake_others(queue, messages)
