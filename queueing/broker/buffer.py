"""Pushes that cannot go to PostgreSQL now wait in the spill: while it is away, and while their tenant is in maintenance.

Two kinds of spill: one for all while the database is away, and one per tenant in maintenance, for nobody is to wait
for another tenant's. With a key configured whatever waits is encrypted (decision 014): whether its queue wants that cannot
be asked now, and may have changed since it was. The ciphertext is bound to the message's place, so a queue that wants it
keeps it as it is; for others it is decrypted when it is stored.
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
from queueing.broker.names import new_id
from queueing.broker.push import Item, Pushed
from registry.data import faults, reach
from registry.data.loop import PerLoop, Tasks
from registry.errors import Unavailable

log = logging.getLogger(__name__)

KIND = "push"
HOLD = 0.5  # seconds between looks whether a maintenance is over


class Buffered(msgspec.Struct, rename="camel"):
    """A message that is durable, and will be in its queue later."""

    queue: str
    partition: str
    transaction_id: str
    index: int
    status: str = "buffered"


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """A push in the spill."""

    producer: str
    queue: str
    partition: str
    transaction_id: str
    payload: bytes
    key_id: str | None
    trace_id: UUID | None


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Waiting).decode


async def take(tenant_id: int, producer: str, items: Sequence[Item]) -> Sequence[Pushed | Buffered]:
    """Make messages durable, in their queue or in the spill. Raises Unavailable (503), crypto.NoKey (500)."""
    if not items:
        return []
    names = [item.transaction_id for item in items]
    kind = await _ahead(tenant_id)
    if not kind:
        try:
            return await reach.attempt(lambda: push.push(tenant_id, producer, items, given=names))
        except Unavailable as error:
            faults.say(log, "PostgreSQL takes no pushes, the spill does", reason=error.detail)
            kind = KIND
    return await _spill(kind, tenant_id, producer, items, names)


async def _ahead(tenant_id: int) -> str:
    """The kind of spill that this tenant's pushes have to go behind now; "" when they may go to their queues."""
    modes = await maintenance.modes(tenant_id)
    if not await spill.turn(KIND, tenant_id):
        return KIND
    if modes.push:
        hold(tenant_id)
    return held_kind(tenant_id) if modes.push or not await _let_go(tenant_id) else ""


async def _let_go(tenant_id: int) -> bool:
    """Whether nothing of the tenant's last maintenance waits here any more."""
    kind = held_kind(tenant_id)
    return kind not in spill.KINDS or await spill.turn(kind)


async def _spill(
    kind: str, tenant_id: int, producer: str, items: Sequence[Item], names: Sequence[str]
) -> list[Pushed | Buffered]:
    records = [_waiting(tenant_id, producer, item, name) for item, name in zip(items, names, strict=True)]
    # All are handed over before any is waited for: they stay in order, and share what fsync costs.
    durable = [spill.append(kind, tenant_id, _encode(record)) for record in records]
    refusals = await asyncio.gather(*durable, return_exceptions=True)
    if all(refusals):
        raise refusals[0]  # type: ignore[misc]  # an error, for each of them
    return [_kept(n, r, refusal) for n, (r, refusal) in enumerate(zip(records, refusals, strict=True))]


def _kept(index: int, record: Waiting, refusal: BaseException | None) -> Pushed | Buffered:
    if refusal is None:
        return Buffered(record.queue, record.partition, record.transaction_id, index)
    return Pushed(index, record.transaction_id, "failed", queue_name=record.queue, error=str(refusal))


def _waiting(tenant_id: int, producer: str, item: Item, name: str) -> Waiting:
    name = name or str(new_id())
    key_id, payload = None, item.payload
    if crypto.has_key() or _wants_encryption(tenant_id, item.queue):
        key_id = crypto.current_key()  # raises NoKey where the queue wants it and there is none
        payload = crypto.encrypt(payload, key_id=key_id, place=(tenant_id, item.queue, item.partition, name))
    return Waiting(producer, item.queue, item.partition, name, payload, key_id, item.trace_id)


