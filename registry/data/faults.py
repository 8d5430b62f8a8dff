"""Classification of PostgreSQL errors by SQLSTATE or, without one, by type.

A statement that was rolled back is retried at once. An error about a row's own data fails that row only. After any other error
callers wait and retry, or use a substitute (the spill). db_breaker.py tracks whether the server is available.
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

LOG_INTERVAL = 10.0  # seconds between two log lines about faults of the database, per process


class Fault(enum.Enum):
    """The classes of errors. The values are messages for callers."""

    ROLLED_BACK = "too many concurrent changes of the same rows"  # nothing was committed: retry at once
    LOST = "the database cannot be reached"  # it may have been committed: retry at once only idempotent statements
    READ_ONLY = "the database is read-only"
    FULL = "the database has no room on its disk"
    BUSY = "the database has no connection or memory left"
    SLOW = "the database did not answer in time"  # this statement only; others may succeed
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
    "57": Fault.LOST,  # operator intervention: shutdown, crash, start
}
STATES = {
    "25006": Fault.READ_ONLY,
    "25P03": Fault.LOST,  # idle_in_transaction_session_timeout
    "25P04": Fault.LOST,  # transaction_timeout
    "40003": Fault.LOST,  # statement completion unknown
    "42501": Fault.MISSING,  # insufficient privilege
    "42703": Fault.MISSING,  # undefined column
    "42883": Fault.MISSING,  # undefined function
    "42P01": Fault.MISSING,  # undefined table
    "53100": Fault.FULL,
    "54011": Fault.BROKEN,  # too many columns, of the statement
    "54023": Fault.BROKEN,  # too many arguments
    "55000": Fault.BROKEN,  # such as a lock on a standby
    "57014": Fault.SLOW,  # query canceled: statement_timeout
}


def of(error: BaseException) -> Fault | None:
    """Classify an error of psycopg, also inside an error of Django; None for other errors."""
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
    """Classify errors of libpq and psycopg: a refused, reset or closed connection has no SQLSTATE."""
    if isinstance(error, PoolTimeout):
        return Fault.BUSY
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) or type(error) is psycopg.DatabaseError:
        return Fault.LOST
    return Fault.ROW if isinstance(error, psycopg.DataError) else None  # such as a text with NUL


def is_row_error(error: BaseException) -> bool:
    """Whether the error is about the row's own data: only then may a spilled record be set aside."""
    return of(error) is Fault.ROW


def is_temporary(error: BaseException) -> bool:
    """Whether the error is temporary: wait and retry, or use the spill."""
    return isinstance(error, Unavailable) or of(error) not in (None, Fault.ROW)


# -- Listeners and log ---------------------------------------------------------------------------------------

listeners: list[Callable[[Fault], None]] = []


def publish(fault: Fault) -> None:
    """Pass the fault of a statement of the running loop to the listeners."""
    for listener in listeners:
        listener(fault)


class _LastLine:
    at = -LOG_INTERVAL
    suppressed = 0  # lines since then


def warn(to: logging.Logger, message: str, *, error: BaseException | None = None, **extra: object) -> None:
    """Log a fault of the database or its consequence, at most one line per LOG_INTERVAL and process."""
    now = time.monotonic()
    if now - _LastLine.at < LOG_INTERVAL:
        _LastLine.suppressed += 1
        return
    details = {"error": repr(error)[:300]} if error else {}
    to.warning(message, extra={**extra, **details, "lines_kept_quiet": _LastLine.suppressed})
    _LastLine.at, _LastLine.suppressed = now, 0
