"""Due refunds are sent while workers are killed: number refunded twice or not at all, and duration.

A sandbox processor has booked the payments, each with a due refund. Two workers send the refunds, and one worker, or its child
process ("horse"), is killed with -9 repeatedly while refunds are in flight. The result is the processor's own record afterwards,
one refund per payment, and its agreement with ours.
"""

import json
import os
import random
import signal
import sys
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.figures import Effort, Figure
from bench.place import Place, Process, console, place, process, progress, wait_until, web

REFUNDS = {Effort.QUICK: 300, Effort.NORMAL: 10_000, Effort.FULL: 10_000}
KILLS = {Effort.QUICK: 3, Effort.NORMAL: 20, Effort.FULL: 20}
WORKERS = 2
PER_CALL = 500  # payments of one batch
PATIENCE = 600.0  # seconds until the run is aborted
SEED = 20  # random seed: which worker, which process, after how much work
DELAY = 100  # ms of the processor per refund, so that a killed worker has some in flight
AMOUNT, BACK = "19.90", 500  # as sent, and in minor units
OWE = """INSERT INTO payments_refund (tenant_id, payment_id, public_id, number, fingerprint, amount, currency, reason, actor,
        external, processor_id, reference, status, code, attempt, tries_from, priority, run_at, created_at, changed_at)
    SELECT tenant_id, id, gen_random_uuid(), 1, '', %s, currency, '', 'bench', false, processor_id, '', 'owed', '', 0, 0, 0,
        now(), now(), now()
    FROM payments_payment"""
RETURNED = "SELECT count(*) FROM payments_refund WHERE closed = 'returned'"
OWED = """SELECT p.correlation_id FROM payments_refund r
    JOIN payments_payment p ON p.tenant_id = r.tenant_id AND p.id = r.payment_id"""
BEGUN = "SELECT count(*) FROM payments_refund WHERE closed IS NULL AND status <> 'owed'"


def run(effort: Effort) -> list[Figure]:
    wanted, kills = REFUNDS[effort], KILLS[effort]
    with place("refunds_chaos") as here:
        here.manage("processor", "add", "bench", "sandbox", "--kind", "sandbox")
        with web(here) as accepting:
            pay(here, accepting.port, wanted)
        owe_back(here)
        here.ask("UPDATE payments_processor SET options = %s RETURNING 1", [json.dumps({"delay": DELAY})])
        started = time.monotonic()
        struck = Crew(here, kills).pay_back(wanted)
        seconds = time.monotonic() - started
        return figures(here, wanted, struck, seconds)


# -- Refunds to send ------------------------------------------------------------------------------------------


def pay(here: Place, port: int, wanted: int) -> None:
    """Create `count` succeeded payments."""
    for done in range(0, wanted, PER_CALL):
        items = [{"correlationId": str(uuid.uuid4()), "amount": AMOUNT} for _ in range(min(PER_CALL, wanted - done))]
        verdicts = Counter(one["status"] for one in call(here, port, "/payments/batch", {"items": items})["results"])
        if set(verdicts) != {"queued"}:
            raise AssertionError(f"a batch was answered with {verdicts}")
    paid = "SELECT count(*) FROM payments_payment WHERE closed = 'succeeded'"
    with progress() as bars, worker(here, 9):
        bar = bars.add_task("payments", total=wanted)
        until(lambda: bars.update(bar, completed=here.ask(paid)) or here.ask(paid) >= wanted)


def owe_back(here: Place) -> None:
    """Insert a due partial refund for each, so that the processor would accept a second one."""
    with here.connect() as connection, connection.transaction():
        connection.execute("UPDATE payments_payment SET owed_back = %s", [BACK])
        connection.execute(OWE, [BACK])


def call(here: Place, port: int, path: str, body: Any) -> Any:
    headers = {"Content-Type": "application/json", **here.headers}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@contextmanager
def worker(here: Place, slot: int) -> Iterator[Process]:
    with process(here, f"worker-{slot}", sys.executable, "manage.py", "worker", "--slot", str(slot)) as found:
        yield found


# -- Killing -----------------------------------------------------------------------------------------------


