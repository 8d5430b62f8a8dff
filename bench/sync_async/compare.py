"""The same payments through a synchronous Django project and through ours, at a processor that takes 100 ms.

Both accept `POST /payments` at 1, 50 and 1,000 callers at once, each of which sends its next payment when the last is answered; the
processor is one for both. The synchronous project (urls.py) calls it inside the request, in two gunicorn processes with 40 threads
each. Ours is one web process and one worker. Then the processor fails for some seconds under load.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import load
from bench.figures import Effort, Figure, median, number
from bench.machine import durability_of
from bench.place import Place, Process, answers, free_port, place, process, progress, wait_until, web, worker
from bench.queue.cost import backends, seconds_of_tree
from registry.servers.processes import children
from tests.bed import RemoteProcessor

DELAY = 100  # ms of the processor
CALLERS = (1, 50, 1000)
SECONDS = {Effort.QUICK: 1.5, Effort.NORMAL: 15.0, Effort.FULL: 30.0}
ROUNDS = {Effort.QUICK: 1, Effort.NORMAL: 3, Effort.FULL: 5}
DOWN = {Effort.QUICK: 1.0, Effort.NORMAL: 5.0, Effort.FULL: 5.0}  # seconds for which the processor fails
BEFORE, AFTER = 1.0, 2.0  # seconds of load before and after that
DOWN_CALLERS = 50
SETTLE_LIMIT = 300.0  # seconds for what was accepted to be settled
PROCESSES, THREADS = 2, 40  # of gunicorn: 80 connections, of PostgreSQL's default of 100
KEY = "sync-key"

OURS = """SELECT count(*) FILTER (WHERE closed = 'succeeded'), count(*) FILTER (WHERE closed IS NULL), count(*),
    coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY changed_at - created_at) FILTER (WHERE closed = 'succeeded'), '0'),
    max(changed_at) FILTER (WHERE closed = 'succeeded')
FROM payments_payment WHERE created_at >= %s"""
SYNCHRONOUS = """SELECT count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'processing'), count(*),
    coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY changed_at - created_at) FILTER (WHERE status = 'succeeded'), '0'),
    max(changed_at) FILTER (WHERE status = 'succeeded')
