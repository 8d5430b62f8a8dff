"""The way in: many requests, one commit. Each item is judged on its own, in the order of its request."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from queueing.broker import catalog, crypto, long_polls, traffic
from queueing.broker.catalog import SQL, Queue
from queueing.broker.names import Run, partition_name
from registry.data import database, reach
from registry.data.arrays import Bigints, Blobs, Texts, Uuids
from registry.data.batching import Batcher, Family
from registry.data.loop import PerLoop
from registry.errors import Unavailable

MAX_ROWS = 2000  # messages per statement
TRY_AGAIN = "the queue was changed again and again meanwhile; try again"
TRIES = 4  # of an item whose queue was dropped or changed while it was under way


class Item(msgspec.Struct, frozen=True):
    """A message as its sender wants it, checked. `payload` is JSON, byte for byte."""

    queue: str
    payload: bytes
    partition: str = "Default"
    transaction_id: str = ""
    trace_id: UUID | None = None
    key_id: str | None = None  # of the key that encrypted the payload on its way, for its place


class Pushed(msgspec.Struct, rename="camel"):
    """What became of an item (queue contract section 1.1)."""

    index: int
    transaction_id: str = msgspec.field(name="transaction_id")
    status: str  # queued, duplicate, failed
    message_id: str | msgspec.UnsetType = msgspec.field(name="message_id", default=msgspec.UNSET)
    partition_id: str | msgspec.UnsetType = msgspec.field(name="partition_id", default=msgspec.UNSET)
    trace_id: UUID | msgspec.UnsetType | None = msgspec.field(name="trace_id", default=msgspec.UNSET)
    queue_name: str = ""
    error: str | msgspec.UnsetType = msgspec.UNSET


class Columns:
    """Messages for `queueing_push`, by column; one request's, or several put together."""

    __slots__ = ("ids", "keys", "labels", "payloads", "producers", "slots", "traces", "transactions", "where")

    def __init__(self) -> None:
        self.where: dict[tuple[int, int], int] = {}  # (tenant, partition) → slot, counted from 1
        self.slots: list[int] = []
        self.ids: list[bytes] = []
        self.labels: list[str] = []  # the ids as text, for the answer
        self.transactions: list[str] = []
        self.payloads: list[bytes] = []
        self.keys: list[str | None] = []
        self.traces: list[UUID | None] = []
        self.producers: list[str | None] = []

    def __len__(self) -> int:
        return len(self.ids)

    def slot(self, tenant_id: int, partition: int) -> int:
        return self.where.setdefault((tenant_id, partition), len(self.where) + 1)

    def extend(self, other: "Columns") -> None:
        slots = [0, *(self.slot(*place) for place in other.where)]
        self.slots += [slots[slot] for slot in other.slots]
        for name in ("ids", "transactions", "payloads", "keys", "traces", "producers"):
            getattr(self, name).extend(getattr(other, name))

    def only(self, place: int) -> "Columns":
        """One message of these."""
        one = Columns()
        one.where = self.where
        for name in ("slots", "ids", "transactions", "payloads", "keys", "traces", "producers"):
            getattr(one, name).append(getattr(self, name)[place])
        return one

    def parameters(self, *, counted: bool) -> dict[str, Any]:
        """Partitions sorted, for their rows are locked in that order."""
        order = sorted(self.where)
        slots = [0] * (len(order) + 1)
        for new, place in enumerate(order, 1):
            slots[self.where[place]] = new
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
        for name in ("keys", "producers"):  # mostly empty: an array less to carry
            column = getattr(self, name)
            params[name] = Texts(column) if any(column) else None
        return params


type Verdict = tuple[UUID | None, str]  # the message that was there before, and 'duplicate', 'changed' or 'gone'


async def push(tenant_id: int, producer: str, items: Sequence[Item], *, given: list[str] | None = None) -> list[Pushed]:
    """Make messages durable, in order. Raises Unavailable (503), crypto.NoKey (500).

    `given` is told the transaction ids that were given to items without one: who tries again after an error, that may
    have come after the commit, has to use these.
    """
    results: list[Pushed | None] = [None] * len(items)
    open_items = list(range(len(items)))
    for attempt in range(TRIES):
        open_items = await _try(tenant_id, producer, items, open_items, results, given, fresh=attempt > 0)
        if not open_items:
            break
    for n in open_items:
        results[n] = _failed(n, items[n], TRY_AGAIN)
    return results  # type: ignore[return-value]  # none is left out


