"""What a due schedule does now: which due times submit a job, and which one is next. A pure function."""

from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import NamedTuple

from queueing.jobs.schedules.timing import Timing
from queueing.models import JobSchedule

CATCH_UP_JOBS = 100  # due times of one schedule that submit jobs in one transaction; the next one goes on
MISSED_AFTER = timedelta(minutes=1)  # a due time that is handled later than this was missed: no worker was alive


class Step(NamedTuple):
    """The due times whose jobs are submitted, and the next due time, which may have come already."""

    due: list[datetime]
    next_at: datetime | None


def step(timing: Timing, *, first: datetime, now: datetime, overlap: str, catch_up: str, is_open: bool) -> Step:
    """Handle the due times from `first`, the schedule's next one, until `now`. `is_open`: a job of the schedule is open.

    Raises NotATime.
    """
    skips = overlap == JobSchedule.Overlap.SKIP
    if catch_up == JobSchedule.CatchUp.ALL:
        return _one_after_the_other(timing, first, now, is_open) if skips else _all(timing, first, now)
    latest = timing.latest(first, now)
    missed = catch_up == JobSchedule.CatchUp.NONE and now - latest >= MISSED_AFTER
    return Step([] if missed or (skips and is_open) else [latest], timing.after(latest))


def _all(timing: Timing, first: datetime, now: datetime) -> Step:
    more = takewhile(lambda due: due <= now, timing.all_after(first))
    due = [first, *islice(more, CATCH_UP_JOBS - 1)]
    return Step(due, timing.after(due[-1]))


def _one_after_the_other(timing: Timing, first: datetime, now: datetime, is_open: bool) -> Step:
    """A due time that was missed waits until the schedule's open job is over; any other one is skipped."""
    if is_open:
        return Step([], first if now - first >= MISSED_AFTER else timing.after(first))
    return Step([first], timing.after(first))
