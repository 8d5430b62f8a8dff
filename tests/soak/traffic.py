"""Ordinary clients for hours: payments, jobs, a receiver of webhooks, sockets that stay and sockets that come and go."""

import asyncio
import bisect
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from registry_client import AsyncClient, RegistryError
from tests.bed.template import TENANT
from tests.chaos.job_load import Jobs
from tests.chaos.sender import Sender
from tests.chaos.service import Service

ROOT = Path(__file__).parents[2]
STAYING, PASSING = 4, 2  # sockets of the tenant's stream that stay; that stay for a moment, one after the other
PASSES_AFTER = (0.2, 5.0)  # seconds that a passing socket stays
BUCKETS = [0.002 * 1.15**n for n in range(70)]  # seconds: limits of the answers that are counted together


class TimedSender(Sender):
    """Also counts how long the answers took, in bounded memory."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.took = [0] * (len(BUCKETS) + 1)

    async def send(self, session: aiohttp.ClientSession) -> None:
        began = asyncio.get_running_loop().time()
        await super().send(session)
        self.took[bisect.bisect(BUCKETS, asyncio.get_running_loop().time() - began)] += 1

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the payments was accepted, tries that failed included."""
        wanted, seen = share * sum(self.took), 0
        for limit, count in zip([*BUCKETS, float("inf")], self.took, strict=True):
            seen += count
            if seen >= wanted:
                return limit
        return float("inf")


class Watchers:
    """Sockets of the tenant's stream, by the Python client. Each counts what it sees, and notes a gap or a repetition."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.seen = 0
        self.opened = 0
        self.faults: list[str] = []

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """They watch while the block runs."""
        async with AsyncClient(self.service.url, self.service.key) as client:
            tasks = [asyncio.create_task(self._stay(client)) for _ in range(STAYING)]
            tasks += [asyncio.create_task(self._pass(client)) for _ in range(PASSING)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _stay(self, client: AsyncClient) -> None:
        latest = None
        while True:
            self.opened += 1
            try:
                async with aclosing(client.payments.watch_all(after=latest)) as changes:
                    async for change in changes:
                        if latest is not None and change.sequence != latest + 1:
                            self.faults.append(f"{change.sequence} came after {latest}")
                        latest = change.sequence
                        self.seen += 1
            except RegistryError as error:
                self.faults.append(f"a socket ended: {error}")
                await asyncio.sleep(1)

    async def _pass(self, client: AsyncClient) -> None:
        while True:
            self.opened += 1
            try:
                async with asyncio.timeout(random.uniform(*PASSES_AFTER)):
                    async with aclosing(client.payments.watch_all()) as changes:
                        async for _ in changes:
                            self.seen += 1
            except TimeoutError:
                continue


class Receiver:
    """A receiver of webhooks in a process of its own, and the endpoint of the tenant that points to it."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def count(self) -> int:
        """Calls so far."""
        with urllib.request.urlopen(self.url, timeout=5) as answer:
            return sum(json.load(answer).values())

    async def register(self, service: Service) -> None:
        made = json.loads(await service.manage("apikey", "create", TENANT, "--scope", "admin", "--json"))
        headers = {"Authorization": f"Bearer {made['apiKey']}"}
        body = {"url": f"{self.url}/hook", "events": ["payment.*"]}
        async with aiohttp.ClientSession(service.url, headers=headers) as session:
            async with session.post("/webhook-endpoints", json=body) as answer:
                if answer.status != 201:
                    raise RuntimeError(f"the endpoint was refused: {answer.status} {await answer.text()}")


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver for as long as the block runs."""
    command = [sys.executable, "-m", "tests.bed.receiver"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield Receiver(process.stdout.readline().removeprefix("ready ").strip())
        finally:
            process.terminate()


class Crowd:
    """All clients at once."""

    def __init__(self, service: Service, receiver: Receiver, *, payments: int, jobs: int) -> None:
        """`payments`, `jobs`: a second."""
        self.sender = TimedSender(service.url, service.key, rate=payments)
        self.jobs = Jobs(service.url, service.key, total=sys.maxsize, dice=random.Random(1), rate=jobs)
        self.watchers = Watchers(service)
        self.receiver = receiver

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """They work while the block runs; all that was made is accepted when it ends."""
        async with self.watchers.watching(), self.sender.sending(), self.jobs.sending():
            yield

    @property
    def surprises(self) -> list[str]:
        return [*self.sender.surprises, *self.jobs.surprises, *self.watchers.faults]
