"""What time does to subscriptions: trials end, patience does, and what no webhook told is asked for once a day."""

import logging
from datetime import UTC, datetime, timedelta

from django.db.models import Q

from payments.billing import platform, subscriptions
from payments.billing.errors import BillingAway
from payments.models import Subscription
from queueing.work import entry
from registry.data import chores

log = logging.getLogger(__name__)

ADVANCE_EVERY = 3600  # seconds; days are what it is about
LOOK_AGAIN_AFTER = timedelta(days=1)
AT_ONCE = 500  # subscriptions asked for at Stripe in one run; the others come with the next


async def advance_all() -> None:
    """Look at Stripe for those not looked at for a day, then let each follow the calendar."""
    if platform.is_on():
        await _look_again()
    async for tenant_id in Subscription.async_objects.values_list("tenant_id", flat=True).order_by("tenant_id"):
        await subscriptions.advance(tenant_id)


async def _look_again() -> None:
    old = Q(asked_at=None) | Q(asked_at__lt=datetime.now(UTC) - LOOK_AGAIN_AFTER)
    due = Subscription.async_objects.filter(old).exclude(stripe_customer="").order_by("asked_at")
    for one in [row async for row in due[:AT_ONCE]]:
        try:
            await platform.refresh(one.pk, one.stripe_customer)
        except BillingAway:
            log.warning("subscriptions are not looked at: Stripe is away; the next run goes on")
            return


entry.CHORES["advance-billing"] = advance_all
chores.every("advance-billing", ADVANCE_EVERY)
