"""What readers write down about messages while they work on them."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from queueing.broker.errors import UnknownMessage
from queueing.broker.models import QUEUE_MODE
from queueing.broker.names import new_id, partition_name, partition_number
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "traces.sql")


class Trace(msgspec.Struct, frozen=True, rename="camel"):
    """One thing that was written down."""

    id: UUID
    transaction_id: str
    partition_id: str
    consumer_group: str
    event_type: str
    trace_names: list[str]
    data: msgspec.Raw
    created_at: datetime


async def write(
    tenant_id: int,
    partition_id: str,
    transaction_id: str,
    data: bytes,
    *,
    group: str = QUEUE_MODE,
    event_type: str = "info",
    names: tuple[str, ...] = (),
) -> UUID:
    """Write it down. Raises UnknownMessage (404) for a message that is not there."""
    number = partition_number(tenant_id, partition_id)
    where: dict[str, Any] = {"tenant": tenant_id, "partition": number, "transaction": transaction_id}
    if number is None or not await database.fetch(SQL["there"], where):
        raise UnknownMessage
    id = new_id()
    more = {"id": id, "group": group, "event": event_type, "names": json.dumps(names), "data": data}
    await database.fetch(SQL["add_trace"], {**where, **more}, repeatable=False)
    return id


async def of_message(tenant_id: int, partition_id: str, transaction_id: str) -> list[Trace]:
    number = partition_number(tenant_id, partition_id)
    if number is None:
        return []
    params = {"tenant": tenant_id, "partition": number, "transaction": transaction_id}
    return [_trace(tenant_id, row) for row in await database.fetch(SQL["traces_of"], params)]


async def named(tenant_id: int, name: str, *, limit: int, offset: int) -> tuple[list[Trace], int]:
    """Latest first, and how many there are."""
    params = {"tenant": tenant_id, "names": json.dumps([name]), "limit": limit, "offset": offset}
    found = [_trace(tenant_id, row) for row in await database.fetch(SQL["traces_named"], params)]
    return found, (await database.fetch(SQL["traces_named_count"], params))[0][0]


async def names(tenant_id: int, *, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Names in use, the latest first, and how many there are."""
    rows = await database.fetch(SQL["trace_names"], {"tenant": tenant_id, "limit": limit, "offset": offset})
    found = [
        {"traceName": name, "traceCount": traces, "messageCount": messages, "lastSeen": at}
        for name, traces, messages, at, _ in rows
    ]
    return found, rows[0][4] if rows else 0


def _trace(tenant_id: int, row: tuple[Any, ...]) -> Trace:
    id, partition, transaction_id, group, event, names, data, at = row
    return Trace(
        id, transaction_id, partition_name(tenant_id, partition), group, event, json.loads(names), msgspec.Raw(data), at
    )
