"""Warnings of what took too long: named statements, and turns of an event loop (measured by registry.data.loop_watch)."""

import logging
import time
from typing import Any

log = logging.getLogger(__name__)

QUIET = 10.0  # seconds between two warnings about the same statement, per process

_warned: dict[
    str, tuple[float, int]
] = {}  # by name: time.monotonic() of the last warning, and how many were left out since


def statement(name: str, seconds: float, *, rows: int | None) -> None:
    """`rows`: read; None where the statement failed or returns none. Parameters are never logged."""
    now = time.monotonic()
    at, left_out = _warned.get(name, (-QUIET, 0))
    if now - at < QUIET:
        _warned[name] = at, left_out + 1
        return
    _warned[name] = now, 0
    about = {"statement": name, "seconds": round(seconds, 3), "rows": rows, "lines_kept_quiet": left_out}
    log.warning("slow statement", extra=about)


def loop(seconds: float, *, processor_seconds: float, **running: Any) -> None:
    """`processor_seconds`: of the whole process meanwhile. Near zero: it waited for something, or was itself suspended."""
    about = {"seconds": round(seconds, 3), "processor_seconds": round(processor_seconds, 3), **running}
    log.warning("the event loop stood still", extra=about)
