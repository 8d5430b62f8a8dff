"""Callbacks of jobs: from outcomes that are marked as owed to deliveries. fanout.py calls this beside its own rounds.

The statement that writes an outcome also marks its event. Taking marks off and making the deliveries are one transaction, so
an outcome becomes exactly one delivery, whichever process dies when. A delivery has its own address. Its endpoint is the
receiver at that origin, so that a slow or broken receiver delays no others.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import NAMESPACE_URL, uuid5

from queueing.outbound import job_secret
from queueing.outbound.messages import message_body
from queueing.outbound.sources import EventSource, WebhookEvent
from registry.data import database
from registry.data.arrays import Bigints, Texts, Uuids
from registry.data.database import Row
from registry.http.client import BadAddress
from registry.http.ssrf import parted

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

ROWS = 500  # callbacks per transaction


class Callback(NamedTuple):
    """An outcome that a tenant's address is to hear of."""

    tenant_id: int
    url: str
    origin: str
    event: WebhookEvent


async def owe(source: EventSource) -> None:
    """Make the deliveries of a batch of owed callbacks. Raises Unavailable."""
    await database.faults_as_unavailable(lambda: _owe(source))


async def _owe(source: EventSource) -> None:
    async with database.transaction() as conn:
        rows = await database.rows(conn, source.callbacks, {"limit": ROWS})
        callbacks = [found for row in rows if (found := _callback(source, row))]
        if callbacks:
            tenants = sorted({one.tenant_id for one in callbacks})
            await database.rows(conn, SQL["make_job_secrets"], job_secret.fresh(tenants))
            made = await database.rows(conn, SQL["receivers"], _receivers(callbacks))
            endpoints = {(tenant, origin): id for tenant, origin, id in made}
            await database.rows(conn, SQL["owe_callbacks"], _deliveries(source, callbacks, endpoints))
            await database.rows(conn, SQL["wake"])


def _callback(source: EventSource, row: Row) -> Callback | None:
    """None for an address that can receive nothing. It was checked when the job was submitted."""
    tenant, url, *event = row
    try:
        origin, _ = parted(url, tls_only=False)
    except BadAddress as error:
        log.warning("a callback has no acceptable address", extra={"tenant": tenant, "error": str(error)})
        return None
    return Callback(tenant, url, origin, source.event(tuple(event)))


def _receivers(callbacks: Sequence[Callback]) -> dict[str, object]:
    keys = sorted({(one.tenant_id, one.origin) for one in callbacks})
    return {
        "tenant": Bigints([tenant for tenant, _ in keys]),
        "uuid": Uuids([uuid5(NAMESPACE_URL, f"callbacks to {origin}").bytes for _, origin in keys]),
        "origin": Texts([origin for _, origin in keys]),
    }


def _deliveries(
    source: EventSource, callbacks: Sequence[Callback], endpoints: dict[tuple[int, str], int]
) -> dict[str, object]:
    events = [one.event for one in callbacks]
    return {
        "tenant": Bigints([one.tenant_id for one in callbacks]),
        "endpoint": Bigints([endpoints[one.tenant_id, one.origin] for one in callbacks]),
        "message": Texts([source.message_id(event) for event in events]),
        "position": Bigints([event.position for event in events]),
        "subject": Uuids([event.subject.bytes for event in events]),
        "type": Texts([event.type for event in events]),
        "body": Texts([message_body(event.type, event.at, event.data()) for event in events]),
        "url": Texts([one.url for one in callbacks]),
    }
