"""Values that people enter into the filters of a list. A value that cannot be read is named beside its field."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MINUTE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}")  # as the browser's field sends it


def parsed[T](read: Callable[[str], T], text: str, field: str, complaint: str, errors: dict[str, str]) -> T | None:
    """The value of the text; None for an empty one. One that cannot be read is put into `errors`."""
    try:
        return read(text) if text else None
    except (ValueError, OverflowError):
        errors[field] = f"“{text[:40]}” {complaint}."
        return None


def zone(name: str) -> tzinfo:
    """The time zone of this name in the IANA database. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (KeyError, OSError) as error:
        raise ValueError(name) from error


def moment(text: str, of: tzinfo = UTC) -> datetime:
    """A time in UTC; the text is in the zone `of` where it names none. Raises ValueError, OverflowError."""
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=of)).astimezone(UTC)


def last_moment(text: str, of: tzinfo = UTC) -> datetime:
    """The last moment of a day or a minute; any other text is a moment itself. Raises ValueError, OverflowError."""
    length = timedelta(days=1) if _DAY.fullmatch(text) else timedelta(minutes=1) if _MINUTE.fullmatch(text) else None
    if length is None:
        return moment(text, of)
    return (datetime.fromisoformat(text) + length - timedelta.resolution).replace(tzinfo=of).astimezone(UTC)


def as_entered(text: str, of: tzinfo = UTC) -> str:
    """The time in the format of the browser's field. A minute stays one."""
    if not text or _MINUTE.fullmatch(text):
        return text
    return moment(text, of).astimezone(of).replace(tzinfo=None).isoformat(timespec="milliseconds")
