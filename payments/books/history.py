"""The history of one payment: its events and its attempts."""

from datetime import datetime

import msgspec

from payments.books.queries import SQL
from payments.states import Status
from registry.data import database


class HistoryEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the payment, with the number of its latest attempt at that time."""

    sequence: int
    at: datetime
    status: Status
    detail: str = ""
    kind: str = ""
    attempt: int = 0


class HistoryAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt, and when it began. `requested_at` stays the same while an earlier send is in doubt."""

    number: int
    processor: str | None = None
    reason: str = ""
    requested_at: datetime
    outcome: str = ""
    code: str = ""
    latency_ms: int | None = None
    started_at: datetime


async def history_of(tenant_id: int, payment_id: int) -> tuple[list[HistoryEvent], list[HistoryAttempt]]:
    """The events and the attempts of a payment, each in order."""
    of = {"tenant": tenant_id, "payment": payment_id}
    events = [_as(HistoryEvent, row) for row in await database.fetch(SQL["timeline"], of)]
    return events, [_as(HistoryAttempt, row) for row in await database.fetch(SQL["attempts"], of)]


def _as[T: msgspec.Struct](shape: type[T], row: database.Row) -> T:
    """The row of a statement whose columns are the fields of `shape` in their order."""
    return msgspec.convert(dict(zip(shape.__struct_fields__, row, strict=True)), shape)
