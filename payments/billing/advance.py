"""Periodic work on subscriptions: trials end, dunning goes on, and each subscription is fetched from Stripe once a day."""

import logging
from datetime import timedelta

from django.db.models import Q

from payments.billing import platform, subscriptions
from payments.billing.errors import BillingAway
from payments.models import Subscription
from registry.data import clock
from registry.data.chores import chore

log = logging.getLogger(__name__)

ADVANCE_EVERY = 3600  # seconds; the deadlines are days
LOOK_AGAIN_AFTER = timedelta(days=1)
AT_ONCE = 500  # subscriptions fetched from Stripe in one run; the rest follows in the next one


@chore("advance-billing", every=ADVANCE_EVERY)
async def advance_all() -> None:
    """Fetch subscriptions that were not fetched for a day, then advance all whose deadline has passed."""
    if platform.is_on():
        await _look_again()
    async for tenant_id in Subscription.async_objects.values_list("tenant_id", flat=True).order_by("tenant_id"):
        await subscriptions.advance(tenant_id)


async def _look_again() -> None:
    old = Q(asked_at=None) | Q(asked_at__lt=clock.now() - LOOK_AGAIN_AFTER)
    due = Subscription.async_objects.filter(old).exclude(stripe_customer="").order_by("asked_at")
    for one in [row async for row in due[:AT_ONCE]]:
        try:
            await platform.refresh(one.pk, one.stripe_customer)
        except BillingAway:
            log.warning("subscriptions were not fetched: Stripe is unavailable; the next run continues")
            return
