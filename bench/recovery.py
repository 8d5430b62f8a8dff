"""All connections to PostgreSQL are cut under load: time without an accepted payment, and errors seen by callers."""

import time
from concurrent.futures import ThreadPoolExecutor

from bench import load
from bench.accept import Subject, check, subjects
from bench.figures import Effort, Figure, median
from bench.place import Place, place, progress

CONNECTIONS = 32
SECONDS = 6.0
CUT_AFTER = 3.0  # seconds from the start of the load
ROUNDS = {Effort.QUICK: 1, Effort.NORMAL: 3, Effort.FULL: 5}
CUT = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def run(effort: Effort) -> list[Figure]:
    with place("accept") as ours, place("stock", migrated=False) as plain, subjects(ours, plain) as (a, b, *_):
        results: dict[str, list[load.Result]] = {a.name: [], b.name: []}
        with progress() as bars:
            bar = bars.add_task("cutting connections", total=2 * ROUNDS[effort])
            for _ in range(ROUNDS[effort]):
                for here, subject in ((ours, a), (plain, b)):
                    results[subject.name].append(cut_under_load(here, subject))
                    bars.advance(bar)
    return [figure(name, several) for name, several in results.items()]


def cut_under_load(here: Place, subject: Subject) -> load.Result:
    asked = load.Load(subject.process.port, CONNECTIONS, SECONDS, path=subject.path, headers=subject.headers)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(load.run_own, asked)
        time.sleep(CUT_AFTER)
        here.ask(CUT)
        result = running.result()
    check(subject, result)
    return result


def figure(name: str, several: list[load.Result]) -> Figure:
    errors = sum(result.errors for result in several)
    note = f"{errors} errors, {sum(result.requests for result in several):,} accepted, {len(several)} cuts"
    return Figure(
        f"{name}, longest silence after a cut", median([result.silence for result in several]), "ms", note=note
    )
