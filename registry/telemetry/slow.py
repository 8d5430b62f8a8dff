"""Warnings of what took too long: named statements, and turns of an event loop (measured by registry.data.loop_watch)."""

import logging
import time
from typing import Any

log = logging.getLogger(__name__)

QUIET = 10.0  # seconds between two warnings about the same, per process

_warned: dict[
    str, tuple[float, int]
] = {}  # by name: time.monotonic() of the last warning, and how many were left out since


def statement(name: str, seconds: float, *, rows: int | None) -> None:
    """`rows`: read; None where the statement failed or returns none. Parameters are never logged."""
    if (left_out := _left_out(name)) is not None:
        about = {"statement": name, "seconds": round(seconds, 3), "rows": rows, "lines_kept_quiet": left_out}
        log.warning("slow statement", extra=about)


def loop(seconds: float, *, processor_seconds: float, **running: Any) -> None:
    """`processor_seconds`: of the whole process meanwhile. Near zero: it waited for something, or was itself suspended."""
    # A time of another length, by powers of two, is another matter: a short one keeps no long one quiet.
    if (left_out := _left_out(f"loop {int(seconds).bit_length()}")) is not None:
        about = {"seconds": round(seconds, 3), "processor_seconds": round(processor_seconds, 3), **running}
        log.warning("the event loop stood still", extra={**about, "lines_kept_quiet": left_out})


def _left_out(name: str) -> int | None:
    """How many warnings of this name were left out since the last one; None if this one is left out too."""
    now = time.monotonic()
    at, left_out = _warned.get(name, (-QUIET, 0))
    if now - at < QUIET:
        _warned[name] = at, left_out + 1
        return None
    _warned[name] = now, 0
    return left_out
