"""Statements that the server refuses whoever sends them (no such table, no room, a fault of its own), for /health and a metric."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from registry import telemetry
from registry.data.faults import Fault

KINDS = {Fault.FULL, Fault.MISSING, Fault.BROKEN}
AT_ONCE = {
    Fault.FULL,
    Fault.MISSING,
}  # make /health fail from the first refusal; a fault of one request's making does not
NAMED_AFTER = 60.0  # seconds of refusals until the metric, and /health in all processes, name the statement
FORGOTTEN_AFTER = 5.0  # seconds without another refusal; drains ask five times a second
LONGEST_NAME = 80  # characters


class Refusal(NamedTuple):
    """A statement that is refused again and again."""

    statement: str
    fault: Fault
    why: str
    since: float  # time.monotonic()
    last: float

    @property
    def lasts(self) -> bool:
        return self.last - self.since >= NAMED_AFTER

    def __str__(self) -> str:
        why = f" ({self.why})" if self.fault is Fault.MISSING else ""  # others may name files
        return f"{self.fault.value}: {self.statement} is refused{why}"


_refused: dict[str, Refusal] = {}
_names: dict[str, str] = {}  # SQL → the name of the statement in its file


class _Server:
    takes_writes = True  # while it does not, nothing is counted: a standby may lack what is on its way


def name(sql: str, called: str) -> None:
    """Let `sql` be called so."""
    _names[sql] = called


def refused(sql: str, fault: Fault, error: BaseException) -> None:
    """Note a refusal; a fault of another kind says nothing of the statement."""
    if fault not in KINDS or not _Server.takes_writes:
        return
    now = time.monotonic()
    _forget_old(now)
    statement = _names.get(sql) or " ".join(sql.split())[:LONGEST_NAME]
    since = _refused[sql].since if sql in _refused else now
    why = (str(error).splitlines() or [type(error).__name__])[0][:LONGEST_NAME]
    found = _refused[sql] = Refusal(statement, fault, why, since, now)
    if found.lasts:
        telemetry.DB_REFUSED.labels(statement).set(1)


def taken(sql: str) -> None:
    """It went through."""
    if _refused and sql in _refused:
        _forget(sql)


def found() -> Iterator[Refusal]:
    """What this process finds refused now."""
    _forget_old(time.monotonic())
    return (one for one in list(_refused.values()) if one.fault in AT_ONCE or one.lasts)


def server_takes_writes(takes: bool) -> None:
    """Begin to count anew, or stop."""
    _Server.takes_writes = takes
    for sql in list(_refused):
        _forget(sql)


def _forget_old(now: float) -> None:
    for sql in [sql for sql, one in _refused.items() if now - one.last > FORGOTTEN_AFTER]:
        _forget(sql)


def _forget(sql: str) -> None:
    if _refused.pop(sql).lasts:
        telemetry.DB_REFUSED.labels(_names.get(sql) or " ".join(sql.split())[:LONGEST_NAME]).set(0)
