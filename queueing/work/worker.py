"""RQ's worker with what a drain needs: it always has one to run, and stops it gently. What it does without Redis, alone.py says."""

import contextlib
import os
import signal
from typing import Any

from redis.client import Pipeline
from redis.exceptions import RedisError
from rq import Worker
from rq.exceptions import DequeueTimeout, StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.queue import Queue
from rq.worker import WorkerStatus

from queueing.work.entry import DRAIN_TIMEOUT, DRAINS
from registry.data import redis_health

USE = "jobs"  # in the log, when Redis fails
HORSE_TIMEOUT = 1.0  # seconds for an answer of Redis to a process at work


class GentleWorker(Worker):
    """Tells its horse to stop, where RQ's own only waits for it. What Redis refuses ends `serve`, and not the horse at work."""

    dequeue_timeout = 1  # seconds that one request for a job waits in Redis; RQ's own 405 would hide that Redis hangs
    connection_timeout = 2  # seconds for any answer of Redis; longer than the wait above. Three of them fit into a stop

    def serve(self) -> None:
        """RQ's `work`, which raises RedisError where RQ's own writes a stack to the log and ends the process.

        Told to stop, it returns or raises StopRequested.
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
        """Before each request for a job."""

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()
        # The horse asks nothing that Redis would be slow to answer, and is waited for when it is told to stop.
        self.connection.connection_pool.connection_kwargs["socket_timeout"] = HORSE_TIMEOUT

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """In the horse. Work that is done is done, whether or not Redis takes note of it."""
        try:
            return super().perform_job(job, queue, execution)
        except RedisError as error:
            redis_health.record_error(USE, error)
            return False

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: Any) -> None:
        if isinstance(exc_info[1], RedisError):
            raise exc_info[1]  # it would not take note of the failure either
        super()._finalize_failure(job, queue, execution, exc_info)

    def handle_warm_shutdown_request(self) -> None:
        super().handle_warm_shutdown_request()
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def maintain_heartbeats(self, *args: Any, **kwargs: Any) -> None:
        """The horse works on PostgreSQL: what Redis has is no reason to abandon it."""
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
        """Nobody sends commands to a worker by way of Redis; its thread would log each try to reach it."""

    def set_shutdown_requested_date(self) -> None:
        """For RQ's dashboard. It is written by a signal handler, where an error would leave the horse alone."""

    def teardown(self) -> None:
        with contextlib.suppress(RedisError):
            super().teardown()


class DrainWorker(GentleWorker):
    """A worker with nothing to do gives itself a drain: also after Redis lost everything."""

    drains: tuple[str, ...] = ()

    def find_work(self) -> None:
        queue = self.queues[0]
        if not queue.count:
            names = self.drains or tuple(DRAINS)
            queue.enqueue(
                "queueing.work.entry.drain", *names, job_timeout=DRAIN_TIMEOUT, result_ttl=0, failure_ttl=3600
            )
