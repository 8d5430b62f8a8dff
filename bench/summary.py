"""GET /payments-summary with one and ten million payments, over HTTP, and PostgreSQL's plans for it.

Half of the payments are spread over 30 days, half at 500 a second until now: many hours to add up, and busy
seconds to divide. They are seeded by SQL; every answer is compared with a count of the payments themselves.
"""

import http.client
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from urllib.parse import quote

import psycopg
from rich.progress import Progress

from bench.figures import Effort, Figure, median, quantile
from bench.place import DEFAULT_FEE, FALLBACK_FEE, ROOT, Place, place, progress, web

SIZES = {Effort.QUICK: (20_000,), Effort.NORMAL: (1_000_000,), Effort.FULL: (1_000_000, 10_000_000)}
CALLS = {Effort.QUICK: 30, Effort.NORMAL: 200, Effort.FULL: 200}
PORTION = 100_000  # payments per seeding statement
BUSY_RATE = 500  # payments per second in the busy half
CHECKED = 5  # responses per kind of window that are compared with a count
PLANS = ROOT / "docs" / "plans"

PAYMENTS = """
INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, wanted_processor,
    status, sequence, code, processor_id, requested_at, fee, refunded, priority, attempt,
    run_at, created_at, changed_at)
SELECT %(tenant)s, gen_random_uuid(), decode(md5(n::text), 'hex'), amount, 'BRL', '', '', 'succeeded', 3, '',
    CASE WHEN dear THEN %(fallback)s ELSE %(default)s END, at,
    round(amount * CASE WHEN dear THEN %(fallback_fee)s ELSE %(default_fee)s END), 0, 0, 1, at, at, at
FROM (
    SELECT n, 100 + n %% 9900 AS amount, n %% 5 = 0 AS dear, date_trunc('milliseconds', CASE
        WHEN n <= %(half)s THEN %(now)s - interval '30 days' * (1 - n / %(half)s::float8)
        ELSE %(now)s - interval '1 second' * ((%(size)s - n) / %(rate)s::float8) END) AS at
    FROM generate_series(%(low)s::int, %(high)s::int) n
) seed
"""
ROLLUPS = """
INSERT INTO payments_rollup (tenant_id, width, starts_at, processor_id, currency, payments, amount, fee)
SELECT tenant_id, width, date_bin(make_interval(secs => width), requested_at, 'epoch'), processor_id, currency,
    count(*), sum(amount), sum(fee)
FROM payments_payment, (VALUES (1), (3600)) AS widths (width)
GROUP BY 1, 2, 3, 4, 5
"""
COUNT = """
SELECT a.name, count(p.id), coalesce(sum(p.amount), 0)
FROM payments_processor a LEFT JOIN payments_payment p
    ON p.tenant_id = a.tenant_id AND p.processor_id = a.id AND p.requested_at BETWEEN %s AND %s
GROUP BY a.name
"""


@dataclass(frozen=True)
class Window:
    start: datetime | None = None
    end: datetime | None = None

    @property
    def query(self) -> str:
        ends = {"from": self.start, "to": self.end}
        pairs = "&".join(f"{name}={quote(iso(moment))}" for name, moment in ends.items() if moment)
        return f"?{pairs}" if pairs else ""


def run(effort: Effort) -> list[Figure]:
    return [figure for size in SIZES[effort] for figure in at_size(size, effort)]


def at_size(size: int, effort: Effort) -> list[Figure]:
    with place("summary") as here, progress() as bars:
        for name, fee in (("default", DEFAULT_FEE), ("fallback", FALLBACK_FEE)):
            here.manage("processor", "add", "bench", name, "--kind", "sandbox", "--fee", str(fee))
        now = datetime.now(UTC)
        seed(here, size, now, bars)
        kinds = windows(size, now, CALLS[effort])
        if effort is not Effort.QUICK:
            save_plans(here, size, {name: several[0] for name, several in kinds.items()})
        with web(here) as process, caller(here, process.port) as ask:
            bar = bars.add_task("asking", total=sum(map(len, kinds.values())))
            figures = []
            for name, several in kinds.items():
                for window in several[:CHECKED]:
                    compare(here, ask(window)[0], window)
                times = []
                for window in several:
                    times.append(ask(window)[1])
                    bars.advance(bar)
                note = f"p99 {quantile(times, 0.99):.1f} ms, {len(times)} calls"
                figures.append(Figure(f"summary over {name}, {size:,} payments", median(times), "ms", 10, True, note))
    return figures


