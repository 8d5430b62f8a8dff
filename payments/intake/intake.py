"""The hot way in: many payments, one commit. Routing and sending live in dispatch.py."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from django.conf import settings

from payments.books import events
from payments.errors import DifferentContent, PaymentError, UnknownPayment
from payments.states import Status
from queueing import spill
from queueing.work import waking
from registry import telemetry
from registry.data import database, faults, live, reach
from registry.data.arrays import Bigints, Blobs, Texts, Uuids, unless_empty
from registry.data.batching import Batcher
from registry.data.faults import Fault
from registry.data.loop import PerLoop, sync_twin
from registry.errors import Unavailable

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "intake.sql")

KIND = "payment"  # of what waits in the spill
APART = 10  # tenants of a slow batch, at most, that are tried by themselves: each takes a connection
APART_LIMIT = 0.15  # seconds for that; with reach.PATIENCE it leaves time to spill within a second

type Key = tuple[int, UUID]  # tenant, correlation id


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as its sender wants it, checked and in minor units."""

    tenant_id: int
    correlation_id: UUID
    amount: int
    currency: str
    description: str = ""
    metadata: dict[str, Any] | None = None
    processor: str = ""
    scheduled_for: datetime | None = None
    priority: int = 0
    method: dict[str, Any] | None = None  # how it is paid: references only, never card data


class Receipt(msgspec.Struct, frozen=True):
    """A durable payment."""

    created_at: datetime
    replayed: bool
    spilled: bool = False  # it is not in PostgreSQL yet


class _Row(msgspec.Struct, frozen=True):
    order: Order
    fingerprint: bytes
    at: datetime  # when it was asked for; what it is written down with, wherever it waits before
    inline: bool = False  # its process means to send it itself: no worker is woken for it

    @property
    def key(self) -> Key:
        return self.order.tenant_id, self.order.correlation_id


_content = msgspec.msgpack.Encoder(order="deterministic")


def fingerprint(order: Order) -> bytes:
    """16 bytes that stand for the content of an order: the same content, the same bytes, for ever."""
    content: tuple[Any, ...] = (
        order.amount,
        order.currency,
        order.description,
        order.metadata or None,
        order.processor,
        order.scheduled_for,
        order.priority,
    )
    if order.method:  # fingerprints of payments without one stay what they were before there was any
        content += (order.method,)
    return hashlib.blake2b(_content.encode(content), digest_size=16).digest()


async def submit(order: Order, *, inline: bool = False) -> Receipt:
    """Make `order` durable, or find it so. Raises DifferentContent (409), Unavailable (503)."""
    outcome = await _batchers.get().submit(_Row(order, fingerprint(order), datetime.now(UTC), inline))
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def submit_many(
    orders: Sequence[Order], *, inline: bool = False
) -> list[Receipt | DifferentContent | Unavailable]:
    """`submit` for up to a thousand at once: one verdict per order, in order."""
    batcher, now = _batchers.get(), datetime.now(UTC)
    under_way = [batcher.submit(_Row(order, fingerprint(order), now, inline)) for order in orders]
    return [await verdict for verdict in under_way]


class First(NamedTuple):
    """The payment that was accepted first under an id."""

    fingerprint: bytes
    at: datetime
    currency: str
    spilled: bool = False  # it is not in PostgreSQL yet


def waiting(keys: Sequence[Key]) -> dict[Key, First]:
    """Of these ids, the payments that this process has accepted durably and that PostgreSQL does not have yet."""
    return {
        key: First(one.fingerprint, one.at, one.currency, spilled=True)
        for key in keys
        if (one := _waiting.get(key)) and one.durable.done() and not one.durable.exception()
    }


async def stored(keys: Sequence[Key]) -> dict[Key, First]:
    """The stored payments with these ids; asked before a refusal. Raises Unavailable (503)."""
    return await reach.attempt(lambda: _existing(keys), writes=False)


submit_sync = sync_twin(submit)

type _Verdict = Receipt | DifferentContent | Unavailable
_batchers: PerLoop[Batcher[_Row, _Verdict]] = PerLoop(lambda: Batcher(_write), close=Batcher.finish)


async def _write(batch: Sequence[_Row]) -> list[_Verdict]:
    """Into PostgreSQL; while that is away, into the spill; with INTAKE=stream, into the stream that workers carry."""
    if settings.INTAKE == "stream":
        relayed = await _spill(batch, spill.relay)
        if not all(isinstance(verdict, Unavailable) for verdict in relayed):
            return relayed
    # What waits goes first: a write that overtook it could take an id that was promised to other content.
    behind = await spill.behind(KIND, {row.order.tenant_id for row in batch})
    verdicts: list[Any] = [None] * len(batch)
    await _fill(verdicts, batch, lambda row: row.order.tenant_id not in behind, _directly)
    await _fill(verdicts, batch, lambda _: True, _stand_in)
    refused = [n for n, verdict in enumerate(verdicts) if isinstance(verdict, Unavailable)]
    if refused and behind:  # the spill is full and PostgreSQL back: better out of turn than not at all
        with suppress(Unavailable):
            late = await reach.attempt(lambda: _accept([batch[n] for n in refused]))
            for n, verdict in zip(refused, late, strict=True):
                verdicts[n] = verdict
    return verdicts


