"""A tenant's subscription: start it, copy its state from Stripe, and apply the dunning step that follows."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.conf import settings
from django_async_backend.db.transaction import async_atomic

from payments.billing import dunning
from payments.models import Plan, Subscription
from payments.models.billing import Dunning, Paid
from registry.data import clock, database
from registry.data.cache import Cached
from registry.models import Tenant
from registry.tenants import audit, mail

SQL = database.statements(Path(__file__).parent / "sql" / "subscriptions.sql")
HELD = frozenset({Paid.TRIALING, Paid.ACTIVE, Paid.PAST_DUE})  # taking the same plan again changes nothing
ACTOR = "billing"  # in the audit trail, for changes by time or by Stripe


async def begin(*, tenant: Tenant, plan: Plan, actor: str) -> Subscription:
    """Put `tenant` on `plan` without Stripe: free, or on trial. A tenant has one trial: changing the plan keeps its end."""
    now = clock.now()
    async with async_atomic():
        found = await _locked(tenant.pk)
        if found is not None and found.plan_id == plan.pk and found.status in HELD:
            return found
        end = found.trial_end if found and found.trial_end else now + timedelta(days=plan.trial_days)
        status = Paid.ACTIVE if not plan.price else Paid.UNPAID if not plan.trial_days else Paid.TRIALING
        over = status is Paid.TRIALING and end <= now
        fields = {
            "plan": plan,
            "status": Paid.PAST_DUE if over else status,
            "trial_end": end if plan.price else found and found.trial_end,
            "stripe_subscription": "",
            "cancel_at": None,
            "past_due_since": end if over else None,
            "changed_at": now,
        }
        if found is None:
            found = await Subscription.async_objects.acreate(tenant=tenant, **fields)
        else:
            await Subscription.async_objects.filter(pk=tenant.pk).aupdate(**fields)
            found = await Subscription.async_objects.select_related("plan").aget(pk=tenant.pk)
        await _record("subscription.begin", tenant.pk, actor, plan=plan.slug, status=status.value)
        await _follow(found, now)
    return found


async def remember(*, tenant_id: int, customer: str, plan: Plan | None = None) -> None:
    """Store the Stripe customer id of a tenant before its subscription is known."""
    async with async_atomic():
        if await _locked(tenant_id) is not None:
            await Subscription.async_objects.filter(pk=tenant_id).aupdate(stripe_customer=customer)
        elif plan is not None:
            await Subscription.async_objects.acreate(
                tenant_id=tenant_id, plan=plan, status=Paid.UNPAID, stripe_customer=customer
            )


async def copy(*, tenant_id: int, newest: Mapping[str, Any], asked_at: datetime) -> bool:
    """Store the state that Stripe returned for a look-up started at `asked_at`. False if it does not concern the current plan.

    Look-ups start after the change that caused them, so the look-up that started last has seen the newest state. An ended
    subscription that we do not know ended before the tenant took its current plan.
    """
    now = clock.now()
    status = dunning.STRIPE.get(newest["status"], Paid.UNPAID)
    async with async_atomic():
        found = await _locked(tenant_id)
        if found is None or (found.asked_at and found.asked_at > asked_at):
            return False
        if status is Paid.CANCELED and newest["id"] != found.stripe_subscription:
            await Subscription.async_objects.filter(pk=tenant_id).aupdate(asked_at=asked_at)
            return False
        fields = {
            "status": status,
            "stripe_subscription": newest["id"],
            "trial_end": _moment(newest.get("trial_end")) or found.trial_end,  # a used trial stays known
            "period_end": _moment(_period_end(newest)),
            "cancel_at": _moment(newest.get("cancel_at")) or _canceled_at_period_end(newest),
            "past_due_since": (found.past_due_since or now) if status == Paid.PAST_DUE else None,
            "asked_at": asked_at,
            "changed_at": now,
        }
        if plan := await _plan_of(newest):
            fields["plan"] = plan
        for name, value in fields.items():
            setattr(found, name, value)
        await Subscription.async_objects.filter(pk=tenant_id).aupdate(**fields)
        told = await _follow(found, now)
    if told:
        await mail.send_to_owners(tenant_id, *told)
    return True


async def end(subscription: Subscription, *, wanted: bool) -> None:
    """Cancel a subscription without Stripe: at the end of its trial, or at once if free. Or undo that."""
    when = (subscription.trial_end or clock.now()) if wanted else None
    await Subscription.async_objects.filter(pk=subscription.pk).aupdate(cancel_at=when)
    await advance(subscription.pk)


async def advance(tenant_id: int) -> None:
    """Apply deadlines: the end of a trial, the next dunning step."""
    now = clock.now()
    async with async_atomic():
        found = await _locked(tenant_id)
        if found is None:
            return
        status = dunning.status_of(found, now=now)
        if status != found.status:
            since = found.trial_end if status == Paid.PAST_DUE else None
            await Subscription.async_objects.filter(pk=tenant_id).aupdate(status=status, past_due_since=since)
            found.status, found.past_due_since = status, since
        told = await _follow(found, now)
    if told:
        await mail.send_to_owners(tenant_id, *told)


async def _follow(subscription: Subscription, now: datetime) -> tuple[str, str] | None:
    """Apply the dunning step of the state, also to the tenant's keys. Returns the e-mail to send, if any."""
    grace = timedelta(days=settings.BILLING_GRACE_DAYS)
    before = Dunning(subscription.dunning)
    step = dunning.step_of(subscription.status, past_due_since=subscription.past_due_since, now=now, grace=grace)
    consequence = dunning.CONSEQUENCES[step]
    await Tenant.async_objects.filter(pk=subscription.tenant_id).aupdate(blocked=consequence.refused)
    if step == before:
        return None
    assert step in dunning.ARROWS[before]
    await Subscription.async_objects.filter(pk=subscription.tenant_id).aupdate(dunning=step)
    subscription.dunning = step
    await _record(f"subscription.{step}", subscription.tenant_id, ACTOR, was=before.value, status=subscription.status)
    return (f"Your subscription: {step.label}", consequence.banner) if consequence.banner else None


