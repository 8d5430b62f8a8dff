"""The service's own Stripe account, to which tenants pay: customers, checkout, portal, invoices. What it means, subscriptions.py says.

The client is opened for one use and closed after it; nothing here runs in a transaction. Idempotency keys come from what
is done to whom, so that a second click, or a second process, gets the answer that the first one got.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import stripe
from django.conf import settings

from payments.billing import subscriptions
from payments.billing.errors import BillingAway, BillingOff
from payments.models import Plan, Subscription
from payments.processors.stripe_client import CONNECT_TIMEOUT, SEND_TIMEOUT
from registry import database
from registry.models import Tenant

log = logging.getLogger(__name__)

RETRIES = 1  # a person waits; each request that changes something has its own key
LOOKED_AT = 10  # subscriptions of one customer, newest first
OVER = frozenset({"canceled", "incomplete_expired"})
INVOICES = 12  # shown on the plan's page: a year


def is_on() -> bool:
    return bool(settings.BILLING_STRIPE_KEY)


@asynccontextmanager
async def account() -> AsyncIterator[stripe.StripeClient]:
    """The platform's client. Raises BillingOff (409); what Stripe refuses or does not answer becomes BillingAway (503)."""
    if not is_on():
        raise BillingOff
    await database.release()  # whoever asks may hold a connection, and Stripe takes its time
    http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=SEND_TIMEOUT, sock_connect=CONNECT_TIMEOUT))
    where: Any = {"base_addresses": {"api": settings.BILLING_STRIPE_URL}} if settings.BILLING_STRIPE_URL else {}
    try:
        yield stripe.StripeClient(settings.BILLING_STRIPE_KEY, http_client=http, max_network_retries=RETRIES, **where)
    except (stripe.StripeError, aiohttp.ClientError, TimeoutError, OSError) as error:
        log.warning("the platform's Stripe account refused or did not answer", extra={"error": repr(error)[:300]})
        raise BillingAway from error
    finally:
        await http.close_async()


# -- Subscribing --------------------------------------------------------------------------------------------------


async def checkout(*, tenant: Tenant, plan: Plan, email: str, back: str, done: str) -> str:
    """The address of Stripe's page where `plan` is paid for; it leads to `done` or `back` afterwards."""
    async with account() as client:
        price = await _price(client, plan)
        customer = await _customer(client, tenant, plan, email)
        params: dict[str, Any] = {
            "mode": "subscription",
            "customer": customer,
            "client_reference_id": str(tenant.pk),
            "line_items": [{"price": price, "quantity": 1}],
            "success_url": done + "?session={CHECKOUT_SESSION_ID}",
            "cancel_url": back,
            "metadata": {"registry_tenant": str(tenant.pk)},
            "subscription_data": {"metadata": {"registry_tenant": str(tenant.pk), "registry_plan": plan.slug}},
        }
        if plan.trial_days:
            params["subscription_data"]["trial_period_days"] = plan.trial_days
        # A session lives for a day, and so does its key: the second click of a minute gets the same page.
        key = f"registry:checkout:{tenant.pk}:{plan.slug}:{price}:{datetime.now(UTC):%Y%m%d%H%M}"
        session = await client.v1.checkout.sessions.create_async(params, {"idempotency_key": key})  # type: ignore[arg-type]
    if not session.url:
        raise BillingAway
    return session.url


async def came_back(*, tenant_id: int, session_id: str) -> bool:
    """Whether the checkout that a browser came back from is this tenant's and led to a subscription; if so, it is copied."""
    return await came_back_any(session_id=session_id, tenants={tenant_id}) is not None


async def came_back_any(*, session_id: str, tenants: set[int]) -> int | None:
    """Which of `tenants` the checkout is of, once its subscription is copied; None for anybody else's, and for one unpaid."""
    async with account() as client:
        try:
            session = await client.v1.checkout.sessions.retrieve_async(session_id)
        except stripe.InvalidRequestError:  # none of ours
            return None
        tenant_id = next((one for one in tenants if session.client_reference_id == str(one)), None)
        if tenant_id is None or not session.subscription:
            return None
    await subscriptions.remember(tenant_id=tenant_id, customer=_id(session.customer))
    await refresh(tenant_id, _id(session.customer))
    return tenant_id


async def refresh(tenant_id: int, customer: str) -> bool:
    """Ask Stripe for the customer's subscription and write down how it is. False when there is none, or a later look was faster.

    By the customer, not by an event's subscription: one that was ended long ago must not speak for its successor.
    """
    asked_at = datetime.now(UTC)
    async with account() as client:
        found = await client.v1.subscriptions.list_async({"customer": customer, "status": "all", "limit": LOOKED_AT})
    if not found.data:
        return False
    newest = next((one for one in found.data if one.status not in OVER), found.data[0])  # they come newest first
    return await subscriptions.copy(tenant_id=tenant_id, newest=newest.to_dict(), asked_at=asked_at)


async def _price(client: stripe.StripeClient, plan: Plan) -> str:
    if plan.stripe_price:
        return plan.stripe_price
    price = await client.v1.prices.create_async(
        {
            "currency": plan.currency.lower(),
            "unit_amount": plan.price,
            "recurring": {"interval": "month"},
            "product_data": {"name": plan.name},
            "metadata": {"registry_plan": plan.slug},
        },
        {"idempotency_key": f"registry:price:{plan.slug}:{plan.currency}:{plan.price}"},
    )
    await Plan.async_objects.filter(pk=plan.pk, stripe_price="").aupdate(stripe_price=price.id)
    return price.id


async def _customer(client: stripe.StripeClient, tenant: Tenant, plan: Plan, email: str) -> str:
    known = await Subscription.async_objects.filter(pk=tenant.pk).exclude(stripe_customer="").afirst()
    if known is not None:
        return known.stripe_customer
    customer = await client.v1.customers.create_async(
        {"name": tenant.name, "email": email, "metadata": {"registry_tenant": str(tenant.pk)}},
        {"idempotency_key": f"registry:customer:{tenant.pk}:{tenant.slug}"},
    )
    await subscriptions.remember(tenant_id=tenant.pk, plan=plan, customer=customer.id)
    return customer.id


# -- Living with it -------------------------------------------------------------------------------------------------


async def portal(*, customer: str, back: str) -> str:
    """The address of Stripe's page where the card is changed and invoices are paid."""
    async with account() as client:
        session = await client.v1.billing_portal.sessions.create_async({"customer": customer, "return_url": back})
    return session.url


async def invoices(customer: str) -> list[dict[str, Any]]:
    """The latest invoices, newest first: number, at, amount, currency, status, url."""
    async with account() as client:
        found = await client.v1.invoices.list_async({"customer": customer, "limit": INVOICES})
    return [
        {
            "number": one.number or one.id,
            "at": datetime.fromtimestamp(one.created, UTC),
            "amount": one.amount_due,
            "currency": one.currency.upper(),
            "status": one.status or "draft",
            "url": one.hosted_invoice_url or "",
        }
        for one in found.data
    ]


async def end(subscription: Subscription, *, wanted: bool) -> None:
    """Let it end with the period that is paid for, or go on after all."""
    asked_at = datetime.now(UTC)
    async with account() as client:
        newest = await client.v1.subscriptions.update_async(
            subscription.stripe_subscription, {"cancel_at_period_end": wanted}
        )
    await subscriptions.copy(tenant_id=subscription.pk, newest=newest.to_dict(), asked_at=asked_at)


def _id(reference: Any) -> str:
    return reference if isinstance(reference, str) else reference.id
