"""Buffered pushes: pushes wait in the spill while PostgreSQL is unavailable, and while their tenant is in maintenance.

There are two kinds of spill: one for all tenants while PostgreSQL is unavailable, and one per tenant in maintenance, so that
no tenant waits for another. Where a key is configured, every waiting payload is encrypted (decision 014), because the queue's
setting cannot be read now and may have changed. The ciphertext is bound to queue, partition and transaction id: an encrypted
queue stores it as it is, and for any other queue it is decrypted when it is stored.
"""

import asyncio
import logging
import string
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

import msgspec

from queueing import spill
from queueing.broker import catalog, crypto, maintenance, push
from queueing.broker.ids import new_id
from queueing.broker.push import Pushed
from queueing.broker.push_rows import NewMessage
from registry.data import db_breaker, faults
from registry.data.loop import PerLoop, Tasks
from registry.errors import Unavailable

log = logging.getLogger(__name__)

KIND = "push"
MAINTENANCE_CHECK = 0.5  # seconds between checks whether a maintenance has ended


class Buffered(msgspec.Struct, rename="camel"):
    """The answer for a message that is durable in the spill, and in its queue later."""

    queue: str
    partition: str
    transaction_id: str
    index: int
    status: str = "buffered"


class BufferedPush(msgspec.Struct, frozen=True, array_like=True):
    """A push as it is stored in the spill."""

    producer: str
    queue: str
    partition: str
    transaction_id: str
    payload: bytes
    key_id: str | None
    trace_id: UUID | None


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(BufferedPush).decode


async def push_or_buffer(tenant_id: int, producer: str, items: Sequence[NewMessage]) -> Sequence[Pushed | Buffered]:
    """Store messages durably, in their queue or in the spill. Raises Unavailable (503), crypto.NoKey (500)."""
    if not items:
        return []
    names = [item.transaction_id for item in items]
    kind = await _kind_to_append_to(tenant_id)
    if not kind:
        try:
            return await db_breaker.attempt(lambda: push.push(tenant_id, producer, items, given=names))
        except Unavailable as error:
            faults.warn(log, "PostgreSQL takes no pushes, the spill does", reason=error.detail)
            kind = KIND
    return await _spill(kind, tenant_id, producer, items, names)


async def _kind_to_append_to(tenant_id: int) -> str:
    """The kind of spill to which this tenant's pushes must be appended; "" where they may go to their queues."""
    modes = await maintenance.modes(tenant_id)
    if not await spill.is_clear(KIND, tenant_id):
        return KIND
    if modes.push:
        register(tenant_id)
    return maintenance_kind(tenant_id) if modes.push or not await _maintenance_is_drained(tenant_id) else ""


async def _maintenance_is_drained(tenant_id: int) -> bool:
    """Whether no push of the tenant's last maintenance waits in this process."""
    kind = maintenance_kind(tenant_id)
    return kind not in spill.KINDS or await spill.is_clear(kind)


async def _spill(
    kind: str, tenant_id: int, producer: str, items: Sequence[NewMessage], names: Sequence[str]
) -> list[Pushed | Buffered]:
    records = [_to_buffer(tenant_id, producer, item, name) for item, name in zip(items, names, strict=True)]
    # All are appended before any is awaited: they stay in order and share one fsync.
    durable = [spill.append(kind, tenant_id, _encode(record)) for record in records]
    refusals = await asyncio.gather(*durable, return_exceptions=True)
    if all(refusals):
        raise refusals[0]  # type: ignore[misc]  # an error, for each of them
    return [_answer(n, r, refusal) for n, (r, refusal) in enumerate(zip(records, refusals, strict=True))]


def _answer(index: int, record: BufferedPush, refusal: BaseException | None) -> Pushed | Buffered:
    if refusal is None:
        return Buffered(record.queue, record.partition, record.transaction_id, index)
    return Pushed(index, record.transaction_id, "failed", queue_name=record.queue, error=str(refusal))


def _to_buffer(tenant_id: int, producer: str, item: NewMessage, name: str) -> BufferedPush:
    name = name or str(new_id())
    key_id, payload = None, item.payload
    if crypto.has_key() or _wants_encryption(tenant_id, item.queue):
        key_id = crypto.current_key()  # raises NoKey where the queue requires encryption and no key is configured
        payload = crypto.encrypt(payload, key_id=key_id, place=(tenant_id, item.queue, item.partition, name))
    return BufferedPush(producer, item.queue, item.partition, name, payload, key_id, item.trace_id)


