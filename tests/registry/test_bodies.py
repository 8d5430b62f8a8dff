"""Refusals of JSON fields say what is allowed."""

from datetime import date, datetime
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from registry.edge.bodies import field_faults


class Speed(Enum):
    SLOW = "slow"
    FAST = "fast"


class Body(msgspec.Struct):
    overlap: Literal["skip", "queue"] = "skip"
    speed: Speed | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    timeout: Annotated[float, msgspec.Meta(gt=0, le=86400.0)] | None = None
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    day: date | None = None


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("overlap", "zz", "wants one of skip, queue, not 'zz'"),
        ("speed", "quick", "wants one of slow, fast, not 'quick'"),
        ("priority", 10, "wants a whole number at most 9"),
        ("priority", -1, "wants a whole number at least 0"),
        ("timeout", 0, "wants a number above 0"),
        ("timeout", 1e9, "wants a number at most 86400"),
        ("at", "2026-12-01T18:00:00", "wants a time with its zone, such as 2026-01-31T12:00:00Z"),
        ("at", "tomorrow", "wants a time such as 2026-01-31T12:00:00Z"),
        ("day", "31.1.2026", "wants a date such as 2026-01-31"),
        ("priority", "1", "Expected `int`, got `str`"),  # it says what is allowed already
    ],
)
def test_a_refused_field_says_what_is_allowed(field: str, value: Any, said: str) -> None:
    assert field_faults({field: value}, msgspec.json.Decoder(Body)) == [{"field": field, "message": said}]
