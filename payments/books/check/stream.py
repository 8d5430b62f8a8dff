"""Check the numbers of a tenant's events: without gaps from the first to the latest. A lost latest event is found by its payment, whose
sequence is then above its last event's.

A purge deletes events, and counts them: the numbers up to the latest one that it deleted are compared by their count, and
those above by themselves.
"""

from collections.abc import AsyncIterator
from typing import Any

from payments.books.check.reading import SQL
from registry.tenants.books import SLICE, BookDifference, BookSlice, book_part, read

NUMBERS = 2 * SLICE  # of a slice


@book_part("events")
async def events(tenant_id: int, after: Any) -> AsyncIterator[BookSlice]:
    """The numbers up to the latest, which is read first: events that come later are left to the next check."""
    rows = await read(SQL["stream"], {"tenant": tenant_id})
    end, purged_until = rows[0] if rows else (0, 0)
    after = after or 0
    while after < end:
        last = min(after + NUMBERS, end)
        [(_, count, _), *rows] = await read(SQL["numbers"], {"tenant": tenant_id, "after": after, "last": last})
        differences = [_missing(*found) if what == "missing" else _stray(*found) for what, *found in rows]
        yield BookSlice(rows=count, share=min(0.99, last / end), after=last, differences=differences)
        after = last
    differences = []
    if purged_until:
        differences = [
            _purged(*row) for row in await read(SQL["purged"], {"tenant": tenant_id}) if row[0] - row[1] != row[2]
        ]
    yield BookSlice(rows=0, share=1.0, after=after, differences=differences)


def _missing(first: int, last: int) -> BookDifference:
    which = f"event {first}" if first == last else f"events {first} to {last}"
    return BookDifference(
        kind="stream.missing",
        subject=f"{which} of the stream",
        stored="missing",
        expected="there: numbers have no gaps",
    )


def _stray(position: int, payment: int) -> BookDifference:
    return BookDifference(
        kind="stream.stray",
        subject=f"event {position} of the stream",
        stored=f"about the payment with id {payment}, which does not exist",
        expected="about a payment of the tenant",
    )


def _purged(until: int, purged: int, stored: int) -> BookDifference:
    return BookDifference(
        kind="stream.missing",
        subject=f"events 1 to {until} of the stream",
        stored=f"{stored} events",
        expected=f"{until - purged}: purges deleted {purged} of them",
    )
