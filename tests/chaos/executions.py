"""Checks of the executions of jobs, as their functions recorded them (tests/bed/journal.py)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec

from tests.bed.journal import Moment, What, decode

SHOWN = 3  # examples of a fault

type Executions = dict[str, list[Execution]]  # by job


class Execution(msgspec.Struct):
    """One run of a function: from its first moment to the last at which it was alive."""

    attempt: int
    pid: int
    began: float
    last: float
    ended: bool = False


def read(journal: Path) -> Executions:
    lines = journal.read_bytes().splitlines() if journal.exists() else []
    return executions(map(decode, lines))


def executions(moments: Iterable[Moment]) -> Executions:
    """Of each job in the order in which they began."""
    found: defaultdict[str, list[Execution]] = defaultdict(list)
    runs: dict[tuple[str, int, int], Execution] = {}
    for moment in moments:
        run = (moment.job, moment.attempt, moment.pid)
        if moment.what is What.BEGAN:
            runs[run] = Execution(moment.attempt, moment.pid, moment.at, moment.at)
            found[moment.job].append(runs[run])
        else:
            runs[run].last, runs[run].ended = moment.at, moment.what is What.ENDED
    return {job: sorted(several, key=lambda one: one.began) for job, several in found.items()}


def faults(found: Executions, succeeded: set[str]) -> Iterator[str]:
    """What is wrong, in words. `succeeded`: the jobs that the service says have succeeded."""
    for words, wrong in (
        ("succeeded, and their function never ended", {job for job in succeeded if not _ended(found.get(job, []))}),
        ("ran twice at the same time", {job for job, several in found.items() if _overlap(several)}),
        ("ran twice as the same attempt", {job for job, several in found.items() if _repeated(several)}),
        ("began again after they had succeeded", {job for job in succeeded if _too_many(found.get(job, []))}),
    ):
        if wrong:
            yield f"{len(wrong)} jobs {words}: {sorted(wrong)[:SHOWN]}"


def _ended(several: list[Execution]) -> bool:
    return any(one.ended for one in several)


def _overlap(several: list[Execution]) -> bool:
    """A run that was killed left no last moment: it was alive for at most a beat longer, and is begun again seconds later."""
    return any(later.began < earlier.last for earlier, later in pairwise(several))


def _repeated(several: list[Execution]) -> bool:
    return len({one.attempt for one in several}) < len(several)


def _too_many(several: list[Execution]) -> bool:
    """The last run is the one whose outcome was stored, so it ended."""
    return bool(several) and not several[-1].ended
