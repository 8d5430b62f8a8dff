"""The service's own Stripe account, to which tenants pay: customers, checkout, portal, invoices. The effect on a subscription is in subscriptions.py.

The client is opened for one use and closed after it; nothing here runs in a transaction. Idempotency keys are made
from the action and the customer, so that a second click, or a second process, gets the first one's answer.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import aiohttp
import msgspec
import stripe
from django.conf import settings

from payments.billing import subscriptions
from payments.billing.errors import AlreadySubscribed, BillingAway, BillingOff
from payments.models import Plan, Subscription
from payments.processors.stripe.client import CONNECT_TIMEOUT, SEND_TIMEOUT, tls
from registry.data import clock, database
from registry.models import Tenant

log = logging.getLogger(__name__)

RETRIES = 1  # few, because a person waits; each write has an idempotency key
LOOKED_AT = 10  # subscriptions of one customer, newest first
PAGES = 100  # checkout pages of one customer, newest first; each is open for a day
TRIAL_AHEAD = timedelta(
    hours=48, minutes=5
)  # Stripe refuses a trial that ends within 48 hours; five minutes for clocks that differ
OVER = frozenset({"canceled", "incomplete_expired"})
INVOICES = 12  # shown on the plan's page: a year


def is_on() -> bool:
    return bool(settings.BILLING_STRIPE_KEY)


@asynccontextmanager
async def account() -> AsyncIterator[stripe.StripeClient]:
    """The platform's client. Raises BillingOff (409); Stripe's errors and time-outs become BillingAway (503)."""
    if not is_on():
        raise BillingOff
    await database.release()  # the caller may hold a connection, and Stripe may be slow
    http = stripe.AIOHTTPClient(
        timeout=aiohttp.ClientTimeout(total=SEND_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
        connector=aiohttp.TCPConnector(ssl=tls()),
    )
    where: Any = {"base_addresses": {"api": settings.BILLING_STRIPE_URL}} if settings.BILLING_STRIPE_URL else {}
    try:
        yield stripe.StripeClient(settings.BILLING_STRIPE_KEY, http_client=http, max_network_retries=RETRIES, **where)
    except (stripe.StripeError, aiohttp.ClientError, TimeoutError, OSError) as error:
        log.warning("the platform's Stripe account refused or did not answer", extra={"error": repr(error)[:300]})
        raise BillingAway from error
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]


# -- Subscribing --------------------------------------------------------------------------------------------------


async def checkout(*, tenant: Tenant, plan: Plan, email: str, back: str, done: str) -> str:
    """The address of Stripe's page where `plan` is paid for; it leads to `done` or `back` afterwards.

    Raises AlreadySubscribed (409). A tenant pays for one plan: opening a checkout page expires those of other tabs.
    """
    trial = await _trial(tenant, plan)
    async with account() as client:
        price = await _price(client, plan)
        customer = await _customer(client, tenant, plan, email)
        await database.release()
        await _refuse_second(client, tenant, customer)
        params: dict[str, Any] = {
            "mode": "subscription",
            "customer": customer,
            "client_reference_id": str(tenant.pk),
            "line_items": [{"price": price, "quantity": 1}],
            "success_url": done + "?session={CHECKOUT_SESSION_ID}",
            "cancel_url": back,
            "metadata": {"registry_tenant": str(tenant.pk)},
            "subscription_data": {
                "metadata": {"registry_tenant": str(tenant.pk), "registry_plan": plan.slug},
                **trial,
            },
        }
        offer = sha256(msgspec.json.encode(params, order="deterministic")).hexdigest()[:32]
        params["metadata"]["registry_offer"] = offer
        address = await _only_page(client, params, offer)
        await _refuse_second(client, tenant, customer)  # another page may have been paid meanwhile
    if not address:
        raise BillingAway
    return address


async def _refuse_second(client: stripe.StripeClient, tenant: Tenant, customer: str) -> None:
    """Raises AlreadySubscribed (409) if a paid subscription exists, after copying it and expiring all open checkout pages."""
    asked_at = clock.now()
    found = await client.v1.subscriptions.list_async({"customer": customer, "status": "all", "limit": LOOKED_AT})
    lasting = next((one for one in found.data if one.status not in OVER), None)
    if lasting is not None:
        await _close(client, await _pages(client, customer))
        await subscriptions.copy(tenant_id=tenant.pk, newest=lasting.to_dict(), asked_at=asked_at)
        raise AlreadySubscribed


async def _trial(tenant: Tenant, plan: Plan) -> dict[str, int]:
    """Stripe's trial parameters: a tenant has one trial; the rest of one that began without a card continues."""
    if not plan.trial_days:
        return {}
    had = await Subscription.async_objects.filter(pk=tenant.pk).afirst()
    if had is None or had.trial_end is None:
        return {"trial_period_days": plan.trial_days}
    goes_on = had.trial_end >= clock.now() + TRIAL_AHEAD
    return {"trial_end": int(had.trial_end.timestamp())} if goes_on else {}


