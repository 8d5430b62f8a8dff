"""The spill's engine with one stream for all processes: every process appends, and the worker that holds its lock drains.

With INTAKE=stream it is the way in for all payments; see decision 12. The keys are those of stream.py with the name `intake`.
"""

from collections.abc import AsyncIterator, Sequence

from redis.exceptions import RedisError

from queueing.spill.record import Full, Item, Record
from queueing.spill.stream import HOLD, StreamEngine
from registry.data import redis_trouble

NAME = "intake"
BLOCK = 0.4  # seconds that a read waits for a new entry; less than stream.ANSWER_LIMIT
LEFT_OVER_EVERY = 5.0  # seconds between searches where the stream is not in use, for what an earlier setting left


class SharedStreamEngine(StreamEngine):
    """The stream of all processes of one kind. `in_use`: entries are waited for, else searched for now and then."""

    shared = True

    def __init__(self, url: str, kind: str, *, limit: int, in_use: bool = True, hold: float = HOLD) -> None:
        super().__init__(url, kind, limit=limit, hold=hold)
        self._name = self._use = NAME
        if in_use:
            self._block = int(BLOCK * 1000)
        else:
            self.look_every = min(LEFT_OVER_EVERY, hold / 4)

    @property
    def idle(self) -> float:
        waited_in_read = self._block and NAME in self._owned
        return 0.01 if waited_in_read else self.look_every

    async def append(self, records: Sequence[Record]) -> None:
        if redis_trouble.rests(self._use):  # PostgreSQL takes the payments; not each of them has to wait for Redis
            raise Full("the stream cannot be written: Redis did not take the last one")
        await self._add(records)

    async def _make(self) -> None:
        await self._prepare(NAME)
        self._made = True

    async def _enlist(self, name: str) -> None:
        """Nothing: every process knows the name."""

    async def adopt(self) -> AsyncIterator[list[Item]]:
        """Take the lock if it is free."""
        try:
            if await self._own(NAME):
                await self._prepare(NAME)
            redis_trouble.served(self._use)
        except (RedisError, OSError) as error:
            redis_trouble.failed(self._use, error)
        return
        yield  # an async generator without items: the records stay in the stream until `batch` reads them

    def _read_by_us(self) -> list[str]:
        return [NAME]

    async def _everywhere(self) -> list[str]:
        return [NAME]

    async def _let_go(self, name: str) -> None:
        await self._release(name)