FROM sync_async_payment WHERE created_at >= %s"""
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@dataclass(frozen=True)
class Subject:
    name: str
    here: Place
    parts: tuple[Process, ...]  # the first one listens
    headers: dict[str, str]
    books: str  # statement with what became of the payments since a moment


@dataclass(frozen=True)
class Turn:
    """What a load did. `settled`, `left` and `stored`: payments; of those that are left nobody will ever learn more."""

    answered: load.Result
    settled: int
    left: int
    stored: int
    rate: float  # settled per second, from the start of the load to the last one
    # ms from the first byte until the outcome is stored, median; of ours the answer's plus that from acceptance, which is at most
    # too much: the answer of the synchronous project is the outcome.
    booked_after: float
    memory: float  # MiB of all processes of the service under load
    connections: int  # to PostgreSQL, under load
    processor_time: float  # µs per settled payment, of the service and its PostgreSQL backends
    back_after: float = 0.0  # seconds from the processor's recovery to the last settled payment

    @property
    def errors(self) -> float:
        return self.answered.errors / max(1, self.answered.errors + self.answered.requests)


def run(effort: Effort) -> list[Figure]:
    with RemoteProcessor() as processor, subjects(processor) as both, progress() as bars:
        processor.delays(DELAY)
        bar = bars.add_task("comparing", total=2 * (ROUNDS[effort] * len(CALLERS) + 1))
        results: dict[str, dict[int, list[Turn]]] = {subject.name: {n: [] for n in CALLERS} for subject in both}
        for subject in both:
            one_turn(subject, CALLERS[1], 1.0)  # connections are open, statements prepared
        for callers in CALLERS:
            for _ in range(ROUNDS[effort]):
                for subject in both:
                    bars.update(bar, description=f"{subject.name}, {callers} callers")
                    results[subject.name][callers].append(one_turn(subject, callers, SECONDS[effort]))
                    bars.advance(bar)
        trouble = {}
        for subject in both:
            bars.update(bar, description=f"{subject.name}, the processor fails")
            trouble[subject.name] = while_down(subject, processor, DOWN[effort])
            bars.advance(bar)
        check_books(both, processor)
    return [*compared(results), *recovered(trouble, DOWN[effort])]


# -- Subjects --------------------------------------------------------------------------------------------------


@contextmanager
def subjects(processor: RemoteProcessor) -> Iterator[tuple[Subject, Subject]]:
    with place("sync_async") as ours, place("synchronous", migrated=False) as plain:
        ours.manage("processor", "add", "bench", "default", "--kind", "http", "--url", processor.url, "--fee", "0.05")
        prepare(plain, processor)
        with web(ours) as accepting, worker(ours) as working, gunicorn(plain) as serving:
            yield (
                Subject("ours", ours, (accepting, working), ours.headers, OURS),
                Subject("synchronous", plain, (serving,), {"Authorization": f"Bearer {KEY}"}, SYNCHRONOUS),
            )


def prepare(plain: Place, processor: RemoteProcessor) -> None:
    settings = "bench.sync_async.settings"
    plain.environment |= {"DJANGO_SETTINGS_MODULE": settings, "PROCESSOR_URL": processor.url}
    plain.manage("migrate", "--run-syncdb", "--verbosity", "0", "--settings", settings)
    with plain.connect() as connection:
        durability_of(connection)
        connection.execute("INSERT INTO sync_async_tenant (id, slug, currency) VALUES (1, 'bench', 'BRL')")
        digest = hashlib.sha256(KEY.encode()).hexdigest()
        connection.execute("INSERT INTO sync_async_apikey (tenant_id, digest) VALUES (1, %s)", (digest,))


@contextmanager
def gunicorn(here: Place) -> Iterator[Process]:
    port = free_port()
    options = [
        "--worker-class", "gthread", "--workers", str(PROCESSES), "--threads", str(THREADS), "--bind", f"127.0.0.1:{port}",
        "--keep-alive", "75", "--backlog", "2048", "--log-level", "warning",
    ]  # fmt: skip
    command = [sys.executable, "-m", "gunicorn", *options, "bench.sync_async.wsgi:application"]
    with process(here, "gunicorn", *command) as found:
        found.port = port
        wait_until(lambda: found.check() or answers(f"http://127.0.0.1:{port}/"), "gunicorn answers")
        yield found


# -- Turns -----------------------------------------------------------------------------------------------------


def one_turn(subject: Subject, callers: int, seconds: float) -> Turn:
    return _turn(subject, callers, seconds, lambda: time.sleep(seconds / 2))


def while_down(subject: Subject, processor: RemoteProcessor, seconds: float) -> Turn:
    back: list[Any] = []

    def strike() -> None:
        time.sleep(BEFORE)
        processor.fails()
        time.sleep(seconds)
        back.append(subject.here.ask("SELECT clock_timestamp()"))
        processor.recovers()
        processor.delays(DELAY)

    return _turn(subject, DOWN_CALLERS, BEFORE + seconds + AFTER, strike, back)


def _turn(subject: Subject, callers: int, seconds: float, meanwhile: Callable[[], None], back: list[Any] = []) -> Turn:  # noqa: B006 - read only
    here, listening = subject.here, subject.parts[0]
    started = here.ask("SELECT clock_timestamp()")
    spent = _spent(subject)
    asked = load.Load(listening.port, callers, seconds, headers=subject.headers)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load.run_own, asked)
        meanwhile()
        memory, connections = _memory(subject), here.ask(CONNECTIONS)
        answered = running.result()
    settled, left, stored, median_time, last = _settled(subject, started)
    for part in subject.parts:
        part.check()
    if not settled:
        raise RuntimeError(f"{subject.name} settled nothing: {listening.log.read_text()[-2000:]}")
    return Turn(
        answered=answered,
        settled=settled,
        left=left,
        stored=stored,
        rate=settled / max((last - started).total_seconds(), 0.001),
        booked_after=answered.p50 + 1000 * median_time.total_seconds() if subject.name == "ours" else answered.p50,
        memory=memory,
        connections=connections,
        processor_time=1e6 * _used(subject, spent) / settled,
        back_after=max(0.0, (last - back[0]).total_seconds()) if back else 0.0,
    )


def _settled(subject: Subject, started: Any) -> tuple[Any, ...]:
    """What became of the payments of the turn, once nothing is open any more."""
    deadline = time.monotonic() + SETTLE_LIMIT
    with subject.here.connect() as connection:
        while True:
            found = connection.execute(subject.books, (started,)).fetchone()
            assert found is not None
            if not found[1]:
                return found[0], found[2] - found[0], *found[2:]
            if time.monotonic() > deadline:
                raise RuntimeError(f"{subject.name}: {found[1]} payments are open after {SETTLE_LIMIT:.0f} s")
            time.sleep(0.1)


def _spent(subject: Subject) -> tuple[float, dict[int, float]]:
    return sum(seconds_of_tree(part.pid) for part in subject.parts), backends(subject.here)


def _used(subject: Subject, before: tuple[float, dict[int, float]]) -> float:
    """Seconds of the service's processes and of its PostgreSQL backends since then."""
    now, of_backends = _spent(subject)
    return now - before[0] + sum(spent - before[1].get(pid, 0.0) for pid, spent in of_backends.items())


