"""Our turns: jobs are enqueued in the process (submit.py) or through HTTP (client.py); one worker of the product does them."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.jobs.turn import Turn, Way, counted, part
from bench.place import Place, Process, wait_until, worker
from bench.queue.cost import seconds_of, seconds_of_tree

KINDS = {"REGISTRY_APPS": "tests.bed"}  # with a kind of job that does nothing
REGISTERED = "SELECT count(*) > 0 FROM queueing_worker WHERE queue = 'jobs'"
OPEN = "SELECT EXISTS (SELECT FROM queueing_job WHERE closed IS NULL)"
WORKED = """
    SELECT count(*) FILTER (WHERE status = 'succeeded' AND attempt = 1),
        extract(epoch FROM max(finished_at) - min(started_at))::float8
    FROM queueing_job WHERE id > %s
"""
LOOK_EVERY = 0.1  # seconds
STALLED = 300.0  # seconds until a turn is aborted


def with_kinds(here: Place) -> None:
    here.environment |= KINDS


def turn(here: Place, way: Way, jobs: int, web: Process | None = None) -> Turn:
    """Through HTTP where there is a web process."""
    turn = Turn(jobs)
    before = here.ask("SELECT coalesce(max(id), 0) FROM queueing_job")
    with counted(here, turn):
        with web_counted(turn, web):
            size = (jobs, way.tasks, way.per_call)
            client = ("bench.jobs.client", web.port, *size, here.key) if web else ("bench.jobs.submit", "bench", *size)
            said = part(here, *client)
        turn.enqueue = said["seconds"]
        turn.cost.enqueue += said["cpu"]
        work(here, turn)
    with here.connect() as connection:
        done, turn.work = connection.execute(WORKED, (before,)).fetchone()  # type: ignore[misc]
    if done != jobs:
        raise AssertionError(f"{done} of {jobs} jobs succeeded at their first attempt")
    return turn


@contextmanager
def web_counted(turn: Turn, web: Process | None) -> Iterator[None]:
    before = seconds_of(web.pid) if web else 0.0
    yield
    if web:
        web.check()
        turn.cost.enqueue += seconds_of(web.pid) - before


def work(here: Place, turn: Turn) -> None:
    """Run a worker until no job is open."""
    with worker(here, "--drain", "jobs") as working:
        wait_until(lambda: working.check() or here.ask(REGISTERED), "the worker begins", every=0.01)
        begun = seconds_of_tree(working.pid)
        with here.connect() as connection:
            wait_until(
                lambda: working.check() or connection.execute(OPEN).fetchone() == (False,),
                "all jobs are done",
                STALLED,
                every=LOOK_EVERY,
            )
        turn.cost.work = seconds_of_tree(working.pid) - begun
