"""Guarded action of the console: empty a sandbox, at once or by a job."""

from datetime import datetime

from django.http import HttpResponse

from payments.books import purge
from payments.errors import LiveTenant
from queueing.jobs import store, waiting
from queueing.jobs.requests import of_service
from registry.edge.entered import moment
from registry.edge.pages import PageRequest, console_address
from registry.edge.viewer import Visitor
from registry.models import Tenant
from registry.operators.confirm import Action, Confirmed, asked, confirm
from registry.operators.decide import Done
from registry.tenants import audit

KIND = "payments.purge"


async def empty_sandbox(request: PageRequest, visitor: Visitor) -> HttpResponse:
    """Payments that are created after the page was opened stay: their number would never be the one that the person saw."""
    if visitor.tenant.mode != Tenant.Mode.SANDBOX:
        raise LiveTenant
    before = await _before(asked(request).get("before", ""))
    count = await purge.count(visitor.tenant.pk, before)

    async def perform(confirmed: Confirmed) -> Done:
        done = await _purge(visitor, before, count)
        await audit.record(
            actor=confirmed.actor,
            action="tenant.empty",
            target=f"tenant {visitor.tenant.slug}",
            tenant_id=visitor.tenant.pk,
            rows=done.rows or count,
            reason=confirmed.reason,
        )
        return done

    action = Action(
        name="tenant.empty",
        label="Empty the sandbox",
        target=visitor.tenant.name,
        count=count,
        noun="payment",
        warning=_warning(count),
        perform=perform,
        back=console_address("settings", tenant=visitor.tenant.slug),
        fields=[("do", "purge"), ("before", before.isoformat())],
        severe=True,
    )
    return await confirm(request, visitor, action)


def _warning(count: int) -> str:
    """What is deleted; in a large sandbox the number is a lower bound."""
    least = "There are at least so many. " if count >= purge.COUNTED else ""
    return f"{least}They are deleted with their attempts, refunds, ledger entries and events. This cannot be undone."


async def _before(text: str) -> datetime:
    try:
        return moment(text)
    except (ValueError, OverflowError):
        return await purge.clock()


async def _purge(visitor: Visitor, before: datetime, count: int) -> Done:
    tenant_id = visitor.tenant.pk
    if count > purge.AT_ONCE and (await waiting.taken_kinds())(KIND):
        job = await store.submit(of_service(KIND, {"before": before}, tenant_id=tenant_id, unique_key="console"))
        return Done(rows=0, warnings=[f"Job {job.id} removes them: see Jobs for its progress."])
    removed, left = await purge.purge(tenant_id=tenant_id, before=before)
    more = [f"{left:,} are left: empty the sandbox again."] if left else []
    return Done(rows=removed, warnings=more)
