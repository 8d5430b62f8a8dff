"""Jobs while workers are killed, Redis is emptied and PostgreSQL restarts: none is lost, none runs twice at once, nobody has to help."""

import os
import random

from tests.chaos.job_storm import JobStorm, Strikes
from tests.chaos.service import Service
from tests.depth import deep

JOBS = deep(400, 5000)
STRIKES = Strikes(kills=deep(3, 10), flushes=1, restarts=1)


async def test_a_storm_loses_no_job_and_runs_none_twice_at_once(service: Service):
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    print(f"CHAOS_SEED={seed} repeats this storm")  # shown when it fails
    storm = JobStorm(service, STRIKES, total=JOBS, seed=seed)

    found = await storm.run()

    assert found == []
    assert storm.struck.total() == STRIKES.kills + STRIKES.flushes + STRIKES.restarts
