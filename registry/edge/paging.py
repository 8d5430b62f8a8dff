"""Cursors of lists that are ordered by time, newest first: the time and the id of a page's last item."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q

from registry.errors import Invalid

LONGEST_ID = 18  # digits that fit a bigint


def cursor_after(row: Any) -> str:
    """The cursor of the page after `row`, which has `created_at` and `id`."""
    return base64.urlsafe_b64encode(f"{row.created_at.isoformat()} {row.id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, int]:
    """Raises Invalid (422)."""
    try:
        at, number = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split(" ")
        if len(number) > LONGEST_ID:
            raise ValueError(number)
        return datetime.fromisoformat(at).astimezone(UTC), int(number)
    except (ValueError, OverflowError, binascii.Error):
        raise Invalid(errors=[{"field": "cursor", "message": "is not a cursor of an earlier page"}]) from None


def below(cursor: str | None) -> Q:
    """The condition for rows behind the cursor; all rows for none. Raises Invalid (422)."""
    if not cursor:
        return Q()
    at, number = read_cursor(cursor)
    return Q(Q(created_at__lt=at) | Q(created_at=at, id__lt=number), created_at__lte=at)