async def _locked(tenant_id: int) -> Subscription | None:
    """The tenant's subscription, with the tenant's row locked so that two callers do not both create one."""
    async for _ in Tenant.async_objects.select_for_update(no_key=True).filter(pk=tenant_id):
        pass
    return await Subscription.async_objects.select_related("plan").filter(pk=tenant_id).afirst()


async def _plan_of(newest: Mapping[str, Any]) -> Plan | None:
    items = (newest.get("items") or {}).get("data") or []
    price = items[0]["price"]["id"] if items else ""
    return await Plan.async_objects.filter(stripe_price=price).afirst() if price else None


def _period_end(newest: Mapping[str, Any]) -> int | None:
    """The period of the first item: Stripe removed it from the subscription itself."""
    items = (newest.get("items") or {}).get("data") or []
    return (items[0].get("current_period_end") if items else None) or newest.get("current_period_end")


def _canceled_at_period_end(newest: Mapping[str, Any]) -> datetime | None:
    return _moment(_period_end(newest)) if newest.get("cancel_at_period_end") else None


def _moment(seconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


async def _record(action: str, tenant_id: int, actor: str, **detail: str) -> None:
    await audit.record(actor=actor, action=action, target="subscription", tenant_id=tenant_id, detail=detail)


# -- The platform's fee -----------------------------------------------------------------------------------------


async def _load_share(tenant_id: int) -> Decimal:
    found = await database.fetch(SQL["fee_share"], {"tenant": tenant_id})
    return found[0][0] if found else Decimal(0)


_shares = Cached(_load_share, while_away=True)


async def fee_share(tenant_id: int) -> Decimal:
    """The platform's share of each of the tenant's payments, as a fraction (0.01 is 1 %); 0 without a plan. Cached for up to a second."""
    return await _shares.get(tenant_id)
