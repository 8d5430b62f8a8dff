"""Lists of payments as streams: CSV for spreadsheets, NDJSON for programs. They hold no connection while the reader is slow."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

from payments import queries
from registry.api import ENCODER


async def json_lines(tenant_id: int, filters: queries.Filters) -> AsyncIterator[bytes]:
    async for items in queries.all_of(tenant_id, filters):
        yield ENCODER.encode_lines(items)


COLUMNS = (
    "correlationId",
    "status",
    "amount",
    "currency",
    "processor",
    "attempts",
    "createdAt",
    "updatedAt",
    "description",
)


async def csv_lines(tenant_id: int, filters: queries.Filters) -> AsyncIterator[bytes]:
    yield (",".join(COLUMNS) + "\r\n").encode()
    async for items in queries.all_of(tenant_id, filters):
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows([safe_cell(item[column]) for column in COLUMNS] for item in items)
        yield text.getvalue().encode()


def safe_cell(value: Any) -> Any:
    """Spreadsheets run cells that begin like formulas (CSV injection); a quote in front stops that."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else value
