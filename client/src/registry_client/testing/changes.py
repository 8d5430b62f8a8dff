"""Waiting for changes of the test double, in threads and in event loops."""

import asyncio
import threading
from collections.abc import Callable


class Changes:
    """Wakes everybody who waits for a change."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # held while the double's state is read or changed
        self._wakers: set[Callable[[], None]] = set()

    def notify(self) -> None:
        with self.lock:
            wakers, self._wakers = self._wakers, set()
        for wake in wakers:
            wake()

    def thread_waiter(self) -> threading.Event:
        """Set at the next change."""
        event = threading.Event()
        with self.lock:
            self._wakers.add(event.set)
        return event

    def loop_waiter(self) -> asyncio.Event:
        """Set at the next change, on the running loop."""
        event, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

        with self.lock:
            self._wakers.add(wake)
        return event
