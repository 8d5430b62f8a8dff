"""Housekeeping that asks and proves: processors' books, what nobody looks at, the audit trail. Registered by name."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from payments.reconciliation import comparison, janitor
from queueing.work import entry
from registry import telemetry
from registry.data import chores
from registry.tenants import access, audit_chain

log = logging.getLogger(__name__)

RECONCILED: dict[str, tuple[int, timedelta]] = {  # chore → how often, in seconds, and how far back
    "reconcile-hourly": (3600, timedelta(hours=2)),
    "reconcile-daily": (86400, timedelta(days=2)),
}
PROVE_AUDIT_EVERY = 3600  # seconds; the heads go into the log, where who changes the database cannot reach them


def _reconciles(span: timedelta) -> Callable[[], Awaitable[None]]:
    async def chore() -> None:
        tenants = await access.tenant_ids()
        outcomes = await comparison.reconcile_latest(tenants, span)
        found = sum(outcome.differences for outcome in outcomes)
        compared = sum(outcome.payments for outcome in outcomes)
        say = log.warning if found else log.info
        say("books compared", extra={"windows": len(outcomes), "payments": compared, "differences": found})

    return chore


def _cleans(band: janitor.Band) -> Callable[[], Awaitable[object]]:
    return lambda: janitor.clean(band)


async def prove_audit() -> None:
    """Every chain of the audit trail; its head is told, so that a later proof can be held against it."""
    for verdict in await audit_chain.verify_all():
        telemetry.AUDIT_PROOFS.labels("sound" if verdict.sound else "broken").inc()
        said = {"chain": verdict.chain, "head": f"{verdict.entries}:{verdict.head}"}
        if verdict.sound:
            log.info("audit trail holds", extra=said)
        else:
            log.error("audit trail broken", extra=said | {"position": verdict.position, "fault": verdict.fault})


for name, (seconds, span) in RECONCILED.items():
    entry.CHORES[name] = _reconciles(span)
    chores.every(name, seconds)
for band in janitor.BANDS:
    entry.CHORES[band.name] = _cleans(band)
    chores.every(band.name, band.every)
entry.CHORES["prove-audit"] = prove_audit
chores.every("prove-audit", PROVE_AUDIT_EVERY)
