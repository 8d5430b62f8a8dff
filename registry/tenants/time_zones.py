"""Time zone of a tenant: that of the dates and times which its members enter in lists. Times are stored in UTC."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from registry.models import Tenant

OTHER = ("Etc/", "SystemV/", "US/")  # names beside those of places


@cache
def choices() -> list[str]:
    """UTC, then the zones that are named after places."""
    return ["UTC", *sorted(name for name in available_timezones() if "/" in name and not name.startswith(OTHER))]


def zone_of(tenant: Tenant) -> ZoneInfo:
    return ZoneInfo(tenant.time_zone)


def moment_in(zone: ZoneInfo) -> Callable[[str], datetime]:
    """Reads a time; of `zone` where it names none. Raises ValueError, OverflowError."""

    def read(text: str) -> datetime:
        found = datetime.fromisoformat(text)
        moment = (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
        return moment.astimezone(zone)  # the first and the last hours of the calendar exist in some zones only

    return read


def as_entered(moment: datetime | None, zone: ZoneInfo) -> str:
    """The time in the format of the browser's field."""
    return moment.astimezone(zone).replace(tzinfo=None).isoformat(timespec="minutes") if moment else ""
