"""Refunds as debts: asked for here, paid back by dispatch.py, and booked from the processor's own word.

Whoever changes what a payment owes holds the payment's row first. `owed_back` is what was promised and has not failed, so
that no sum of refunds can pass the amount, whoever asks together with whom.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import msgspec
from psycopg import AsyncConnection

from payments.errors import DifferentContent, NotRefundable, RefundTooLarge, UnknownPayment
from payments.money import decimal_text
from payments.processors import KINDS
from payments.processors.base import GivesBack
from payments.processors.reports import RefundNews
from payments.refunds.balance import SQL, Held, hold, locked, move, wake
from payments.states import REFUND_TERMINAL, SUCCEEDED, RefundStatus
from registry.data import database, live
from registry.data.loop import sync_twin
from registry.edge.api import iso
from registry.edge.cards import CARD, holds_card
from registry.edge.unique import check_key
from registry.errors import Invalid

MOST = 1000  # refunds of one payment: more are nobody's intention, and all of them are shown together
LONGEST_REASON = 500  # characters
CLOSED_HERE = "closed"  # code of a refund that an operator gave up


@dataclass(frozen=True, slots=True)
class Receipt:
    """A refund that is owed now, or was already under the same key."""

    refund_id: UUID
    replayed: bool


# -- Asking for one ----------------------------------------------------------------------------------------


async def refund(
    *,
    tenant_id: int,
    correlation_id: UUID,
    amount: int | None = None,
    reason: str = "",
    actor: str = "",
    idempotency_key: str = "",
) -> Receipt:
    """Owe `amount` minor units back, or all that is left; a worker pays the debt.

    The same key with the same content replays. Raises UnknownPayment (404), NotRefundable, RefundTooLarge,
    DifferentContent (409), Invalid (422).
    """
    asked = wanted(tenant_id, correlation_id, amount, reason, actor, idempotency_key)
    if holds_card(reason) and not await was_asked(asked):  # an older version may have accepted this reason
        raise Invalid(errors=[{"field": "reason", "message": CARD}])
    receipt, event = await locked(lambda conn: owe(conn, asked))
    await tell(event)
    return receipt


def wanted(
    tenant_id: int, correlation_id: UUID, amount: int | None, reason: str, actor: str, idempotency_key: str
) -> "Asked":
    """What is asked for, with the id that it has from now on. Raises Invalid (422)."""
    if amount is not None and amount <= 0:
        raise Invalid(errors=[{"field": "amount", "message": "must be greater than zero"}])
    if len(reason) > LONGEST_REASON or "\0" in reason:
        message = f"wants at most {LONGEST_REASON} characters, none of them NUL"
        raise Invalid(errors=[{"field": "reason", "message": message}])
    return Asked(
        tenant_id=tenant_id,
        correlation_id=correlation_id,
        public_id=_key_id(tenant_id, idempotency_key) if idempotency_key else uuid4(),
        amount=amount,
        reason=reason,
        actor=actor[:150],
    )


async def tell(event: live.Event | None) -> None:
    """After the commit: to readers, and to the workers."""
    if event:
        live.publish([event])
        await wake()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    tenant_id: int
    correlation_id: UUID
    public_id: UUID
    amount: int | None
    reason: str
    actor: str

    @property
    def names(self) -> dict[str, object]:
        return {"tenant": self.tenant_id, "public": self.public_id}

    @property
    def fingerprint(self) -> bytes:
        content = msgspec.json.encode([self.correlation_id, self.amount, self.reason])
        return hashlib.blake2b(content, digest_size=16).digest()


def _key_id(tenant_id: int, idempotency_key: str) -> UUID:
    """The refund's id that an `Idempotency-Key` stands for: the same key of the same tenant, the same id, for ever."""
    check_key(idempotency_key)
    return uuid5(NAMESPACE_URL, f"registry:refund:{tenant_id}:{idempotency_key}")


async def owe(conn: AsyncConnection, asked: Asked) -> tuple[Receipt, live.Event | None]:
    """The same in the caller's transaction; what to `tell` after its commit."""
    payment = await hold(conn, asked.tenant_id, asked.correlation_id)
    if payment is None:
        raise UnknownPayment
    if _replays(asked, await database.rows(conn, SQL["asked"], asked.names)):
        return Receipt(asked.public_id, replayed=True), None
    amount = _affordable(payment, asked.amount)
    ours = {"actor": asked.actor, "external": False, "reference": "", "status": RefundStatus.OWED.value}
    terms = {"public": asked.public_id, "fingerprint": asked.fingerprint, "amount": amount, "reason": asked.reason}
    refund_id = await _insert(conn, asked.tenant_id, payment, **ours, **terms)
    event = await move(
        conn,
        asked.tenant_id,
        payment.id,
        subject=refund_id,
        kind="refund.created",
        detail=f"{decimal_text(amount, payment.currency)} {payment.currency} to be given back",
        owed=amount,
    )
    return Receipt(asked.public_id, replayed=False), event


async def was_asked(asked: Asked) -> bool:
    """Whether this refund is owed, or was paid, already: whoever would refuse it looks first. Raises DifferentContent (409)."""
    return _replays(asked, await database.fetch(SQL["asked"], asked.names))


def _replays(asked: Asked, known: list[database.Row]) -> bool:
    if known and bytes(known[0][0]) != asked.fingerprint:
        raise DifferentContent("this Idempotency-Key stands for a refund with other content")
    return bool(known)


