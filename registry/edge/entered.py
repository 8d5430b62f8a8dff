"""Values that people enter into the filters of a list. A value that cannot be read is named beside its field."""

from collections.abc import Callable
from datetime import UTC, datetime


def parsed[T](read: Callable[[str], T], text: str, field: str, complaint: str, errors: dict[str, str]) -> T | None:
    """The value of the text; None for an empty one. One that cannot be read is put into `errors`."""
    try:
        return read(text) if text else None
    except (ValueError, OverflowError):
        errors[field] = f"“{text[:40]}” {complaint}."
        return None


def moment(text: str) -> datetime:
    """A time; UTC where it names no zone."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def as_entered(text: str) -> str:
    """The time in the format of the browser's field."""
    return moment(text).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") if text else ""
