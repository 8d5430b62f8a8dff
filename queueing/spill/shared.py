"""Shared stream engine of the spill: one Redis stream to which all processes append, drained by the worker that owns its lock.

With INTAKE=stream all payments go this way (docs/decisions/012). The keys are those of stream.py with the name `intake`.
"""

from collections.abc import AsyncIterator, Sequence

from redis.exceptions import RedisError

from queueing.spill.record import Entry, Full, Record
from queueing.spill.stream import LOCK_TTL, StreamEngine
from registry.data import redis_health

NAME = "intake"
BLOCK = 0.4  # seconds for which a read waits for a new entry; less than stream.ANSWER_LIMIT
LEFT_OVER_EVERY = (
    5.0  # seconds between searches where the stream is not in use, for records that an earlier setting left
)


class SharedStreamEngine(StreamEngine):
    """The stream of all processes of one kind. `in_use`: a read waits for new entries; else the stream is searched now and then."""

    shared = True

    def __init__(self, url: str, kind: str, *, limit: int, in_use: bool = True, lock_ttl: float = LOCK_TTL) -> None:
        super().__init__(url, kind, limit=limit, lock_ttl=lock_ttl, stream=NAME)
        if in_use:
            self._block = int(BLOCK * 1000)
        else:
            self.takeover_every = min(LEFT_OVER_EVERY, lock_ttl / 4)

    @property
    def idle(self) -> float:
        waits_in_read = self._block and NAME in self.locks.owned
        return 0.01 if waits_in_read else self.takeover_every

    async def append(self, records: Sequence[Record]) -> None:
        if redis_health.is_paused(self._use):
            # The caller writes to PostgreSQL instead: not every payment has to wait for Redis.
            raise Full("the stream cannot be written: Redis did not take the last one")
        await self._add(records)

    async def _create(self) -> None:
        await self._create_group(NAME)
        self._created = True

    async def _announce(self, name: str) -> None:
        """Nothing to announce: every process knows the name."""

    async def take_over(self) -> AsyncIterator[list[Entry]]:
        """Acquire the lock if it is free. The records stay in the stream until `batch` reads them."""
        try:
            if await self.locks.acquire(NAME):
                await self._create_group(NAME)
            redis_health.record_success(self._use)
        except (RedisError, OSError) as error:
            redis_health.record_error(self._use, error)
        return
        yield  # makes this an async generator, which yields nothing

    def _readable(self) -> list[str]:
        return [NAME]

    async def _all_streams(self) -> list[str]:
        return [NAME]

    async def _release(self, name: str) -> None:
        await self.locks.release(name)
