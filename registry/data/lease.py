"""Election of one process for a piece of work of the service: a row in PostgreSQL that its holder renews.

It works behind PgBouncer in transaction mode, where a session and its advisory locks belong to nobody. For a moment two processes
may both believe that they hold a lease: one was delayed after it renewed its own. What is done under a lease must be harmless
when done twice.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from django.conf import settings

from registry.data import database, db_breaker
from registry.data.loop import background
from registry.errors import Unavailable

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "lease.sql")

SECONDS = 3.0  # that a lease lasts unless it is renewed
RENEW_EVERY = 1.0  # seconds between two calls of `hold`, by the holder and by those who wait: taken over within 4 s


def new_holder() -> str:
    """A name that no other process, and no other loop of this one, has."""
    return f"{settings.REGISTRY_HOST} {os.getpid()} {secrets.token_hex(4)}"


class HeldLease:
    """A lease as one process sees it. Call `hold` every RENEW_EVERY seconds, and `release` at the end."""

    def __init__(self, name: str, *, seconds: float = SECONDS, level: int = logging.INFO) -> None:
        """`level`: of the log lines that say when it was taken and lost."""
        self.name, self.seconds, self._level = name, seconds, level
        self.holder = new_holder()
        self.held = False

    async def hold(self) -> bool:
        """Whether this process holds it now, for `seconds` more. While PostgreSQL is away nobody does. Never raises."""
        parameters = {"name": self.name, "holder": self.holder, "seconds": self.seconds}
        try:
            held = bool(await db_breaker.attempt(lambda: database.fetch(SQL["take"], parameters, repeatable=False)))
        except Unavailable:
            held = False
        except Exception:  # such as a table that migrations have not made yet
            log.exception("a lease could not be taken", extra={"lease": self.name})
            held = False
        if held is not self.held:
            extra = {"lease": self.name, "holder": self.holder}
            log.log(self._level, "lease taken" if held else "lease lost", extra=extra)
        self.held = held
        return held

    async def release(self) -> None:
        """Let another process take it at once. Never raises: it runs out by itself."""
        if not self.held:
            return
        self.held = False
        parameters = {"name": self.name, "holder": self.holder}
        try:
            await db_breaker.attempt(lambda: database.fetch(SQL["release"], parameters))
        except Exception as error:
            log.warning("a lease was not released", extra={"lease": self.name, "error": repr(error)})


@asynccontextmanager
async def renewing(lease: HeldLease) -> AsyncIterator[None]:
    """Ask for a lease every RENEW_EVERY seconds beside the block, and release it at the end. `lease.held` says whether it is held."""

    async def ask() -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY)
            await lease.hold()

    await lease.hold()
    asking = background(ask())
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await lease.release()
