"""Rows of a push: checked messages with their partitions found or created, ids given and payloads encrypted, by column."""

from collections.abc import Sequence, Set
from typing import Any
from uuid import UUID

import msgspec

from queueing.broker import catalog, crypto
from queueing.broker.catalog import QueueSettings
from queueing.broker.ids import IdSequence
from registry.data.arrays import Bigints, Blobs, Texts, Uuids
from registry.errors import Unavailable

BEING_DROPPED = "the queue is being dropped at this very moment; try again"


class NewMessage(msgspec.Struct, frozen=True):
    """A message to push, checked. `payload` is JSON, byte for byte."""

    queue: str
    payload: bytes
    partition: str = "Default"
    transaction_id: str = ""
    trace_id: UUID | None = None
    key_id: str | None = None  # of the key that encrypted the payload for this queue, partition and transaction id


class PushRows:
    """Columns for `queueing_push`: the rows of one request, or of several put together."""

    __slots__ = ("id_texts", "ids", "keys", "partitions", "payloads", "producers", "slots", "traces", "transactions")

    def __init__(self) -> None:
        self.partitions: dict[tuple[int, int], int] = {}  # (tenant, partition) → slot, counted from 1
        self.slots: list[int] = []
        self.ids: list[bytes] = []
        self.id_texts: list[str] = []
        self.transactions: list[str] = []
        self.payloads: list[bytes] = []
        self.keys: list[str | None] = []
        self.traces: list[UUID | None] = []
        self.producers: list[str | None] = []

    def __len__(self) -> int:
        return len(self.ids)

    def slot(self, tenant_id: int, partition: int) -> int:
        return self.partitions.setdefault((tenant_id, partition), len(self.partitions) + 1)

    def extend(self, other: "PushRows") -> None:
        slots = [0, *(self.slot(*partition) for partition in other.partitions)]
        self.slots += [slots[slot] for slot in other.slots]
        for name in ("ids", "transactions", "payloads", "keys", "traces", "producers"):
            getattr(self, name).extend(getattr(other, name))

    def only(self, index: int) -> "PushRows":
        """One of these rows."""
        one = PushRows()
        one.partitions = self.partitions
        for name in ("slots", "ids", "transactions", "payloads", "keys", "traces", "producers"):
            getattr(one, name).append(getattr(self, name)[index])
        return one

    def parameters(self, *, counted: bool) -> dict[str, Any]:
        """Parameters of the statement. Partitions are sorted, because their rows are locked in that order."""
        order = sorted(self.partitions)
        slots = [0] * (len(order) + 1)
        for new, partition in enumerate(order, 1):
            slots[self.partitions[partition]] = new
        params: dict[str, Any] = {
            "tenants": Bigints([tenant for tenant, _ in order]),
            "partitions": Bigints([partition for _, partition in order]),
            "slots": Bigints([slots[slot] for slot in self.slots]),
            "ids": Uuids(self.ids),
            "transactions": Texts(self.transactions),
            "payloads": Blobs(self.payloads),
            "traces": self.traces if any(self.traces) else None,
            "counted": counted,
        }
        for name in ("keys", "producers"):  # mostly empty: then NULL is cheaper than an array
            column = getattr(self, name)
            params[name] = Texts(column) if any(column) else None
        return params


async def build(
    tenant_id: int, producer: str, messages: Sequence[NewMessage], indexes: Sequence[int], *, fresh: bool = False
) -> tuple[PushRows, dict[str, QueueSettings]]:
    """The rows of the messages at these indexes, and their queues by name. Missing queues and partitions are created.

    `fresh`: do not use cached queues and partitions. Raises Unavailable (503), crypto.NoKey (500).
    """
    mine = [messages[index] for index in indexes]
    queues, numbers = await _find_partitions(tenant_id, {(one.queue, one.partition) for one in mine}, fresh=fresh)
    rows = PushRows()
    ids = IdSequence()
    slots = {place: rows.slot(tenant_id, number) for place, number in numbers.items()}
    rows.slots = [slots[one.queue, one.partition] for one in mine]
    for place, message in enumerate(mine):
        id, id_text = ids.at(place)
        rows.ids.append(id)
        rows.id_texts.append(id_text)
        rows.transactions.append(message.transaction_id or id_text)
    if any(queue.encrypted for queue in queues.values()) or any(one.key_id is not None for one in mine):
        for message, transaction_id in zip(mine, rows.transactions, strict=True):
            payload, key_id = _payload(tenant_id, message, transaction_id, encrypt=queues[message.queue].encrypted)
            rows.payloads.append(payload)
            rows.keys.append(key_id)
    else:
        rows.payloads = [one.payload for one in mine]
        rows.keys = [None] * len(mine)
    rows.traces = [one.trace_id for one in mine]
    rows.producers = [producer or None] * len(mine)
    return rows, queues


def _payload(tenant_id: int, message: NewMessage, transaction_id: str, *, encrypt: bool) -> tuple[bytes, str | None]:
    """The payload as it is stored, and the id of the key that encrypted it."""
    payload, key_id = message.payload, message.key_id
    if encrypt == (key_id is not None):
        return payload, key_id
    place = (tenant_id, message.queue, message.partition, transaction_id)
    if key_id is None:
        key_id = crypto.current_key()
        return crypto.encrypt(payload, key_id=key_id, place=place), key_id
    return crypto.decrypt(payload, key_id=key_id, place=place), None


async def _find_partitions(
    tenant_id: int, places: Set[tuple[str, str]], *, fresh: bool
) -> tuple[dict[str, QueueSettings], dict[tuple[str, str], int]]:
    """The queues of these (queue, partition) pairs by name, and the partitions' numbers by pair."""
    names: dict[str, set[str]] = {}
    for name, partition in places:
        names.setdefault(name, set()).add(partition)
    queues: dict[str, QueueSettings] = {}
    numbers: dict[tuple[str, str], int] = {}
    for name, partitions in names.items():
        try:
            queue = queues[name] = await catalog.find_or_create(tenant_id, name, fresh=fresh)
            found = await catalog.partitions(tenant_id, queue, partitions, fresh=fresh)
        except LookupError:
            raise Unavailable(BEING_DROPPED) from None
        if len(found) < len(partitions):
            raise Unavailable(BEING_DROPPED)
        numbers |= {(name, partition): number for partition, number in found.items()}
    return queues, numbers