async def _try(
    tenant_id: int,
    producer: str,
    items: Sequence[Item],
    wanted: list[int],
    results: list,
    given: list[str] | None,
    *,
    fresh: bool,
) -> list[int]:
    """One try of the items `wanted`; those that have to be tried again."""
    rows, queues = await columns(tenant_id, producer, items, wanted, fresh=fresh)
    if given is not None:
        for place, n in enumerate(wanted):
            given[n] = rows.transactions[place]
    if any(queue.max_size for queue in queues.values()):
        verdicts = await _push_counted(tenant_id, rows, items, wanted, queues)
    else:
        verdicts = await _batchers.get().of(tenant_id).submit(rows)
    again = judge(tenant_id, items, wanted, rows, verdicts, results)
    queued = [items[n].queue for n in wanted if (r := results[n]) is not None and r.status == "queued"]
    for queue in {queues[name].id: queues[name] for name in queued}.values():
        count = sum(queues[name].id == queue.id for name in queued) if len(queues) > 1 else len(queued)
        traffic.count(tenant_id, queue.id, push_requests=1, pushed=count)
        long_polls.wake(queue.id, count)
    for n in again:
        catalog.forget_partition(tenant_id, queues[items[n].queue], items[n].partition)
    return again


async def columns(
    tenant_id: int, producer: str, items: Sequence[Item], wanted: Sequence[int], *, fresh: bool = False
) -> tuple[Columns, dict[str, Queue]]:
    """The rows of these items, and their queues by name; what did not exist is made."""
    queues, numbers = await _where(tenant_id, items, wanted, fresh=fresh)
    rows = Columns()
    run = Run()
    for place, n in enumerate(wanted):
        item = items[n]
        queue = queues[item.queue]
        message, label = run.at(place)
        transaction_id = item.transaction_id or label
        key_id, payload = item.key_id, item.payload
        if queue.encrypted != (key_id is not None):
            place_of = (tenant_id, item.queue, item.partition, transaction_id)
            if key_id is None:
                key_id = crypto.current_key()
                payload = crypto.encrypt(payload, key_id=key_id, place=place_of)
            else:
                payload, key_id = crypto.decrypt(payload, key_id=key_id, place=place_of), None
        rows.slots.append(rows.slot(tenant_id, numbers[item.queue, item.partition]))
        rows.ids.append(message)
        rows.labels.append(label)
        rows.transactions.append(transaction_id)
        rows.payloads.append(payload)
        rows.keys.append(key_id)
        rows.traces.append(item.trace_id)
    rows.producers = [producer or None] * len(wanted)
    return rows, queues


async def _where(
    tenant_id: int, items: Sequence[Item], wanted: Sequence[int], *, fresh: bool
) -> tuple[dict[str, Queue], dict[tuple[str, str], int]]:
    names: dict[str, set[str]] = {}
    for n in wanted:
        item = items[n]
        known = names.get(item.queue)
        if known is None:
            known = names[item.queue] = set()
        known.add(item.partition)
    queues: dict[str, Queue] = {}
    numbers: dict[tuple[str, str], int] = {}
    for name, partitions in names.items():
        try:
            queue = queues[name] = await catalog.find_or_make(tenant_id, name, fresh=fresh)
            found = await catalog.partitions(tenant_id, queue, partitions, fresh=fresh)
        except LookupError:
            raise Unavailable("the queue is being dropped at this very moment; try again") from None
        for partition, number in found.items():
            numbers[name, partition] = number
        if len(found) < len(partitions):
            raise Unavailable("the queue is being dropped at this very moment; try again")
    return queues, numbers


