"""Fan-out: from the numbered events of sources to deliveries, one per event and endpoint that subscribes to its type.

The statements that write events do nothing for webhooks. Every endpoint keeps the number up to which it has read each source;
this loop reads on from there. The deliveries and the endpoint's new position are one transaction, so an event becomes
exactly one delivery per endpoint.
"""

import asyncio
from collections.abc import Sequence
from functools import cache, partial, reduce
from pathlib import Path
from typing import NamedTuple

import msgspec

from queueing.outbound import callbacks
from queueing.outbound.event_types import wants
from queueing.outbound.messages import message_body
from queueing.outbound.sources import SOURCES, EventSource, WebhookEvent
from registry.data import database
from registry.data.arrays import Bigints, Texts, Uuids

SQL = database.statements(Path(__file__).parent / "sql" / "outbound.sql")

LOOK_EVERY = 0.1  # seconds between looks while there is nothing new
GROUPS = 50  # groups of endpoints per round and source
ROWS = 2000  # deliveries per transaction: larger ones would keep the other endpoints waiting
SLICE = 500  # events per transaction at most


class Subscriber(NamedTuple):
    """An endpoint that this transaction has locked."""

    id: int
    events: list[str]
    ordered: bool


class New(NamedTuple):
    """Endpoints that have read a source up to `after`, and `upto`, its latest event. Without tenant: callbacks are owed."""

    source: str
    tenant: int | None
    after: int
    upto: int
    ids: list[int]


async def spread() -> None:
    """One round: a slice of events for each group of endpoints that has not read them yet, and a batch of owed callbacks."""
    found = [New(*row) for row in await database.fetch(_new(), {"limit": GROUPS})]
    for new in found:
        source = SOURCES[new.source]
        if new.tenant is None:
            await callbacks.owe(source)
        else:
            upto = min(new.upto, new.after + max(min(ROWS // len(new.ids), SLICE), 1))
            await database.faults_as_unavailable(partial(_spread, source, new.tenant, new.after, upto, new.ids))
    if not found:
        await asyncio.sleep(LOOK_EVERY)


def _new() -> str:
    """One statement that looks for new events and owed callbacks of all sources."""
    return _joined(tuple((name, one.unread, one.owed) for name, one in SOURCES.items()))


@cache
def _joined(sources: tuple[tuple[str, str, str], ...]) -> str:
    parts = [database.filled(SQL, "new_of_source", source=name, unread=unread) for name, unread, _ in sources]
    parts += [database.filled(SQL, "owed_of_source", source=name, owed=owed) for name, _, owed in sources if owed]
    return reduce(lambda one, other: database.filled(SQL, "and_new", one=one, other=other), parts)


async def _spread(source: EventSource, tenant: int, after: int, upto: int, ids: list[int]) -> None:
    """Make the deliveries of the events `after` to `upto` for these endpoints, and move their positions."""
    name = source.stream.name
    async with database.transaction() as conn:
        keys = {"tenant": tenant, "ids": ids, "source": name, "after": after}
        locked = await database.rows(conn, SQL["lock"], keys)
        if not locked:  # another worker is doing it
            return
        subscribers = [Subscriber(id, msgspec.json.decode(events), ordered) for id, events, ordered in locked]
        rows = await database.rows(conn, source.events, {"tenant": tenant, "after": after, "upto": upto})
        owed = columns(tenant, source, [source.event(row) for row in rows], subscribers)
        if owed is not None:
            await database.rows(conn, SQL["owe"], owed)
            await database.rows(conn, SQL["wake"])
        moved = {"tenant": tenant, "ids": [one.id for one in subscribers], "source": name, "upto": upto}
        await database.rows(conn, SQL["move"], moved)


def columns(
    tenant: int, source: EventSource, events: Sequence[WebhookEvent], subscribers: Sequence[Subscriber]
) -> dict[str, object] | None:
    """The parameters of `owe`: each event with a subscriber once, and its subscribers. None if no event has one."""
    sent: list[WebhookEvent] = []
    pairs: list[tuple[Subscriber, int]] = []
    for event in events:
        wanting = [one for one in subscribers if wants(one.events, event.type)]
        if wanting:
            sent.append(event)
            pairs += [(one, len(sent)) for one in wanting]
    if not sent:
        return None
    return {
        "tenant": tenant,
        "message": Texts([source.message_id(event) for event in sent]),
        "position": Bigints([event.position for event in sent]),
        "subject": Uuids([event.subject.bytes for event in sent]),
        "type": Texts([event.type for event in sent]),
        "body": Texts([message_body(event.type, event.at, event.data()) for event in sent]),
        "endpoint": Bigints([one.id for one, _ in pairs]),
        "nth": Bigints([n for _, n in pairs]),
        "ordered": [one.ordered for one, _ in pairs],
    }
