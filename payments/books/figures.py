"""Figures of the console's home: what is unfinished now, and the past by ranges, from roll-ups."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from payments.books import ledger, summary
from payments.models.statistics import HOUR, MINUTE, PER_DOUBLING
from payments.states import FAILED, SUCCEEDED
from registry.data import clock, database
from registry.data.chores import chore
from registry.data.reading import elsewhere
from registry.operators.attention import COUNTED

SQL = database.statements(Path(__file__).parent / "sql" / "figures.sql")
RATE_OVER = 10  # seconds, for averages per second
KEEP_MINUTES = timedelta(days=2)
KEEP_HOURS = timedelta(days=35)
TRIM_EVERY = 3600  # seconds
TRIMMED_AT_ONCE = 10_000  # rows of a statement


@dataclass(frozen=True, slots=True)
class PastRange:
    """A range of time that ends now and begins with a whole minute or hour."""

    key: str
    label: str
    length: timedelta
    width: int  # seconds of the roll-ups that its figures are read from, and of what it begins with
    bin: int  # seconds of a point of its charts

    def start(self, now: datetime) -> datetime:
        return summary.floor(now - self.length, timedelta(seconds=self.width))


RANGES: Final = {
    one.key: one
    for one in (
        PastRange("1h", "1 h", timedelta(hours=1), MINUTE, MINUTE),
        PastRange("24h", "24 h", timedelta(days=1), HOUR, 15 * MINUTE),
        PastRange("7d", "7 d", timedelta(days=7), HOUR, HOUR),
        PastRange("30d", "30 d", timedelta(days=30), HOUR, 4 * HOUR),
    )
}


# -- Now -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Payments that are not settled, COUNTED at most. `oldest`: seconds since acceptance, of those that workers are to settle now."""

    in_progress: int
    due: int
    retrying: int  # due again later
    scheduled: int  # for a time that has not come
    given_up: int  # dead letters in doubt: nobody asks until an operator decides
    with_payer: int  # they require an action
    more: bool  # there may be more than were counted
    oldest: float

    @property
    def waiting(self) -> int:
        """Those that workers are to settle now."""
        return self.in_progress + self.due + self.retrying


async def unfinished(tenant_id: int) -> Unfinished:
    [(*counts, more, oldest)] = await database.fetch(SQL["unfinished"], {"tenant": tenant_id, "limit": COUNTED})
    in_progress, due, retrying, scheduled, given_up, with_payer = counts
    return Unfinished(in_progress, due, retrying, scheduled, given_up, with_payer, more, round(float(oldest), 1))


async def present(tenant_id: int) -> dict[str, Any]:
    """What is unfinished, and accepted payments per second."""
    of = {"tenant": tenant_id, "over": RATE_OVER}
    [(accepted,)] = await database.fetch(SQL["accepted"], of)
    return {"unfinished": await unfinished(tenant_id), "acceptedPerSecond": round(accepted / RATE_OVER, 1)}


# -- The past ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Times:
    """Payments that succeeded, by bucket of the time from acceptance."""

    buckets: dict[int, int] = field(default_factory=dict)

    def percentile(self, share: float) -> float | None:
        """Milliseconds, exact to a bucket (19 %), and between its ends by its share of payments; None without any payment."""
        numbers = sorted(self.buckets)
        sums = list(accumulate(self.buckets[n] for n in numbers))
        if not sums:
            return None
        wanted = share * sums[-1]
        for number, total in zip(numbers, sums, strict=True):
            if total >= wanted:
                part = 1 - (total - wanted) / self.buckets[number]
                return math.exp2((number + part) / PER_DOUBLING)
        raise AssertionError("the last sum is the whole")


@elsewhere("payments.figures")
async def past(tenant_id: int, within: PastRange, now: datetime | None = None) -> dict[str, Any]:
    """Volume, success rate, times to settle, charts and balance of a range, from roll-ups: none of it reads all payments."""
    now = now or clock.now()
    since = within.start(now)
    of = {"tenant": tenant_id, "since": since, "width": within.width, "bin": within.bin}
    of["course_width"] = MINUTE if within.bin < HOUR else HOUR
    found: list[Any] = await database.concurrently(
        lambda: summary.volumes(tenant_id=tenant_id, start=since),
        lambda: database.fetch(SQL["ended"], of),
        lambda: database.fetch(SQL["course"], of),
        lambda: ledger.balance(tenant_id=tenant_id),
    )
    volumes, ended, course, balance = found
    counts = {status: sum(n for _, s, _, n in ended if s == status) for status in (SUCCEEDED, FAILED)}
    settled = sum(counts.values())
    return {
        "since": since,
        "volumes": volumes,
        "succeeded": counts[SUCCEEDED],
        "failed": counts[FAILED],
        "successRate": counts[SUCCEEDED] / settled if settled else None,
        "shares": _shares(ended, counts[SUCCEEDED]),
        "times": {number: _percentiles(times) for number, times in _times(ended).items()},
        "balance": balance,
        "series": _series(course, within, since, now),
    }


def _shares(ended: list[database.Row], succeeded: int) -> dict[int, float]:
    """Each processor's share of the payments that succeeded."""
    found: dict[int, float] = defaultdict(float)
    for processor, status, _, count in ended:
        if status == SUCCEEDED:
            found[processor] += count / succeeded
    return found


def _times(ended: list[database.Row]) -> dict[int | None, Times]:
    """By the processor's id; None: of all processors."""
    found: dict[int | None, Times] = defaultdict(Times)
    for processor, status, bucket, count in ended:
        if status == SUCCEEDED:
            for times in (found[processor], found[None]):
                times.buckets[bucket] = times.buckets.get(bucket, 0) + count
    return found


def _percentiles(times: Times) -> dict[str, float | None]:
    return {"p50": times.percentile(0.5), "p95": times.percentile(0.95)}


def _series(course: list[database.Row], within: PastRange, since: datetime, now: datetime) -> Mapping[str, Any]:
    """Points of the charts: payments that succeeded and failed, zeros included, and each processor's response time by its id."""
    first = int(since.timestamp()) // within.bin * within.bin
    at = list(range(first, int(now.timestamp()) + 1, within.bin))
    place = {moment: n for n, moment in enumerate(at)}
    succeeded, failed = [0] * len(at), [0] * len(at)
    response: dict[int, list[float | None]] = defaultdict(lambda: [None] * len(at))
    for moment, processor, good, bad, latency in course:
        if (
            n := place.get(moment)
        ) is None:  # an hour that began before the range's first bin, or a clock that is ahead
            continue
        succeeded[n] += good
        failed[n] += bad
        response[processor][n] = None if latency is None else round(latency, 1)
    return {"at": at, "bin": within.bin, "succeeded": succeeded, "failed": failed, "response": dict(response)}


# -- Retention -----------------------------------------------------------------------------------------------


@chore("trim-statistics", every=TRIM_EVERY)
async def trim() -> int:
    """Remove statistics that no range shows any more; returns how many rows."""
    kept = {"minutes": KEEP_MINUTES.total_seconds(), "hours": KEEP_HOURS.total_seconds(), "limit": TRIMMED_AT_ONCE}
    removed = 0
    while gone := len(await database.fetch(SQL["trim"], kept, prepare=False)):
        removed += gone
    return removed
