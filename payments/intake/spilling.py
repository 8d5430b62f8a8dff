"""Payments in the spill: durable while PostgreSQL is unavailable, and stored once it is back."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

import msgspec

from payments.errors import DifferentContent, PaymentError, UnknownPayment
from payments.intake import recent, store
from payments.intake.payment import FirstPayment, Key, Receipt, Submission
from payments.intake.store import CONFLICTED, IntakeResult
from queueing import spill
from registry.data import db_breaker
from registry.errors import Unavailable

KIND = "payment"  # of the spill's records


class SpilledPayment(msgspec.Struct, frozen=True):
    """A payment that this process has accepted or is accepting, and that is not in PostgreSQL yet."""

    fingerprint: bytes
    at: datetime
    currency: str
    durable: asyncio.Future[None]


waiting: dict[Key, SpilledPayment] = {}  # one per process: only the event loop that serves requests accepts payments
encode, decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Submission).decode


def accepted(keys: Sequence[Key]) -> dict[Key, FirstPayment]:
    """The payments with these ids that are durable in this process's spill."""
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
    """Append payments to the spill. Ids that this process has accepted lately keep the content that they had then."""
    refused = [recent.has_other_content(one) for one in batch]
    CONFLICTED.inc(sum(refused))
    others = [one for one, no in zip(batch, refused, strict=True) if not no]
    spilled = iter(await _append_unknown(others) if others else ())
    return [DifferentContent() if no else next(spilled) for no in refused]


async def _append_unknown(batch: Sequence[Submission]) -> list[IntakeResult]:
    """While PostgreSQL is read-only, ids that exist there get the result of the stored payment."""
    known: dict[Key, FirstPayment] = {}
    if db_breaker.current().read_only and (keys := [one.key for one in batch if one.key not in waiting]):
        with suppress(Unavailable):
            known = await store.stored(keys)
    new = [one for one in batch if one.key not in known]
    spilled = iter(await _durable(new, _spill) if new else ())
    return store.judged(batch, [None if one.key in known else next(spilled) for one in batch], known)


async def relay(batch: Sequence[Submission]) -> list[IntakeResult]:
    """Append payments to the shared stream (INTAKE=stream), from which workers store them."""
    return await _durable(batch, _relay)


async def _durable(batch: Sequence[Submission], append: Callable[[Submission], SpilledPayment]) -> list[IntakeResult]:
    """Append payments and wait until they are durable. An id that waits already is decided by the payment that waits."""
    found: list[tuple[SpilledPayment, bool]] = []
    for one in batch:
        known = waiting.get(one.key)
        found.append((known or append(one), known is not None))
    await asyncio.wait({one.durable for one, _ in found})
    return [_result(one, *written) for one, written in zip(batch, found, strict=True)]


def _spill(one: Submission) -> SpilledPayment:
    """Append to this process's spill; the id is known until the payment is stored."""
    return _append(one, spill.append)


def _relay(one: Submission) -> SpilledPayment:
    """Append to the shared stream; the id is known until the record is durable, for another process stores it."""
    added = _append(one, spill.relay)
    added.durable.add_done_callback(lambda _: _forget(one.key, added))
    return added


def _append(one: Submission, append: Callable[..., asyncio.Future[None]]) -> SpilledPayment:
    one = msgspec.structs.replace(one, inline=False)  # its web process cannot send it; storing it wakes the workers
    durable = append(KIND, one.payment.tenant_id, encode(one), at=one.at)
    added = waiting[one.key] = SpilledPayment(one.fingerprint, one.at, one.payment.currency, durable)
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
    """Store spilled payments. One that PostgreSQL had committed before it became unavailable is found there, not stored twice."""
    batch = [decode(record.data) for record in records]
    try:
        results = await db_breaker.attempt(lambda: store.store(batch), patient=True)
    except Exception as error:
        if len(batch) == 1 and spill.is_bad(error):  # it is quarantined, and its id is free again
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


def _remember(records: list[spill.Record]) -> None:
    """Remember the ids in the spill of a dead process: the same content is a replay, other content a conflict."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    for record in records:
        with suppress(msgspec.MsgspecError):  # `store` quarantines an unreadable record
            one = decode(record.data)
            waiting.setdefault(one.key, SpilledPayment(one.fingerprint, one.at, one.payment.currency, done))


spill.register(KIND, _store, on_takeover=_remember)
