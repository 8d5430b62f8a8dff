"""Create refunds, book a processor's reports of refunds, and read refunds. Workers send them: work.py.

Every change locks the payment first. `owed_back` is the sum of all refunds that have not failed, so that concurrent requests
never refund more than the amount.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import msgspec
from psycopg import AsyncConnection

from payments.errors import DifferentContent, NotRefundable, RefundTooLarge
from payments.money import decimal_text
from payments.processors import KINDS
from payments.processors.base import CanRefund
from payments.processors.reports import RefundReport
from payments.refunds.balance import SQL, LockedPayment, in_transaction, lock, move, wake
from payments.states import REFUND_TERMINAL, SUCCEEDED, RefundStatus
from registry.data import database, live
from registry.data.loop import sync_twin
from registry.edge.api import iso
from registry.edge.cards import CARD, holds_card
from registry.edge.unique import check_key
from registry.errors import Invalid
from registry.telemetry import changes
from registry.telemetry.context import REQUEST

MOST = 1000  # refunds of one payment: a page shows all of them
LONGEST_REASON = 500  # characters
CLOSED_HERE = "closed"  # code of a refund that an operator closed


@dataclass(frozen=True, slots=True)
class RefundReceipt:
    """The id of an accepted refund; `replayed` if the same request was accepted before."""

    refund_id: UUID
    replayed: bool


class NewRefund(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request for a refund."""

    tenant_id: int
    correlation_id: UUID
    public_id: UUID
    amount: int | None  # minor units; None: all that is refundable
    reason: str
    actor: str

    @property
    def keys(self) -> dict[str, object]:
        return {"tenant": self.tenant_id, "public": self.public_id}

    @property
    def fingerprint(self) -> bytes:
        content = msgspec.json.encode([self.correlation_id, self.amount, self.reason])
        return hashlib.blake2b(content, digest_size=16).digest()


# -- Creating ----------------------------------------------------------------------------------------------


async def refund(
    *,
    tenant_id: int,
    correlation_id: UUID,
    amount: int | None = None,
    reason: str = "",
    actor: str = "",
    idempotency_key: str = "",
) -> RefundReceipt:
    """Accept a refund of `amount` minor units, or of all that is refundable; a worker sends it to the processor.

    The same key with the same content replays. Raises UnknownPayment (404), NotRefundable, RefundTooLarge,
    DifferentContent (409), Invalid (422).
    """
    new = new_refund(tenant_id, correlation_id, amount, reason, actor, idempotency_key)
    if holds_card(reason) and not await exists(new):  # an older version may have accepted this reason
        raise Invalid(errors=[{"field": "reason", "message": CARD}])
    receipt, event = await in_transaction(lambda conn: create(conn, new))
    await announce(receipt, event)
    return receipt


def new_refund(
    tenant_id: int, correlation_id: UUID, amount: int | None, reason: str, actor: str, idempotency_key: str
) -> NewRefund:
    """Check the request and give it its id. Raises Invalid (422)."""
    if amount is not None and amount <= 0:
        raise Invalid(errors=[{"field": "amount", "message": "must be greater than zero"}])
    if len(reason) > LONGEST_REASON or "\0" in reason:
        message = f"wants at most {LONGEST_REASON} characters, none of them NUL"
        raise Invalid(errors=[{"field": "reason", "message": message}])
    return NewRefund(
        tenant_id=tenant_id,
        correlation_id=correlation_id,
        public_id=_key_id(tenant_id, idempotency_key) if idempotency_key else uuid4(),
        amount=amount,
        reason=reason,
        actor=actor[:150],
    )


def _key_id(tenant_id: int, idempotency_key: str) -> UUID:
    """The refund id of an `Idempotency-Key`: the same key of the same tenant always gives the same id."""
    check_key(idempotency_key)
    return uuid5(NAMESPACE_URL, f"registry:refund:{tenant_id}:{idempotency_key}")


