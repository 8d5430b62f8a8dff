"""What RQ runs. Apps register what they drain by name, so that this room knows names and not modules."""

import asyncio
import logging
import os
import random
import signal
from collections.abc import Awaitable, Callable

import uvloop
from asgiref.sync import async_to_sync

from queueing import spill
from queueing.drain import Drain, Job, forever
from registry.sync import end_loop

log = logging.getLogger(__name__)

DRAIN_SECONDS = 900  # of one RQ job; a fresh process now and then keeps memory and connections fresh
DRAIN_TIMEOUT = DRAIN_SECONDS * 2  # seconds after which RQ takes a drain for stuck and kills it
PARENT_CHECK = 0.5  # seconds between looks whether the RQ worker above us still lives

DRAINS: dict[str, Callable[[], Job]] = {}
CHORES: dict[str, Callable[[], Awaitable[object]]] = {}  # name → a housekeeping coroutine


def drain(queue: str) -> None:
    """RQ entry point: drain `queue` until told to stop. Everything it opens, it closes."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_drain(queue))


async def _drain(queue: str) -> None:
    parent = os.getppid()
    drain = Drain(DRAINS[queue]())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain.stop)

    async def watch_parent() -> None:
        # `kill -9` of the RQ worker leaves its horse alive in a process group of its own: nobody would stop it any more.
        if os.getppid() != parent:
            log.warning("the worker above is gone; stopping")
            drain.stop()
        await asyncio.sleep(PARENT_CHECK)

    watching = loop.create_task(forever(watch_parent))
    try:
        async with spill.carrying():
            await drain.run(seconds=DRAIN_SECONDS * random.uniform(0.8, 1.2))
    finally:
        watching.cancel()
        await drain.job.close()
        await end_loop()


def chore(name: str) -> None:
    """RQ entry point of a housekeeping task, by name."""
    async_to_sync(_chore)(name)


async def _chore(name: str) -> None:
    try:
        await CHORES[name]()
    finally:
        await end_loop()
