"""Migrations of one database by several hosts that start at once: one migrates, the others wait for it and say so.

The lock is an advisory lock of a transaction: it ends with its connection. It goes past PgBouncer where DATABASE_DIRECT_URL says
how, because only PostgreSQL itself can be told to look after a host that lost its power; else it passes through PgBouncer. The table
of leases would not do, because the first migration makes it.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.core.management.base import CommandError
from django.db.backends.base.base import BaseDatabaseWrapper

from registry.data import database

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "migrating.sql")

MIGRATION_LIMIT = 900.0  # seconds that a host waits for the migrations of another: indexes of large tables take minutes
LOOK_EVERY = 0.5  # seconds between two tries to get the lock
SAY_EVERY = 10.0  # seconds between two log lines of a host that waits
CONNECT_LIMIT = 5  # seconds
# The server notices within half a minute that the host that migrates has lost its power, and not after two hours.
OPTIONS = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c statement_timeout=10000"


@contextmanager
def migrating_alone(wrapper: BaseDatabaseWrapper) -> Iterator[None]:
    """Hold the lock while the block runs. Raises CommandError after MIGRATION_LIMIT."""
    parameters: dict[str, Any] = wrapper.get_connection_params()
    session = database.past_pooler(parameters)
    own = {key: value for key, value in (session or parameters).items() if key != "cursor_factory"}
    # Each try may be on another session of a pooler, which does not know what was prepared on the one before.
    own |= {"prepare_threshold": None, "connect_timeout": CONNECT_LIMIT, "application_name": _name()}
    if session:  # a pooler refuses them
        own |= {"options": OPTIONS}
    with psycopg.connect(**own) as conn:
        _wait(conn)
        yield
        conn.rollback()  # nothing was written: this releases the lock


def _name() -> str:
    """Shown to the hosts that wait."""
    return f"registry migrates on {settings.REGISTRY_HOST}"[:63]


def _wait(conn: psycopg.Connection) -> None:
    began, said = time.monotonic(), -SAY_EVERY
    while True:
        conn.execute(SQL["no_time_out"])  # while migrations run, this transaction does nothing
        [[taken]] = conn.execute(SQL["lock"]).fetchall()
        if taken:
            return
        holder = next((name for (name,) in conn.execute(SQL["holder"]).fetchall()), "") or "another host"
        conn.rollback()
        waited = time.monotonic() - began
        if waited > MIGRATION_LIMIT:
            raise CommandError(f"another host has been migrating the database for {waited:.0f} s: {holder}")
        if waited - said >= SAY_EVERY:
            said = waited
            log.info("waiting for the migrations of another host", extra={"holder": holder, "seconds": round(waited)})
        time.sleep(LOOK_EVERY)
