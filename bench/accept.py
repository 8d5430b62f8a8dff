"""Durable accepts per second, compared with the same body through stock Django and with a bare echo.

All three run as one uvicorn process each, side by side, and are loaded in turn. Ours checks the key, detects an
earlier payment with the same id, writes payment and event in one commit. Stock Django reads the key by one indexed query
and inserts the payment by `acreate`; see bench/stock.
"""

import hashlib
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from bench.figures import Effort, Figure, median
from bench.load import Load, Result
from bench.load import run as drive
from bench.machine import durability_of
from bench.place import Place, Process, place, progress, uvicorn, web

CONNECTIONS = (32, 1, 8, 128)  # the targets apply to the first
WARM_UP = 2.0  # seconds: pools open, keys are cached, statements prepared
SECONDS = {Effort.QUICK: 2.0, Effort.NORMAL: 10.0, Effort.FULL: 20.0}
ROUNDS = {Effort.QUICK: 1, Effort.NORMAL: 3, Effort.FULL: 5}
STOCK_KEY = "stock-key"


@dataclass(frozen=True)
class Subject:
    name: str
    process: Process
    headers: dict[str, str]
    path: str = "/payments"

    def driven(self, connections: int, seconds: float) -> Result:
        return drive(Load(self.process.port, connections, seconds, path=self.path, headers=self.headers))


def run(effort: Effort) -> list[Figure]:
    with place("accept") as ours, place("stock", migrated=False) as plain, subjects(ours, plain) as (a, b, bare, c):
        results = measure((a, b, c), effort)
        key_less = bare.driven(CONNECTIONS[0], SECONDS[effort])
        check_books(ours, results["ours"])
        return [*ratios(results), *rates(results, key_less), *costs(ours, plain, a, b, results)]


@contextmanager
def subjects(ours: Place, plain: Place) -> Iterator[tuple[Subject, Subject, Subject, Subject]]:
    key = {"Authorization": f"Bearer {STOCK_KEY}"}
    with (
        web(ours) as a,
        stock(plain) as b,
        uvicorn(plain, "echo", "bench.echo:application") as c,
    ):
        yield (
            Subject("ours", a, ours.headers),
            Subject("stock", b, key),
            Subject("stock without key", b, key, "/payments-without-key"),
            Subject("echo", c, ours.headers),
        )


@contextmanager
def stock(plain: Place) -> Iterator[Process]:
    settings = "bench.stock.settings"
    plain.environment["DJANGO_SETTINGS_MODULE"] = settings
    plain.manage("migrate", "--run-syncdb", "--verbosity", "0", "--settings", settings)
    with plain.connect() as connection:
        durability_of(connection)
        connection.execute("INSERT INTO stock_tenant (id, slug, currency) VALUES (1, 'bench', 'BRL')")
        digest = hashlib.sha256(STOCK_KEY.encode()).hexdigest()
        connection.execute("INSERT INTO stock_apikey (tenant_id, digest) VALUES (1, %s)", (digest,))
    with uvicorn(plain, "stock", "bench.stock.asgi:application") as process:
        yield process


def measure(all_three: tuple[Subject, ...], effort: Effort) -> dict[str, dict[int, list[Result]]]:
    """Name → connections → one result per round. The subjects alternate, so that a busy moment affects all alike."""
    results: dict[str, dict[int, list[Result]]] = {subject.name: {n: [] for n in CONNECTIONS} for subject in all_three}
    turns = [
        (n, subject)
        for n in CONNECTIONS
        for _ in range(ROUNDS[effort] if n == CONNECTIONS[0] else 1)
        for subject in all_three
    ]
    with progress() as bars:
        bar = bars.add_task("warming up", total=len(turns))
        for subject in all_three:
            check(subject, subject.driven(CONNECTIONS[0], WARM_UP))
        for connections, subject in turns:
            bars.update(bar, description=f"{subject.name}, {connections} connections")
            result = subject.driven(connections, SECONDS[effort])
            check(subject, result)
            results[subject.name][connections].append(result)
            bars.advance(bar)
    return results


def check(subject: Subject, result: Result) -> None:
    subject.process.check()
    if not result.requests:
        raise RuntimeError(
            f"{subject.name} accepted nothing, {result.errors} errors: {subject.process.log.read_text()[-2000:]}"
        )


def check_books(ours: Place, results: dict[int, list[Result]]) -> None:
    """Verify that every 202 has a row with its event."""
    answered = sum(result.requests for several in results.values() for result in several)
    payments = ours.ask("SELECT count(*) FROM payments_payment")
    events = ours.ask("SELECT count(*) FROM payments_paymentevent")
    if not answered <= payments == events:
        raise AssertionError(f"{answered} answered, but {payments} payments with {events} events are in the database")


def ratios(results: dict[str, dict[int, list[Result]]]) -> list[Figure]:
    at = CONNECTIONS[0]
    ours, stock_, echo = (results[name][at] for name in ("ours", "stock", "echo"))
    to_stock = [a.rate / b.rate for a, b in zip(ours, stock_, strict=True)]
    to_echo = [a.rate / c.rate for a, c in zip(ours, echo, strict=True)]
    return [
        Figure(f"accepts against stock Django, {at} connections", median(to_stock), "×", 10, note=spread(to_stock)),
        Figure(f"accepts against a bare ASGI echo, {at} connections", median(to_echo), "×", 0.15, note=spread(to_echo)),
    ]


def spread(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g} in {len(values)} rounds" if len(values) > 1 else "one round"


def rates(results: dict[str, dict[int, list[Result]]], key_less: Result) -> list[Figure]:
    figures = [
        rate_of(name, connections, several)
        for name, by_connections in results.items()
        for connections, several in sorted(by_connections.items())
    ]
    return [*figures, rate_of("stock without key", CONNECTIONS[0], [key_less])]


def rate_of(name: str, connections: int, several: list[Result]) -> Figure:
    rate = statistics.mean(result.rate for result in several)
    p50, p99 = (median([getattr(result, point) for result in several]) for point in ("p50", "p99"))
    note = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"
    return Figure(
        f"{name}, {connections} connections", rate, "/s", note=note, data={"rounds": [asdict(r) for r in several]}
    )


def costs(
    ours: Place, plain: Place, a: Subject, b: Subject, results: dict[str, dict[int, list[Result]]]
) -> list[Figure]:
    """Resources of each: connections to PostgreSQL, memory, errors."""
    figures = []
    for where, subject in ((ours, a), (plain, b)):
        connections = where.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        errors = sum(r.errors for several in results[subject.name].values() for r in several)
        note = f"{connections} database connections, {errors} errors"
        figures.append(Figure(f"{subject.name}, memory", subject.process.memory, "MiB", note=note))
    return figures
