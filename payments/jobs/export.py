"""Job `payments.export`: a file with payments, as CSV for spreadsheets or as NDJSON for programs."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from payments.api.exports import FULL_COLUMNS, csv_head, csv_text
from payments.books import queries
from payments.books.queries import PaymentFilters
from payments.states import Status
from queueing.jobs.kinds import Context, kind
from registry.edge.api import ENCODER

TIMEOUT = 6 * 3600.0  # seconds

Moment = Annotated[datetime, Meta(tz=True)]


class ExportInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payments of the file, as in `GET /payments`, and its format."""

    format: Literal["csv", "ndjson"] = "csv"
    gzip: bool = False
    status: Status | None = None
    processor: Annotated[str, Meta(max_length=63)] | None = None
    from_: Moment | None = msgspec.field(name="from", default=None)
    to: Moment | None = None


@kind("payments.export", input=ExportInput, runs="loop", timeout=TIMEOUT, tenant_concurrency=2)
async def export(context: Context, asked: ExportInput) -> dict[str, int]:
    """Write payments into a file, with fees, refunds and metadata."""
    filters = PaymentFilters(asked.status, asked.processor, asked.from_, asked.to)
    total, done = await queries.count_of(context.tenant_id, filters), 0
    name = f"payments.{asked.format}{'.gz' if asked.gzip else ''}"
    content_type = "application/gzip" if asked.gzip else TYPES[asked.format]
    async with context.file(name, content_type, gzip=asked.gzip) as file:
        if asked.format == "csv":
            await file.write(csv_head(FULL_COLUMNS))
        async for items in queries.all_of(context.tenant_id, filters, full=True):
            await file.write(LINES[asked.format](items))
            done += len(items)
            context.progress(done, max(total, done), "payments written")
    return {"payments": done, "size": file.size}


def _csv(items: list[dict[str, Any]]) -> bytes:
    return csv_text(FULL_COLUMNS, [{**item, "metadata": ENCODER.encode(item["metadata"]).decode()} for item in items])


TYPES = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}
LINES: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {"csv": _csv, "ndjson": ENCODER.encode_lines}