def seed(here: Place, size: int, now: datetime, bars: Progress) -> None:
    bar = bars.add_task(f"seeding {size:,} payments", total=size)
    with here.connect() as connection:
        names = dict(connection.execute("SELECT name, id FROM payments_processor").fetchall())
        parameters = {
            "tenant": here.ask("SELECT id FROM registry_tenant WHERE slug = 'bench'"), "now": now,
            "size": size, "half": size // 2, "rate": BUSY_RATE,
            "default": names["default"], "fallback": names["fallback"],
            "default_fee": Decimal(str(DEFAULT_FEE)), "fallback_fee": Decimal(str(FALLBACK_FEE)),
        }  # fmt: skip
        for low in range(1, size + 1, PORTION):
            high = min(low + PORTION - 1, size)
            connection.execute(PAYMENTS, parameters | {"low": low, "high": high})
            bars.advance(bar, high - low + 1)
        bars.update(bar, description="rolling up")
        connection.execute(ROLLUPS)
        connection.execute("VACUUM (ANALYZE) payments_payment, payments_rollup")


def windows(size: int, now: datetime, calls: int) -> dict[str, list[Window]]:
    """All time; 15 s somewhere in the busy half; and weeks whose ends divide an hour, a second and a millisecond."""
    busy = size / 2 / BUSY_RATE
    ends = [now - timedelta(seconds=random.uniform(0, max(0.0, busy - 15))) for _ in range(calls)]
    starts = [now - timedelta(days=30, seconds=-random.uniform(0, 3 * 86400)) for _ in range(calls)]
    return {
        "15 s": [Window(end - timedelta(seconds=15), end) for end in ends],
        "everything": [Window()] * calls,
        "weeks, cut anywhere": [Window(start, end) for start, end in zip(starts, ends, strict=True)],
    }


@contextmanager
def caller(here: Place, port: int) -> Iterator:
    """Request one window over a kept-alive connection; returns the summary and milliseconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(window: Window) -> tuple[dict, float]:
        start = time.perf_counter()
        connection.request("GET", f"/payments-summary{window.query}", headers=here.headers)
        answer = connection.getresponse()
        said = answer.read()
        took = 1000 * (time.perf_counter() - start)
        if answer.status != 200:
            raise AssertionError(f"answered {answer.status}: {said!r}")
        return json.loads(said, parse_float=Decimal), took

    try:
        yield ask
    finally:
        connection.close()


def compare(here: Place, summary: dict, window: Window) -> None:
    bounds = (iso(window.start) if window.start else "-infinity", iso(window.end) if window.end else "infinity")
    with psycopg.connect(here.database_url) as connection:
        counted = {
            name: {"totalRequests": payments, "totalAmount": amount / 100}
            for name, payments, amount in connection.execute(COUNT, bounds).fetchall()
        }
    if counted != summary:
        raise AssertionError(f"{window}: {summary}, but the payments say {counted}")


def save_plans(here: Place, size: int, kinds: dict[str, Window]) -> None:
    """Write the plans to docs/plans, one text file per size."""
    asked = {name: [moment and iso(moment) for moment in (window.start, window.end)] for name, window in kinds.items()}
    command = [sys.executable, "-m", "bench.plans", json.dumps(asked)]
    done = subprocess.run(command, cwd=ROOT, env=here.environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"no plans: {done.stderr[-2000:]}")
    PLANS.mkdir(parents=True, exist_ok=True)
    (PLANS / f"summary-{size // 1_000_000}m.txt").write_text(f"GET /payments-summary, {size:,} payments\n{done.stdout}")


def iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
