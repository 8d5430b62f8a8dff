"""A worker while Redis does not serve: the same work in a child process, without a job, until Redis takes writes again.

Redis only hands out drains and chores; the rows that they work on are in PostgreSQL. So nothing waits for Redis.
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

LOOK_EVERY = 1.0  # seconds between looks whether Redis takes writes
STEADY = 10.0  # seconds that it must have done so before work goes back to it: a Redis at its limit comes and goes
PAUSE = 1.0  # seconds before a child that ended is replaced
STEP = 0.1  # seconds between looks whether we are told to stop
END_LIMIT = 5.0  # seconds for the child to finish or hand back; `up` kills after 7

type Work = Callable[[], None]


def serve(worker: Callable[[], GentleWorker], work: Work) -> None:
    """Jobs from Redis while it serves, else `work` alone; until told to stop."""
    alone = _Alone(work)
    while not alone.stopping:
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
        alone.run()


class _Alone:
    """One child at work, and the watch over Redis beside it."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.child = 0
        self.started = 0.0
        self.stopping = False
        self._listen_to_signals()

    def _listen_to_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def run(self) -> None:
        """Until Redis has served for STEADY seconds, or told to stop."""
        self._listen_to_signals()  # RQ's worker had its own
        well_since: float | None = None
        try:
            while not self.stopping and (well_since is None or time.monotonic() - well_since < STEADY):
                if not self._child_lives():
                    self._start()
                self._wait(LOOK_EVERY)
                if trouble := redis_health.probe_sync(settings.RQ_REDIS_URL):
                    redis_health.record_trouble(USE, trouble)
                    well_since = None
                elif well_since is None:
                    well_since = time.monotonic()
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
        self.child = os.fork()
        if not self.child:
            _be_the_child(self.work)

    def _child_lives(self) -> bool:
        if not self.child:
            return False
        ended, status = os.waitpid(self.child, os.WNOHANG)
        if not ended:
            if time.monotonic() - self.started > DRAIN_TIMEOUT:  # as RQ does with a job that hangs
                os.kill(self.child, signal.SIGKILL)
            return True
        self.child = 0
        if status:
            log.warning("work without Redis ended, starting it again", extra={"status": status})
            self._wait(PAUSE)
        return False

    def _end(self) -> None:
        """It finishes what is in flight, or hands it back."""
        if self.child:
            os.kill(self.child, signal.SIGTERM)
            if not holds_within(END_LIMIT, lambda: bool(os.waitpid(self.child, os.WNOHANG)[0])):
                os.kill(self.child, signal.SIGKILL)
                os.waitpid(self.child, 0)
            self.child = 0


def _be_the_child(work: Work) -> None:
    """As RQ's horse: in a group of its own, and out without the parent's endings."""
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
