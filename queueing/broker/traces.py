"""Traces: notes that readers write about messages while they process them."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from queueing.broker import catalog
from queueing.broker.errors import UnknownMessage
from queueing.broker.ids import new_id, partition_number, public_partition_id
from queueing.models.broker import QUEUE_MODE
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "traces.sql")


class Trace(msgspec.Struct, frozen=True, rename="camel"):
    """One trace (queue contract section 1.3)."""

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
    """Write a trace. Raises UnknownMessage (404)."""
    number = partition_number(tenant_id, partition_id)
    where: dict[str, Any] = {"tenant": tenant_id, "partition": number, "transaction": transaction_id}
    if number is None or not await database.fetch(catalog.SQL["find_message"], where):
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
    """Traces with this name, latest first, and their total number."""
    params = {"tenant": tenant_id, "names": json.dumps([name]), "limit": limit, "offset": offset}
    found = [_trace(tenant_id, row) for row in await database.fetch(SQL["traces_named"], params)]
    return found, (await database.fetch(SQL["traces_named_count"], params))[0][0]


async def names(tenant_id: int, *, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Names of traces, most recently used first, and their total number."""
    rows = await database.fetch(SQL["trace_names"], {"tenant": tenant_id, "limit": limit, "offset": offset})
    found = [
        {"traceName": name, "traceCount": traces, "messageCount": messages, "lastSeen": at}
        for name, traces, messages, at, _ in rows
    ]
    return found, rows[0][4] if rows else 0


def _trace(tenant_id: int, row: tuple[Any, ...]) -> Trace:
    id, partition, transaction_id, group, event, names, data, at = row
    return Trace(
        id,
        transaction_id,
        public_partition_id(tenant_id, partition),
        group,
        event,
        json.loads(names),
        msgspec.Raw(data),
        at,
    )