def _memory(subject: Subject) -> float:
    """MiB of the service's processes; pages that several share are counted once (PSS)."""
    return sum(_proportional(pid) for part in subject.parts for pid in (part.pid, *_descendants(part.pid))) / 1024


def _descendants(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *_descendants(child))]


def _proportional(pid: int) -> int:
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next(int(row.split()[1]) for row in rows if row.startswith("Pss:"))


def check_books(both: tuple[Subject, ...], processor: RemoteProcessor) -> None:
    """Verify that what is settled is booked at the processor, and once."""
    booked = processor.ids
    for subject, table in zip(both, ("payments_payment", "sync_async_payment"), strict=True):
        with subject.here.connect() as connection:
            rows = connection.execute(f"SELECT correlation_id::text FROM {table} WHERE status = 'succeeded'").fetchall()
        if missing := {row[0] for row in rows} - booked:
            raise AssertionError(f"{subject.name}: {len(missing)} payments are settled and not booked")


# -- Figures ---------------------------------------------------------------------------------------------------

MEASURES: tuple[tuple[str, Callable[[Turn], float], str, bool], ...] = (  # and whether less is better
    ("answer, median", lambda turn: turn.answered.p50, "ms", True),
    ("answer, p99", lambda turn: turn.answered.p99, "ms", True),
    ("sent until booked, median", lambda turn: turn.booked_after, "ms", True),
    ("accepted per second", lambda turn: turn.answered.rate, "/s", False),
    ("booked per second", lambda turn: turn.rate, "/s", False),
    ("processor time per payment", lambda turn: turn.processor_time, "µs", True),
    ("memory", lambda turn: turn.memory, "MiB", True),
    ("database connections", lambda turn: turn.connections, "", True),
)


def compared(results: dict[str, dict[int, list[Turn]]]) -> list[Figure]:
    """For each measure how many times better ours is: the ratio of the medians."""
    figures = []
    for callers in CALLERS:
        ours, other = results["ours"][callers], results["synchronous"][callers]
        for what, of, unit, less in MEASURES:
            mine, its = median([of(turn) for turn in ours]), median([of(turn) for turn in other])
            gain = (its / mine if less else mine / its) if mine and its else 0.0
            note = f"ours {number(mine)} {unit}, synchronous {number(its)} {unit}"
            data = {"ours": [asdict(turn) for turn in ours], "synchronous": [asdict(turn) for turn in other]}
            figures.append(
                Figure(f"{_callers(callers)}: {what}", gain, "×", note=note, data=data if what == "memory" else {})
            )
        shares = [f"{name} {max(turn.errors for turn in results[name][callers]):.2%}" for name in results]
        worst = max(turn.errors for turn in ours)
        figures.append(
            Figure(f"{_callers(callers)}: errors, ours", 100 * worst, "%", 0, at_most=True, note=", ".join(shares))
        )
    return figures


def _callers(count: int) -> str:
    return f"{count:,} caller{'' if count == 1 else 's'}"


def recovered(trouble: dict[str, Turn], down: float) -> list[Figure]:
    ours, other = trouble["ours"], trouble["synchronous"]
    accepted = f"{ours.answered.requests:,} accepted; synchronous: {other.answered.errors:,} errors, {other.answered.requests:,} booked"
    after = f"{ours.settled:,} booked"
    lost = f"synchronous: {other.left:,} of {other.stored:,}, which its callers have to send again"
    return [
        Figure(f"processor fails for {down:.0f} s: errors seen by callers, ours", ours.answered.errors, "", 0, at_most=True, note=accepted),
        Figure("from its recovery until all accepted are booked, ours", ours.back_after, "s", note=after),
        Figure("accepted and never booked, ours", ours.left, "", 0, at_most=True, note=lost),
    ]  # fmt: skip
