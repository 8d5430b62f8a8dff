"""Garbage collector of a process that serves or works: it leaves out what was imported, and looks at new objects less often."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

GARBAGE = 10_000  # objects until the collector looks at the new ones; more than the rows and requests in flight have


@contextmanager
def calm() -> Iterator[None]:
    """What exists at the start is never garbage: a collection that looks through it stops the process for 0.2 s and longer."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
