"""`manage.py cron`: RQ's scheduler, which enqueues chores for the housekeeping worker."""

import contextlib
import time

from django.core.management.base import BaseCommand
from redis.exceptions import RedisError
from rq.cron import CronScheduler
from rq.exceptions import SchedulerNotFound, StopRequested

from queueing.work import rq_queues
from queueing.work.entry import CHORE_TIMEOUT, chore
from registry.data import redis_health
from registry.data.chores import CHORES
from registry.management.base import service_name

USE = "schedule"  # name in the log for errors of Redis
RETRY = 2.0  # seconds until Redis is tried again; meanwhile the housekeeping worker runs chores by its own clock


class Scheduler(CronScheduler):
    """RQ's scheduler, but an outage of Redis does not end it."""

    def start(self) -> None:
        self._install_signal_handlers()
        try:
            while True:
                try:
                    if self.enqueue_jobs():
                        self.save()
                    self.heartbeat()  # registers too if the registration is lost
                except RedisError as error:
                    redis_health.record_error(USE, error)
                    time.sleep(RETRY)
                else:
                    redis_health.record_success(USE)
                    time.sleep(self.calculate_sleep_interval())
        except (StopRequested, KeyboardInterrupt):
            with contextlib.suppress(RedisError, SchedulerNotFound):
                self.register_death()


class Command(BaseCommand):
    help = "Schedule the chores (ledger proof, clean-up)."
    requires_system_checks = ()

    def handle(self, **_: object) -> None:
        service = service_name()
        scheduler = Scheduler(connection=rq_queues.connection(), logging_level="WARNING")
        for name, work in CHORES.items():
            scheduler.register(
                chore,
                rq_queues.queue_name("housekeeping"),
                args=(name,),
                interval=work.every,
                job_timeout=CHORE_TIMEOUT,
                result_ttl=0,
                name=f"{service}:{name}",
            )
        scheduler.start()
