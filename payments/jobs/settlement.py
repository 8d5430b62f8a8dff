"""Job `reports.settlement`: what was settled per day, processor and currency, from the ledger."""

from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

import msgspec
from msgspec import Meta

from payments.api.exports import csv_head, csv_text
from payments.money import decimal_text
from queueing.jobs.kinds import Context, JobFailed, kind
from registry.data import clock, database

SQL = database.statements(Path(__file__).parent / "sql" / "settlement.sql")

NAME = "reports.settlement"
SLICE = 100_000  # ledger entries per statement
ROWS_SHOWN = 200  # of the report in the result; the file has all
TIMEOUT = 3600.0  # seconds
COLUMNS = ("date", "processor", "currency", "gross", "fees", "refunds", "disputes", "net")

type Line = tuple[date, str, str]  # day, processor, currency


class SettlementInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The days of the report, both inclusive, in a time zone; yesterday without any."""

    from_: date | None = msgspec.field(name="from", default=None)
    to: date | None = None
    timezone: Annotated[str, Meta(max_length=64, description="such as America/Sao_Paulo")] = "UTC"

    def __post_init__(self) -> None:
        if self.timezone not in available_timezones():
            raise ValueError("timezone is not a name of the IANA database")


@kind(NAME, input=SettlementInput, runs="loop", timeout=TIMEOUT)
async def settlement(context: Context, asked: SettlementInput) -> dict[str, Any]:
    """Report what was settled: gross, fees, refunds, disputes and net, per day, processor and currency."""
    zone = ZoneInfo(asked.timezone)
    last = asked.to or clock.now().astimezone(zone).date() - timedelta(days=1)
    first = asked.from_ or last
    if first > last:
        raise JobFailed("the first day is after the last", code="invalid_days")
    try:
        sums = await _sums(context, first, last, zone)
    except OverflowError:  # the first or the last day of the calendar
        raise JobFailed("there are no such days", code="invalid_days") from None
    rows = [_row(line, sums[line]) for line in sorted(sums)]
    async with context.file(f"settlement-{first}-{last}.csv", "text/csv; charset=utf-8") as file:
        await file.write(csv_head(COLUMNS))
        await file.write(csv_text(COLUMNS, rows))
    return {"from": first, "to": last, "timezone": asked.timezone, "rows": len(rows), "lines": rows[:ROWS_SHOWN]}


async def _sums(context: Context, first: date, last: date, zone: ZoneInfo) -> dict[Line, list[int]]:
    """Gross, fees, refunds, disputes and net in minor units, by line."""
    start = datetime.combine(first, time(), zone).astimezone(UTC)
    until = datetime.combine(last + timedelta(days=1), time(), zone).astimezone(UTC)
    asked = {"tenant": context.tenant_id, "zone": zone.key, "start": start, "until": until, "limit": SLICE}
    sums: dict[Line, list[int]] = defaultdict(lambda: [0] * 5)
    after: int | None = 0
    read = 0
    while after is not None:
        context.progress(read, None, "ledger entries read")
        rows = await database.fetch(SQL["slice"], {**asked, "after": after}, prepare=False)
        for day, processor, currency, *amounts, _, _ in rows:
            if day is not None:
                sums[day, processor or "", currency] = [
                    a + b for a, b in zip(sums[day, processor or "", currency], amounts, strict=True)
                ]
        after, read = rows[0][-1], read + rows[0][-2]
    return sums


def _row(line: Line, amounts: list[int]) -> dict[str, str]:
    day, processor, currency = line
    texts = [decimal_text(amount, currency) for amount in amounts]
    return dict(zip(COLUMNS, (str(day), processor, currency, *texts), strict=True))