def _wants_encryption(tenant_id: int, name: str) -> bool:
    known = catalog.last_known(tenant_id, name)
    return known is not None and known.encrypted


# -- Out of the spill --------------------------------------------------------------------------------------


async def store(records: list[spill.Record]) -> list[spill.Verdict]:
    """What waited while the database was away. A tenant's that is in maintenance by now waits on among its own."""
    verdicts: list[spill.Verdict] = []
    for tenant_id, mine in _runs(records):
        if (await maintenance.modes(tenant_id)).push or not await _let_go(tenant_id):
            hold(tenant_id)
            kind = held_kind(tenant_id)
            await asyncio.gather(*(spill.append(kind, tenant_id, record.data, at=record.at) for record in mine))
            verdicts += [spill.STORED] * len(mine)
        else:
            verdicts += await _store(tenant_id, mine)
    return verdicts


async def store_held(records: list[spill.Record]) -> list[spill.Verdict]:
    """What waited for the end of a maintenance. Raises Unavailable until then."""
    tenant_id = records[0].tenant_id
    if (await maintenance.modes(tenant_id)).push:
        await asyncio.sleep(HOLD)
        if (await maintenance.modes(tenant_id)).push:
            raise Unavailable("the tenant is in maintenance")
    return await _store(tenant_id, records)


def _runs(records: Sequence[spill.Record]) -> Iterator[tuple[int, list[spill.Record]]]:
    for tenant_id, mine in groupby(records, key=lambda record: record.tenant_id):
        yield tenant_id, list(mine)


async def _store(tenant_id: int, records: Sequence[spill.Record]) -> list[spill.Verdict]:
    verdicts: list[spill.Verdict] = []
    for producer, mine in groupby(map(_read, records), key=lambda waiting: waiting.producer):
        items = [Item(w.queue, w.payload, w.partition, w.transaction_id, w.trace_id, w.key_id) for w in mine]
        # A duplicate was stored before the answer to its commit was lost, or was pushed twice: it is there.
        verdicts += [_verdict(pushed) for pushed in await push.push(tenant_id, producer, items)]
    return verdicts


def _read(record: spill.Record) -> Waiting:
    return _decode(record.data)


def _verdict(pushed: Pushed) -> spill.Verdict:
    if pushed.error == push.TRY_AGAIN:
        raise Unavailable(push.TRY_AGAIN)
    return spill.Verdict(str(pushed.error)) if pushed.status == "failed" else spill.STORED


# -- Kinds of spill ------------------------------------------------------------------------------------------


def held_kind(tenant_id: int) -> str:
    """The kind of a tenant's pushes in maintenance: its number in letters, for a kind has no digits."""
    return "held" + "".join(string.ascii_lowercase[int(digit)] for digit in str(tenant_id))


def hold(tenant_id: int) -> None:
    kind = held_kind(tenant_id)
    if kind not in spill.KINDS:
        spill.register(kind, store_held)


def _heard(tenants: Iterable[int]) -> None:
    """Every process drains what dead ones left of tenants that were ever in maintenance."""
    new = [tenant for tenant in tenants if held_kind(tenant) not in spill.KINDS]
    for tenant_id in new:
        hold(tenant_id)
    if new:
        _starting.get().start(spill.start())


_starting: PerLoop[Tasks] = PerLoop(Tasks, close=Tasks.close)


async def state(tenant_id: int) -> dict[str, Any]:
    """What of this tenant waits on this machine, as far as it is known apart from others'."""
    kinds = {KIND, held_kind(tenant_id)}
    found = [one for one in await spill.state() if one.kind in kinds]
    return {
        "bufferedMessages": sum(one.records for one in found if one.kind != KIND),
        "bufferHealthy": not any(one.refused for one in found),
        "bufferStats": {
            "pending": sum(one.records for one in found if one.kind != KIND),
            "failed": sum(one.set_aside for one in found if one.kind != KIND),
            "draining": all(one.draining for one in found),
        },
    }


spill.register(KIND, store)
maintenance.listeners.append(_heard)
