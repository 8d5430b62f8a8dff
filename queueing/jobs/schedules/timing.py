"""Due times: a cron expression in a time zone, computed by the library cronsim. Pure functions of the times they are given.

At changes of the clock cronsim does what Debian's cron does. An expression with fixed minutes and hours is due once on each day
that it names: a local time that is skipped counts as the first one after the gap, one that occurs twice counts the first time.
An expression whose minute or hour begins with `*` follows elapsed time.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from registry.data import clock

LONGEST_CRON, LONGEST_ZONE = 100, 64  # characters
FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, or L for the last one",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7, or SUN to SAT",
}  # cronsim also reads seconds in a sixth one
FINEST = timedelta(minutes=1)  # between two due times of any expression
ZONE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*\Z")
NO_ZONES = re.compile(r"(posix|right)/|(localtime|posixrules|Factory)\Z")  # other files of the time zone database


class NotATime(ValueError):
    """A cron expression or the name of a time zone that cannot be read. The text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A cron expression in a time zone. Its methods raise NotATime."""

    cron: str
    timezone: str

    def after(self, at: datetime) -> datetime | None:
        """The first due time after `at`, in UTC; None if there is none in the next 50 years."""
        return next(self.all_after(at), None)

    def all_after(self, at: datetime) -> Iterator[datetime]:
        """All due times after `at`, in order, in UTC."""
        for local in _expression(self.cron, at.astimezone(zone_of(self.timezone))):
            due = local.astimezone(UTC)
            if due > at:  # cronsim begins at the local time, which in a repeated hour may mean the first occurrence
                yield due
                at = due

    def latest(self, first: datetime, until: datetime) -> datetime:
        """The latest due time until `until`, which is not before `first`, a due time. Bisects: there may be very many."""
        found, span = first, until - first
        while span >= FINEST:  # no due time is in (found + span, until]
            half = span / 2
            later = self.after(found + half)
            if later is None or later > until:
                span = half
            else:
                found, span = later, found + span - later
        return found


def zone_of(name: str) -> tzinfo:
    """The time zone with this IANA name. Reads a small file the first time. Raises NotATime."""
    if name == "UTC":
        return UTC
    try:
        if ZONE_NAME.match(name) and not NO_ZONES.match(name):
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise NotATime("is no IANA time zone such as Europe/Berlin")


def _expression(cron: str, local: datetime) -> CronSim:
    if len(cron.split()) != len(FIELDS):
        raise NotATime("wants five fields: minute, hour, day of month, month, day of week")
    try:
        return CronSim(cron, local)
    except CronSimError as error:
        raise NotATime(_fault(cron, str(error).removeprefix("Bad "))) from None


def _fault(cron: str, name: str) -> str:
    """What is wrong with an expression whose field of this name cronsim does not accept."""
    parts = cron.upper().split()
    value = parts[list(FIELDS).index(name)]
    if name == "day-of-month":
        with suppress(CronSimError):
            CronSim(" ".join([*parts[:3], "*", parts[4]]), clock.now())
            return f"never comes due: there is no day {value} in month {parts[3]}"
    return f"cannot be read: {value} is no {name.replace('-', ' ')}, which is {FIELDS[name]}"


def examine(timing: Timing, now: datetime) -> tuple[list[dict[str, str]], datetime | None]:
    """What is wrong with a cron expression and a time zone that a tenant gave, by field; and the first due time after `now`.

    It takes up to 0.1 s for an expression that is due once in decades or never: call it in a thread.
    """
    faults, first, zone = [], None, timing.timezone
    try:
        zone_of(zone)
    except NotATime as error:
        faults.append({"field": "timezone", "message": str(error)})
        zone = "UTC"
    try:
        first = Timing(timing.cron, zone).after(now)
        if first is None:
            faults.append({"field": "cron", "message": "never comes due: no day of the next 50 years matches"})
    except NotATime as error:
        faults.append({"field": "cron", "message": str(error)})
    return faults, first
