"""The nightly check of all books, in portions; its result for metrics, the log and the operators' home.

What is checked, and how, is registered by name: registry.tenants.books. `manage.py check_books` does the same at any time.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now
from prometheus_client.core import GaugeMetricFamily

from registry.data import clock
from registry.data.chores import chore
from registry.edge import status
from registry.models import BookCheck
from registry.operators.attention import Item, Severity, counted, source
from registry.tenants import books
from registry.tenants.books import PARTS, BookDifference, BookSlice, Place

log = logging.getLogger(__name__)

HOUR = 3  # UTC: the first run after it begins a check
LOOK_EVERY = 600  # seconds between portions
WITHIN = 420.0  # seconds of a portion: less than a chore may take, and than the time to the next one
LEASE = timedelta(seconds=WITHIN + 120)  # a slice takes seconds; another process goes on after one that died
SAVE_EVERY = 10.0  # seconds: what a process that dies has checked since is checked again
KEPT = 100  # differences that are stored and logged; further ones are only counted
LATE = timedelta(hours=36)  # since the last finished check


@chore("check-books", every=LOOK_EVERY)
async def check_tonight() -> None:
    """Begin the check of this night, or go on with one that is not finished."""
    current = await BookCheck.async_objects.afirst()
    if current is None or (current.finished_at and current.started_at < last_begin(clock.now())):
        current = await BookCheck.async_objects.acreate()
    mine = BookCheck.async_objects.filter(
        Q(leased_until=None) | Q(leased_until__lt=Now()), pk=current.pk, finished_at=None
    )
    if await mine.aupdate(leased_until=Now() + LEASE):
        await _Portion(await BookCheck.async_objects.aget(pk=current.pk)).run()


def last_begin(now: datetime) -> datetime:
    """The latest time at which a check was to begin."""
    today = now.replace(hour=HOUR, minute=0, second=0, microsecond=0)
    return today if today <= now else today - timedelta(days=1)


class _Portion:
    """A portion of a check, which begins where the one before ended."""

    def __init__(self, row: BookCheck) -> None:
        self._row = row
        self._names: dict[int, str] = {}
        self._saved_at = time.monotonic()

    async def run(self) -> None:
        self._names = await books.owners()
        if not await self._all_checked(until=time.monotonic() + WITHIN):
            await self._save(leased_until=None)
            return
        await self._save(leased_until=None, finished_at=Now())
        row = self._row
        level = logging.ERROR if row.differences else logging.INFO
        found = {"differences": row.differences, "rows": row.rows, "seconds": round(row.seconds, 1)}
        log.log(level, "books checked", extra=found)

    async def _all_checked(self, *, until: float) -> bool:
        """Check slice by slice; False when the time is up."""
        for place, after in self._left():
            async for found in PARTS[place.part].check(place.tenant_id, after):
                self._add(place, found)
                now = time.monotonic()
                if now >= until:
                    return False
                if now >= self._saved_at + SAVE_EVERY:
                    await self._save()
        return True

    def _left(self) -> Iterator[tuple[Place, Any]]:
        """The parts that are not done, with the place within the first of them."""
        order = {name: number for number, name in enumerate(PARTS)}
        reached = self._row.place or {"tenant": -1, "part": "", "after": None, "done": True}
        first = (reached["tenant"], order.get(reached["part"], -1))
        for place in books.places(self._names):
            here = (place.tenant_id, order[place.part])
            if here > first or (here == first and not reached["done"]):
                yield place, reached["after"] if here == first else None

    def _add(self, place: Place, found: BookSlice) -> None:
        row = self._row
        row.place = {"tenant": place.tenant_id, "part": place.part, "after": found.after, "done": found.share >= 1}
        row.rows[place.part] = row.rows.get(place.part, 0) + found.rows
        row.differences += len(found.differences)
        for one in found.differences[: max(0, KEPT - len(row.named))]:
            row.named.append(named(self._names[place.tenant_id], one))
            log.error("the books differ", extra=row.named[-1])

    async def _save(self, **changes: Any) -> None:
        row, now = self._row, time.monotonic()
        row.seconds, self._saved_at = row.seconds + now - self._saved_at, now
        await BookCheck.async_objects.filter(pk=row.pk).aupdate(
            **{"leased_until": Now() + LEASE, **changes},
            place=row.place,
            rows=row.rows,
            differences=row.differences,
            named=row.named,
            seconds=row.seconds,
        )


def named(tenant: str, difference: BookDifference) -> dict[str, str]:
    """A difference as it is stored and logged."""
    return {"owner": tenant, "kind": difference.kind, "difference": difference.sentence}


async def latest() -> BookCheck | None:
    """The latest check that was finished."""
    return await BookCheck.async_objects.filter(finished_at__isnull=False).afirst()


async def _gauges() -> list[GaugeMetricFamily]:
    check = await latest()
    if check is None or check.finished_at is None:
        return []
    figures = (
        ("registry_book_differences", "Differences that the latest check of the books found", check.differences),
        (
            "registry_book_check_timestamp_seconds",
            "When the latest check of the books was finished",
            check.finished_at.timestamp(),
        ),
        ("registry_book_check_seconds", "Time that the latest check of the books took", check.seconds),
    )
    return [GaugeMetricFamily(name, text, value=value) for name, text, value in figures]


status.gauges.append(_gauges)


@source("books.check")
async def attention(tenant_ids: Sequence[int] | None) -> list[Item]:
    """The result of the latest check, and that none was finished for LATE."""
    if tenant_ids is not None:
        return []
    check = await latest()
    if check is None or check.finished_at is None:
        said = "The books were not checked yet. The first check begins within ten minutes."
        return [Item(known=False, severity=Severity.NOTICE, sentence=said)]
    if check.differences:
        first = check.named[0]
        places = counted(check.differences, "place")
        said = f"The books differ from their events and ledger lines in {places}, first {first['owner']}: {first['difference']}."
        return [Item(severity=Severity.CRITICAL, sentence=said, count=check.differences, since=check.finished_at)]
    if clock.now() - check.finished_at > LATE:
        said = "The books were sound at their last nightly check, but the next ones were not finished."
        return [Item(severity=Severity.WARNING, sentence=said, since=check.finished_at)]
    rows = counted(sum(check.rows.values()), "row")
    said = f"The books: the last nightly check found no difference ({rows})."
    return [Item(severity=Severity.WELL, sentence=said, since=check.finished_at)]
