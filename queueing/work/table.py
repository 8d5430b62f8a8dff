"""Work tables: tables whose rows are claimed, done and settled. Their statements are made from one template, sql/work.sql."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "work.sql")

DEPTH_SAMPLE = 100_000  # rows counted at most: beyond that the number says "a lot" and the probe stays cheap


@dataclass(frozen=True)
class Depth:
    """What waits in a work table; counts stop at DEPTH_SAMPLE."""

    waiting: int
    leased: int
    scheduled: int
    oldest: float  # seconds that the longest waiting row is due


@dataclass(frozen=True)
class WorkTable:
    """A table whose rows are work."""

    queue: str  # its name in metrics, in Worker rows and as NOTIFY channel
    table: str
    open: str  # SQL predicate of its partial index
    columns: str = "p.*"  # what a claim returns: tenant_id, id, …
    joins: str = ""

    @cached_property
    def due(self) -> str:
        """Tenants with due rows; parameter limit."""
        return self._made("due")

    @cached_property
    def take(self) -> str:
        """Lock due rows; parameters tenants and quotas."""
        return self._made("take")

    async def release(self, workers: list[int]) -> None:
        """Let the leases of these workers lapse at once."""
        await database.fetch(self._made("release"), {"workers": workers})

    async def depth(self) -> Depth:
        return Depth(*(await database.fetch(self._made("depth"), {"sample": DEPTH_SAMPLE}, repeatable=False))[0])

    def _made(self, name: str) -> str:
        return SQL[name].format(table=self.table, open=self.open, columns=self.columns, joins=self.joins)


TABLES: dict[str, WorkTable] = {}


def register(table: WorkTable) -> WorkTable:
    TABLES[table.queue] = table
    return table
