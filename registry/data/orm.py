"""The ORM's connection in the running task: `release` returns it, `own_connection` takes one that no other task shares, and
`statement` runs SQL in the transaction that is open on it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from django_async_backend.db import async_connections


async def release() -> None:
    """Return the ORM's connection to the pool: at the end of a request, and between the messages of a socket or stream."""
    wrapper = getattr(async_connections._connections, DEFAULT_DB_ALIAS, None)  # this creates none
    if wrapper is not None and wrapper.connection is not None:
        await wrapper.close()


class _Unopened:
    """Stands for a connection and is forwarded to it, which the first use makes: that takes longer than a short statement."""

    _made: Any = None

    def _real(self) -> Any:
        if self._made is None:
            self.__dict__["_made"] = async_connections.create_connection(DEFAULT_DB_ALIAS)
        return self._made

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._real(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._real(), name)


def new_connection() -> _Unopened:
    """Run the rest of this task on a connection that it does not share with the one that started it. The caller closes it."""
    mine = async_connections[DEFAULT_DB_ALIAS] = _Unopened()
    return mine


@asynccontextmanager
async def own_connection() -> AsyncIterator[None]:
    """Run ORM work on a connection that no other task shares; it is returned at the end, also on cancellation.

    The package's async_new_connection closes in separate tasks, and one that is cancelled before it begins closes nothing.
    """
    before = async_connections[DEFAULT_DB_ALIAS]
    mine = new_connection()
    try:
        yield
    finally:
        async_connections[DEFAULT_DB_ALIAS] = before
        await mine.close()


async def statement(sql: str, parameters: Mapping[str, Any] | None = None) -> list[Any]:
    """Run a statement as part of the caller's `async_atomic`; its rows, none for a statement without results."""
    async with await async_connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        await cursor.execute(sql, parameters)
        return await cursor.fetchall() if cursor.description else []
