"""Parameters of the statements in settle.sql, as arrays with one element per payment; live events and log lines of their results."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from payments import money
from payments.books import events
from payments.settle.claims import DuePayment
from payments.settle.decisions import PaymentClaim, Settlement
from payments.states import Status
from registry.data import live
from registry.data.arrays import Bigints, Texts, unless_empty
from registry.telemetry import changes


def keys(rows: Sequence[DuePayment]) -> dict[str, object]:
    return {"tenant": [row.tenant_id for row in rows], "payment": [row.payment_id for row in rows]}


def begins(claims: Sequence[PaymentClaim]) -> dict[str, object]:
    return {
        "tenant": Bigints([c.tenant_id for c in claims]),
        "payment": Bigints([c.payment_id for c in claims]),
        "number": Bigints([c.number for c in claims]),
        "status": Texts([c.status.value for c in claims]),
        "changed": [c.status is not c.was for c in claims],
        "processor": Bigints([c.account.id for c in claims]),
        "requested_at": [c.requested_at for c in claims],
        "reason": Texts([c.reason for c in claims]),
        "in_doubt_since": unless_empty([c.in_doubt_since for c in claims]),
        "reference": Texts([c.reference for c in claims]),
    }


def settles(batch: Sequence[Settlement]) -> dict[str, object]:
    claims = [s.claim for s in batch]
    return {
        "tenant": Bigints([c.tenant_id for c in claims]),
        "payment": Bigints([c.payment_id for c in claims]),
        "number": Bigints([c.number for c in claims]),
        "status": Texts([s.status.value for s in batch]),
        "changed": [s.status is not s.claim.status for s in batch],
        "processor": Bigints([c.account.id for c in claims]),
        "requested_at": [c.requested_at for c in claims],
        "fee": Bigints([_fee(s) for s in batch]),
        "outcome": Texts([s.outcome.value for s in batch]),
        "code": Texts([s.code[:50] for s in batch]),
        "detail": Texts([s.detail[:300] for s in batch]),
        "latency": Bigints([s.latency_ms for s in batch]),
        "wait": [s.wait for s in batch],
        "in_doubt_since": unless_empty([s.in_doubt_since for s in batch]),
        "dead": [s.dead for s in batch],
        "reference": Texts([s.reference for s in batch]),
        "action": Texts([json.dumps(s.action) if s.action else None for s in batch]),
    }


def event(claim: PaymentClaim, status: Status, position: int, sequence: int, at: datetime) -> live.Event:
    return events.event(
        tenant=claim.tenant_id,
        position=position,
        correlation_id=claim.correlation_id,
        status=status.value,
        amount=claim.amount,
        currency=claim.currency,
        processor=claim.account.name,
        attempts=claim.number,
        updated_at=at,
        sequence=sequence,
    )


def change(claim: PaymentClaim, was: Status, to: Status, **fields: Any) -> changes.ChangeLine:
    """The log line of a change by a worker."""
    return changes.change(
        "payment",
        was.value,
        to.value,
        tenant=claim.tenant_id,
        payment=claim.correlation_id,
        attempt=claim.number,
        processor=claim.account.name,
        **fields,
    )


def _fee(settlement: Settlement) -> int:
    claim = settlement.claim
    return money.share(claim.amount, claim.account.fee_ppm) if settlement.fee is None else settlement.fee
