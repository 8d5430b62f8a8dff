"""Sources of attention: writes that wait in the spill, and records that were set aside. For operators only."""

from collections.abc import Sequence
from datetime import timedelta

from queueing import spill
from registry.data import clock
from registry.edge import status
from registry.operators.attention import Item, Severity, counted, source

STUCK = timedelta(seconds=30)  # once PostgreSQL is back, the spill drains within seconds


@source("spill.waiting")
async def waiting(tenant_ids: Sequence[int] | None) -> list[Item]:
    """By the gauges of all processes of this host."""
    if tenant_ids is not None:
        return []
    records, oldest = (
        await status.gauge_of("registry_spill_records"),
        await status.gauge_of("registry_spill_oldest_seconds"),
    )
    total, age = int(sum(records.values())), timedelta(seconds=max(oldest.values(), default=0.0))
    if not total:
        return [Item(severity=Severity.WELL, sentence="The spill is empty: every accepted write is in PostgreSQL.")]
    kinds = ", ".join(f"{int(number):,} {kind}" for kind, number in sorted(records.items()) if number)
    said = f"{counted(total, 'accepted write')} in the spill of this host ({kinds}): stored once PostgreSQL accepts writes."
    severity = Severity.CRITICAL if age > STUCK else Severity.WARNING
    return [Item(severity=severity, sentence=said, count=total, since=clock.now() - age)]


@source("spill.set_aside")
async def set_aside(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    kept = [one for kind in list(spill.KINDS) for one in await spill.quarantined(kind)]
    if not kept:
        return []
    said = f"{counted(len(kept), 'record')} of the spill {'was' if len(kept) == 1 else 'were'} set aside: accepted with 202, and not stored. "
    return [
        Item(
            severity=Severity.CRITICAL,
            sentence=f"{said}The first reason: {kept[0].reason}.",
            count=len(kept),
            since=min(one.at for one in kept),
        )
    ]
