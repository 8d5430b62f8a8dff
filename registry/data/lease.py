"""Election of one process for a piece of work of the service: a row in PostgreSQL that its holder renews.

It works behind PgBouncer in transaction mode, where a session and its advisory locks belong to nobody. For a moment two processes
may both believe that they hold a lease: one was delayed after it renewed its own. What is done under a lease must be harmless
when done twice.
"""

import logging
import os
import secrets
from pathlib import Path

from django.conf import settings

from registry.data import database, db_breaker
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

    def __init__(self, name: str, *, seconds: float = SECONDS) -> None:
        self.name, self.seconds = name, seconds
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
            log.info("lease taken" if held else "lease lost", extra={"lease": self.name, "holder": self.holder})
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
