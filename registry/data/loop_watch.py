"""Watch of an event loop: notice a turn that takes too long, while everything else in the process waits for it.

A timer on the loop measures the delay of its own turns; a thread notes meanwhile what has the loop. Both web and worker processes
run it, from their start. Others may ask to be called when the loop stands still for longer: queueing/jobs/stall.py does.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings

from registry.data.loop import PerLoop
from registry.telemetry import context, slow

PROJECT = Path(__file__).resolve().parents[2]
LONGEST_TICK = 0.5  # seconds between turns of the timer, and between looks of the thread
FRAMES = 6  # innermost calls that a warning names
MILLISECONDS = 1000

type Call = Callable[[asyncio.Task[Any] | None], None]


class Alarm(NamedTuple):
    """Call `call` in the thread, once for each time that the loop stands still for `seconds`, with the task that has the loop."""

    seconds: float
    call: Call


class LoopWatch:
    """The watch of the running loop, from its creation to `close`."""

    def __init__(self, limit: float) -> None:
        """`limit`: seconds of one turn that are a warning; 0: none are."""
        self._limit = limit or float("inf")
        self._every = min(self._limit / 4, LONGEST_TICK)
        self._loop, self._thread_id = asyncio.get_running_loop(), threading.get_ident()
        self._alarms: dict[Alarm, float] = {}  # and of which turn it was called last
        self._running: dict[str, Any] = {}  # what had the loop when the limit was passed
        self._ticked_at, self._used = time.monotonic(), time.process_time()
        self._ended = threading.Event()
        self._timer = self._loop.call_later(self._every, self._tick)
        threading.Thread(target=self._watch, name="loop-watch", daemon=True).start()

    def when_still(self, seconds: float, call: Call) -> None:
        self._alarms[Alarm(seconds, call)] = 0.0

    async def close(self) -> None:
        self._ended.set()
        self._timer.cancel()

    def _tick(self) -> None:
        now, used = time.monotonic(), time.process_time()
        late, running = now - self._ticked_at - self._every, self._running
        if late >= self._limit:
            slow.loop(late, processor_seconds=used - self._used, **running)
        self._ticked_at, self._used, self._running = now, used, {}
        self._timer = self._loop.call_later(self._every, self._tick)

    # -- In the thread -------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        looked_at = resumed_at = time.monotonic()
        while not self._ended.wait(self._every):
            now = time.monotonic()
            if now - looked_at > 2 * LONGEST_TICK:  # the whole process was suspended, and the loop with it
                resumed_at = now
            looked_at = now
            ticked_at = self._ticked_at
            if now - ticked_at - self._every >= self._limit and not self._running:
                self._running = self._described(asyncio.current_task(self._loop))
            for alarm, called_for in list(self._alarms.items()):
                if now - max(ticked_at, resumed_at) > alarm.seconds and called_for != ticked_at:
                    self._alarms[alarm] = ticked_at
                    alarm.call(asyncio.current_task(self._loop))

    def _described(self, task: asyncio.Task[Any] | None) -> dict[str, Any]:
        frame = sys._current_frames().get(self._thread_id)
        calls = traceback.extract_stack(frame)[-FRAMES:]
        found: dict[str, Any] = {"running": [f"{_short(one.filename)}:{one.lineno} {one.name}" for one in calls]}
        if task:
            values = task.get_context()
            found |= {"task": getattr(task.get_coro(), "__qualname__", "")}
            wanted: tuple[ContextVar[Any], ...] = (context.REQUEST, context.TENANT, context.PAYMENT)
            found |= {one.name: values[one] for one in wanted if values.get(one)}
        return found


def _short(path: str) -> str:
    return path.removeprefix(f"{PROJECT}/").rpartition("site-packages/")[2]


watches: PerLoop[LoopWatch] = PerLoop(
    lambda: LoopWatch(settings.LOG_SLOW_LOOP_MS / MILLISECONDS), close=LoopWatch.close
)
