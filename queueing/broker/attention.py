"""Source of attention: dead messages of queues."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from queueing.models import DeadMessage
from registry.data import database
from registry.operators.attention import COUNTED, Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_broker.sql")


@source("messages.dead")
async def dead(tenant_ids: Sequence[int] | None) -> list[Item]:
    count, since, queues, slug = await dead_messages(tenant_ids)
    if not count:
        return []
    return [
        Item(
            severity=Severity.NOTICE,
            sentence=f"{counted(count, 'message')} of {counted(queues, 'queue')} could not be processed by a consumer group.",
            count=count,
            since=since,
            action="Replay or purge",
            page="/queues",
            admin=address_of_list(DeadMessage, tenant=slug),
        )
    ]


async def dead_messages(tenant_ids: Sequence[int] | None) -> tuple[int, datetime | None, int, str | None]:
    """How many, since when, of how many queues, and the tenant of the oldest."""
    [row] = await database.fetch(SQL["dead"], {"tenants": tenant_ids, "limit": COUNTED}, prepare=False)
    return row