async def create(conn: AsyncConnection, new: NewRefund) -> tuple[RefundReceipt, live.Event | None]:
    """Insert the refund in the caller's transaction; `announce` the event after the commit."""
    payment = await lock(conn, new.tenant_id, new.correlation_id)
    if _replays(new, await database.rows(conn, SQL["fingerprint"], new.keys)):
        return RefundReceipt(new.public_id, replayed=True), None
    amount = _amount_of(payment, new.amount)
    created = {"actor": new.actor, "external": False, "reference": "", "status": RefundStatus.OWED.value}
    terms = {"public": new.public_id, "fingerprint": new.fingerprint, "amount": amount, "reason": new.reason}
    refund_id = await _insert(conn, new.tenant_id, payment, **created, **terms)
    event = await move(
        conn,
        new.tenant_id,
        payment.id,
        subject=refund_id,
        kind="refund.created",
        detail=f"Refund of {decimal_text(amount, payment.currency)} {payment.currency} requested",
        owed=amount,
    )
    return RefundReceipt(new.public_id, replayed=False), event


async def announce(receipt: RefundReceipt, event: live.Event | None) -> None:
    """After the commit: log the refund, publish its event and wake the workers."""
    if event:
        ids = {"payment": event.subject, "refund": receipt.refund_id, "request_id": REQUEST.get()}
        changes.record(
            [changes.change("refund", "", RefundStatus.OWED.value, tenant=event.tenant, why="accepted", **ids)]
        )
        live.publish([event])
        await wake()


async def exists(new: NewRefund) -> bool:
    """Whether this request was accepted before. Raises DifferentContent (409)."""
    return _replays(new, await database.fetch(SQL["fingerprint"], new.keys))


def _replays(new: NewRefund, known: list[database.Row]) -> bool:
    if known and bytes(known[0][0]) != new.fingerprint:
        raise DifferentContent("this Idempotency-Key stands for a refund with other content")
    return bool(known)


def _amount_of(payment: LockedPayment, amount: int | None) -> int:
    """The amount of the refund in minor units. Raises NotRefundable, RefundTooLarge (409)."""
    if payment.status != SUCCEEDED or payment.processor_id is None:
        raise NotRefundable(f"it is {payment.status}; only a payment that succeeded can be refunded")
    if not can_refund(payment.kind or ""):
        raise NotRefundable(
            f"it was booked at {payment.processor}, and processors of kind {payment.kind} support no refunds"
        )
    left = payment.refundable
    if left <= 0:
        raise RefundTooLarge("all of it is refunded, or is being refunded, already")
    if amount is not None and amount > left:
        raise RefundTooLarge(f"at most {decimal_text(left, payment.currency)} {payment.currency} is left to refund")
    return left if amount is None else amount


def can_refund(kind: str) -> bool:
    """Whether processors of this kind support refunds."""
    return kind in KINDS and issubclass(KINDS[kind], CanRefund)


async def _insert(conn: AsyncConnection, tenant_id: int, payment: LockedPayment, **fields: object) -> int:
    parameters = {"tenant": tenant_id, "payment": payment.id, "currency": payment.currency, "most": MOST, **fields}
    rows = await database.rows(conn, SQL["insert"], {"processor": payment.processor_id, **parameters})
    if not rows:
        raise NotRefundable(f"it has {MOST} refunds already")
    return int(rows[0][0])


# -- Reports of a processor ----------------------------------------------------------------------------------


async def book(conn: AsyncConnection, *, tenant_id: int, processor_id: int, report: RefundReport) -> list[live.Event]:
    """Book a processor's report in the caller's transaction; the events to publish after its commit.

    The processor stores the id of a refund that we sent. A refund made at the processor is booked once. A refund that fails
    after it was returned is reversed, and stays failed. Raises UnknownPayment, and NotRefundable for a payment that is not
    booked at this processor: try again later.
    """
    if report.pending:
        return []
    payment = await lock(conn, tenant_id, report.subject.correlation_id)
    keys = {"tenant": tenant_id, "processor": processor_id, "reference": report.reference}
    rows = await database.rows(conn, SQL["known"], {**keys, "payment": payment.id, "public": report.refund_id})
    if rows:
        return await _correct(conn, tenant_id, payment, KnownRefund._make(rows[0]), report)
    if report.failed:
        return []  # it was never booked here
    payment.must_be_booked_at(processor_id)
    return [await _book_external(conn, tenant_id, payment, report)]


