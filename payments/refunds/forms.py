"""A person refunds a payment: what they typed, read and checked the same way on a tenant's page and in the admin."""

from dataclasses import dataclass, field
from uuid import UUID

from django_async_backend.db.transaction import async_atomic

from payments import money
from payments.errors import DifferentContent
from payments.models import Payment
from payments.refunds import debts
from payments.refunds.balance import connection_of_transaction, left_of
from registry.data.loop import sync_twin
from registry.edge.cards import CARD, holds_card
from registry.errors import Problem
from registry.tenants import audit

LONGEST_REASON = 500  # characters, as everywhere in the audit trail


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """The fields of the form, as they came, and what is wrong with them."""

    amount: str
    reason: str
    key: str  # of the form: sent twice it is one refund
    wrong: dict[str, str] = field(default_factory=dict)


def check(payment: Payment, *, amount: str, reason: str, key: str) -> tuple[Typed, int]:
    """What was typed, with its faults, and the amount in minor units."""
    wrong, units = {}, 0
    try:
        units = money.typed_amount(amount, payment.currency)
    except Problem as error:
        wrong["amount"] = error.detail
    left = left_of(payment.status, payment.amount, payment.owed_back)
    if units > left:
        wrong["amount"] = f"at most {money.decimal_text(left, payment.currency)} {payment.currency} is left to refund"
    if not reason.strip() or len(reason) > LONGEST_REASON or "\0" in reason:
        wrong["reason"] = f"Say why, in at most {LONGEST_REASON} characters."
    elif holds_card(reason):
        wrong["reason"] = CARD.capitalize() + "."
    if not key or len(key) > 100:
        wrong["key"] = "The form is not complete. Please load the page again."
    return Typed(amount=amount, reason=reason, key=key, wrong=wrong), units


async def sent_before(*, tenant_id: int, correlation_id: UUID, units: int, typed: Typed) -> bool:
    """Whether this very form was carried out already: then it is answered as it was, whatever is left by now.

    Raises DifferentContent (409) where it was, with another amount.
    """
    if not units or "key" in typed.wrong:
        return False
    try:
        return await debts.was_asked(_asked(tenant_id, correlation_id, units, typed))
    except DifferentContent:
        raise DifferentContent("this form was sent before, with another amount") from None


async def carry_out(*, tenant_id: int, correlation_id: UUID, units: int, typed: Typed, actor: str) -> None:
    """Refund, with its entry in the audit trail: where nothing can be recorded nothing is owed. Raises Problem."""
    asked = _asked(tenant_id, correlation_id, units, typed, actor)
    async with async_atomic():
        receipt, event = await debts.owe(connection_of_transaction(), asked)
        if not receipt.replayed:
            await audit.record(
                actor=actor,
                action="payment.refund",
                target=f"payment {correlation_id}",
                tenant_id=tenant_id,
                reason=typed.reason.strip(),
                detail={"refund": str(receipt.refund_id), "units": units},
            )
    await debts.tell(event)


def _asked(tenant_id: int, correlation_id: UUID, units: int, typed: Typed, actor: str = "") -> debts.Asked:
    return debts.wanted(tenant_id, correlation_id, units, "", actor, f"form {correlation_id} {typed.key}")


sent_before_sync = sync_twin(sent_before)
carry_out_sync = sync_twin(carry_out)