async def _only_page(client: stripe.StripeClient, params: dict[str, Any], offer: str) -> str:
    """The address of the customer's open checkout page for this offer, created if missing; "" if another tab expired it."""
    before = await _pages(client, params["customer"])
    if kept := await _keep(client, before, offer):
        return kept
    # Two clicks at once see the same latest page and so use the same key: they get one page. The minute is in it because an
    # error answer is kept with its key for a day.
    key = f"registry:checkout:{before[0].id if before else params['customer']}:{offer}:{clock.now():%Y%m%d%H%M}"
    await client.v1.checkout.sessions.create_async(params, {"idempotency_key": key})  # type: ignore[arg-type]
    return await _keep(client, await _pages(client, params["customer"]), offer)


async def _pages(client: stripe.StripeClient, customer: str) -> list[stripe.checkout.Session]:
    """The customer's checkout pages in every state, newest first."""
    return (await client.v1.checkout.sessions.list_async({"customer": customer, "limit": PAGES})).data


async def _keep(client: stripe.StripeClient, pages: list[stripe.checkout.Session], offer: str) -> str:
    """The address of the newest open page for this offer; expires all other open pages."""
    kept = next((one for one in pages if one.status == "open" and _offer_of(one) == offer), None)
    await _close(client, [one for one in pages if one is not kept])
    return (kept.url or "") if kept else ""


async def _close(client: stripe.StripeClient, pages: list[stripe.checkout.Session]) -> None:
    for one in pages:
        if one.status == "open":
            try:
                await client.v1.checkout.sessions.expire_async(one.id)
            except (
                stripe.InvalidRequestError
            ):  # paid or expired meanwhile: the look-up of subscriptions that follows sees it
                log.info("a checkout page was closed already", extra={"session": one.id})


def _offer_of(page: stripe.checkout.Session) -> str:
    return str(page.metadata.to_dict().get("registry_offer", "")) if page.metadata else ""


async def copy_checkout(*, tenant_id: int, session_id: str) -> bool:
    """Copy the subscription of a checkout the browser returned from. False if it is not this tenant's, or unpaid."""
    return await copy_checkout_of_any(session_id=session_id, tenants={tenant_id}) is not None


async def copy_checkout_of_any(*, session_id: str, tenants: set[int]) -> int | None:
    """The tenant among `tenants` that the checkout belongs to, after copying its subscription; None if none, or unpaid."""
    async with account() as client:
        try:
            session = await client.v1.checkout.sessions.retrieve_async(session_id)
        except stripe.InvalidRequestError:  # not ours
            return None
        tenant_id = next((one for one in tenants if session.client_reference_id == str(one)), None)
        if tenant_id is None or not session.subscription:
            return None
    await subscriptions.remember(tenant_id=tenant_id, customer=_id(session.customer))
    await refresh(tenant_id, _id(session.customer))
    return tenant_id


async def refresh(tenant_id: int, customer: str) -> bool:
    """Fetch the customer's subscription from Stripe and store its state. False if there is none, or a later look-up was stored first.

    Look-up is by customer, not by the event's subscription: an ended one must not overwrite its successor. If all have
    ended, the one that we know counts.
    """
    asked_at = clock.now()
    async with account() as client:
        found = await client.v1.subscriptions.list_async({"customer": customer, "status": "all", "limit": LOOKED_AT})
    if not found.data:
        return False
    known = await Subscription.async_objects.filter(pk=tenant_id).values_list("stripe_subscription", flat=True).afirst()
    lasting = (one for one in found.data if one.status not in OVER)  # newest first
    newest = next(lasting, None) or next((one for one in found.data if one.id == known), found.data[0])
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
        return str(known.stripe_customer)
    customer = await client.v1.customers.create_async(
        {"name": tenant.name, "email": email, "metadata": {"registry_tenant": str(tenant.pk)}},
        {"idempotency_key": f"registry:customer:{tenant.pk}:{tenant.slug}"},
    )
    await subscriptions.remember(tenant_id=tenant.pk, plan=plan, customer=customer.id)
    return customer.id


# -- Changing a subscription -------------------------------------------------------------------------------------------------


async def portal(*, customer: str, back: str) -> str:
    """The address of Stripe's customer portal, to change the card and pay invoices."""
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
    """Cancel at the end of the paid period, or undo that."""
    asked_at = clock.now()
    async with account() as client:
        newest = await client.v1.subscriptions.update_async(
            subscription.stripe_subscription, {"cancel_at_period_end": wanted}
        )
    await subscriptions.copy(tenant_id=subscription.pk, newest=newest.to_dict(), asked_at=asked_at)


def _id(reference: Any) -> str:
    return reference if isinstance(reference, str) else reference.id
