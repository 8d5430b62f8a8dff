"""Log of the API requests of each key, for the developers of a tenant: errors all, successes sampled; kept for 7 days.

A request only appends an entry to a buffer. A background task writes the entries once a second; those that it cannot write,
or that the buffer cannot hold, are dropped and counted. Bodies, headers and queries are not kept: they hold secrets.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from limits import RateLimitItemPerDay

from registry.data import clock, database, db_breaker, rates
from registry.data.arrays import Bigints, Texts
from registry.data.chores import chore
from registry.data.loop import PerLoop, background
from registry.errors import Unavailable
from registry.redaction import redact_text
from registry.telemetry import context, metrics

log = logging.getLogger(__name__)
SQL = database.statements(Path(__file__).parent / "sql" / "request_log.sql")

KEPT_DAYS = 7
SUCCESSES = 1000  # of a key in a day, in all processes together
BURST = 500  # of them at once, so that a developer who tries something sees each request
INTERVAL = 24 * 3600 / (SUCCESSES - BURST)  # seconds between further ones: a process exceeds SUCCESSES in no day
EVERY = 1.0  # seconds between writes
BUFFER = 5000  # entries of a process that wait to be written
ROWS = 500  # per statement
SLICE = 5000  # entries that one statement deletes
KEYS = 10_000  # of which a process knows when their next success is kept
PATH = 300  # characters that are kept, once secrets are replaced
LONGEST_PATH = 2000  # characters that wait: a secret that is cut in two there is beyond PATH
LONGEST = 2**31 - 1  # microseconds

DAY = RateLimitItemPerDay(SUCCESSES)


class LoggedRequest(NamedTuple):
    """An entry of the log."""

    tenant_id: int
    id: int
    key: str
    method: str
    path: str
    status: int
    code: str
    duration: int  # microseconds
    request_id: str


class RequestLog:
    """The buffer of one event loop."""

    def __init__(self) -> None:
        self.waiting: list[LoggedRequest] = []
        self._next: dict[str, float] = {}  # key → when its next success is kept
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    def is_sampled(self, key: str, now: float) -> bool:
        """Whether to keep a success: BURST at once, then one per INTERVAL (GCRA)."""
        due = self._next.get(key, 0.0)
        if now < due:
            return False
        if len(self._next) >= KEYS and key not in self._next:
            del self._next[next(iter(self._next))]
        self._next[key] = max(due, now - (BURST - 1) * INTERVAL) + INTERVAL
        return True

    def add(self, entry: LoggedRequest) -> None:
        if len(self.waiting) >= BUFFER:
            metrics.REQUEST_LOG.labels("buffer full").inc()
            return
        self.waiting.append(entry)
        if self._task is None:
            self._task = background(self._write_all())

    async def _write_all(self) -> None:
        """Write until nothing waits."""
        try:
            while self.waiting:
                try:
                    async with asyncio.timeout(EVERY):
                        await self._ending.wait()
                except TimeoutError:
                    pass
                batch, self.waiting = self.waiting, []
                for start in range(0, len(batch), ROWS):
                    await _write(batch[start : start + ROWS])
        finally:
            self._task = None

    async def close(self) -> None:
        """Write what waits."""
        self._ending.set()
        if self._task:
            await self._task


async def _write(batch: Sequence[LoggedRequest]) -> None:
    outcome = "written"
    try:
        batch = await _within_the_day(batch)
        if batch:
            await db_breaker.attempt(lambda: database.fetch(SQL["write"], _columns(batch), repeatable=False))
    except Unavailable:
        outcome = "database away"
    except Exception:  # whatever it is, requests are answered without their log
        log.exception("entries of the request log were lost", extra={"entries": len(batch)})
        outcome = "refused"
    metrics.REQUEST_LOG.labels(outcome).inc(len(batch))


async def _within_the_day(batch: Sequence[LoggedRequest]) -> Sequence[LoggedRequest]:
    """The entries without the successes of keys that have had theirs for the day, in whichever process."""
    successes = Counter(entry.key for entry in batch if entry.status < 400)
    spent = {key for key, count in successes.items() if not await rates.spend(DAY, "requests", key, cost=count)}
    return [entry for entry in batch if entry.status >= 400 or entry.key not in spent] if spent else batch


def _columns(batch: Sequence[LoggedRequest]) -> dict[str, Bigints | Texts]:
    tenants, ids, keys, methods, paths, statuses, codes, durations, requests = zip(*batch, strict=True)
    return {
        "tenant_id": Bigints(tenants),
        "id": Bigints(ids),
        "key": Texts(keys),
        "method": Texts(methods),
        "path": Texts([_readable(path) for path in paths]),
        "status": Bigints(statuses),
        "code": Texts(codes),
        "duration": Bigints(durations),
        "request_id": Texts(requests),
    }


def _readable(path: str) -> str:
    """The path without secrets, and without what PostgreSQL cannot store."""
    return redact_text(path).replace("\0", "\ufffd").encode(errors="replace").decode()[:PATH]


logs: PerLoop[RequestLog] = PerLoop(RequestLog, close=RequestLog.close)


def record(*, method: str, path: str, status: int, code: str, began: float, request_id: bytes) -> None:
    """Log the request of the current context if a key made it. `began`: time.perf_counter(). Waits for nothing."""
    caller = context.CALLER.get()
    if caller is None or not caller[1]:
        return
    requests, ended = logs.get(), time.perf_counter()
    if status < 400 and not requests.is_sampled(caller[1], ended):
        return
    requests.add(
        LoggedRequest(
            *(
                caller[0],
                id_at(clock.timestamp()) | random.getrandbits(10),
                caller[1],
                method[:8],
                path[:LONGEST_PATH],
                status,
                code,
            ),
            duration=min(int((ended - began) * 1e6), LONGEST),
            request_id=request_id.decode(),
        )
    )


def id_at(moment: float) -> int:
    """The lowest id of an entry made at `moment`, in seconds since 1970."""
    return int(moment * 1e6) << 10


@chore("trim-request-log", every=600)
async def trim() -> int:
    """Delete entries that are older than KEPT_DAYS, a slice at a time; returns how many."""
    before, removed = id_at(clock.timestamp() - KEPT_DAYS * 24 * 3600), 0
    for (tenant_id,) in await database.fetch(SQL["tenants"], prepare=False):
        slice_of = {"tenant": tenant_id, "before": before, "limit": SLICE}
        while gone := len(await database.fetch(SQL["expire"], slice_of, prepare=False)):
            removed += gone
    if removed:
        log.info("old entries of the request log removed", extra={"entries": removed})
    return removed
