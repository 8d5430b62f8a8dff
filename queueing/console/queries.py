"""Queries of the console that the API does not have: partitions, the messages of a partition by number, one message."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from queueing.broker import crypto, options
from queueing.broker.errors import UnknownMessage, UnknownQueue
from queueing.broker.ids import public_partition_id
from registry.data import database
from registry.errors import NotFound

SQL = database.statements(Path(__file__).parent / "sql" / "console.sql")

SNIPPET = 160  # bytes of a payload in a list
LAST = 2**62  # beyond every message's number
PENDING, PROCESSING, COMPLETED, DEAD = "pending", "processing", "completed", "dead_letter"
STATES = (PENDING, PROCESSING, COMPLETED)


class UnknownPartition(NotFound):
    """Partition not found."""


class GroupLag(msgspec.Struct, frozen=True):
    """How far a consumer group is behind in a partition."""

    group: str
    waiting: int
    leased: bool
    due_at: datetime | None  # when its lease ends or ended
    attempt: int


class PartitionRow(msgspec.Struct, frozen=True):
    """A partition in a list."""

    id: str
    name: str
    total: int
    waiting: int  # for the consumer group that is furthest behind
    last_at: datetime | None
    readers: list[GroupLag]


class GroupPosition(msgspec.Struct, frozen=True):
    """How far a consumer group has read a partition."""

    group: str
    cursor: int
    delivered: int
    lease_id: UUID | None
    leased: bool
    due_at: datetime | None
    attempt: int
    consumed: int
    consumed_at: datetime | None

    def holds(self, seq: int) -> bool:
        return self.leased and self.cursor < seq <= self.delivered


class PartitionPositions(msgspec.Struct, frozen=True):
    """A partition with the positions of its consumer groups."""

    id: str
    number: int
    queue: str
    name: str
    last_seq: int
    removed: int
    created_at: datetime
    last_at: datetime | None
    positions: list[GroupPosition]

    @property
    def total(self) -> int:
        return self.last_seq - self.removed

    @property
    def done(self) -> int:
        """The number of the latest message that all consumer groups have completed."""
        return min((position.cursor for position in self.positions), default=0)

    @property
    def in_hand(self) -> tuple[int, int]:
        """Messages with numbers after the first and up to the second are leased."""
        held = [position for position in self.positions if position.leased]
        return min((s.cursor for s in held), default=0), max((s.delivered for s in held), default=0)

    def waiting(self, position: GroupPosition) -> int:
        return max(min(self.last_seq - position.cursor, self.total), 0)

    def state_of(self, seq: int, dead: bool) -> str:
        if dead:
            return DEAD
        if self.positions and seq <= self.done:
            return COMPLETED
        after, through = self.in_hand
        return PROCESSING if after < seq <= through else PENDING


class MessageRow(msgspec.Struct, frozen=True):
    """A message in a list."""

    seq: int
    transaction_id: str
    created_at: datetime
    encrypted: bool
    size: int
    start: bytes  # first bytes of the payload as stored
    state: str


class GivenUp(msgspec.Struct, frozen=True):
    """A dead letter of the message: a consumer group gave the message up."""

    id: int
    group: str
    error: str
    attempts: int
    failed_at: datetime
    ended_at: datetime | None


class StoredMessage(msgspec.Struct, frozen=True):
    """One message as stored."""

    seq: int
    id: UUID
    transaction_id: str
    stored: bytes
    key_id: str | None
    trace_id: UUID | None
    producer: str | None
    created_at: datetime
    partition: str
    queue: str
    given_up: list[GivenUp]

    def payload(self, tenant_id: int) -> bytes:
        """The payload, decrypted. Raises crypto.Undecipherable (500)."""
        if self.key_id is None:
            return self.stored
        place = (tenant_id, self.queue, self.partition, self.transaction_id)
        return crypto.decrypt(self.stored, key_id=self.key_id, place=place)


async def queue_options(tenant_id: int, queue: str) -> dict[str, Any]:
    """The queue's options by the API's names. Raises UnknownQueue (404)."""
    rows = await database.fetch(SQL["options"], {"tenant": tenant_id, "queue": queue})
    if not rows:
        raise UnknownQueue
    return options.named(json.loads(rows[0][0]))


async def partitions(
    tenant_id: int, queue_id: int, *, name: str = "", limit: int, offset: int = 0
) -> tuple[list[PartitionRow], int]:
    """Partitions with `name` in their name, the fullest first, and how many there are."""
    where = {"tenant": tenant_id, "queue": queue_id, "name": name, "limit": limit, "offset": offset}
    found: dict[int, PartitionRow] = {}
    for number, title, total, waiting, last_at, group, *reader in await database.fetch(SQL["partitions"], where):
        if number not in found:
            found[number] = PartitionRow(public_partition_id(tenant_id, number), title, total, waiting, last_at, [])
        if group is not None:
            found[number].readers.append(GroupLag(group, *reader))
    count = (await database.fetch(SQL["count_partitions"], where))[0][0]
    return list(found.values()), count


async def partition(tenant_id: int, number: int | None) -> PartitionPositions:
    """One partition. Raises UnknownPartition (404)."""
    where: dict[str, Any] = {"tenant": tenant_id, "partition": number}
    rows = await database.fetch(SQL["partition"], where) if number is not None else []
    if not rows or number is None:
        raise UnknownPartition
    positions = [GroupPosition(*row) for row in await database.fetch(SQL["places"], where)]
    return PartitionPositions(public_partition_id(tenant_id, number), number, *rows[0], positions)  # type: ignore[call-arg]


async def messages(
    tenant_id: int, of: PartitionPositions, *, state: str = "", before: int = LAST, limit: int
) -> list[MessageRow]:
    """Messages with numbers below `before`, the newest first; `state` is one of STATES, "" means any."""
    after, through, skip = _range(of, state)
    params = {
        "tenant": tenant_id,
        "partition": of.number,
        "after": after,
        "through": min(through, before - 1),
        "skip_after": skip[0],
        "skip_through": skip[1],
        "bytes": SNIPPET,
        "limit": limit,
    }
    return [
        MessageRow(seq, transaction_id, created_at, encrypted, size, start, of.state_of(seq, dead))
        for seq, transaction_id, created_at, encrypted, size, start, dead in await database.fetch(
            SQL["messages"], params
        )
    ]


def _range(of: PartitionPositions, state: str) -> tuple[int, int, tuple[int, int]]:
    """The range of numbers that messages in this state have, and a range to leave out of it."""
    nothing = (0, 0)
    if state == COMPLETED:
        return 0, of.done, nothing
    if state == PROCESSING:
        return *of.in_hand, nothing
    if state == PENDING:
        return of.done, LAST, of.in_hand
    return 0, LAST, nothing


async def message(tenant_id: int, partition_number: int | None, seq: int) -> StoredMessage:
    """One message. Raises UnknownMessage (404)."""
    where: dict[str, Any] = {"tenant": tenant_id, "partition": partition_number, "seq": seq}
    rows = await database.fetch(SQL["message"], where) if partition_number is not None else []
    if not rows:
        raise UnknownMessage
    given_up = [GivenUp(*row) for row in await database.fetch(SQL["dead_of_message"], where)]
    return StoredMessage(seq, *rows[0], given_up)  # type: ignore[call-arg]


async def still_open(tenant_id: int, queue: str, letters: Sequence[int]) -> list[tuple[int, str]]:
    """The open ones of these dead letters: their ids and errors."""
    params = {"tenant": tenant_id, "queue": queue, "ids": list(letters)}
    return [(row[0], row[1]) for row in await database.fetch(SQL["open_among"], params)]
