"""Statements that fail again and again on the server (missing table, full disk, invalid statement), for /health and a metric."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from registry.data.faults import Fault
from registry.telemetry import metrics

KINDS = {Fault.FULL, Fault.MISSING, Fault.BROKEN}
IMMEDIATE = {Fault.FULL, Fault.MISSING}  # /health fails from the first refusal; one request cannot cause these
REPORT_AFTER = 60.0  # seconds of refusals until the metric, and /health of all processes, name the statement
EXPIRE_AFTER = 5.0  # seconds without another refusal; drains send their statements five times a second
LONGEST_NAME = 80  # characters


class Refusal(NamedTuple):
    """A statement that the server refuses, since when and why."""

    statement: str
    fault: Fault
    why: str
    since: float  # time.monotonic()
    last: float

    @property
    def is_lasting(self) -> bool:
        return self.last - self.since >= REPORT_AFTER

    def __str__(self) -> str:
        why = f" ({self.why})" if self.fault is Fault.MISSING else ""  # other messages may contain file names
        return f"{self.fault.value}: {self.statement} is refused{why}"


_refused: dict[str, Refusal] = {}
_names: dict[str, str] = {}  # SQL → the name of the statement in its file


class _Server:
    is_writable = True  # while it is not, refusals are ignored: a standby may lack tables that it will get


def set_name(sql: str, name: str) -> None:
    _names[sql] = name


def name_of(sql: str) -> str:
    """The statement's name in its file, or how it begins; its parameters are not in it."""
    return _names.get(sql) or " ".join(sql.split())[:LONGEST_NAME]


def record(sql: str, fault: Fault, error: BaseException) -> None:
    """Record a refused statement. Faults outside KINDS are ignored: the statement did not cause them."""
    if fault not in KINDS or not _Server.is_writable:
        return
    expire()
    now = time.monotonic()
    statement = name_of(sql)
    since = _refused[sql].since if sql in _refused else now
    why = (str(error).splitlines() or [type(error).__name__])[0][:LONGEST_NAME]
    refusal = _refused[sql] = Refusal(statement, fault, why, since, now)
    if refusal.is_lasting:
        metrics.DB_REFUSED.labels(statement).set(1)


def clear(sql: str) -> None:
    """Clear the refusal of a statement that succeeded."""
    if _refused and sql in _refused:
        _drop(sql)


def current() -> Iterator[Refusal]:
    """The refusals of this process that /health reports."""
    expire()
    return (one for one in list(_refused.values()) if one.fault in IMMEDIATE or one.is_lasting)


def set_writable(writable: bool) -> None:
    """Drop all refusals; record new ones only while the server is writable."""
    _Server.is_writable = writable
    for sql in list(_refused):
        _drop(sql)


def expire() -> None:
    """Drop refusals of statements that this process does not send any more. Web processes call it every second: else their metric
    would name a statement for as long as nothing else is refused."""
    now = time.monotonic()
    for sql in [sql for sql, one in _refused.items() if now - one.last > EXPIRE_AFTER]:
        _drop(sql)


def _drop(sql: str) -> None:
    if _refused.pop(sql).is_lasting:
        metrics.DB_REFUSED.labels(name_of(sql)).set(0)
