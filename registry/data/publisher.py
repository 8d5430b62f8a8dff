"""Publisher of hints: gathers what is published at once, and sends it at most every few hundredths of a second."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

log = logging.getLogger(__name__)

EVERY = 0.02  # seconds between two messages of one publisher: under load many commits share one
LAST_WORDS = 1.0  # seconds for the last message at the end of a loop


class Publisher[T]:
    """`send` gets what was published: at once, and then everything that was published meanwhile, `every` so many seconds.

    A hint is never waited for and never fails: whoever needs it finds what it is about without it, only later.
    """

    def __init__(self, send: Callable[[list[T]], Awaitable[None]], *, every: float = EVERY) -> None:
        self._send, self._every = send, every
        self._published: list[T] = []
        self._sending: asyncio.Task[None] | None = None

    def publish(self, hints: Iterable[T]) -> None:
        self._published.extend(hints)
        if self._sending is None and self._published:
            work = self._send_all()  # in an empty context: not on the connection of whoever published first
            self._sending = asyncio.get_running_loop().create_task(work, context=contextvars.Context())

    async def _send_all(self) -> None:
        try:
            while self._published:
                hints, self._published = self._published, []
                try:
                    await self._send(hints)
                except Exception as error:
                    log.debug("a hint was not sent", extra={"error": repr(error)})
                await asyncio.sleep(self._every)
        finally:
            self._sending = None

    async def close(self) -> None:
        """Send what was published last."""
        if sending := self._sending:
            await asyncio.wait({sending}, timeout=LAST_WORDS)
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
