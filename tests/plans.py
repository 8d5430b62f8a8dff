"""Counts index entries and rows that plans of statements read, for plans made at any size of the tables.

Nothing is left behind: one transaction fills the tables, every statement runs in a savepoint of it, all is rolled back.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import md5
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from django.db import connection
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper

from registry.data import arrays

TENANT = 900_001  # owner of all rows
ROWS = 10_000  # of every table

READ = """SELECT c.relname, pg_stat_get_xact_tuples_returned(c.oid) FROM pg_class c
LEFT JOIN pg_index i ON i.indexrelid = c.oid
WHERE coalesce(i.indrelid, c.oid) = ANY(%s::regclass[]) AND pg_stat_get_xact_tuples_returned(c.oid) > 0"""

INDEXES = """SELECT CASE WHEN k.oid IS NULL THEN format('DROP INDEX %%I', i.relname)
        ELSE format('ALTER TABLE %%s DROP CONSTRAINT %%I', x.indrelid::regclass, k.conname) END,
    CASE WHEN k.oid IS NULL THEN pg_get_indexdef(i.oid)
        ELSE format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', x.indrelid::regclass, k.conname, pg_get_constraintdef(k.oid)) END
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.contype IN ('p', 'u')
WHERE x.indrelid = ANY(%s::regclass[]) ORDER BY i.oid DESC"""

# When a plan was made; whether it is for any parameters, or for these.
ANALYSED = "analysed, any parameters"
STAGES = ("when there were few rows", "never analysed", ANALYSED, "analysed, these parameters")
GENERIC, CUSTOM = "force_generic_plan", "force_custom_plan"


def uuid_of(text: str) -> UUID:
    """As md5(text)::uuid has it."""
    return UUID(md5(text.encode()).hexdigest())


class Asked(NamedTuple):
    """A statement with its parameters, and what it may read."""

    sql: str
    params: Mapping[str, Any]
    most: int
    seldom: bool = False  # planned each time it runs, so that no plan of it grows old

    def excess(self, read: "Read") -> "Read":
        """The stages at which it reads more than it may."""
        return {stage: rows for stage, rows in read.items() if sum(rows.values()) > self.most}


type Read = dict[str, dict[str, int]]  # what was read of each table and index, by stage


class Bed:
    """Statements of one connection, on tables that are this transaction's alone."""

    def __init__(self, conn: psycopg.Connection, tables: Sequence[str]) -> None:
        self.conn, self.tables = conn, list(tables)

    def run(self, sql: str, params: Mapping[str, Any] | Sequence[Any] = ()) -> list[tuple]:
        cursor = self.conn.execute(sql, params, prepare=False)
        return cursor.fetchall() if cursor.description else []

    def empty(self, *, restored: bool) -> None:
        """As new; `restored`: the indexes were made in another order, which decides between plans of the same cost."""
        self.run(f"TRUNCATE {', '.join(self.tables)}")
        self.conn.execute("DELETE FROM pg_statistic WHERE starelid = ANY(%s::regclass[])", [self.tables])
        if restored:
            for drop, add in self.run(INDEXES, [self.tables]):
                self.run(drop)
                self.run(add)

    def fill(self, statements: str, params: Mapping[str, Any]) -> None:
        for statement in statements.strip().split(";\n"):
            self.run(statement.rstrip(";"), params)

    def read_by(self, asked: Asked, plan: str) -> dict[str, int]:
        """What the statement reads of each table and index."""
        self.run(f"SET LOCAL plan_cache_mode = {plan}")
        before = dict(self.run(READ, [self.tables]))
        # Past psycopg, which forgets its prepared statements, and the plans with them, where it sees a ROLLBACK.
        self.conn.pgconn.exec_(b"SAVEPOINT before")
        self.conn.cursor(binary=True).execute(asked.sql, asked.params, prepare=True)
        self.conn.pgconn.exec_(b"ROLLBACK TO before")
        after = dict(self.run(READ, [self.tables]))
        return {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}

    def plan_of(self, sql: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """The plan of a statement that runs, with the rows that went through each part of it."""
        [[found]] = self.conn.cursor().execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params).fetchall()
        return found[0]["Plan"]


def rows_of(plan: dict[str, Any]) -> float:
    return plan["Actual Rows"] * plan["Actual Loops"]


def compared_by(plan: dict[str, Any]) -> float:
    """The largest number of rows that one part of a plan gave to the part above it, or threw away."""
    mine = (plan["Actual Rows"] + plan.get("Rows Removed by Join Filter", 0)) * plan["Actual Loops"]
    return max([mine, *map(compared_by, plan.get("Plans", []))])


@contextmanager
def undone(tables: Sequence[str]) -> Iterator[Bed]:
    names = ("dbname", "host", "port", "user", "password", "options")
    known = {name: value for name, value in connection.get_connection_params().items() if name in names}
    with psycopg.connect(**known) as conn:
        conn.adapters.register_dumper(int, Int8Dumper)
        conn.adapters.register_dumper(int, Int8BinaryDumper)
        arrays.register(conn)  # type: ignore[arg-type]
        try:
            yield Bed(conn, tables)
        finally:
            conn.rollback()


def measure(
    tables: Sequence[str], owner: str, rows: str, statements: Mapping[str, Asked], *, few: int, restored: bool
) -> dict[str, Read]:
    """What each statement reads at each stage, where its first plan was made with `few` rows in the tables."""
    found: dict[str, Read] = {name: {} for name in statements}
    params = {"tenant": TENANT, "rows": ROWS, "step": ROWS // few if few else 3 * ROWS}
    with undone(tables) as bed:
        bed.empty(restored=restored)
        bed.fill(owner, params)
        bed.fill(rows, {**params, "first": True})
        for asked in statements.values():
            bed.read_by(asked, GENERIC)
        bed.fill(rows, {**params, "first": False})
        for stage, plan in zip(STAGES, (GENERIC, CUSTOM, GENERIC, CUSTOM), strict=True):
            if stage == ANALYSED:
                bed.run(f"ANALYZE {', '.join(tables)}")
            for name, asked in statements.items():
                if plan == CUSTOM or not asked.seldom:
                    found[name][stage] = bed.read_by(asked, plan)
    return found


def measure_twice(
    tables: Sequence[str], owner: str, rows: str, statements: Mapping[str, Asked]
) -> dict[str, dict[str, Read]]:
    """On tables that were empty when the first plans were made; and on restored ones that had a hundred rows."""
    return {
        "as migrated": measure(tables, owner, rows, statements, few=0, restored=False),
        "as restored": measure(tables, owner, rows, statements, few=100, restored=True),
    }


def table_of(found: Mapping[str, Read]) -> str:
    """The figures as lines of text."""
    return "\n".join(
        f"{name:40}" + "".join(f"{sum(found[name].get(stage, {}).values()):>9}" for stage in STAGES) for name in found
    )
