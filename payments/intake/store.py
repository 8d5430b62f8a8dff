"""Store payments in PostgreSQL: one statement and one commit per batch. An existing id is a replay or a conflict."""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import msgspec

from payments.books import events
from payments.errors import DifferentContent
from payments.intake import recent
from payments.intake.payment import FirstPayment, Key, NewPayment, Receipt, Submission
from payments.states import Status
from queueing.work import waking
from registry.data import database, db_breaker, live
from registry.data.arrays import Bigints, Blobs, Texts, Uuids, unless_empty
from registry.errors import Unavailable
from registry.telemetry import changes, metrics, traces
from registry.tenants import sampling
from registry.tenants.sampling import TracedObject

SQL = database.statements(Path(__file__).parent / "sql" / "intake.sql")

type IntakeResult = Receipt | DifferentContent | Unavailable

_ACCEPTED = metrics.ACCEPTED.labels("new")
_REPLAYED = metrics.ACCEPTED.labels("replayed")
CONFLICTED = metrics.ACCEPTED.labels("conflict")


async def store(batch: Sequence[Submission]) -> list[IntakeResult]:
    """Store a batch. Returns one result per payment, in order: new, replayed, or in conflict with an existing one."""
    started = time.perf_counter()
    rows = await database.fetch(SQL["accept"], _columns(batch))
    metrics.ACCEPT_BATCH.observe(len(batch))
    metrics.ACCEPT_SECONDS.observe(time.perf_counter() - started)
    stored = {(tenant, correlation): (at, position) for tenant, correlation, at, position in rows}
    results: list[IntakeResult | None] = []
    new: list[live.Event] = []
    accepted: list[Submission] = []
    fingerprints: dict[Key, bytes] = {}
    for one in batch:
        key = one.key
        fresh = stored.pop(key, None)  # the second of two equal ids in one batch is a replay of the first
        results.append(None if fresh is None else Receipt(fresh[0], replayed=False))
        if fresh is not None:
            new.append(_event(one.payment, *fresh))
            accepted.append(one)
            fingerprints[key] = one.fingerprint
    if traces.on:
        sampling.record_commit(
            "accept payments", [TracedObject("payment", *key) for key in fingerprints], rows=len(batch), began=started
        )
    if new:
        recent.remember(fingerprints)
        changes.record(map(_change, accepted))
        _announce(new, to_workers=not all(one.inline for one in batch))
    open_keys = [one.key for one, result in zip(batch, results, strict=True) if result is None]
    if not open_keys:
        return cast("list[IntakeResult]", results)
    known = await existing(open_keys)
    recent.remember({key: first.fingerprint for key, first in known.items()})
    return judged(batch, results, known)


def _announce(new: list[live.Event], *, to_workers: bool) -> None:
    _ACCEPTED.inc(len(new))
    live.publish(new)
    if to_workers:
        wake()


def wake() -> None:
    """Wake the workers: a payment is due."""
    waking.wake("payments")


def _columns(batch: Sequence[Submission]) -> dict[str, Any]:
    payments = [one.payment for one in batch]
    return {
        "tenant": Bigints([p.tenant_id for p in payments]),
        "correlation": Uuids([p.correlation_id.bytes for p in payments]),
        "fingerprint": Blobs([one.fingerprint for one in batch]),
        "amount": Bigints([p.amount for p in payments]),
        "currency": Texts([p.currency for p in payments]),
        "description": Texts([p.description for p in payments]),
        "metadata": Texts([_json(p.metadata) if p.metadata else None for p in payments]),
        "wanted": Texts([p.processor for p in payments]),
        "run_at": unless_empty([p.scheduled_for for p in payments]),
        "priority": Bigints([p.priority for p in payments]),
        "at": unless_empty([one.at for one in batch]),
        "method": Texts([_json(p.method) if p.method else None for p in payments]),
        "return_url": Texts([p.return_url for p in payments]),
    }


def _json(data: dict) -> str:
    return msgspec.json.encode(data).decode()


def _event(payment: NewPayment, at: datetime, position: int) -> live.Event:
    return events.event(
        tenant=payment.tenant_id,
        position=position,
        correlation_id=payment.correlation_id,
        status=Status.QUEUED.value,
        amount=payment.amount,
        currency=payment.currency,
        processor=None,
        attempts=0,
        updated_at=at,
        sequence=1,
    )


def _change(accepted: Submission) -> changes.ChangeLine:
    payment = accepted.payment
    return changes.change(
        "payment",
        "",
        Status.QUEUED.value,
        tenant=payment.tenant_id,
        payment=payment.correlation_id,
        why="scheduled" if payment.scheduled_for else "accepted",
        request_id=accepted.request_id,
    )


# -- Existing payments -------------------------------------------------------------------------------------


async def stored(keys: Sequence[Key]) -> dict[Key, FirstPayment]:
    """The stored payments with these ids, for checks before a refusal. Raises Unavailable (503)."""
    return await db_breaker.attempt(lambda: existing(keys), writes=False)


async def existing(keys: Sequence[Key]) -> dict[Key, FirstPayment]:
    """The same without a time limit; the caller sets one."""
    params = {"tenant": [tenant for tenant, _ in keys], "correlation": [correlation for _, correlation in keys]}
    return {
        (tenant, correlation): FirstPayment(bytes(fingerprint), at, currency)
        for tenant, correlation, fingerprint, at, currency in await database.fetch(SQL["existing"], params)
    }


def judged(
    batch: Sequence[Submission], results: Sequence[IntakeResult | None], known: dict[Key, FirstPayment]
) -> list[IntakeResult]:
    """The results; those that are None are decided by the payment that is `known` under the id."""
    return [
        compared(one, known.get(one.key)) if result is None else result
        for one, result in zip(batch, results, strict=True)
    ]


def compared(one: Submission, first: FirstPayment | None) -> IntakeResult:
    """The result for an existing id: the same content is a replay, other content a conflict."""
    if first is None:
        return Unavailable("the tenant was purged at this very moment; try again")
    if first.fingerprint != one.fingerprint:
        CONFLICTED.inc()
        return DifferentContent()
    _REPLAYED.inc()
    return Receipt(first.at, replayed=True)
