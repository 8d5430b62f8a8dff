"""Good clients under load: each payment, each job gets one id, with which it is sent again until it is accepted."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp

from tests.waiting import SCALE

RATE = 100  # a second: what two busy cores settle while they start things again
AT_ONCE = 300  # under way; while the service is away the others wait their turn
ANSWER_LIMIT = 5.0 * SCALE  # seconds for one answer
FIRST_WAIT, LONGEST_WAIT = 0.05, 1.0 * SCALE  # seconds between two tries
ACCEPT_LIMIT = 90.0 * SCALE  # seconds until the last one must be accepted, once no more are made


class Client(ABC):
    """Sends at a rate; and answers that a good client should never get. `traces`: of its session."""

    def __init__(self, url: str, key: str, *, rate: float = RATE, traces: Sequence[aiohttp.TraceConfig] = ()) -> None:
        self.url, self.key, self.rate, self.traces = url, key, rate, list(traces)
        self.surprises: list[str] = []
        self.retries = 0

    @abstractmethod
    async def send(self, session: aiohttp.ClientSession) -> None:
        """Make one more, and send it until it is accepted."""

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """More and more are sent while the block runs; all of them are accepted when it ends."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT)
        headers = {"Authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(
            self.url, headers=headers, timeout=timeout, trace_configs=self.traces
        ) as session:
            stop = asyncio.Event()
            making = asyncio.create_task(self._make(session, stop))
            try:
                yield
            except BaseException:  # what went wrong meanwhile is the news, not that nobody answers
                making.cancel()
                raise
            stop.set()
            await asyncio.wait_for(making, ACCEPT_LIMIT)

    async def _make(self, session: aiohttp.ClientSession, stop: asyncio.Event) -> None:
        places = asyncio.Semaphore(AT_ONCE)
        due = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                await places.acquire()
                group.create_task(self.send(session)).add_done_callback(lambda _: places.release())
                due = max(due + 1 / self.rate, asyncio.get_running_loop().time() - 1)  # no flood after a long pause
                await asyncio.sleep(due - asyncio.get_running_loop().time())

    async def until_accepted(self, session: aiohttp.ClientSession, path: str, **request: Any) -> Any:
        """The body of the 202."""
        wait = FIRST_WAIT
        while (answer := await self._accepted(session, path, **request)) is None:
            self.retries += 1
            await asyncio.sleep(wait * random.uniform(0.5, 1))
            wait = min(wait * 2, LONGEST_WAIT)
        return answer

    async def _accepted(self, session: aiohttp.ClientSession, path: str, **request: Any) -> Any:
        try:
            async with session.post(path, **request) as response:
                body = await response.text()
                if response.status == 202:
                    return await response.json()
                if response.status != 503:
                    self.surprises.append(f"{response.status} {body}"[:300])
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass
        return None


class Sender(Client):
    """Of payments. What was accepted, in cents by id."""

    def __init__(self, url: str, key: str, *, rate: int = RATE, others: Iterable[str] = ()) -> None:
        super().__init__(url, key, rate=rate)
        self.others = set(others)  # ids of payments that other clients made before
        self.accepted: dict[str, int] = {}

    async def send(self, session: aiohttp.ClientSession) -> None:
        correlation_id, cents = str(uuid4()), random.randrange(1, 100_000)
        body = {"correlationId": correlation_id, "amount": f"{cents // 100}.{cents % 100:02d}"}
        await self.until_accepted(session, "/payments", json=body)
        self.accepted[correlation_id] = cents