class Crew:
    """The workers, and the process that kills them."""

    def __init__(self, here: Place, kills: int) -> None:
        self.here, self.kills = here, kills
        self.dice = random.Random(SEED)
        self.struck: Counter[str] = Counter()

    def pay_back(self, wanted: int) -> Counter[str]:
        """Send all refunds, with all kills while refunds are in flight."""
        step = wanted // (self.kills + 2)  # refunds between two kills, so that work is left for the last one
        with ExitStack() as stack, progress() as bars:
            bar = bars.add_task("paying back", total=wanted)
            places = [stack.enter_context(ExitStack()) for _ in range(WORKERS)]
            crew = [place.enter_context(worker(self.here, slot)) for slot, place in enumerate(places)]
            for _ in range(self.kills):
                goal = self.returned(bars, bar) + self.dice.randint(step // 2, step)
                until(lambda: self.returned(bars, bar) >= goal)  # noqa: B023 - evaluated before the next iteration
                until(lambda: self.here.ask(BEGUN) > 0)
                slot = self.dice.randrange(WORKERS)
                if self.strike(crew[slot]):
                    places[slot].close()
                    crew[slot] = places[slot].enter_context(worker(self.here, slot))
            until(lambda: self.returned(bars, bar) >= wanted)
        return self.struck

    def returned(self, bars: Any, bar: Any) -> int:
        count = int(self.here.ask(RETURNED))
        bars.update(bar, completed=count)
        return count

    def strike(self, victim: Process) -> bool:
        """Kill its child process, which the worker replaces, or the worker; True if it must be restarted."""
        horses = children(victim.pid)
        if horses and self.dice.random() < 0.75:
            os.kill(horses[0], signal.SIGKILL)
            self.struck["horses"] += 1
            return False
        for pid in (victim.pid, *horses):
            os.kill(pid, signal.SIGKILL)
        victim.popen.wait()
        self.struck["workers"] += 1
        return True


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def until(question: Callable[[], object]) -> None:
    wait_until(question, "the refunds come to their end", PATIENCE, every=0.02)


# -- Results ---------------------------------------------------------------------------------------------


def figures(here: Place, wanted: int, struck: Counter[str], seconds: float) -> list[Figure]:
    with here.connect() as connection:
        theirs = Counter(row[0] for row in connection.execute("SELECT correlation_id FROM payments_sandboxrefund"))
        ours = {row[0] for row in connection.execute(OWED)}
        tries = connection.execute("SELECT sum(attempt)::float8 / count(*) FROM payments_refund").fetchone()
    twice = sum(count - 1 for count in theirs.values())
    console.print(here.manage("ledger", "verify").strip(), style="dim", highlight=False)
    who = ", ".join(f"{count} {what}" for what, count in sorted(struck.items()))
    return [
        Figure("payments refunded twice", twice, target=0, at_most=True,
               note=f"{wanted:,} refunds owed, {sum(theirs.values()):,} in the processor's books; killed with -9: {who}"),
        Figure("refunds owed and not paid", len(ours - set(theirs)), target=0, at_most=True),
        Figure("refunds paid and not owed", len(set(theirs) - ours), target=0, at_most=True),
        Figure("returned events and ledger lines that are not one per refund", surplus(here), target=0, at_most=True),
        Figure("seconds until all were paid", seconds, "s", note=f"{wanted / seconds:.0f} refunds/s, kills included"),
        Figure("attempts per refund", tries[0] if tries else 0.0),
    ]  # fmt: skip


def surplus(here: Place) -> int:
    """Number of refunds that are not exactly once in timeline and ledger."""
    return int(
        here.ask(
            """SELECT count(*) FROM payments_refund r
            WHERE (SELECT count(*) FROM payments_paymentevent e
                    WHERE e.tenant_id = r.tenant_id AND e.payment_id = r.payment_id AND e.kind = 'refund.returned') <> 1
               OR (SELECT array_agg(l.amount ORDER BY l.amount) FROM payments_ledgerentry l
                    WHERE l.tenant_id = r.tenant_id AND l.payment_id = r.payment_id AND l.cause = 'refund')
                  IS DISTINCT FROM ARRAY[-r.amount, r.amount]"""
        )
    )
