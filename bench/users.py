"""The contest's users: they ramp up, each pays once a second, while the processors fail by a schedule.

`python -m bench.users '{…}'` in a separate process, so that nothing else uses its event loop; prints one JSON line.
Every 10 s the service's summary of a past window is compared with the processors' own.
"""

import asyncio
import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import uvloop

from bench.figures import quantile
from bench.wire import next_answer

AMOUNT = 19.90
PAUSE = 1.0  # seconds between two payments of a user
PATIENCE = 1.5  # seconds a user waits for the answer
CHECK_EVERY = 10.0  # seconds between comparisons of the summaries
WINDOW = (15.0, 2.0)  # seconds ago: the window that they are compared over
SETTLE_TIME = 1.0  # seconds after the last payment until the books are compared
# Schedules: from this second on, delays (ms) of default and fallback, then failures
TIMETABLES = {
    "minute": (
        (1, 0, 0, False, False),
        (10, 100, 0, False, False),
        (20, 100, 0, True, False),
        (30, 2000, 1000, True, True),
        (40, 20, 20, False, False),
        (50, 0, 5000, False, False),
    ),
    "five minutes": (
        (1, 0, 0, False, False),
        (30, 1000, 0, False, False),
        (60, 500, 0, False, False),
        (90, 2000, 1000, True, False),
        (120, 5000, 5, True, False),
        (150, 0, 5, False, True),
        (180, 100, 5, False, False),
        (210, 50, 0, False, False),
        (240, 103, 10, False, False),
        (270, 2000, 0, False, False),
    ),
}
LENGTH = {"minute": 60.0, "five minutes": 300.0}  # seconds


@dataclass(frozen=True)
class Contest:
    service: int  # ports
    default: int  # 0: the service books nothing, such as the floor
    fallback: int
    headers: dict[str, str]
    users: int = 550
    timetable: str = "minute"
    speed: float = 1.0  # of the timetable

    @property
    def seconds(self) -> float:
        return LENGTH[self.timetable] / self.speed


@dataclass
class Report:
    p50: float = 0.0  # milliseconds, POST /payments from the first byte sent to the last received
    p99: float = 0.0
    worst: float = 0.0
    accepted: int = 0
    refused: int = 0
    summary_worst: float = 0.0  # milliseconds
    lag: int = 0  # accepted but not booked
    double_booked: int = 0
    inconsistencies: int = 0  # payments by which the summaries differed, over all comparisons
    default: int = 0
    fallback: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    comparisons: list[dict[str, Any]] = field(default_factory=list)


