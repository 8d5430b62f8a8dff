"""Publisher of hints: collects the hints of a short interval and sends them as one message."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from registry.data.loop import Tasks

log = logging.getLogger(__name__)

INTERVAL = 0.02  # seconds between two messages of one publisher: under load many commits share one


class Publisher[T]:
    """Passes the first hint to `send` at once, then every `interval` seconds all hints published since.

    Publishing never waits and never fails. A hint that cannot be sent is lost: receivers also poll.
    """

    def __init__(self, send: Callable[[list[T]], Awaitable[None]], *, interval: float = INTERVAL) -> None:
        self._send, self._interval = send, interval
        self._published: list[T] = []
        self._sending = False
        self._tasks = Tasks()

    def publish(self, hints: Iterable[T]) -> None:
        self._published.extend(hints)
        if self._published and not self._sending:
            self._sending = True
            self._tasks.start(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._published:
                hints, self._published = self._published, []
                try:
                    await self._send(hints)
                except Exception as error:
                    log.debug("a hint was not sent", extra={"error": repr(error)})
                await asyncio.sleep(self._interval)
        finally:
            self._sending = False

    async def close(self) -> None:
        """Send the remaining hints."""
        await self._tasks.close()
