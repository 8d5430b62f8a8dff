"""RQ's worker with what a drain needs: it always has one to run, stops it gently, and survives Redis going away."""

import contextlib
import logging
import os
import signal
from typing import Any

import redis.exceptions
from rq import Worker

from queueing.tasks import DRAIN_TIMEOUT, DRAINS

log = logging.getLogger(__name__)

REDIS_AWAY = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


class GentleWorker(Worker):
    """Tells its horse to stop, where RQ's own only waits for it."""

    max_connection_wait_time = 2.0  # seconds between tries while Redis is away; RQ's own goes up to 60

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def maintain_heartbeats(self, *args: Any, **kwargs: Any) -> None:
        # The horse works on PostgreSQL; that Redis is away is no reason to abandon it.
        try:
            super().maintain_heartbeats(*args, **kwargs)
        except REDIS_AWAY as error:
            log.warning("Redis is away, the drain goes on", extra={"error": str(error)[:200]})


class DrainWorker(GentleWorker):
    """A worker with nothing to do gives itself a drain: also after Redis lost everything."""

    drains: tuple[str, ...] = ()

    def dequeue_job_and_maintain_ttl(self, *args: Any, **kwargs: Any) -> Any:
        queue = self.queues[0]
        with contextlib.suppress(*REDIS_AWAY):
            if not queue.count:
                names = self.drains or tuple(DRAINS)
                queue.enqueue("queueing.tasks.drain", *names, job_timeout=DRAIN_TIMEOUT, result_ttl=0, failure_ttl=3600)
        return super().dequeue_job_and_maintain_ttl(*args, **kwargs)
