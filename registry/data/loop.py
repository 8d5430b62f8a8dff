"""Async services for callers in threads, such as admin pages. Commands run a loop of their own: management/base.py."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps

from asgiref.sync import async_to_sync

from registry.data import database, live, reach

# What rooms above hold per loop; what was named last stands on what was named before, and closes first.
endings: list[Callable[[], Awaitable[None]]] = []


async def end_loop() -> None:
    """Close whatever the running loop holds. Its owner calls this last."""
    for close in reversed(endings):
        await close()
    await live.close()
    await reach.close()
    await database.close()


def sync_twin[**P, T](service: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """`service` for a caller in a thread: on the server's loop if there is one, else on a loop made for this call."""

    @wraps(service)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return async_to_sync(_run)(lambda: service(*args, **kwargs))

    return call


async def _run[T](service: Callable[[], Awaitable[T]]) -> T:
    made_for_us = len(asyncio.all_tasks()) == 1  # then its pool has no other owner
    try:
        # The task inherits the request's context, and with it a connection that belongs to the request's own task.
        async with database.own_connection():
            return await service()
    finally:
        if made_for_us:
            await end_loop()
