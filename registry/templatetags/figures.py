"""Template filters for counts, durations and times, shared by the pages of all apps."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django import template

from registry.data.clock import now

register = template.Library()


@register.filter
def rate(per_second: float | None) -> str:
    """A number for a tile: 3.4, 12, 1,284."""
    value = float(per_second or 0)
    if 0 < value < 0.05:
        return "<0.1"
    return f"{value:.1f}" if 0 < value < 9.95 else f"{value:,.0f}"


@register.filter
def whole(number: int) -> str:
    """A count: 1,284."""
    return f"{number:,}"


@register.filter
def short(identifier: Any) -> str:
    """An id cut in the middle: 3f2a9c1d…0b7e."""
    text = str(identifier)
    return text if len(text) <= 14 else f"{text[:8]}…{text[-4:]}"


@register.filter
def span(length: float | timedelta | None) -> str:
    """A duration for people: 41 ms, 3.2 s, 4 min."""
    seconds = length.total_seconds() if isinstance(length, timedelta) else float(length or 0)
    if seconds < 1:
        return f"{max(0, seconds) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


@register.filter
def ago(moment: datetime | str) -> str:
    """Time since a moment, in the format that page.js updates."""
    seconds = int((now() - when(moment)).total_seconds())
    if seconds < 2:
        return "just now"
    for limit, unit, size in ((60, "s", 1), (3600, "min", 60), (86_400, "h", 3600)):
        if seconds < limit:
            return f"{seconds // size} {unit} ago"
    return f"{seconds // 86_400} d ago"


@register.filter
def exact(moment: datetime | str) -> str:
    """To the millisecond, for a title."""
    return f"{when(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


@register.filter
def stamp(moment: datetime | str) -> str:
    """To the second, in a column that names its zone."""
    return f"{when(moment).astimezone(UTC):%Y-%m-%d %H:%M:%S}"


@register.filter
def iso(moment: datetime | str) -> str:
    """ISO 8601 in UTC, for programs."""
    return f"{when(moment).astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


@register.filter
def minute(moment: datetime | str) -> str:
    """To the minute, in UTC; page.js shows it by the viewer's clock."""
    return f"{when(moment).astimezone(UTC):%a %Y-%m-%d %H:%M} UTC"


@register.filter
def clock(moment: datetime | str) -> str:
    return f"{when(moment).astimezone(UTC):%H:%M:%S} UTC"


def when(moment: datetime | str) -> datetime:
    return datetime.fromisoformat(moment) if isinstance(moment, str) else moment
