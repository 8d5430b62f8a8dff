"""Current refunds and disputes, fetched from Stripe: events are only hints that something changed."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import stripe
from stripe.params import DisputeRetrieveParams, RefundListParams, RefundRetrieveParams

from payments.processors.base import Account, NotThere, Unanswered
from payments.processors.reports import DisputeReport, RefundReport, Subject
from payments.processors.stripe.amounts import from_stripe
from payments.processors.stripe.answers import TROUBLE, code_of, failure, labels
from payments.processors.stripe.client import LOOK_UP_TIMEOUT, Clients

PAGE = 100  # refunds per list request


async def refund_report(clients: Clients, reference: str, account: Account) -> RefundReport:
    params: RefundRetrieveParams = {"expand": ["payment_intent"]}
    try:
        async with asyncio.timeout(LOOK_UP_TIMEOUT):
            return _refund(await clients.of(account).v1.refunds.retrieve_async(reference, params))
    except TROUBLE as error:
        raise _unread(error) from error


async def refunds_of_charge(clients: Clients, reference: str, account: Account) -> list[RefundReport]:
    params: RefundListParams = {"charge": reference, "limit": PAGE, "expand": ["data.payment_intent"]}
    found = []
    try:
        async with asyncio.timeout(LOOK_UP_TIMEOUT):
            page = await clients.of(account).v1.refunds.list_async(params)
            while True:
                found += [_refund(one) for one in page.data]
                if not page.has_more:
                    return found
                page = await page.next_page_async()
    except TROUBLE as error:
        raise _unread(error) from error


async def dispute_report(clients: Clients, reference: str, account: Account) -> DisputeReport:
    params: DisputeRetrieveParams = {"expand": ["payment_intent"]}
    try:
        async with asyncio.timeout(LOOK_UP_TIMEOUT):
            return _dispute(await clients.of(account).v1.disputes.retrieve_async(reference, params))
    except TROUBLE as error:
        raise _unread(error) from error


def _unread(error: Exception) -> Exception:
    """The exception for an object that could not be fetched."""
    code = failure(error).code
    missing = isinstance(error, stripe.InvalidRequestError) and code_of(error) == "resource_missing"
    return NotThere(code) if missing else Unanswered(code)


def _refund(found: stripe.Refund) -> RefundReport:
    ours = labels(found).get("registry_refund")
    return RefundReport(
        reference=found.id,
        subject=_subject(found.payment_intent),
        refund_id=UUID(ours) if ours else None,
        amount=from_stripe(found.amount, found.currency.upper()),
        pending=found.status not in ("succeeded", "failed", "canceled"),
        failed=found.status in ("failed", "canceled"),
        reason=found.reason or "",
        code=getattr(found, "failure_reason", None) or (found.status if found.status == "canceled" else ""),
    )


def _subject(intent: str | stripe.PaymentIntent | None) -> Subject:
    if not isinstance(intent, stripe.PaymentIntent):
        return Subject(tenant_id=None, correlation_id=None, reference=intent or "")
    said = labels(intent)
    tenant, payment = said.get("registry_tenant", ""), said.get("registry_payment")
    return Subject(
        tenant_id=int(tenant) if tenant.isdecimal() else None,
        correlation_id=UUID(payment) if payment else None,
        reference=intent.id,
    )


def _dispute(found: stripe.Dispute) -> DisputeReport:
    currency = found.currency.upper()
    moved = found.balance_transactions
    held = -sum(line.amount for line in moved)
    if any(line.currency != found.currency for line in moved):
        held = found.amount if held > 0 else 0  # the balance may be in another currency than the payment
    due = found.evidence_details.due_by if found.evidence_details else None
    return DisputeReport(
        reference=found.id,
        subject=_subject(found.payment_intent),
        amount=from_stripe(found.amount, currency),
        currency=currency,
        reason=found.reason or "",
        status=found.status,
        withdrawn=from_stripe(max(held, 0), currency),
        movements=len(moved),
        opened_at=datetime.fromtimestamp(found.created, UTC),
        due_by=datetime.fromtimestamp(due, UTC) if due else None,
    )
