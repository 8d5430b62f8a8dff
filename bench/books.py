"""`manage.py check_books` over a million payments with refunds and disputes, seeded by SQL; then with a cent too much in one of them.

Of the payments 95 % succeeded and 3 % failed; the rest are open. Each has its events, attempts and ledger lines; 5 % of those booked
have a refund, 1 % a dispute. Nothing but the planted cent may be reported.
"""

import json
import os
import resource
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

from rich.progress import Progress

from bench.figures import Effort, Figure
from bench.place import DEFAULT_FEE, FALLBACK_FEE, ROOT, Place, place, progress

SIZES = {Effort.QUICK: 20_000, Effort.NORMAL: 1_000_000, Effort.FULL: 1_000_000}
PORTION = 50_000  # payments per seeding statement
TARGET = 120  # seconds
SEED = (Path(__file__).parent / "books.sql").read_text().split(";\n")
PLANTED = "UPDATE payments_payment SET fee = fee + 1 WHERE id = (SELECT max(id) FROM payments_payment WHERE closed = 'succeeded')"


def run(effort: Effort) -> list[Figure]:
    size = SIZES[effort]
    with place("books") as here, progress() as bars:
        for name, fee in (("default", DEFAULT_FEE), ("fallback", FALLBACK_FEE)):
            here.manage("processor", "add", "bench", name, "--kind", "sandbox", "--fee", str(fee))
        seed(here, size, bars)
        seconds, found = check(here)
        memory = (
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        )  # of the largest child: the commands before are smaller
        if found["differences"]:
            raise AssertionError(f"{found['total']} differences in sound books, such as {found['differences'][0]}")
        with here.connect() as connection:
            connection.execute(PLANTED)
        _, planted = check(here)
        kinds = sorted(one["kind"] for one in planted["differences"])
        if kinds != ["payment.fee", "rollup.hour", "rollup.second"]:
            raise AssertionError(f"a cent in a fee was found as {kinds}")
        rows = ", ".join(f"{part} {count:,}" for part, count in found["rows"].items())
        note = f"{rows}; {memory:.0f} MiB of memory at most; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
        return [Figure(f"check_books, {size:,} payments", seconds, "s", TARGET, True, note)]


def seed(here: Place, size: int, bars: Progress) -> None:
    bar = bars.add_task(f"seeding {size:,} payments", total=size)
    with here.connect() as connection:
        names = dict(connection.execute("SELECT name, id FROM payments_processor").fetchall())
        known = {
            "tenant": here.ask("SELECT id FROM registry_tenant WHERE slug = 'bench'"), "size": size,
            "default": names["default"], "fallback": names["fallback"],
            "default_fee": Decimal(str(DEFAULT_FEE)), "fallback_fee": Decimal(str(FALLBACK_FEE)),
        }  # fmt: skip
        *portion, rollups, stream = filter(str.strip, SEED)
        for low in range(1, size + 1, PORTION):
            high = min(low + PORTION - 1, size)
            before = here.ask("SELECT coalesce(max(id), 0) FROM payments_payment")
            for statement in portion:
                connection.execute(statement, known | {"low": low, "high": high, "before": before})
            bars.advance(bar, high - low + 1)
        bars.update(bar, description="rolling up")
        connection.execute(rollups, known)
        connection.execute(stream, known)
        connection.execute("VACUUM (ANALYZE)")


def check(here: Place) -> tuple[float, dict]:
    """Seconds of the command, and what it found."""
    command = [sys.executable, "manage.py", "check_books", "--json"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=here.environment, stdout=subprocess.PIPE, text=True)
    seconds = time.monotonic() - started
    if done.returncode not in (0, 1):
        raise RuntimeError(f"check_books ended with {done.returncode}")
    return seconds, json.loads(done.stdout)
