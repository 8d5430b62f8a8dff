"""A good client of background jobs, and the naps that it submits (tests/bed/jobs.py)."""

import itertools
import random
from collections.abc import Sequence

import aiohttp

from tests.chaos.sender import Client

SHORTEST, LONGEST = 1, 200  # milliseconds of a job
IN_PROCESS = 0.1  # share of the jobs that run in a child process
RATE = 250  # jobs a second


class Jobs(Client):
    """Submits `total` jobs. What was accepted: the number of each, by the id that the service gave it."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        total: int,
        dice: random.Random,
        rate: float = RATE,
        in_process: float = IN_PROCESS,
        traces: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        super().__init__(url, key, rate=rate, traces=traces)
        self.total, self.dice, self.in_process = total, dice, in_process
        self.name = f"{dice.getrandbits(64):x}"  # of this client, in its idempotency keys
        self.accepted: dict[str, int] = {}
        self._numbers = itertools.count()

    async def send(self, session: aiohttp.ClientSession) -> None:
        number = next(self._numbers)
        if number >= self.total:
            return
        kind = "bed.nap.process" if self.dice.random() < self.in_process else "bed.nap"
        nap = {"number": number, "ms": self.dice.randint(SHORTEST, LONGEST)}
        headers = {"Idempotency-Key": f"{self.name}-{number}"}
        answer = await self.until_accepted(session, "/jobs", json={"kind": kind, "input": nap}, headers=headers)
        if answer["id"] in self.accepted:
            self.surprises.append(f"one id for numbers {self.accepted[answer['id']]} and {number}: {answer}")
        self.accepted[answer["id"]] = number
