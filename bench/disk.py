"""Disk of PostgreSQL per payment: a merchant's history made by SQL, and the size of its tables with their indexes.

Sizes do not depend on the speed of the machine. The history has few updates behind it, so that what vacuum has still to remove is not
counted; webhooks, queues and jobs are not part of it.
"""

import psycopg

from bench.console.fill import TABLES, TOTALS, filled
from bench.figures import Effort, Figure
from bench.place import place, progress

SIZES = {Effort.QUICK: 20_000, Effort.NORMAL: 200_000, Effort.FULL: 1_000_000}


def run(effort: Effort) -> list[Figure]:
    size = SIZES[effort]
    with place("disk") as here, progress() as bars:
        filled(here, size, bars)
        with here.connect() as connection:
            tables = {name: bytes_of(connection, name) / size for name in (*TABLES, *TOTALS)}
    note = ", ".join(f"{name.partition('_')[2]} {each:,.0f}" for name, each in sorted(tables.items(), key=by_size))
    return [Figure(f"disk per payment, {size:,} payments", sum(tables.values()), "bytes", note=note, data=tables)]


def by_size(one: tuple[str, float]) -> float:
    return -one[1]


def bytes_of(connection: psycopg.Connection, table: str) -> int:
    """The table with its indexes, and values that are stored beside it."""
    row = connection.execute("SELECT pg_total_relation_size(%s::regclass)", (table,)).fetchone()
    assert row
    return int(row[0])