async def _fill(
    verdicts: list[Any],
    batch: Sequence[_Row],
    wanted: Callable[[_Row], bool],
    write: Callable[[Sequence[_Row]], Awaitable[Sequence[Any]]],
) -> None:
    """Write the `wanted` rows that have no verdict yet, and fill in their verdicts."""
    open_rows = [n for n, row in enumerate(batch) if verdicts[n] is None and wanted(row)]
    if open_rows:
        found = await write([batch[n] for n in open_rows])
        for n, verdict in zip(open_rows, found, strict=True):
            verdicts[n] = verdict


async def _directly(batch: Sequence[_Row]) -> Sequence[_Verdict | None]:
    """Into PostgreSQL; None for what it does not take now. A lock on the rows of one tenant holds up no other's: when a batch
    is slow, each tenant's part is tried once more by itself."""
    try:
        return await reach.attempt(lambda: _accept(batch))
    except Unavailable as error:
        faults.say(log, "PostgreSQL takes no payments, the spill does", reason=error.detail)
        slow = error.detail == Fault.SLOW.value
    verdicts: list[Any] = [None] * len(batch)
    tenants = {row.order.tenant_id for row in batch}
    if slow and 1 < len(tenants) <= APART:
        await asyncio.gather(*(_fill(verdicts, batch, partial(_is_of, tenant), _by_itself) for tenant in tenants))
    return verdicts


def _is_of(tenant_id: int, row: _Row) -> bool:
    return row.order.tenant_id == tenant_id


async def _by_itself(batch: Sequence[_Row]) -> Sequence[_Verdict | None]:
    try:
        async with asyncio.timeout(APART_LIMIT):
            return await reach.attempt(lambda: _accept(batch))
    except (Unavailable, TimeoutError):
        return [None] * len(batch)


async def _accept(batch: Sequence[_Row]) -> list[_Verdict]:
    started = time.perf_counter()
    accepted = {(t, c): (at, position) for t, c, at, position in await database.fetch(SQL["accept"], _columns(batch))}
    telemetry.ACCEPT_BATCH.observe(len(batch))
    telemetry.ACCEPT_SECONDS.observe(time.perf_counter() - started)
    verdicts: list[Any] = []
    told, open_keys = [], []
    for row in batch:
        fresh = accepted.pop(row.key, None)
        if fresh is None:
            verdicts.append(None)
            open_keys.append(row.key)
            continue
        at, position = fresh
        verdicts.append(Receipt(at, replayed=False))
        told.append(_event(row.order, at, position))
    if told:
        _ACCEPTED.inc(len(told))
        live.tell(told)
        if not all(row.inline for row in batch):
            wake()
    if open_keys:
        return _judge(batch, verdicts, await _existing(open_keys))
    return verdicts


_ACCEPTED = telemetry.ACCEPTED.labels("new")
_REPLAYED = telemetry.ACCEPTED.labels("replayed")
_CONFLICTED = telemetry.ACCEPTED.labels("conflict")


def _columns(batch: Sequence[_Row]) -> dict[str, Any]:
    orders = [row.order for row in batch]
    return {
        "tenant": Bigints([o.tenant_id for o in orders]),
        "correlation": Uuids([o.correlation_id.bytes for o in orders]),
        "fingerprint": Blobs([row.fingerprint for row in batch]),
        "amount": Bigints([o.amount for o in orders]),
        "currency": Texts([o.currency for o in orders]),
        "description": Texts([o.description for o in orders]),
        "metadata": Texts([_json(o.metadata) if o.metadata else None for o in orders]),
        "wanted": Texts([o.processor for o in orders]),
        "run_at": unless_empty([o.scheduled_for for o in orders]),
        "priority": Bigints([o.priority for o in orders]),
        "at": unless_empty([row.at for row in batch]),
        "method": Texts([_json(o.method) if o.method else None for o in orders]),
    }


def _json(data: dict) -> str:
    return msgspec.json.encode(data).decode()


def _event(order: Order, at: datetime, position: int) -> live.Event:
    return events.event(
        tenant=order.tenant_id,
        position=position,
        correlation_id=order.correlation_id,
        status=Status.QUEUED.value,
        amount=order.amount,
        currency=order.currency,
        processor=None,
        attempts=0,
        updated_at=at,
        sequence=1,
    )


def missing(tenant_id: int, correlation_id: UUID) -> UnknownPayment | Unavailable:
    """The error for a payment that is not in PostgreSQL: 503 if it is accepted and waits to be stored, else 404."""
    if (tenant_id, correlation_id) in _waiting:
        return Unavailable("it is accepted, and waits to be stored in PostgreSQL")
    return UnknownPayment()


