"""Lists that come in pages."""

from collections.abc import AsyncGenerator, Awaitable, Callable

from registry_client.models.common import Page


async def items_of[T](page: Callable[[str | None], Awaitable[Page[T]]]) -> AsyncGenerator[T]:
    """All items of a list: `page` reads one page by its cursor."""
    cursor: str | None = None
    while True:
        found = await page(cursor)
        for item in found.items:
            yield item
        if found.next is None:
            return
        cursor = found.next
