"""Work tables: tables with rows that workers claim. Their statements are made from one template, sql/work.sql."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import Path

from queueing.work.shares import Share
from registry.data import database
from registry.data.database import Row

SQL = database.statements(Path(__file__).parent / "sql" / "work.sql")

SAMPLE = 10_000  # rows that are counted at most where people and alerts look, so that it takes some milliseconds
DEPTH_SAMPLE = 100_000  # rows that are counted at most to scale workers
HEADS = 1_000  # tenants of a longer queue whose first rows are aged


@dataclass(frozen=True)
class Depth:
    """How much work there is, to scale workers by it; counts stop at DEPTH_SAMPLE."""

    waiting: int
    leased: int
    scheduled: int
    oldest: float  # seconds for which the oldest waiting row has been due


@dataclass(frozen=True)
class Standing:
    """Everything that waits in a work table, due or not; counts stop at the sample. Ages are seconds by the database's clock."""

    open: int
    due: int
    leased: int
    scheduled: int  # due later, whatever for
    later: int  # asked for at a later time
    due_for: float | None  # the longest due, which no worker has taken
    accepted_for: float | None  # the first accepted that is not finished; None where the table does not say


@dataclass(frozen=True)
class WorkTable:
    """A work table: its name, and the parts that are formatted into the template."""

    queue: str  # name in metrics, Worker rows and NOTIFY
    table: str
    open: str  # SQL predicate of open rows, as in its partial index
    columns: str = "p.*"  # of a claimed row: tenant_id, id, …
    joins: str = ""
    accepted: str = "NULL::timestamptz"  # SQL: since when a row waits; NULL where waiting for long is normal
    share: Callable[[Row], Share] = itemgetter(0)  # of a row that `take` returns
    takeable: str = "true"  # SQL: whether a worker may take a row that is due; where not, it waits for something else
    # Depth of a part of this work, for pools of workers that take only parts; None: of the whole.
    part_depth: Callable[[str], Awaitable[Depth]] | None = field(default=None, compare=False)
    # What is done with rows of dead workers (their ids) before their leases end; None: nothing.
    before_release: Callable[[list[int]], Awaitable[None]] | None = field(default=None, compare=False)

    @cached_property
    def due(self) -> str:
        """Tenants with due rows; parameters limit, above and below."""
        return self._made("due")

    @cached_property
    def take(self) -> str:
        """Lock due rows; parameters tenants, quotas and above."""
        return self._made("take")

    @cached_property
    def any_open(self) -> str:
        """Whether any row is open."""
        return self._made("any_open")

    async def release(self, workers: list[int]) -> None:
        """End the leases of these workers now."""
        if self.before_release:
            await self.before_release(workers)
        await database.fetch(self._made("release"), {"workers": workers})

    async def depth(self) -> Depth:
        asked = {"tenants": None, "sample": DEPTH_SAMPLE, "heads": HEADS}
        # Prepared, because it is asked every second: planning it takes PostgreSQL twenty times as long as doing it.
        now = Standing(*(await database.fetch(self._made("standing"), asked))[0])
        return Depth(now.due, now.leased, now.scheduled, now.due_for or 0.0)

    async def standing(self, tenants: Sequence[int] | None, *, sample: int = SAMPLE) -> Standing:
        """All that waits, of these tenants; None: of all."""
        asked = {"tenants": tenants, "sample": sample, "heads": HEADS}
        return Standing(*(await database.fetch(self._made("standing"), asked, prepare=False))[0])

    def _made(self, name: str) -> str:
        parts = {"open": self.open, "columns": self.columns, "joins": self.joins, "accepted": self.accepted}
        return database.filled(SQL, name, table=self.table, takeable=self.takeable, **parts)


TABLES: dict[str, WorkTable] = {}


def register(table: WorkTable) -> WorkTable:
    TABLES[table.queue] = table
    return table
