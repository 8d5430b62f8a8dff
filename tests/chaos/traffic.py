"""Well-behaved clients of one queue: producers that retry until they get a response, readers that ack. deliveries.py checks them.

`python -m tests.chaos.traffic <url> <queue> <group> <file>` is a reader with messages in hand, for somebody to kill.
"""

import asyncio
import itertools
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos import deliveries
from tests.chaos.deliveries import COMPLETED, DEAD, FAILED, RETRY, Book, Got, Heard, Message, Note, Says, named
from tests.depth import deep
from tests.waiting import SCALE

QUEUE = "orders"
PARTITIONS = tuple(f"customer-{n}" for n in range(10))
GROUPS = ("billing", "stock")
PRODUCERS, READERS = 3, 3  # readers of each group
PUSHES, ITEMS = 20, 4  # of one producer in a second, of one push
BATCH = 20  # messages of one pop, of two partitions
LEASE = deep(1, 2)  # seconds
OPTIONS = {"leaseTime": LEASE, "retryLimit": 50, "retryDelay": 50}  # tries enough: no lapse alone makes a dead letter
PARKED = 300  # milliseconds of a long poll: a lease begins at most so long after its pop was sent
ANSWER_LIMIT = 5.0 * SCALE  # seconds for one answer
WAITS = (0.05, 0.5)  # seconds between two tries
ACCEPT_LIMIT = 90.0 * SCALE  # seconds until the last push must be accepted, once no more are made
SETTLE_LIMIT = 60.0 * SCALE  # seconds from then on until all is read; leases have to lapse before
ASK_EVERY = 0.1  # seconds between two looks whether all is read
LETTERS = 1000  # dead letters of one page


