"""Kinds of job for tests and benchmarks: one that does nothing, and naps, which write down when they run (journal.py)."""

import asyncio
import time
from collections.abc import Iterator

import msgspec

from queueing.jobs.kinds import Context, kind
from tests.bed.journal import What, note

BEAT = 0.01  # seconds between two lines of a nap


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    payload: str = ""


class Nap(msgspec.Struct, forbid_unknown_fields=True):
    number: int
    ms: int


@kind("bed.nothing", input=Nothing, runs="loop")
async def nothing(context: Context, given: Nothing) -> None:
    """Do nothing."""


@kind("bed.nap", input=Nap, runs="loop")
async def nap(context: Context, given: Nap) -> dict[str, int]:
    """Sleep on the worker's loop."""
    for pause in _written_down(context, given):
        await asyncio.sleep(pause)
    return {"number": given.number}


@kind("bed.nap.process", input=Nap, runs="process")
def nap_in_process(context: Context, given: Nap) -> dict[str, int]:
    """Sleep in a child process."""
    for pause in _written_down(context, given):
        time.sleep(pause)
    return {"number": given.number}


def _written_down(context: Context, given: Nap) -> Iterator[float]:
    """The pauses of a nap, in seconds."""
    attempt = fence_of(context)
    end = note(context.job_id, attempt, What.BEGAN) + given.ms / 1000
    while (left := end - time.monotonic()) > 0:
        yield min(left, BEAT)
        note(context.job_id, attempt, What.ALIVE)
    note(context.job_id, attempt, What.ENDED)


def fence_of(context: Context) -> int:
    """Each attempt has its own. `context.attempt` does not: one that a stopped worker handed back does not count, though it may have begun."""
    return int(context.key.rpartition(":")[2])
