"""The message queue's part of `check_books`: messages per partition, and how far groups have read."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from registry.data import database
from registry.tenants.books import BookDifference, BookSlice, book_part, read, slices

SQL = database.statements(Path(__file__).parent / "sql" / "books.sql")


@book_part("partitions")
async def check_partitions(tenant_id: int, after: Any) -> AsyncIterator[BookSlice]:
    """Every partition, by id."""
    async for bounds in slices(SQL["page"], SQL["last"], tenant_id, after):
        rows = await read(SQL["partitions"], {"tenant": tenant_id, "after": bounds.after, "last": bounds.last})
        differences = [one for row in rows for one in _differences(*row)]
        yield BookSlice(rows=bounds.rows, share=bounds.share, after=bounds.last, differences=differences)


def _differences(
    queue: str, partition: str, last: int, removed: int, count: int, newest: int, furthest: int
) -> Iterator[BookDifference]:
    subject = f"queue {queue}, partition {partition}"
    if count != last - removed:
        expected = f"{last - removed}: {last} were pushed, {removed} deleted"
        yield BookDifference(kind="queue.messages", subject=subject, stored=f"{count} messages", expected=expected)
    for what, number in (("a message has the number", newest), ("a group has read up to number", furthest)):
        if number > last:
            expected = f"at most {last}, the number of the latest message"
            yield BookDifference(kind="queue.position", subject=subject, stored=f"{what} {number}", expected=expected)
