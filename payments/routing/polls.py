"""Health calls: of the workers that know an endpoint one asks it, as often as its processor wants to be asked."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from payments.processors.base import Account, Processor
from payments.routing import routing
from payments.routing.routing import Atlas
from registry.errors import Unavailable

STEP = 0.1  # seconds between looks for endpoints whose health call is due


class Polls:
    """The health calls of one worker. A slow answer holds up no other call."""

    def __init__(self, atlas: Atlas, processor: Callable[[Account], Awaitable[Processor]]) -> None:
        self._atlas = atlas
        self._processor = processor
        self._calls: dict[str, asyncio.Task[None]] = {}  # under way, by endpoint

    async def step(self) -> None:
        """Begin the calls that are due."""
        accounts = {a.endpoint: a for a in self._atlas.polled() if a.endpoint not in self._calls}
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
                self._atlas.endpoints[account.endpoint].said(health, time.monotonic())
                await routing.note(account.endpoint, health)
        except Unavailable:
            pass  # the next call says it again
        finally:
            del self._calls[account.endpoint]
