"""The retry schedule of deliveries: when the next attempt is due, Retry-After included, and when to give up. Pure functions."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from registry.data import clock

SCHEDULE = (0, 5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
"""Seconds before each try, as Standard Webhooks proposes: ten tries in a little over three days."""
JITTER = 0.1  # share of a wait that chance adds, so that deliveries that failed together are not retried together
REST_AT_MOST = 24 * 3600.0  # seconds that a receiver's Retry-After puts a delivery off
GONE = 410  # the receiver wants no more deliveries


def wait_before(tries: int, *, asked: float | None = None, draw: float = 0.0) -> float | None:
    """Seconds until the next attempt after `tries` failed ones; None: give up. `draw`, from 0 to 1, scales the jitter.

    `asked` (Retry-After) can only make the wait longer, up to REST_AT_MOST.
    """
    if tries >= len(SCHEDULE):
        return None
    planned = SCHEDULE[tries] * (1 + JITTER * draw)
    return max(planned, min(asked or 0.0, REST_AT_MOST))


def retry_after(text: str | None, *, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110): a number or a date; None for what is neither."""
    if not text:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - (now or clock.now())).total_seconds(), 0.0)
