"""Refunds at Stripe: one Refund object for each of our refunds, found again by idempotency key or metadata."""

import asyncio
from datetime import timedelta
from typing import Final

import stripe
from stripe.params import RefundCreateParams, RefundListParams, RefundRetrieveParams

from payments.processors.base import Account, Outcome, RefundOrder, Result
from payments.processors.stripe.amounts import to_stripe
from payments.processors.stripe.answers import TROUBLE, failure, labels
from payments.processors.stripe.client import LOOK_UP_TIMEOUT, SEND_TIMEOUT, Clients
from registry.data import clock
from registry.edge.api import iso

KEYS_KEPT = timedelta(hours=23)  # Stripe forgets idempotency keys after 24 hours
PAGE = 100  # refunds per list request
REASONS: Final = frozenset({"duplicate", "fraudulent", "requested_by_customer"})  # accepted by Stripe


async def refund(clients: Clients, order: RefundOrder, account: Account) -> Outcome:
    """Refund once per refund id: a repeat uses the same key, and once Stripe has forgotten the key, a look-up comes first.

    The key contains requestedAt, which is stamped anew after a send that was certainly never returned: Stripe stores a 500
    under its key and would repeat it for a day.
    """
    try:
        async with asyncio.timeout(SEND_TIMEOUT):
            client = clients.of(account)
            known = order.reference or clock.now() - order.requested_at > KEYS_KEPT
            if known and (found := await _find(client, order)):
                return _outcome(found)
            key = f"{order.tenant_id}:refund:{order.refund_id}:{iso(order.requested_at)}"
            options: stripe.RequestOptions = {"idempotency_key": key}
            return _outcome(await client.v1.refunds.create_async(_asked(order, account), options))
    except TROUBLE as error:
        return failure(error)


async def look_up_refund(clients: Clients, order: RefundOrder, account: Account) -> Outcome:
    """Look the refund up by its reference, else among the refunds of its payment."""
    try:
        async with asyncio.timeout(LOOK_UP_TIMEOUT):
            found = await _find(clients.of(account), order)
            return _outcome(found) if found else Outcome(Result.NOT_BOOKED, code="not_there_yet")
    except TROUBLE as error:
        outcome = failure(error)
        return Outcome(Result.UNKNOWN, code=outcome.code, healthy=outcome.healthy)


async def _find(client: stripe.StripeClient, order: RefundOrder) -> stripe.Refund | None:
    if order.reference:
        params: RefundRetrieveParams = {}
        return await client.v1.refunds.retrieve_async(order.reference, params)
    wanted: RefundListParams = {"payment_intent": order.payment_reference, "limit": PAGE}
    page = await client.v1.refunds.list_async(wanted)
    while True:
        for one in page.data:
            if labels(one).get("registry_refund") == str(order.refund_id):
                return one
        if not page.has_more:
            return None
        page = await page.next_page_async()


def _asked(order: RefundOrder, account: Account) -> RefundCreateParams:
    """Parameters of the Refund. Raises AmountRefused."""
    params: RefundCreateParams = {
        "payment_intent": order.payment_reference,
        "amount": to_stripe(order.amount, order.currency),
        "metadata": {"registry_refund": str(order.refund_id), "registry_payment": str(order.payment_id)},
    }
    if order.reason in REASONS:
        params["reason"] = order.reason
    if account.options.get("destination"):  # else the platform would pay for the connected account
        params["reverse_transfer"] = True
        params["refund_application_fee"] = False  # fees are not refunded, here and in the ledger
    return params


def _outcome(found: stripe.Refund) -> Outcome:
    if found.status == "succeeded":
        return Outcome(Result.BOOKED, code="succeeded", reference=found.id)
    if found.status in ("failed", "canceled"):
        return Outcome(Result.DECLINED, code=found.failure_reason or found.status, reference=found.id)
    return Outcome(Result.UNKNOWN, code=found.status or "pending", reference=found.id)  # pending
