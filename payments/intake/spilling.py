"""Payments while PostgreSQL is away: they are durable in the spill, and stored as soon as PostgreSQL is back."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import msgspec

from payments.errors import DifferentContent, PaymentError, UnknownPayment
from payments.intake import store
from payments.intake.payment import FirstPayment, Key, Receipt, Submission
from payments.intake.store import CONFLICTED, IntakeResult
from queueing import spill
from registry.data import db_breaker
from registry.errors import Unavailable

KIND = "payment"  # of the spill's records


class SpilledPayment(msgspec.Struct, frozen=True):
    """A payment that this process accepted, or is about to, and that PostgreSQL does not have yet."""

    fingerprint: bytes
    at: datetime
    currency: str
    durable: asyncio.Future[None]


waiting: dict[Key, SpilledPayment] = {}  # of the one loop that serves requests, and so accepts
encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Submission).decode


def accepted(keys: Sequence[Key]) -> dict[Key, FirstPayment]:
    """Of these ids, the payments that are durable in this process's spill."""
    return {
        key: FirstPayment(one.fingerprint, one.at, one.currency, spilled=True)
        for key in keys
        if (one := waiting.get(key)) and one.durable.done() and not one.durable.exception()
    }


def missing(tenant_id: int, correlation_id: UUID) -> UnknownPayment | Unavailable:
    """The error for a payment that is not in PostgreSQL: 503 if it is accepted and waits to be stored, else 404."""
    if (tenant_id, correlation_id) in waiting:
        return Unavailable("it is accepted, and waits to be stored in PostgreSQL")
    return UnknownPayment()


# -- Into the spill ------------------------------------------------------------------------------------------


async def append(batch: Sequence[Submission]) -> list[IntakeResult]:
    """Append the payments to the spill. Where PostgreSQL is only read-only, ids that are stored there are judged by it."""
    known: dict[Key, FirstPayment] = {}
    if db_breaker.current().read_only and (keys := [one.key for one in batch if one.key not in waiting]):
        with suppress(Unavailable):
            known = await store.stored(keys)
    new = [one for one in batch if one.key not in known]
    spilled = iter(await _durable(new, spill.append) if new else ())
    return store.judged(batch, [None if one.key in known else next(spilled) for one in batch], known)


async def relay(batch: Sequence[Submission]) -> list[IntakeResult]:
    """Append the payments to the stream (INTAKE=stream), from which workers store them."""
    return await _durable(batch, spill.relay)


async def _durable(batch: Sequence[Submission], append: Callable[..., asyncio.Future[None]]) -> list[IntakeResult]:
    """Write the payments; an id that waits already is judged by what waits."""
    found: list[tuple[SpilledPayment, bool]] = []
    for one in batch:
        known = waiting.get(one.key)
        found.append((known or _append(one, append), known is not None))
    await asyncio.wait({one.durable for one, _ in found})
    return [_result(one, *written) for one, written in zip(batch, found, strict=True)]


def _append(one: Submission, append: Callable[..., asyncio.Future[None]]) -> SpilledPayment:
    one = msgspec.structs.replace(one, inline=False)  # its web process cannot send it; storing it wakes the workers
    durable = append(KIND, one.payment.tenant_id, encode(one), at=one.at)
    added = waiting[one.key] = SpilledPayment(one.fingerprint, one.at, one.payment.currency, durable)
    if append is spill.relay:  # a worker stores it, and this process never hears of that
        durable.add_done_callback(lambda _: _forget(one.key, added))
    return added


def _forget(key: Key, one: SpilledPayment) -> None:
    if waiting.get(key) is one:
        del waiting[key]


def _result(one: Submission, first: SpilledPayment, known: bool) -> IntakeResult:
    error = first.durable.exception()
    if error is not None:
        _forget(one.key, first)
        return error if isinstance(error, Unavailable) else Unavailable(repr(error))
    if first.fingerprint != one.fingerprint:
        CONFLICTED.inc()
        return DifferentContent()
    return Receipt(first.at, replayed=known, spilled=True)


# -- Out of the spill ----------------------------------------------------------------------------------------


async def _store(records: list[spill.Record]) -> list[spill.StoreResult]:
    """Store spilled payments. A payment that was committed before its answer was lost is found there, and not stored twice."""
    batch = [decode(record.data) for record in records]
    try:
        results = await db_breaker.attempt(lambda: store.store(batch), patient=True)
    except Exception as error:
        if len(batch) == 1 and spill.is_bad(error):  # it is set aside, and its id is free again
            waiting.pop(batch[0].key, None)
        raise
    for result in results:
        if isinstance(result, Unavailable):
            raise result
    for one in batch:
        waiting.pop(one.key, None)
    return [
        spill.StoreResult(f"409 {result.detail}") if isinstance(result, PaymentError) else spill.STORED
        for result in results
    ]


def _seen(records: list[spill.Record]) -> None:
    """Take over the ids in a dead process's spill: the same content is a replay, other content a conflict."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    for record in records:
        with suppress(msgspec.MsgspecError):  # it is set aside when it is stored
            one = decode(record.data)
            waiting.setdefault(one.key, SpilledPayment(one.fingerprint, one.at, one.payment.currency, done))


spill.register(KIND, _store, on_takeover=_seen)
