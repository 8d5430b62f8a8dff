"""What an error of PostgreSQL means for the statement's sender. One place decides, from the SQLSTATE or, without one, the type.

A statement that was rolled back is repeated now; an error about the row's own data fails that row alone; all others wait
until the server does better, or something stands in for it (the spill). What the server is like, reach.py knows.
"""

import enum
import logging
import time
from collections.abc import Callable

import django.db
import psycopg
from psycopg_pool import PoolTimeout

from registry.errors import Unavailable

log = logging.getLogger(__name__)

SAY_EVERY = 10.0  # seconds between two log lines about faults of the database, per process


class Fault(enum.Enum):
    """What is wrong, in words that callers may read."""

    ROLLED_BACK = "the database was asked for the same rows by too many at once"  # it certainly did nothing: repeat now
    LOST = "the database cannot be reached"  # it may have been committed: repeat now only what is safe to repeat
    READ_ONLY = "the database is read-only"
    FULL = "the database has no room on its disk"
    BUSY = "the database has no connection or memory left"
    SLOW = "the database did not answer in time"  # this statement only: others may go through
    MISSING = "the database lacks a table, a function or a right"
    BROKEN = "the database refuses the statement"
    ROW = "the data is not acceptable"


CLASSES = {
    "08": Fault.LOST,  # connection exception
    "22": Fault.ROW,  # data exception
    "23": Fault.ROW,  # integrity constraint violation
    "28": Fault.MISSING,  # invalid authorization
    "3D": Fault.MISSING,  # invalid catalog name
    "3F": Fault.MISSING,  # invalid schema name
    "40": Fault.ROLLED_BACK,
    "42": Fault.BROKEN,  # syntax error or access rule violation
    "53": Fault.BUSY,  # insufficient resources
    "54": Fault.ROW,  # program limit exceeded: the data is too large, or nested too deeply
    "55": Fault.SLOW,  # object not in prerequisite state: locked, or in use
    "57": Fault.LOST,  # operator intervention: it shuts down, has crashed, is starting
}
STATES = {
    "25006": Fault.READ_ONLY,
    "25P03": Fault.LOST,  # the session sat idle in a transaction for too long, and was ended
    "25P04": Fault.LOST,  # so was one whose transaction took too long
    "40003": Fault.LOST,  # statement completion unknown
    "42501": Fault.MISSING,  # insufficient privilege
    "42703": Fault.MISSING,  # undefined column
    "42883": Fault.MISSING,  # undefined function
    "42P01": Fault.MISSING,  # undefined table
    "53100": Fault.FULL,
    "54011": Fault.BROKEN,  # too many columns: the statement's own
    "54023": Fault.BROKEN,  # too many arguments
    "55000": Fault.BROKEN,  # such as a lock that a standby cannot give
    "57014": Fault.SLOW,  # query canceled: statement_timeout
}


def of(error: BaseException) -> Fault | None:
    """What an error of psycopg, or Django's around it, means; None for what is no error of the database."""
    if isinstance(error, django.db.Error):
        if isinstance(error.__cause__, psycopg.Error):
            return of(error.__cause__)
        return Fault.LOST if isinstance(error, (django.db.OperationalError, django.db.InterfaceError)) else None
    if not isinstance(error, psycopg.Error):
        return None
    if state := sqlstate(error):
        return STATES.get(state) or CLASSES.get(state[:2], Fault.BROKEN)
    return _without_sqlstate(error)


def sqlstate(error: psycopg.Error) -> str | None:
    return error.sqlstate or error.diag.sqlstate


def _without_sqlstate(error: psycopg.Error) -> Fault | None:
    """libpq's and psycopg's own: a connection that is refused, reset or closed has none, whatever the server said."""
    if isinstance(error, PoolTimeout):
        return Fault.BUSY
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) or type(error) is psycopg.DatabaseError:
        return Fault.LOST
    return Fault.ROW if isinstance(error, psycopg.DataError) else None  # such as NUL in a text


def about_the_row(error: BaseException) -> bool:
    """Whether the row's own data is at fault: only then may a record of the spill be set aside."""
    return of(error) is Fault.ROW


def waits(error: BaseException) -> bool:
    """Whether to wait and try again, or to stand in, because the database cannot do it now."""
    return isinstance(error, Unavailable) or of(error) not in (None, Fault.ROW)


# -- Who hears of it ---------------------------------------------------------------------------------------

listeners: list[Callable[[Fault], None]] = []


def tell(fault: Fault) -> None:
    """A statement of the running loop met `fault`."""
    for hear in listeners:
        hear(fault)


class _Said:
    at = -SAY_EVERY
    kept_quiet = 0


def say(to: logging.Logger, message: str, *, error: BaseException | None = None, **extra: object) -> None:
    """Log a fault of the database, or what follows from it: one line in SAY_EVERY per process, whoever has how many."""
    now = time.monotonic()
    if now - _Said.at < SAY_EVERY:
        _Said.kept_quiet += 1
        return
    said = {"error": repr(error)[:300]} if error else {}
    to.warning(message, extra={**extra, **said, "lines_kept_quiet": _Said.kept_quiet})
    _Said.at, _Said.kept_quiet = now, 0
