"""Poll the health of endpoints: one worker polls each, as often as its processor allows."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from payments.processors.base import Account, Processor
from payments.routing import routing
from payments.routing.routing import RoutingTable
from registry.errors import Unavailable

STEP = 0.1  # seconds between checks for due health calls


class Polls:
    """The health calls of one worker. A slow answer delays no other call."""

    def __init__(self, routes: RoutingTable, processor: Callable[[Account], Awaitable[Processor]]) -> None:
        self._routes = routes
        self._processor = processor
        self._calls: dict[str, asyncio.Task[None]] = {}  # in flight, by endpoint

    async def step(self) -> None:
        """Begin the calls that are due."""
        accounts = {a.endpoint: a for a in self._routes.polled() if a.endpoint not in self._calls}
        for key in await routing.elect(list(accounts)) if accounts else ():
            self._calls[key] = asyncio.create_task(self._call(accounts[key]))
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