class KnownRefund(NamedTuple):
    """A refund in our books, in the order of `known`."""

    id: int
    status: str
    amount: int
    reference: str
    code: str

    @property
    def failed_there(self) -> bool:
        """Whether it failed at the processor, which is final. A refund that an operator closed may still be returned."""
        return self.status == RefundStatus.FAILED and bool(self.reference) and self.code != CLOSED_HERE


async def _correct(
    conn: AsyncConnection, tenant_id: int, payment: LockedPayment, known: KnownRefund, report: RefundReport
) -> list[live.Event]:
    """Change our refund to the reported state. One that failed at the processor stays failed: older reports come late."""
    target = RefundStatus.FAILED if report.failed else RefundStatus.RETURNED
    if known.failed_there or (known.status == target == RefundStatus.RETURNED):
        return []
    close = {"tenant": tenant_id, "refund": known.id, "status": target.value, "reference": report.reference}
    await database.rows(conn, SQL["close"], {**close, "code": report.code[:50] or ("failed" if report.failed else "")})
    if known.status == target:  # an operator had closed it, and now the failure is certain
        return []
    if report.failed:
        detail = f"{payment.processor} could not refund it" + (f" ({report.code})" if report.code else "")
        owed, back = -known.amount, -known.amount if known.status == RefundStatus.RETURNED else 0
    else:
        detail = f"Refunded at {payment.processor}"
        owed, back = known.amount if known.status == RefundStatus.FAILED else 0, known.amount
    event = await move(
        conn,
        tenant_id,
        payment.id,
        subject=known.id,
        kind=f"refund.{target.value}",
        detail=detail,
        owed=owed,
        refunded=back,
        back=back,
    )
    return [event]


async def _book_external(
    conn: AsyncConnection, tenant_id: int, payment: LockedPayment, report: RefundReport
) -> live.Event:
    external = {
        "public": uuid4(),
        "fingerprint": b"",
        "actor": "",
        "external": True,
        "status": RefundStatus.RETURNED.value,
    }
    terms = {"amount": report.amount, "reason": report.reason[:LONGEST_REASON], "reference": report.reference}
    refund_id = await _insert(conn, tenant_id, payment, **external, **terms)
    return await move(
        conn,
        tenant_id,
        payment.id,
        subject=refund_id,
        kind="refund.returned",
        detail=f"Refunded at {payment.processor}, where it was requested",
        owed=report.amount,
        refunded=report.amount,
        back=report.amount,
    )


# -- Reading -----------------------------------------------------------------------------------------------


async def refunds_of(tenant_id: int, correlation_id: UUID, refund_id: UUID | None = None) -> list[dict[str, Any]]:
    """The refund objects of one payment, oldest first; with `refund_id` only that one."""
    params = {"tenant": tenant_id, "correlation": correlation_id, "public": refund_id, "limit": MOST + MOST}
    return [_object(row) for row in await database.fetch(SQL["of_payment"], params)]


def _object(row: database.Row) -> dict[str, Any]:
    public_id, correlation_id, status, amount, currency, reason, reference, code, external, created_at, changed_at = row
    return {
        "id": str(public_id),
        "correlationId": str(correlation_id),
        "status": status,
        "amount": decimal_text(amount, currency),
        "currency": currency,
        "reason": reason,
        "reference": reference or None,
        "code": code or None,
        "external": external,
        "createdAt": iso(created_at),
        "updatedAt": iso(changed_at),
    }


def is_closed(refund_object: dict[str, Any]) -> bool:
    """Whether its state is terminal."""
    return refund_object["status"] in REFUND_TERMINAL


refund_sync = sync_twin(refund)
