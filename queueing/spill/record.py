"""What the spill carries, what its owner says of it, and what an engine is. How it is kept, the engines know."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from registry.errors import Unavailable


class Full(Unavailable):
    """The spill can take no more for the moment; try again."""


class Record(msgspec.Struct, frozen=True):
    """A write that waits for PostgreSQL. Only its owner understands `data`."""

    kind: str
    tenant_id: int
    at: datetime  # when it was appended
    data: bytes


class Verdict(msgspec.Struct, frozen=True):
    """What became of a record: stored, or set aside for `reason`."""

    reason: str = ""


STORED = Verdict()


class Item(msgspec.Struct, frozen=True):
    """A record in an engine's hands; one that cannot be read has none, and says why."""

    record: Record | None
    raw: bytes  # as the engine keeps it
    place: Any  # where it stands; the engine's own
    fault: str = ""


class Aside(msgspec.Struct, frozen=True):
    """A record that was set aside."""

    id: str
    at: datetime  # when it was set aside
    reason: str
    record: Record | None
    raw: bytes


def aside_id(item: Item) -> str:
    """The same record, the same id: set aside again after a crash, it is still one."""
    content = msgspec.msgpack.encode(item.record) if item.record else item.raw
    return hashlib.blake2b(content, digest_size=8).hexdigest()


class Engine(Protocol):
    """Where the records of one kind wait. One lane owns an engine; its calls never overlap but for `append`."""

    look_every: float  # seconds between looks for what dead processes left
    name: str  # as users know it: file, stream
    shared: bool  # all processes append to one log
    bytes: int  # that wait, with those taken over

    @property
    def idle(self) -> float:
        """Seconds that the lane may wait for the next batch when nothing was appended here."""

    async def append(self, records: Sequence[Record]) -> None:
        """Keep them; durable when it returns. Raises Full (503) and has then kept none of them."""

    async def batch(self, limit: int) -> list[Item]:
        """The next of what was not settled, oldest first; nothing when nothing waits."""

    async def settle(self, items: Sequence[Item], verdicts: Sequence[Verdict]) -> None:
        """Forget what is stored, keep aside what is not. `items` are all of the last batch."""

    def adopt(self) -> AsyncIterator[list[Item]]:
        """Take over what dead processes left, ahead of our own; in pieces."""

    async def waits(self) -> int:
        """How many wait in a shared log; of its own, the lane knows."""

    async def oldest(self) -> datetime | None:
        """When the first that waits was appended."""

    async def beat(self) -> None:
        """Say that we are alive, where nobody could see it otherwise."""

    async def close(self) -> None:
        """Let go; what waits is kept for whoever adopts it."""

    async def asides(self) -> list[Aside]:
        """Everything of this kind that was set aside, by any process."""

    async def count_asides(self) -> int: ...

    async def holds(self, tenant_id: int) -> bool:
        """Whether anything of the tenant waits or was set aside, by any process. Raises Unavailable."""

    async def drop_aside(self, id: str) -> bool:
        """Whether it was there."""
