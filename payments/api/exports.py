"""Streams of payments: CSV for spreadsheets, NDJSON for programs. They hold no connection while the reader is slow."""

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from registry.data import database
from registry.edge.api import ENCODER

type Blocks = AsyncIterator[list[dict[str, Any]]]


async def begun(blocks: Blocks) -> Blocks:
    """Read the first block; returns all of them."""
    async with database.own_connection():  # the rest is read by the task that sends it
        first = await anext(blocks, None)

    async def all_of_them() -> Blocks:
        if first is not None:
            yield first
            async for items in blocks:
                yield items

    return all_of_them()


async def json_lines(blocks: Blocks) -> AsyncIterator[bytes]:
    async for items in blocks:
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


FULL_COLUMNS = (*COLUMNS, "fee", "refunded", "metadata")


async def csv_lines(blocks: Blocks) -> AsyncIterator[bytes]:
    yield csv_head(COLUMNS)
    async for items in blocks:
        yield csv_text(COLUMNS, items)


def csv_head(columns: Sequence[str]) -> bytes:
    return (",".join(columns) + "\r\n").encode()


def csv_text(columns: Sequence[str], items: Iterable[dict[str, Any]]) -> bytes:
    """Rows of a CSV file, safe for spreadsheets."""
    text = io.StringIO()
    csv.writer(text).writerows([safe_cell(item[column]) for column in columns] for item in items)
    return text.getvalue().encode()


def safe_cell(value: Any) -> Any:
    """The value with a quote in front if it begins like a formula: spreadsheets would run it (CSV injection)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else value
