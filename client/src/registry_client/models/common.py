"""Types that payments, jobs and messages share."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec

type Amount = Decimal | str | int
type Time = Annotated[datetime, msgspec.Meta(tz=True)]
type Scalar = str | int | float | bool | None


class Page[T](msgspec.Struct, frozen=True, rename="camel"):
    """A page of a list; `next` is the cursor of the next page, None on the last."""

    items: list[T]
    next: str | None = None
    total: int | None = None


def exact(amount: Amount) -> Decimal:
    """The amount as a Decimal. Raises TypeError for a float, which is not exact."""
    if isinstance(amount, (bool, float)) or not isinstance(amount, (Decimal, str, int)):
        raise TypeError(f"an amount is a Decimal, a str or an int, not {type(amount).__name__}")
    return Decimal(amount)


def aware(at: datetime | None) -> datetime | None:
    """`at` itself. Raises TypeError for a text, and ValueError for a time without a zone, which could mean any hour."""
    if at is not None and not isinstance(at, datetime):
        raise TypeError(f"a time is a datetime with a time zone, not {type(at).__name__}")
    if at is not None and at.tzinfo is None:
        raise ValueError(f"{at} has no time zone")
    return at
