"""Streams of payments: CSV for spreadsheets, NDJSON for programs. They hold no connection while the reader is slow."""

import csv
import io
from collections.abc import AsyncIterator
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


async def csv_lines(blocks: Blocks) -> AsyncIterator[bytes]:
    yield (",".join(COLUMNS) + "\r\n").encode()
    async for items in blocks:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows([safe_cell(item[column]) for column in COLUMNS] for item in items)
        yield text.getvalue().encode()


def safe_cell(value: Any) -> Any:
    """The value with a quote in front if it begins like a formula: spreadsheets would run it (CSV injection)."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else value
