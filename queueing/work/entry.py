"""Entry points of RQ jobs: a drain, a chore, and all chores without Redis. Apps register their kinds of work by queue name."""

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Sequence

import uvloop
from asgiref.sync import async_to_sync

from queueing import spill
from queueing.work import chore_runs
from queueing.work.drain import Drain, forever
from queueing.work.work import Work
from registry.data import chores, clock_watch, database, faults, garbage, loop_watch
from registry.data.lease import HeldLease, renewing
from registry.data.loop import end_loop
from registry.errors import Unavailable
from registry.tenants import sampling

log = logging.getLogger(__name__)

DRAIN_SECONDS = 900  # of one RQ job, on average; a new process from time to time frees memory and connections
DRAIN_TIMEOUT = DRAIN_SECONDS * 2  # seconds until RQ kills a drain that hangs
CHORE_TIMEOUT = 600  # seconds for one chore
PARENT_CHECK = 0.5  # seconds between checks whether the parent process, RQ's worker, is alive

DRAINS: dict[str, Callable[[], Work]] = {}


def register[Kind: Callable[[], Work]](queue: str) -> Callable[[Kind], Kind]:
    """Class decorator: workers run this kind of work for `queue`."""

    def add(kind: Kind) -> Kind:
        DRAINS[queue] = kind
        return kind

    return add


def drain(*queues: str, pool: str = "", takes: Sequence[str] = (), pool_size: str = "") -> None:
    """RQ entry point: drain `queues` in parallel until SIGTERM. It closes everything that it opens."""
    with garbage.calm(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_drain(queues, pool, takes, pool_size))


async def _drain(queues: Sequence[str], pool: str, takes: Sequence[str], pool_size: str) -> None:
    parent = os.getppid()
    loop_watch.watches.get()
    clock_watch.watches.get()
    drains = [Drain(DRAINS[queue](), pool=pool, takes=takes, pool_size=pool_size) for queue in queues]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for drain in drains:
            drain.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)

    async def watch_parent() -> None:
        # `kill -9` of RQ's worker leaves this process alive, in a process group of its own: nothing else would stop it.
        if os.getppid() != parent:
            log.warning("RQ's worker was killed; stopping")
            stop()
        await asyncio.sleep(PARENT_CHECK)

    async def run(drain: Drain, seconds: float) -> None:
        try:
            await drain.run(seconds=seconds)
        finally:
            stop()  # all drains end together, or the one that ended would be missing until this job ends

    watching = loop.create_task(forever(watch_parent))
    try:
        seconds = DRAIN_SECONDS * random.uniform(0.8, 1.2)
        await sampling.start()
        async with spill.drain_shared(), asyncio.TaskGroup() as group:
            for one in drains:
                group.create_task(run(one, seconds))
    finally:
        watching.cancel()
        try:
            await asyncio.gather(*(drain.work.close() for drain in drains))
        finally:
            await end_loop()


def housekeep() -> None:
    """Run all chores when they are due, one after the other, while Redis is unavailable. For DRAIN_SECONDS, or until killed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_housekeep())


async def _housekeep() -> None:
    try:
        await _run_when_due()
    finally:
        await end_loop()


async def _run_when_due() -> None:
    """While this process holds the lease, as cron does with Redis: one of all hosts runs what is due."""
    parent, cron = os.getppid(), HeldLease(chore_runs.CRON)
    async with renewing(cron):
        end = time.monotonic() + DRAIN_SECONDS
        while os.getppid() == parent and time.monotonic() < end:
            for name in await _due() if cron.held else []:
                try:
                    async with asyncio.timeout(CHORE_TIMEOUT), database.own_connection():
                        await _run_chore(name)
                except Exception as error:
                    log.warning("a chore failed", extra={"chore": name, "error": repr(error)})
            await asyncio.sleep(PARENT_CHECK)


async def _due() -> list[str]:
    try:
        return await chore_runs.due(chores.CHORES)
    except Unavailable:
        return []


def chore(name: str) -> None:
    """RQ entry point: run a chore by name, if it is due and no other process runs it: several hosts may have enqueued it."""
    async_to_sync(_chore)(name)


async def _chore(name: str) -> None:
    try:
        await _run_chore(name)
    finally:
        await end_loop()


async def _run_chore(name: str) -> None:
    try:
        async with chore_runs.claimed(name) as mine:
            if mine:
                await chore_runs.recorded(name)
    except Exception as error:
        if not faults.is_temporary(error):
            raise
        faults.warn(log, "a chore was skipped; it runs again at its next time", error=error, chore=name)
