"""Source of attention: dead messages of queues."""

from collections.abc import Sequence
from pathlib import Path

from queueing.models import DeadMessage
from registry.data import database
from registry.operators.attention import COUNTED, Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_broker.sql")


@source("messages.dead")
async def dead(tenant_ids: Sequence[int] | None) -> list[Item]:
    asked = {"tenants": tenant_ids, "limit": COUNTED}
    [(count, since, queues, slug)] = await database.fetch(SQL["dead"], asked, prepare=False)
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