def _affordable(payment: Held, amount: int | None) -> int:
    """What will be owed. Raises NotRefundable, RefundTooLarge (409)."""
    if payment.status != SUCCEEDED or payment.processor_id is None:
        raise NotRefundable(f"it is {payment.status}; only a payment that succeeded can be refunded")
    if not gives_back(payment.kind or ""):
        raise NotRefundable(
            f"it was booked at {payment.processor}, and processors of kind {payment.kind} give nothing back"
        )
    left = payment.left
    if left <= 0:
        raise RefundTooLarge("all of it is refunded, or owed back, already")
    if amount is not None and amount > left:
        raise RefundTooLarge(f"at most {decimal_text(left, payment.currency)} {payment.currency} is left to refund")
    return left if amount is None else amount


def gives_back(kind: str) -> bool:
    """Whether processors of this kind can give money back."""
    return kind in KINDS and issubclass(KINDS[kind], GivesBack)


async def _insert(conn: AsyncConnection, tenant_id: int, payment: Held, **fields: object) -> int:
    parameters = {"tenant": tenant_id, "payment": payment.id, "currency": payment.currency, "most": MOST, **fields}
    found = await database.rows(conn, SQL["owe"], {"processor": payment.processor_id, **parameters})
    if not found:
        raise NotRefundable(f"it has {MOST} refunds already")
    return int(found[0][0])


# -- The processor's own word ------------------------------------------------------------------------------


async def from_processor(*, tenant_id: int, processor_id: int, news: RefundNews) -> bool:
    """Book what the processor says now of a refund; whether that changed anything.

    Ours are known by our own id, which the processor carries; others were made there, and are booked once. One that failed
    after it was returned is reversed, and is final. Raises UnknownPayment, and NotRefundable for a payment that is not
    booked there as far as we know: ask again later.
    """
    told = await locked(lambda conn: book(conn, tenant_id=tenant_id, processor_id=processor_id, news=news))
    live.publish(told)
    return bool(told)


async def book(conn: AsyncConnection, *, tenant_id: int, processor_id: int, news: RefundNews) -> list[live.Event]:
    """The same in the caller's transaction; the events to tell after its commit."""
    if news.pending:
        return []
    correlation_id = news.subject.correlation_id
    payment = await hold(conn, tenant_id, correlation_id) if correlation_id else None
    if payment is None:
        raise UnknownPayment
    keys = {"tenant": tenant_id, "processor": processor_id, "reference": news.reference}
    known = await database.rows(conn, SQL["known"], {**keys, "payment": payment.id, "public": news.refund_id})
    if known:
        return await _correct(conn, tenant_id, payment, Known._make(known[0]), news)
    if news.failed:
        return []  # nothing of it was ever booked here
    if payment.status != SUCCEEDED or payment.processor_id != processor_id:
        raise NotRefundable(f"it is {payment.status} here: its own outcome comes first")
    return [await _book_external(conn, tenant_id, payment, news)]


class Known(NamedTuple):
    """A refund as it stands here, in the order of `known`."""

    id: int
    status: str
    amount: int
    reference: str
    code: str

    @property
    def failed_there(self) -> bool:
        """Whether it was the processor that said so: then for good. Not so where an operator gave it up."""
        return self.status == RefundStatus.FAILED and bool(self.reference) and self.code != CLOSED_HERE


async def _correct(
    conn: AsyncConnection, tenant_id: int, payment: Held, known: Known, news: RefundNews
) -> list[live.Event]:
    """Bring a refund that we know to what the processor says. One that failed there stays failed: older news are late."""
    target = RefundStatus.FAILED if news.failed else RefundStatus.RETURNED
    if known.failed_there or (known.status == target == RefundStatus.RETURNED):
        return []
    close = {"tenant": tenant_id, "refund": known.id, "status": target.value, "reference": news.reference}
    await database.rows(conn, SQL["close"], {**close, "code": news.code[:50] or ("failed" if news.failed else "")})
    if known.status == target:  # we had given it up, and now it is certain
        return []
    if news.failed:
        detail = f"{payment.processor} could not give it back" + (f" ({news.code})" if news.code else "")
        owed, back = -known.amount, -known.amount if known.status == RefundStatus.RETURNED else 0
    else:
        detail = f"Given back at {payment.processor}"
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


async def _book_external(conn: AsyncConnection, tenant_id: int, payment: Held, news: RefundNews) -> live.Event:
    external = {
        "public": uuid4(),
        "fingerprint": b"",
        "actor": "",
        "external": True,
        "status": RefundStatus.RETURNED.value,
    }
    terms = {"amount": news.amount, "reason": news.reason[:LONGEST_REASON], "reference": news.reference}
    refund_id = await _insert(conn, tenant_id, payment, **external, **terms)
    return await move(
        conn,
        tenant_id,
        payment.id,
        subject=refund_id,
        kind="refund.returned",
        detail=f"Given back at {payment.processor}, asked for there",
        owed=news.amount,
        refunded=news.amount,
        back=news.amount,
    )


# -- Questions ---------------------------------------------------------------------------------------------


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
    """Whether no worker has anything left to do for it."""
    return refund_object["status"] in REFUND_TERMINAL


refund_sync = sync_twin(refund)
