"""Lists that come in pages."""

from collections.abc import Callable, Generator

from registry_client.models.common import Page


def items_of[T](page: Callable[[str | None], Page[T]]) -> Generator[T]:
    """All items of a list: `page` reads one page by its cursor."""
    cursor: str | None = None
    while True:
        found = page(cursor)
        yield from found.items
        if found.next is None:
            return
        cursor = found.next
