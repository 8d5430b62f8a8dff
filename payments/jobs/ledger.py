"""Job `reports.ledger`: a CSV file with the entries of the ledger."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from payments.api.exports import csv_head, csv_text
from payments.books import entries
from payments.books.entries import EntryFilters
from queueing.jobs.kinds import Context, kind

NAME = "reports.ledger"
TIMEOUT = 6 * 3600.0  # seconds
COLUMNS = ("id", "at", "cause", "account", "processor", "correlationId", "debit", "credit", "currency")

Moment = Annotated[datetime, Meta(tz=True)]


class LedgerInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The times of the entries, both inclusive, and their account; all without any."""

    from_: Moment | None = msgspec.field(name="from", default=None)
    to: Moment | None = None
    account: Literal["processor", "fees", "balance"] | None = None


@kind(NAME, input=LedgerInput, runs="loop", timeout=TIMEOUT, tenant_concurrency=2)
async def ledger(context: Context, asked: LedgerInput) -> dict[str, int]:
    """Write the ledger's entries into a CSV file, oldest first."""
    done = 0
    async with context.file("ledger.csv", "text/csv; charset=utf-8") as file:
        await file.write(csv_head(COLUMNS))
        async for items in entries.all_of(context.tenant_id, EntryFilters(asked.from_, asked.to, asked.account)):
            await file.write(csv_text(COLUMNS, items))
            done += len(items)
            context.progress(done, None, "entries written")
    return {"entries": done, "size": file.size}
