"""Limits of kinds: jobs that run at once, in all and of one tenant, and starts per second. Counted in PostgreSQL, by all workers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from psycopg import AsyncConnection

from queueing.jobs.decisions import JobClaim
from queueing.jobs.kinds import KINDS, Kind
from registry.data import database

SQL = database.statements(Path(__file__).parent / "sql" / "jobs.sql")

type Quotas = dict[tuple[int, str], int]  # by tenant and kind


def has_limits(kind: Kind) -> bool:
    return kind.concurrency is not None or kind.tenant_concurrency is not None or kind.rate is not None


async def allowed(conn: AsyncConnection, kinds: Sequence[str], quotas: Quotas) -> Quotas:
    """The quotas, lowered to what the limits of these kinds allow now. Locks the kinds until the caller's transaction ends."""
    locked = await database.rows(conn, SQL["limits"], {"kinds": kinds})
    if len(locked) < len(kinds):
        await database.rows(conn, SQL["add_limits"], {"kinds": kinds})
        locked = await database.rows(conn, SQL["limits"], {"kinds": kinds})
    slots = await database.rows(conn, SQL["slots"], {"kinds": kinds})
    of_tenant = Counter({(tenant, kind): count for kind, tenant, count in slots})
    running = Counter[str]()
    for kind, _, count in slots:
        running[kind] += count
    free = {kind: min(_starts(KINDS[kind], wait), _places(KINDS[kind], running[kind])) for kind, wait in locked}
    lowered: Quotas = {}
    for (tenant, name), quota in quotas.items():
        if name in free:
            most = KINDS[name].tenant_concurrency
            quota = min(quota, free[name], quota if most is None else most - of_tenant[tenant, name])
            free[name] -= max(quota, 0)
        if quota > 0:
            lowered[tenant, name] = quota
    return lowered


UNLIMITED = 10**9
BURST = 0.1  # seconds of a rate that one claim takes at once: claims are some milliseconds apart


def _starts(kind: Kind, wait: float) -> int:
    """How many jobs of a kind its rate lets start now; `wait`: seconds until it allows the next one."""
    if kind.rate is None:
        return UNLIMITED
    return 0 if wait > 0 else max(1, int(kind.rate * BURST))


def _places(kind: Kind, running: int) -> int:
    """How many more jobs of a kind may run at once."""
    return UNLIMITED if kind.concurrency is None else kind.concurrency - running


async def hold(conn: AsyncConnection, kinds: Sequence[str], claims: Sequence[JobClaim]) -> None:
    """Count these claims, of any kinds, from now on."""
    counted = [claim for claim in claims if claim.kind in kinds]
    if not counted:
        return
    started = Counter(claim.kind for claim in counted)
    rated = {kind: count / rate for kind, count in started.items() if (rate := KINDS[kind].rate) is not None}
    columns = {
        "tenant": [claim.tenant_id for claim in counted],
        "job": [claim.job_id for claim in counted],
        "attempt": [claim.attempt for claim in counted],
        "kind": [claim.kind for claim in counted],
        "rated": list(rated),
        "seconds": list(rated.values()),
    }
    await database.rows(conn, SQL["hold"], columns)