async def _existing(keys: Sequence[Key]) -> dict[Key, First]:
    params = {"tenant": [t for t, _ in keys], "correlation": [c for _, c in keys]}
    return {
        (t, c): First(bytes(mark), at, currency)
        for t, c, mark, at, currency in await database.fetch(SQL["existing"], params)
    }


def _judge(batch: Sequence[_Row], verdicts: list, existing: dict[Key, First]) -> list[_Verdict]:
    """Same id: the same content is a replay, other content a conflict."""
    for n, row in enumerate(batch):
        if verdicts[n] is None:
            found = existing.get(row.key)
            if found is None:
                verdicts[n] = Unavailable("the tenant was purged at this very moment; try again")
                continue
            same = found.fingerprint == row.fingerprint
            verdicts[n] = Receipt(found.at, replayed=True) if same else DifferentContent()
            (_REPLAYED if same else _CONFLICTED).inc()
    return verdicts


# -- While PostgreSQL is away ----------------------------------------------------------------------------


class _Waiting(msgspec.Struct, frozen=True):
    """What this process knows of a payment that is not in PostgreSQL yet."""

    fingerprint: bytes
    at: datetime
    currency: str
    durable: asyncio.Future[None]


_waiting: dict[Key, _Waiting] = {}  # of the one loop that serves requests, and so accepts
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_Row).decode


async def _stand_in(batch: Sequence[_Row]) -> list[_Verdict]:
    """Into the spill; of a server that is only read-only, what is stored there already is answered as it was."""
    existing: dict[Key, First] = {}
    if reach.reach().read_only and (keys := [row.key for row in batch if row.key not in _waiting]):
        with suppress(Unavailable):
            existing = await stored(keys)
    new = [row for row in batch if row.key not in existing]
    spilled = iter(await _spill(new, spill.append) if new else ())
    return _judge(batch, [None if row.key in existing else next(spilled) for row in batch], existing)


async def _spill(batch: Sequence[_Row], append: Callable[..., asyncio.Future[None]]) -> list[_Verdict]:
    """Durable without PostgreSQL. An id that waits here already is replayed or refused as if it were there."""
    found: list[tuple[_Waiting, bool]] = []
    for row in batch:
        known = _waiting.get(row.key)
        found.append((known or _append(row, append), known is not None))
    await asyncio.wait({waiting.durable for waiting, _ in found})
    return [_verdict_of(row, *waiting) for row, waiting in zip(batch, found, strict=True)]


def _append(row: _Row, append: Callable[..., asyncio.Future[None]]) -> _Waiting:
    row = msgspec.structs.replace(row, inline=False)  # whoever stores it wakes the workers
    durable = append(KIND, row.order.tenant_id, _encode(row), at=row.at)
    waiting = _waiting[row.key] = _Waiting(row.fingerprint, row.at, row.order.currency, durable)
    if append is spill.relay:  # it is carried elsewhere, and this process never hears of it again
        durable.add_done_callback(lambda _: _forget(row.key, waiting))
    return waiting


def _forget(key: Key, waiting: _Waiting) -> None:
    if _waiting.get(key) is waiting:
        del _waiting[key]


def _verdict_of(row: _Row, waiting: _Waiting, known: bool) -> _Verdict:
    error = waiting.durable.exception()
    if error is not None:
        _forget(row.key, waiting)
        return error if isinstance(error, Unavailable) else Unavailable(repr(error))
    if waiting.fingerprint != row.fingerprint:
        _CONFLICTED.inc()
        return DifferentContent()
    return Receipt(waiting.at, replayed=known, spilled=True)


async def _store(records: list[spill.Record]) -> list[spill.Verdict]:
    """What waited, into PostgreSQL. What had been committed before its answer was lost is found there, and is no second one."""
    rows = [_decode(record.data) for record in records]
    try:
        outcomes = await reach.attempt(lambda: _accept(rows), patient=True)
    except Exception as error:
        if len(rows) == 1 and spill.is_bad(error):  # it is set aside; whoever sends it again is a new sender
            _waiting.pop(rows[0].key, None)
        raise
    for outcome in outcomes:
        if isinstance(outcome, Unavailable):
            raise outcome
    for row in rows:
        _waiting.pop(row.key, None)
    return [
        spill.Verdict(f"409 {outcome.detail}") if isinstance(outcome, PaymentError) else spill.STORED
        for outcome in outcomes
    ]


def _seen(records: list[spill.Record]) -> None:
    """Ids that a dead process had promised: the same content is a replay, other content a conflict, as it would say."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    for record in records:
        with suppress(msgspec.MsgspecError):  # it is set aside when it is stored
            row = _decode(record.data)
            _waiting.setdefault(row.key, _Waiting(row.fingerprint, row.at, row.order.currency, done))


spill.register(KIND, _store, seen=_seen)


# -- Waking the drains -----------------------------------------------------------------------------------


def wake() -> None:
    """Tell the drains that something is due."""
    waking.wake("payments")
