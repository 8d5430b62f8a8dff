"""PgQueuer's turns. Its set-up is in bench/queue/peer_pgqueuer.py."""

from bench.jobs.turn import Turn, Way, counted, part
from bench.place import Place

MODULE = "bench.queue.peer_pgqueuer"
BATCH = 1000  # jobs per claim: with one connection of asyncpg's the fastest of 18 configurations

WORKED = """
    SELECT count(*) FILTER (WHERE status = 'successful'),
        extract(epoch FROM max(created) FILTER (WHERE status = 'successful') - min(created) FILTER (WHERE status = 'picked'))::float8
    FROM pgqueuer_log WHERE id > %s
"""


def turn(here: Place, way: Way, jobs: int) -> Turn:
    turn = Turn(jobs)
    with counted(here, turn):
        said = part(here, MODULE, "enqueue", here.database_url, jobs, way.tasks, way.per_call)
        if (said["jobs"], said["left"]) != (jobs, jobs):
            raise AssertionError(f"PgQueuer has {said['left']} jobs of {jobs}")
        turn.enqueue, turn.cost.enqueue = said["seconds"], said["cpu"]
        logged = here.ask("SELECT max(id) FROM pgqueuer_log")
        said = part(here, MODULE, "work", here.database_url, jobs, BATCH)
    turn.cost.work = said["cpu"]
    with here.connect() as connection:
        done, turn.work = connection.execute(WORKED, (logged,)).fetchone()  # type: ignore[misc]
    if (done, said["jobs"], said["left"]) != (jobs, jobs, 0):
        raise AssertionError(f"PgQueuer did {said['jobs']} of {jobs}, {done} are in its log")
    return turn
