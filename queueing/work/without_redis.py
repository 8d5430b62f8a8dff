"""Workers during an outage of Redis: a child process does the same work without an RQ job, until Redis accepts writes again.

Redis only starts drains and chores; their rows are in PostgreSQL, so that nothing has to wait for Redis.
"""

import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from django.conf import settings
from redis.exceptions import RedisError
from rq.exceptions import StopRequested

from queueing.work.entry import DRAIN_TIMEOUT
from queueing.work.worker import USE, GentleWorker
from registry.data import redis_health
from registry.servers.processes import holds_within

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0  # seconds between checks whether Redis accepts writes
STEADY = 10.0  # seconds for which it must accept writes before jobs are used again: a Redis at its memory limit fails on and off
PAUSE = 1.0  # seconds until a child that failed is replaced
STEP = 0.1  # seconds between checks for a stop signal
END_LIMIT = 5.0  # seconds for the child to finish or give back its rows; `up` kills after 7

type Task = Callable[[], None]


def serve(worker: Callable[[], GentleWorker], work: Task) -> None:
    """Run jobs from Redis while it is available, else `work` in a child process; until a stop signal."""
    child = _Child(work)
    while not child.stopping:
        if trouble := redis_health.probe_sync(settings.RQ_REDIS_URL):
            redis_health.record_trouble(USE, trouble)
        else:
            try:
                worker().serve()
                return
            except StopRequested:
                return
            except RedisError as error:
                redis_health.record_error(USE, error)
        child.run()


class _Child:
    """The child process, and the checks of Redis while it runs."""

    def __init__(self, work: Task) -> None:
        self.work = work
        self.pid = 0
        self.started = 0.0
        self.stopping = False
        self._handle_signals()

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def run(self) -> None:
        """Run until Redis has been available for STEADY seconds, or a stop signal."""
        self._handle_signals()  # RQ's worker had replaced the handlers
        available_since: float | None = None
        try:
            while not self.stopping and (available_since is None or time.monotonic() - available_since < STEADY):
                if not self._child_lives():
                    self._start()
                self._wait(LOOK_EVERY)
                if trouble := redis_health.probe_sync(settings.RQ_REDIS_URL):
                    redis_health.record_trouble(USE, trouble)
                    available_since = None
                elif available_since is None:
                    available_since = time.monotonic()
        finally:
            self._end()

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopping and time.monotonic() < until:
            time.sleep(STEP)

    def _start(self) -> None:
        self.started = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            _run_in_child(self.work)

    def _child_lives(self) -> bool:
        if not self.pid:
            return False
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        if not ended:
            if time.monotonic() - self.started > DRAIN_TIMEOUT:  # as RQ kills a job that hangs
                os.kill(self.pid, signal.SIGKILL)
            return True
        self.pid = 0
        if status:
            log.warning("work without Redis failed; it is started again", extra={"status": status})
            self._wait(PAUSE)
        return False

    def _end(self) -> None:
        """Stop the child: it finishes its rows in flight, or gives them back."""
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            if not holds_within(END_LIMIT, lambda: bool(os.waitpid(self.pid, os.WNOHANG)[0])):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            self.pid = 0


def _run_in_child(work: Task) -> None:
    """Like RQ's horse: a process group of its own, and an exit without the parent's exit handlers."""
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    random.seed()
    status = 1
    try:
        work()
        status = 0
    except Exception:
        log.exception("work without Redis failed")
    finally:
        sys.stdout.flush()
        os._exit(status)