class Wire(asyncio.Protocol):
    """One keep-alive connection with one request at a time, opened when needed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.transport: asyncio.Transport | None = None
        self.unread = b""
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport, self.unread = None, b""
        if self.answer and not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("closed before the answer"))

    def data_received(self, data: bytes) -> None:
        self.unread += data
        if (answer := next_answer(self.unread)) is None:
            return
        self.unread = answer.rest
        if self.answer and not self.answer.done():
            self.answer.set_result((answer.status, answer.body))

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, float]:
        """Status, body, milliseconds. After OSError or TimeoutError the next call opens a new connection."""
        loop = asyncio.get_running_loop()
        if self.transport is None:
            self.transport, _ = await loop.create_connection(lambda: self, "127.0.0.1", self.port)
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{more}"
        self.answer = loop.create_future()
        start = time.perf_counter()
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        try:
            async with asyncio.timeout(PATIENCE):
                status, said = await self.answer
        except BaseException:
            self.close()
            raise
        return status, said, 1000 * (time.perf_counter() - start)

    def close(self) -> None:
        if self.transport:
            self.transport.abort()
            self.transport = None


class Day:
    """One run of the contest."""

    def __init__(self, contest: Contest) -> None:
        self.contest = contest
        self.report = Report()
        self.accepted: set[str] = set()
        self.times: list[float] = []

    async def go(self) -> Report:
        self.default, self.fallback = Wire(self.contest.default), Wire(self.contest.fallback)
        books = self.contest.default != 0
        if books:
            await self.change((0, 0, 0, False, False))
        self.start = time.monotonic()
        async with asyncio.TaskGroup() as group:
            if books:
                group.create_task(self.follow_the_timetable())
                group.create_task(self.compare_summaries())
            for number in range(self.contest.users):
                group.create_task(self.pay_every_second(number))
        if books:
            await asyncio.sleep(SETTLE_TIME)
            await self.close_the_books()
        self.report.accepted = len(self.accepted)
        if self.times:
            p50, p99, worst = (round(quantile(self.times, share), 3) for share in (0.5, 0.99, 1))
            self.report.p50, self.report.p99, self.report.worst = p50, p99, worst
        return self.report

    @property
    def over(self) -> bool:
        return time.monotonic() - self.start >= self.contest.seconds

    async def until(self, second: float) -> None:
        await asyncio.sleep(max(0.0, self.start + second - time.monotonic()))

    # -- Users ---------------------------------------------------------------------------------

    async def pay_every_second(self, number: int) -> None:
        await self.until(number * self.contest.seconds / self.contest.users)
        wire = Wire(self.contest.service)
        while not self.over:
            await self.pay(wire)
            await asyncio.sleep(PAUSE)
        wire.close()

    async def pay(self, wire: Wire) -> None:
        h = os.urandom(16).hex()
        correlation_id = f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"
        body = f'{{"correlationId":"{correlation_id}","amount":{AMOUNT:.2f}}}'.encode()
        try:
            status, _, took = await wire.ask("POST", "/payments", body, **self.contest.headers)
        except (OSError, TimeoutError) as error:
            return self.refused(type(error).__name__)
        if not 200 <= status < 300:
            return self.refused(str(status))
        self.accepted.add(correlation_id)
        self.times.append(took)
        return None

    def refused(self, why: str) -> None:
        self.report.refused += 1
        self.report.refusals[why] = self.report.refusals.get(why, 0) + 1

    # -- Trouble -------------------------------------------------------------------------------

    async def follow_the_timetable(self) -> None:
        for row in TIMETABLES[self.contest.timetable]:
            if row[0] / self.contest.speed >= self.contest.seconds:
                return
            await self.until(row[0] / self.contest.speed)
            await self.change(row)

    async def change(self, row: tuple[int, int, int, bool, bool]) -> None:
        _, *delays, default_fails, fallback_fails = row
        for wire, delay, fails in zip(
            (self.default, self.fallback), delays, (default_fails, fallback_fails), strict=True
        ):
            await self.administrate(wire, "PUT", "configurations/delay", {"delay": delay})
            await self.administrate(wire, "PUT", "configurations/failure", {"failure": fails})

    async def administrate(self, wire: Wire, method: str, path: str, body: object = None) -> Any:
        sent = b"" if body is None else json.dumps(body).encode()
        status, said, _ = await wire.ask(method, f"/admin/{path}", sent, X_Rinha_Token="123")
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {said!r}")
        return json.loads(said)

    # -- Comparing -----------------------------------------------------------------------------

    async def compare_summaries(self) -> None:
        asking = Wire(self.contest.service), Wire(self.contest.default), Wire(self.contest.fallback)
        while not self.over:
            await self.compare(*asking)
            await asyncio.sleep(CHECK_EVERY)

    async def compare(self, service: Wire, default: Wire, fallback: Wire) -> None:
        now = time.time()
        window = "?from={}&to={}".format(*(quote(iso(now - ago)) for ago in WINDOW))
        ours, first, second = await asyncio.gather(
            self.summary(service, window),
            self.administrate(default, "GET", f"payments-summary{window}"),
            self.administrate(fallback, "GET", f"payments-summary{window}"),
        )
        theirs = {"default": first["totalRequests"], "fallback": second["totalRequests"]}
        off = sum(abs(ours.get(name, {}).get("totalRequests", 0) - count) for name, count in theirs.items())
        self.report.inconsistencies += off
        self.report.comparisons.append({"at": round(time.monotonic() - self.start), "off": off, "theirs": theirs})

    async def summary(self, service: Wire, window: str = "") -> dict[str, Any]:
        """Summary of the service; an error counts as no payments, as in the contest."""
        try:
            status, said, took = await service.ask("GET", f"/payments-summary{window}", **self.contest.headers)
        except (OSError, TimeoutError):
            return {}
        self.report.summary_worst = max(self.report.summary_worst, took)
        return json.loads(said) if status == 200 else {}

    async def close_the_books(self) -> None:
        report = self.report
        first, second = [set(await self.administrate(wire, "GET", "ids")) for wire in (self.default, self.fallback)]
        report.default, report.fallback = len(first), len(second)
        report.lag, report.double_booked = len(self.accepted - first - second), len(first & second)


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    gc.disable()  # a collection would count as the service's latency
    print(json.dumps(asdict(uvloop.run(Day(Contest(**json.loads(sys.argv[1]))).go()))))
