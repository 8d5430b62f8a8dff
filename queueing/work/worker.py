"""RQ's worker, adapted to drains: it always runs one, stops it gently, and survives errors of Redis (without_redis.py)."""

import contextlib
import os
import signal
from typing import Any

from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Worker
from rq.exceptions import DequeueTimeout, InvalidJobOperation, StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.worker import WorkerStatus

from queueing.work.entry import DRAIN_TIMEOUT, DRAINS
from registry.data import redis_health

USE = "jobs"  # name in the log for errors of Redis
HORSE_TIMEOUT = 1.0  # seconds for an answer of Redis to the process that runs a job


class GentleWorker(Worker):
    """On a stop it signals its horse (the process that runs the job), for which RQ only waits. An error of Redis ends `serve`, but not a job."""

    dequeue_timeout = (
        1  # seconds that one request for a job waits in Redis; RQ's default of 405 would hide that Redis hangs
    )
    connection_timeout = 2  # seconds for any answer of Redis; longer than dequeue_timeout. A stop has time for three

    def serve(self) -> None:
        """Like RQ's `work`, but raises RedisError, which RQ logs with a stack trace before it ends the process.

        After a stop signal it returns or raises StopRequested.
        """
        self.bootstrap("WARNING")
        self._install_signal_handlers()
        try:
            while not self._stop_requested:
                self.execute_job(*self.dequeue_job_and_maintain_ttl(self.dequeue_timeout))
            self.teardown()
        except RedisError as error:
            if self._stop_requested:
                raise StopRequested from error
            raise
        except StopRequested:
            self.teardown()

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> tuple[Job, Queue]:
        self.set_state(WorkerStatus.IDLE)
        while True:
            self.find_work()
            self.heartbeat()
            if self.should_run_maintenance_tasks:
                self.run_maintenance_tasks()
            with contextlib.suppress(DequeueTimeout):
                found = self.queue_class.dequeue_any(
                    self._ordered_queues, timeout, connection=self.connection, serializer=self.serializer
                )
                redis_health.record_success(USE)
                assert found
                found[0].redis_server_version = self.get_redis_server_version()
                return found

    def find_work(self) -> None:
        """Called before each request for a job."""

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()
        # The horse makes only quick requests, and a stop waits for it.
        self.connection.connection_pool.connection_kwargs["socket_timeout"] = HORSE_TIMEOUT

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Runs in the horse. A job is done even if Redis does not record that."""
        try:
            return super().perform_job(job, queue, execution)
        except RedisError as error:
            redis_health.record_error(USE, error)
            return False
        except InvalidJobOperation:
            return False  # Redis lost its data meanwhile: it does not know the job any more

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: Any) -> None:
        if isinstance(exc_info[1], RedisError | InvalidJobOperation):
            raise exc_info[1]  # the failure cannot be recorded in Redis either
        super()._finalize_failure(job, queue, execution, exc_info)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def maintain_heartbeats(self, *args: Any, **kwargs: Any) -> None:
        """The horse works on PostgreSQL: an error of Redis is no reason to kill it."""
        try:
            super().maintain_heartbeats(*args, **kwargs)
            redis_health.record_success(USE)
        except RedisError as error:
            redis_health.record_error(USE, error)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        try:
            super().heartbeat(timeout, pipeline)
        except RedisError:
            if not self.horse_pid:
                raise

    def subscribe(self) -> None:
        """No commands are sent to workers through Redis; RQ's thread for them would log each error of Redis."""

    def set_shutdown_requested_date(self) -> None:
        """Not recorded: a signal handler would do it, and an error there would leave the horse running."""

    def teardown(self) -> None:
        with contextlib.suppress(RedisError):
            super().teardown()


class DrainWorker(GentleWorker):
    """A worker that enqueues a drain if there is none, so that it also works after Redis has lost its data."""

    drains: tuple[str, ...] = ()
    pool = ""
    takes: tuple[str, ...] = ()  # of its pool
    pool_size = ""

    def find_work(self) -> None:
        queue = self.queues[0]
        if not queue.count:
            names = self.drains or tuple(DRAINS)
            queue.enqueue(
                "queueing.work.entry.drain",
                args=names,
                kwargs={"pool": self.pool, "takes": self.takes, "pool_size": self.pool_size},
                job_timeout=DRAIN_TIMEOUT,
                result_ttl=0,
                failure_ttl=3600,
            )
