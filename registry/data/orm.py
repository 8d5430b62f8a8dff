"""The ORM's connection in the running task: giving it back, and taking one that no other task shares."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from django.db import DEFAULT_DB_ALIAS
from django_async_backend.db import async_connections


async def release() -> None:
    """Give back what the ORM holds in this context: between the messages of a socket or a stream, at a request's end."""
    wrapper = getattr(async_connections._connections, DEFAULT_DB_ALIAS, None)  # not made here if there is none
    if wrapper is not None and wrapper.connection is not None:
        await wrapper.close()


@asynccontextmanager
async def own_connection() -> AsyncIterator[None]:
    """ORM work on a connection that no other task shares, given back at the end whoever is cancelled.

    The package's async_new_connection closes in tasks of its own: one that is cancelled before it begins closes nothing.
    """
    mine, before = async_connections.create_connection(DEFAULT_DB_ALIAS), async_connections[DEFAULT_DB_ALIAS]
    async_connections[DEFAULT_DB_ALIAS] = mine
    try:
        yield
    finally:
        async_connections[DEFAULT_DB_ALIAS] = before
        await mine.close()
