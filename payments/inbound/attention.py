"""Source of attention: events of processors that could not be handled."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from payments.models import InboundEvent
from registry.data import database
from registry.operators.attention import COUNTED, Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_inbound.sql")


@source("inbound.dead")
async def dead(tenant_ids: Sequence[int] | None) -> list[Item]:
    count, since, slug = await dead_events(tenant_ids)
    if not count:
        return []
    said = f"{counted(count, 'event')} of processors could not be handled: a refund or dispute may be missing in our records."
    return [
        Item(
            severity=Severity.WARNING,
            sentence=said,
            count=count,
            since=since,
            action="Replay or close",
            admin=address_of_list(InboundEvent, tenant=slug, status="dead"),
        )
    ]


async def dead_events(tenant_ids: Sequence[int] | None) -> tuple[int, datetime | None, str | None]:
    """How many, since when, and the tenant of the oldest."""
    asked = {"tenants": tenant_ids, "limit": COUNTED}
    [(count, since, _, slug)] = await database.fetch(SQL["dead"], asked, prepare=False)
    return count, since, slug
