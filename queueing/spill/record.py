"""The spill's data types and the interface that every engine implements. file.py and stream.py implement it."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Protocol

import msgspec

from registry.data import clock
from registry.errors import Unavailable


class Full(Unavailable):
    """The spill can take no more for the moment; try again."""


class Record(msgspec.Struct, frozen=True):
    """A write that waits for PostgreSQL. Only the app that registered `kind` understands `data`."""

    kind: str
    tenant_id: int
    at: datetime  # when it was appended
    data: bytes


class StoreResult(msgspec.Struct, frozen=True):
    """The result of storing one record: stored, or quarantined with a `reason`."""

    reason: str = ""


STORED = StoreResult()


class Entry(msgspec.Struct, frozen=True):
    """A record as an engine read it. `record` is None where the bytes are damaged; `fault` then says why."""

    record: Record | None
    raw: bytes  # as the engine keeps it
    position: Any  # in the engine's log; only the engine interprets it
    fault: str = ""


class QuarantinedRecord(msgspec.Struct, frozen=True):
    """A record that cannot be stored, kept for an operator to replay or drop. `raw` is empty where `record` is readable."""

    id: str
    at: datetime  # when it was quarantined
    reason: str
    record: Record | None
    raw: bytes

    @classmethod
    def of(cls, entry: Entry, reason: str) -> "QuarantinedRecord":
        """The id is a hash of the content, so that a record quarantined again after a crash replaces itself."""
        content = msgspec.msgpack.encode(entry.record) if entry.record else entry.raw
        id = hashlib.blake2b(content, digest_size=8).hexdigest()
        return cls(id, clock.now(), reason, entry.record, b"" if entry.record else entry.raw)


encode_quarantined = msgspec.msgpack.Encoder().encode
decode_quarantined = msgspec.msgpack.Decoder(QuarantinedRecord).decode


def check_room(held: int, size: int, limit: int) -> None:
    """Raises Full where `size` more bytes exceed the limit."""
    if held + size > limit:
        raise Full(f"the spill holds {held} bytes of at most {limit}")


class Engine(Protocol):
    """Durable log for the records of one kind. One SpillQueue owns an engine; only `append` may overlap with other calls."""

    takeover_every: float  # seconds between searches for logs of dead processes
    name: str  # as users know it: file, stream
    shared: bool  # whether all processes append to one log
    bytes: int  # size of the records that wait, including those taken over

    @property
    def idle(self) -> float:
        """Seconds to wait before the next `batch` when nothing was appended in this process."""

    async def append(self, records: Sequence[Record]) -> None:
        """Write all records durably. Raises Full (503); then none of them is kept."""

    async def batch(self, limit: int) -> list[Entry]:
        """The oldest entries that are not settled; empty where none wait."""

    async def settle(self, entries: Sequence[Entry], results: Sequence[StoreResult]) -> None:
        """Remove stored entries and quarantine the others. `entries` are all of the last batch."""

    def take_over(self) -> AsyncIterator[list[Entry]]:
        """Take over the logs of dead processes, ahead of this process's own; yields their entries in pieces."""

    async def shared_length(self) -> int:
        """Number of records in a shared log. The SpillQueue counts those of any other log itself."""

    async def oldest(self) -> datetime | None:
        """Time at which the oldest waiting record was appended."""

    async def heartbeat(self) -> None:
        """Renew this process's locks, where they expire."""

    async def close(self) -> None:
        """Release the locks; what waits is kept for the process that takes it over."""

    async def quarantined(self) -> list[QuarantinedRecord]:
        """All quarantined records of this kind, of all processes, oldest first."""

    async def count_quarantined(self) -> int: ...

    async def drop_quarantined(self, id: str) -> bool:
        """Delete one quarantined record. Returns whether it existed."""

    async def holds(self, tenant_id: int) -> bool:
        """Whether a record of the tenant waits or is quarantined, in any process. Raises Unavailable."""