def judge(
    tenant_id: int,
    items: Sequence[Item],
    wanted: Sequence[int],
    rows: Columns,
    verdicts: dict[int, Verdict],
    results: list,
) -> list[int]:
    """Write down what became of the items; those that have to be tried again."""
    again = []
    names = ["", *(partition_name(*place) for place in rows.where)]
    for place, n in enumerate(wanted):
        item = items[n]
        original, reason = verdicts.get(place, (None, ""))
        # Its own id: the connection was lost after the commit, and the message came twice.
        if not reason or (original and original.bytes == rows.ids[place]):
            results[n] = Pushed(
                n,
                rows.transactions[place],
                "queued",
                rows.labels[place],
                names[rows.slots[place]],
                item.trace_id,
                item.queue,
            )
        elif reason == "duplicate":
            results[n] = Pushed(n, rows.transactions[place], "duplicate", str(original), queue_name=item.queue)
        elif reason == "full":
            results[n] = _failed(n, item, "the queue is full")
        else:
            again.append(n)
    return again


def _failed(n: int, item: Item, error: str) -> Pushed:
    return Pushed(n, item.transaction_id, "failed", queue_name=item.queue, error=error)


# -- Statements ------------------------------------------------------------------------------------------


async def write(rows: Columns, conn: AsyncConnection | None = None, *, counted: bool = False) -> dict[int, Verdict]:
    """Add rows; what was not added, by its place."""
    params = rows.parameters(counted=counted)
    found = await (database.fetch(SQL["push"], params) if conn is None else database.rows(conn, SQL["push"], params))
    return {n - 1: (original, reason) for n, original, reason in found}


async def _write_batch(requests: Sequence[Columns]) -> list[dict[int, Verdict]]:
    if len(requests) == 1:
        return [await reach.attempt(lambda: write(requests[0]), patient=True)]
    together = Columns()
    for request in requests:
        together.extend(request)
    verdicts = await reach.attempt(lambda: write(together), patient=True)
    if not verdicts:
        return [verdicts] * len(requests)
    results, start = [], 0
    for request in requests:
        end = start + len(request)
        results.append({n - start: verdict for n, verdict in verdicts.items() if start <= n < end})
        start = end
    return results


async def _push_counted(
    tenant_id: int, rows: Columns, items: Sequence[Item], wanted: Sequence[int], queues: dict[str, Queue]
) -> dict[int, Verdict]:
    """For queues with a maximum: counted under the queue's lock, so that together nobody gets past it."""

    async def once() -> dict[int, Verdict]:
        async with database.transaction() as conn:
            room: dict[str, int] = {}
            for name in sorted(queues):
                held = await database.rows(conn, SQL["hold_queue"], {"tenant": tenant_id, "name": name})
                if held and (most := held[0][1]):  # as it is now, not as it was when it was last looked up
                    params = {"tenant": tenant_id, "queue": queues[name].id}
                    room[name] = most - (await database.rows(conn, SQL["size"], params))[0][0]
            return await _push_what_fits(conn, rows, [items[n].queue for n in wanted], room)

    return await reach.attempt(lambda: database.retrying(once), patient=True)


async def _push_what_fits(
    conn: AsyncConnection, rows: Columns, names: Sequence[str], room: dict[str, int]
) -> dict[int, Verdict]:
    """One by one against the room left, for a duplicate takes none."""
    verdicts: dict[int, Verdict] = {}
    for place, name in enumerate(names):
        one = rows.only(place)
        left = room.get(name)
        if left is not None and left <= 0:
            tenant_id, partition = list(rows.where)[rows.slots[place] - 1]
            params = {"tenant": tenant_id, "partition": partition, "transaction": rows.transactions[place]}
            known = await database.rows(conn, SQL["message_of"], params)
            verdicts[place] = (known[0][0], "duplicate") if known else (None, "full")
            continue
        found = await write(one, conn, counted=True)
        if 0 in found:
            verdicts[place] = found[0]
        elif left is not None:
            room[name] = left - 1
    return verdicts


def _batcher() -> Batcher[Columns, dict[int, Verdict]]:
    return Batcher(_write_batch, max_rows=MAX_ROWS, weigh=len)


_batchers: PerLoop[Family[Columns, dict[int, Verdict]]] = PerLoop(lambda: Family(_batcher), close=Family.finish)
