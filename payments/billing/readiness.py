"""Go-live checks of a tenant, each with what to do, and the switch from sandbox to live."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from django.conf import settings
from django_async_backend.db.transaction import async_atomic

from payments.billing.errors import NotReady
from payments.intake.spilling import KIND
from payments.models import Difference, Payment, Plan, Processor, Subscription
from payments.models.billing import Dunning, Paid
from payments.routing import accounts, probe
from payments.routing.checks import TEST_KEYS
from queueing import spill
from registry.errors import Unavailable
from registry.models import Membership, Tenant
from registry.tenants import audit
from registry.tenants.encryption import Sealed
from registry.tenants.go_live import GATES

PLAY = "sandbox"  # processors of this kind move no money

type Finding = tuple[bool, str]


@dataclass(frozen=True, slots=True)
class ReadinessCheck:
    """One check: its label, and its result, or what to do if it fails and on which page of the console."""

    name: str
    label: str
    ok: bool
    detail: str
    page: str = ""  # empty: not in the console
    action: str = ""  # label of the link to it


async def look(tenant: Tenant) -> list[ReadinessCheck]:
    """Run all checks of a tenant, in the order of the steps to take. Calls its processors."""
    findings = [await check(tenant) for _, _, check in CHECKS]
    return [
        ReadinessCheck(name, label, ok, detail, *PAGES.get(name, ()))
        for (name, label, _), (ok, detail) in zip(CHECKS, findings, strict=True)
    ]


async def go_live(*, tenant: Tenant, actor: str, reason: str = "") -> bool:
    """Switch a tenant from sandbox to live; this cannot be undone. False if it is live already. Raises NotReady (409).

    Sandbox processors are switched off in the same transaction: every payment from now on is real.
    """
    if tenant.mode == Tenant.Mode.LIVE:
        return False
    if missing := [check for check in await look(tenant) if not check.ok]:
        raise NotReady(
            "; ".join(f"{check.label}: {check.detail}" for check in missing),
            errors=[{"field": check.name, "message": check.detail} for check in missing],
        )
    async with async_atomic():
        mine = Tenant.async_objects.filter(pk=tenant.pk, mode=Tenant.Mode.SANDBOX)
        if not await mine.aupdate(mode=Tenant.Mode.LIVE):
            return False
        if await Payment.async_objects.filter(tenant_id=tenant.pk).aexists():  # since the checks
            raise NotReady("a sandbox payment was accepted meanwhile; empty the sandbox again")
        off = await _disable_sandbox_processors(tenant)
        await audit.record(
            actor=actor,
            action="tenant.live",
            target=f"tenant {tenant.slug}",
            tenant_id=tenant.pk,
            reason=reason,
            detail={"switched off": off},
        )
    tenant.mode = Tenant.Mode.LIVE
    return True


async def _disable_sandbox_processors(tenant: Tenant) -> list[str]:
    enabled = [processor async for processor in Processor.async_objects.filter(tenant=tenant, enabled=True)]
    play = [p.name for p in enabled if p.kind == PLAY or (settings.PRODUCTION and _has_test_key(p))]
    await Processor.async_objects.filter(tenant=tenant, name__in=play).aupdate(enabled=False)
    return play


def _has_test_key(processor: Processor) -> bool:
    """Whether a processor uses a Stripe test key; True also if its secrets cannot be read, so that it is switched off."""
    if processor.kind != "stripe":
        return False
    try:
        return str(accounts.opened(processor).get("secretKey")).startswith(TEST_KEYS)
    except Sealed:
        return True


# -- The checks --------------------------------------------------------------------------------------------------


async def _owner(tenant: Tenant) -> Finding:
    owners = Membership.async_objects.filter(tenant=tenant, role=Membership.Role.OWNER, user__is_active=True)
    able = [m.user.get_username() async for m in owners.select_related("user") if m.user.has_usable_password()]
    return (True, f"owned by {able[0]}") if able else (False, "add an owner who has a password")


async def _plan(tenant: Tenant) -> Finding:
    found = await Subscription.async_objects.select_related("plan").filter(pk=tenant.pk).afirst()
    if found is None:
        if not await Plan.async_objects.filter(offered=True).aexists():
            return True, "this service has no plans"
        return False, "choose a plan"
    good = found.dunning == Dunning.NONE
    state = Paid(found.status).label.lower()
    return (True, f"{found.plan.name}, {state}") if good else (False, f"{found.plan.name} is {state}: pay it first")


async def _processor(tenant: Tenant) -> Finding:
    real = [processor.name async for processor in _real(tenant)]
    return (True, ", ".join(real)) if real else (False, "add a processor of kind stripe or http and switch it on")


async def _keys(tenant: Tenant) -> Finding:
    real = [processor async for processor in _real(tenant)]
    if not real:
        return False, "there is no processor to check"
    asked = [accounts.account_of(one, tenant, bytes(one.secrets) if one.secrets else None) for one in real]
    answers = await asyncio.gather(*map(probe.fault_of, asked))
    bad = [f"{p.name} {answer}" for p, answer in zip(real, answers, strict=True) if answer]
    return (False, "; ".join(bad)) if bad else (True, "every processor accepts its key")


async def _secrets(tenant: Tenant) -> Finding:
    try:
        found = _real(tenant).filter(kind="stripe")
        bare = [p.name async for p in found if not accounts.opened(p).get("webhookSecrets")]
    except Sealed as error:
        return False, error.detail
    if bare:
        return False, f"give {', '.join(bare)} the signing secret of its webhooks"
    return True, "every Stripe account has a webhook secret"


async def _differences(tenant: Tenant) -> Finding:
    open_ones = await Difference.async_objects.filter(tenant_id=tenant.pk, resolution="").acount()
    return (
        (False, f"resolve {open_ones} open discrepancies") if open_ones else (True, "there are no open discrepancies")
    )


async def _books(tenant: Tenant) -> Finding:
    if tenant.mode != Tenant.Mode.SANDBOX:
        return True, "there are no sandbox payments"
    try:
        # Before the payments: what leaves the spill meanwhile is then counted as a payment.
        waiting = await spill.holds(KIND, tenant.pk)
    except Unavailable as error:
        return False, f"whether the spill holds sandbox payments is unknown: {error.detail}"
    if waiting:
        return False, "the spill holds sandbox payments: store them, or drop the quarantined ones"
    if await Payment.async_objects.filter(tenant_id=tenant.pk).aexists():
        return False, "empty the sandbox: its payments would stay in the live books"
    return True, "there are no sandbox payments"


def _real(tenant: Tenant):  # type: ignore[no-untyped-def]
    return Processor.async_objects.filter(tenant=tenant, enabled=True).exclude(kind=PLAY).order_by("name")


CHECKS: list[tuple[str, str, Callable[[Tenant], Awaitable[Finding]]]] = [
    ("owner", "An owner with a password", _owner),
    ("plan", "A plan, paid for or on trial", _plan),
    ("processor", "A processor of kind stripe or http", _processor),
    ("keys", "Credentials valid", _keys),
    ("secrets", "Webhook secrets of the processors", _secrets),
    ("differences", "Open discrepancies", _differences),
    ("books", "No test data left", _books),
]

# Where a failed check is mended: path in the console, label of the link.
PAGES = {
    "plan": ("/plan", "Choose a plan"),
    "processor": ("/processors?add=stripe", "Add a processor"),
    "keys": ("/processors", "Look at the processors"),
    "secrets": ("/processors", "Look at the processors"),
    "books": ("/settings", "Empty the sandbox"),
}

GATES.append(go_live)
