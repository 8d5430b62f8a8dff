"""Poll the health of endpoints: one worker polls each, as often as its processor allows."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from payments.processors.base import Account, Processor
from payments.routing import routing
from payments.routing.routing import RoutingTable
from registry.errors import Unavailable

STEP = 0.1  # seconds between checks for due health calls
ASK_AGAIN = 10  # steps until an endpoint that another worker polls is asked for at the latest


class Polls:
    """The health calls of one worker. A slow answer delays no other call."""

    def __init__(self, routes: RoutingTable, processor: Callable[[Account], Awaitable[Processor]]) -> None:
        self._routes = routes
        self._processor = processor
        self._calls: dict[str, asyncio.Task[None]] = {}  # in flight, by endpoint
        self._due: dict[str, float] = {}  # time.monotonic() from which an endpoint may be due, where known

    async def step(self) -> None:
        """Begin the calls that are due."""
        polled, now = {a.endpoint: a for a in self._routes.polled()}, time.monotonic()
        self._due = {key: at for key, at in self._due.items() if key in polled and at > now}
        if asked := [key for key in polled if key not in self._calls and key not in self._due]:
            elected, due = await routing.elect(asked)
            now = time.monotonic()
            self._due |= {key: now + min(seconds, STEP * ASK_AGAIN) for key, seconds in due.items()}
            for key in elected:
                self._calls[key] = asyncio.create_task(self._call(polled[key]))
        await asyncio.sleep(STEP)

    async def close(self) -> None:
        calls = list(self._calls.values())
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _call(self, account: Account) -> None:
        try:
            if health := await (await self._processor(account)).health(account):
                self._routes.endpoints[account.endpoint].health_reported(health, time.monotonic())
                await routing.write_health(account.endpoint, health)
        except Unavailable:
            pass  # the next call writes its own
        finally:
            del self._calls[account.endpoint]
