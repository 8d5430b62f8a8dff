"""`manage.py cron`: RQ's scheduler, which enqueues chores for the housekeeping workers of all hosts.

Every host with housekeeping runs one. The one that holds the lease enqueues; PostgreSQL says which chores are due.
"""

import asyncio
import contextlib
import signal
from collections.abc import Sequence

from django.conf import settings
from redis.exceptions import RedisError
from rq.cron import CronScheduler
from rq.exceptions import SchedulerNotFound

from queueing.work import chore_runs, rq_queues
from queueing.work.entry import CHORE_TIMEOUT, chore
from registry.data import redis_health
from registry.data.chores import CHORES
from registry.data.lease import RENEW_EVERY, HeldLease
from registry.errors import Unavailable
from registry.management.base import AsyncCommand, service_name

USE = "schedule"  # name in the log for errors of Redis
RETRY = 2.0  # seconds until Redis is tried again; meanwhile a housekeeping worker runs chores without it


class Scheduler(CronScheduler):
    """RQ's scheduler, but PostgreSQL decides which chores are due, and an outage of Redis does not end it."""

    async def run(self, stop: asyncio.Event) -> None:
        lease = HeldLease(chore_runs.CRON)
        try:
            while not stop.is_set():
                pause = RENEW_EVERY
                try:
                    await asyncio.to_thread(self.heartbeat)  # registers too if the registration is lost
                    if await lease.hold():
                        await asyncio.to_thread(self.enqueue, await _due())
                except RedisError as error:
                    redis_health.record_error(USE, error)
                    await lease.release()  # another host may have a Redis, or runs chores without one
                    pause = RETRY
                else:
                    redis_health.record_success(USE)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
        finally:
            await lease.release()
            with contextlib.suppress(RedisError, SchedulerNotFound):
                await asyncio.to_thread(self.register_death)

    def enqueue(self, due: Sequence[str]) -> None:
        """Enqueue these chores, but those that wait for a housekeeping worker already."""
        if not due:
            return
        waiting = {job.args[0] for job in rq_queues.queue("housekeeping", self.connection).jobs}
        for job in self.get_jobs():
            if job.args[0] in due and job.args[0] not in waiting:
                job.enqueue(self.connection)


async def _due() -> Sequence[str]:
    try:
        return await chore_runs.due(CHORES)
    except Unavailable:
        return ()


class Command(AsyncCommand):
    help = "Schedule the chores (ledger proof, clean-up), on one of all hosts that run this."

    async def run(self, **_: object) -> None:
        settings.DB_POOL_MIN = 1  # it asks for one thing after the other
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await (await asyncio.to_thread(scheduler)).run(stop)


def scheduler() -> Scheduler:
    service = service_name()
    found = Scheduler(connection=rq_queues.connection(), logging_level="WARNING")
    for name, work in CHORES.items():
        found.register(
            chore,
            rq_queues.queue_name("housekeeping"),
            args=(name,),
            interval=work.every,
            job_timeout=CHORE_TIMEOUT,
            result_ttl=0,
            name=f"{service}:{name}",
        )
    return found