class Traffic:
    """One queue, all its clients, and what they wrote down. `pushes`: of one producer in a second; `traces`: of a client's
    session, by its name."""

    def __init__(
        self,
        url: str,
        key: str,
        queue: str = QUEUE,
        *,
        dice: random.Random | None = None,
        pushes: float = PUSHES,
        traces: Callable[[str], list[aiohttp.TraceConfig]] = lambda _: [],
    ) -> None:
        self.url, self.key, self.queue = url, key, queue
        self.dice, self.pushes, self.traces = dice or random.Random(), pushes, traces
        self.book = Book()
        self.statuses: Counter[str] = Counter()  # of items, as they were accepted
        self.retries = 0
        self._numbers = [itertools.count(1) for _ in range(PRODUCERS)]

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Messages come and go while the block runs. When it ends all are accepted, and read, if they ever will be."""
        async with client(self.url, self.key, self.traces("producers")) as session:
            await until_answered(session, "POST", "/api/v1/configure", json={"queue": self.queue, "options": OPTIONS})
            enough = asyncio.Event()
            writing = [asyncio.create_task(self._produce(session, n, enough)) for n in range(PRODUCERS)]
            reading = [asyncio.create_task(self._read(group, n)) for group in GROUPS for n in range(READERS)]
            try:
                yield
                enough.set()
                await asyncio.wait_for(asyncio.gather(*writing), ACCEPT_LIMIT)
                await self._until_read(session, reading)
            finally:
                for task in (*writing, *reading):
                    task.cancel()
                await asyncio.gather(*writing, *reading, return_exceptions=True)

    async def faults(self) -> list[str]:
        """What is wrong, in words; nobody sends or reads meanwhile."""
        return list(faults_of(self.book, *await self.left()))

    async def left(self) -> tuple[int, Counter[tuple[str, Message]]]:
        """How many messages wait, and the dead letters of each group."""
        async with client(self.url, self.key) as session:
            return await self._waiting(session), await self._dead(session)

    # -- Producers -------------------------------------------------------------------------------------------

    async def _produce(self, session: aiohttp.ClientSession, n: int, enough: asyncio.Event) -> None:
        while not enough.is_set():
            numbers = itertools.islice(self._numbers[n], ITEMS)
            messages = [Message(self.dice.choice(PARTITIONS), f"producer-{n}", number) for number in numbers]
            items = [
                {"queue": self.queue, "partition": m.partition, "transactionId": m.transaction_id, "payload": m.number}
                for m in messages
            ]
            tries, verdicts = await until_answered(session, "POST", "/api/v1/push", json={"items": items}, wanted=201)
            self.retries += tries - 1
            self.statuses.update(verdict["status"] for verdict in verdicts)
            if bad := [verdict for verdict in verdicts if verdict["status"] not in ("queued", "duplicate", "buffered")]:
                self.book.surprises.append(str(bad[0]))
            self.book.accepted.update(messages)
            await asyncio.sleep(self.dice.uniform(0, 2 / self.pushes))

    # -- Readers ---------------------------------------------------------------------------------------------

    async def _read(self, group: str, n: int) -> None:
        async with client(self.url, self.key, self.traces(f"{group}-{n}")) as session:
            await Reader(session, self.queue, group, self.book.write).run()

    async def _until_read(self, session: aiohttp.ClientSession, reading: Sequence[asyncio.Task[None]]) -> None:
        """Returns in any case, except when a reader failed: the judge finds better words for what is missing."""
        deadline = time.monotonic() + SETTLE_LIMIT
        while time.monotonic() < deadline and not any(task.done() for task in reading):
            delivered = all(self.book.accepted <= self.book.delivered[group] for group in GROUPS)
            if delivered and not await self._waiting(session):
                return
            await asyncio.sleep(ASK_EVERY)
        for task in reading:
            if task.done():
                task.result()

    async def _waiting(self, session: aiohttp.ClientSession) -> int:
        _, found = await until_answered(session, "GET", f"/api/v1/resources/queues/{self.queue}")
        return found["totals"]["pending"] + found["totals"]["processing"]

    async def _dead(self, session: aiohttp.ClientSession) -> Counter[tuple[str, Message]]:
        dead: Counter[tuple[str, Message]] = Counter()
        for offset in itertools.count(step=LETTERS):
            query = {"queue": self.queue, "limit": str(LETTERS), "offset": str(offset)}
            _, page = await until_answered(session, "GET", "/api/v1/dlq", params=query)
            letters = page["messages"]
            dead.update((one["consumerGroup"], named(one["partition"], one["transactionId"])) for one in letters)
            if len(letters) < LETTERS:
                break
        return dead


class Reader:
    """Pops and acks for one group. What it does is written down before it does it: it may be killed at any time."""

    def __init__(
        self, session: aiohttp.ClientSession, queue: str, group: str, write: Callable[[Note], None], *, holds: float = 0
    ) -> None:
        self.session, self.group, self.write, self.holds = session, group, write, holds
        self.path = f"/api/v1/pop/queue/{queue}"
        self.given_back: set[Message] = set()

    async def run(self) -> None:
        query = {"consumerGroup": self.group, "batch": BATCH, "partitions": 2, "wait": "true", "timeout": PARKED}
        while True:
            sent = time.time()
            try:  # once and not again: only so is it known after what moment the lease began
                status, popped = await asked(self.session, "GET", self.path, params=query)
            except Unanswered:
                status = 503
            if status == 503:
                await asyncio.sleep(random.uniform(*WAITS))
            elif status == 200:
                await self._settle(sent, popped)

    async def _settle(self, sent: float, popped: dict[str, Any]) -> None:
        lease = popped["leaseId"]
        messages = [named(one["partition"], one["transactionId"]) for one in popped["messages"]]
        self.write(Got(lease, self.group, sent, time.time(), messages))
        await asyncio.sleep(self.holds)
        statuses = [self._status(message) for message in messages]
        self.write(Says(lease, statuses))
        acks = [
            {**{name: one[name] for name in ("transactionId", "partitionId", "leaseId")}, "status": status}
            for one, status in zip(popped["messages"], statuses, strict=True)
        ]
        body = {"consumerGroup": self.group, "acknowledgments": acks}
        tries, verdicts = await until_answered(self.session, "POST", "/api/v1/ack/batch", json=body)
        self.write(Heard(lease, [verdict["success"] for verdict in verdicts], time.time(), tries > 1))

    def _status(self, message: Message) -> str:
        """A message is given back once by each reader."""
        if (status := fate(message)) in (FAILED, RETRY):
            if message in self.given_back:
                return COMPLETED
            self.given_back.add(message)
        return status


def faults_of(book: Book, waiting: int, dead: Counter[tuple[str, Message]], *, lease: float = LEASE) -> Iterator[str]:
    """What is wrong, in words, where so many messages wait and these are dead letters at the end."""
    yield from deliveries.faults(book, GROUPS, lease=lease)
    if waiting:
        yield f"{waiting} messages wait at the end"
    wanted = Counter((group, one) for group in GROUPS for one in book.accepted if fate(one) == DEAD)
    if wrong := (dead - wanted) + (wanted - dead):
        yield f"{wrong.total()} dead letters too many or too few: {sorted(wrong)[:3]}"


def fate(message: Message) -> str:
    """Most are done at once, some at a later try; some are given up, by every group."""
    return {7: FAILED, 19: RETRY, 31: DEAD}.get(message.number % 40, COMPLETED)


# -- Asking --------------------------------------------------------------------------------------------------


class Unanswered(Exception):
    """The service was away, or said that it was."""


def client(url: str, key: str, traces: Sequence[aiohttp.TraceConfig] = ()) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT)
    headers = {"Authorization": f"Bearer {key}"}
    return aiohttp.ClientSession(url, headers=headers, timeout=timeout, trace_configs=list(traces))


async def asked(
    session: aiohttp.ClientSession, method: str, path: str, *, expected: Sequence[int] = (200, 201, 204), **options: Any
) -> tuple[int, Any]:
    """Status and body of an answer that makes sense. Raises Unanswered; AssertionError for an answer no good client gets."""
    try:
        async with session.request(method, path, **options) as response:
            body = await response.text()
            if response.status == 503:
                raise Unanswered
            assert response.status in expected, f"{method} {path}: {response.status} {body[:300]}"
            return response.status, await response.json() if body else None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unanswered from error


async def until_answered(
    session: aiohttp.ClientSession, method: str, path: str, *, wanted: int = 200, **options: Any
) -> tuple[int, Any]:
    """How often it was asked, and the answer's body."""
    for tries in itertools.count(1):
        try:
            status, body = await asked(session, method, path, **options)
        except Unanswered:
            await asyncio.sleep(random.uniform(*WAITS))
            continue
        assert status == wanted, f"{method} {path}: {status} {body}"
        return tries, body
    raise AssertionError("it counts for ever")


# -- A reader of its own process ---------------------------------------------------------------------------


def start_holding(traffic: Traffic, group: str, notes: Path) -> subprocess.Popen[bytes]:
    """A process that pops and does not ack; what it got is in `notes`."""
    command = [sys.executable, "-m", "tests.chaos.traffic", traffic.url, traffic.queue, group, str(notes)]
    return subprocess.Popen(command, env={**os.environ, "KEY": traffic.key}, cwd=Path(__file__).resolve().parents[2])


async def _hold(url: str, queue: str, group: str, notes: str) -> None:
    with Path(notes).open("ab", buffering=0) as file:

        def write(note: Note) -> None:
            file.write(deliveries.encode(note) + b"\n")

        async with client(url, os.environ["KEY"]) as session:
            await Reader(session, queue, group, write, holds=3600).run()


if __name__ == "__main__":
    asyncio.run(_hold(*sys.argv[1:]))