def _wants_encryption(tenant_id: int, name: str) -> bool:
    known = catalog.last_known(tenant_id, name)
    return known is not None and known.encrypted


# -- Storing --------------------------------------------------------------------------------------


async def store(records: list[spill.Record]) -> list[spill.StoreResult]:
    """Store pushes that waited for PostgreSQL. Those of a tenant now in maintenance move to that tenant's spill."""
    results: list[spill.StoreResult] = []
    for tenant_id, mine in _by_tenant(records):
        if (await maintenance.modes(tenant_id)).push or not await _maintenance_is_drained(tenant_id):
            register(tenant_id)
            kind = maintenance_kind(tenant_id)
            await asyncio.gather(*(spill.append(kind, tenant_id, record.data, at=record.at) for record in mine))
            results += [spill.STORED] * len(mine)
        else:
            results += await _store(tenant_id, mine)
    return results


async def store_maintained(records: list[spill.Record]) -> list[spill.StoreResult]:
    """Store pushes that waited for the end of a maintenance. Raises Unavailable until it ends."""
    tenant_id = records[0].tenant_id
    if (await maintenance.modes(tenant_id)).push:
        await asyncio.sleep(MAINTENANCE_CHECK)
        if (await maintenance.modes(tenant_id)).push:
            raise Unavailable("the tenant is in maintenance")
    return await _store(tenant_id, records)


def _by_tenant(records: Sequence[spill.Record]) -> Iterator[tuple[int, list[spill.Record]]]:
    for tenant_id, mine in groupby(records, key=lambda record: record.tenant_id):
        yield tenant_id, list(mine)


async def _store(tenant_id: int, records: Sequence[spill.Record]) -> list[spill.StoreResult]:
    results: list[spill.StoreResult] = []
    for producer, mine in groupby(map(_read, records), key=lambda waiting: waiting.producer):
        items = [NewMessage(w.queue, w.payload, w.partition, w.transaction_id, w.trace_id, w.key_id) for w in mine]
        # A duplicate is stored too: the answer to its commit was lost, or it was pushed twice.
        results += [_result(pushed) for pushed in await push.push(tenant_id, producer, items)]
    return results


def _read(record: spill.Record) -> BufferedPush:
    return _decode(record.data)


def _result(pushed: Pushed) -> spill.StoreResult:
    if pushed.error == push.TRY_AGAIN:
        raise Unavailable(push.TRY_AGAIN)
    return spill.StoreResult(str(pushed.error)) if pushed.status == "failed" else spill.STORED


# -- Kinds of spill ------------------------------------------------------------------------------------------


def maintenance_kind(tenant_id: int) -> str:
    """The kind of a tenant's pushes in maintenance: its number in letters, because a kind has no digits."""
    return "held" + "".join(string.ascii_lowercase[int(digit)] for digit in str(tenant_id))


def register(tenant_id: int) -> None:
    kind = maintenance_kind(tenant_id)
    if kind not in spill.KINDS:
        spill.register(kind, store_maintained)


def _register_all(tenants: Iterable[int]) -> None:
    """Register the spills of all tenants that were ever in maintenance: every process drains those that dead processes left."""
    new = [tenant for tenant in tenants if maintenance_kind(tenant) not in spill.KINDS]
    for tenant_id in new:
        register(tenant_id)
    if new:
        _starting.get().start(spill.start())


_starting: PerLoop[Tasks] = PerLoop(Tasks, close=Tasks.close)


async def state(tenant_id: int) -> dict[str, Any]:
    """Number of this tenant's pushes that wait in this process's spill. Those in the shared kind are not counted by tenant."""
    kinds = {KIND, maintenance_kind(tenant_id)}
    found = [one for one in await spill.state() if one.kind in kinds]
    return {
        "bufferedMessages": sum(one.records for one in found if one.kind != KIND),
        "bufferHealthy": not any(one.refused for one in found),
        "bufferStats": {
            "pending": sum(one.records for one in found if one.kind != KIND),
            "failed": sum(one.quarantined for one in found if one.kind != KIND),
            "draining": all(one.draining for one in found),
        },
    }


spill.register(KIND, store)
maintenance.listeners.append(_register_all)
