"""Closed-loop load: N keep-alive connections, each sends its next payment when the last is answered.

wrk generates it if installed; else this module's client, in a separate process, on uvloop.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.figures import quantile
from bench.wire import next_answer

ROOT = Path(__file__).resolve().parent.parent
LEAST_RATE = 10  # answers per second: each connection waits for one at the end
GRACE = 30.0  # seconds beyond the asked duration until a generator is aborted
RECONNECT = 0.05  # seconds before a lost connection is opened again


@dataclass(frozen=True)
class Load:
    """Load: `requests` in total, or for `seconds`."""

    port: int
    connections: int
    seconds: float = 0
    requests: int = 0
    path: str = "/payments"
    headers: dict[str, str] = field(default_factory=dict)
    fields: str = '"amount":19.90'  # of the body, beside the random correlationId


@dataclass(frozen=True)
class Result:
    requests: int  # answered with 2xx
    errors: int  # other responses, lost connections, time-outs
    seconds: float
    p50: float  # milliseconds
    p90: float
    p99: float
    worst: float
    silence: float = 0.0  # milliseconds, longest time without a 2xx response; measured by our own client only

    @property
    def rate(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


def wrk() -> str | None:
    return shutil.which("wrk")


def run(load: Load) -> Result:
    """Generate the load with wrk or, for a fixed number of requests, which wrk cannot send, with our own client."""
    return run_wrk(load) if wrk() and not load.requests else run_own(load)


def run_own(load: Load) -> Result:
    command = [sys.executable, "-m", "bench.load", json.dumps(asdict(load))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit(load), check=True)
    return Result(**json.loads(done.stdout))


def limit(load: Load) -> float:
    return load.seconds + load.requests / 100 + load.connections / LEAST_RATE + GRACE


# -- wrk -----------------------------------------------------------------------------------------------

SCRIPT = """
local seed = io.open("/dev/urandom", "rb"):read(4)
math.randomseed(seed:byte(1) + 256 * (seed:byte(2) + 256 * (seed:byte(3) + 256 * (seed:byte(4) %% 128))))
local hex, r = string.format, math.random
local headers = { %(headers)s }
function request()
  local id = hex("%%08x-%%04x-4%%03x-a%%03x-%%06x%%06x", r(0, 0x7fffffff), r(0, 0xffff), r(0, 0xfff),
    r(0, 0xfff), r(0, 0xffffff), r(0, 0xffffff))
  return wrk.format("POST", "%(path)s", headers, '{"correlationId":"' .. id .. '",%(fields)s}')
end
function done(summary, latency)
  local e = summary.errors
  io.write(hex('RESULT {"answered":%%d,"bad":%%d,"seconds":%%f,"p50":%%f,"p90":%%f,"p99":%%f,"worst":%%f}\\n',
    summary.requests, e.connect + e.read + e.write + e.status + e.timeout, summary.duration / 1e6,
    latency:percentile(50) / 1000, latency:percentile(90) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
"""


def run_wrk(load: Load) -> Result:
    headers = {"Content-Type": "application/json"} | load.headers
    table = ", ".join(f'["{name}"] = "{value}"' for name, value in headers.items())
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % {"headers": table, "path": load.path, "fields": load.fields})
        script.flush()
        command = [str(wrk()), "-t1", f"-c{load.connections}", f"-d{max(1, round(load.seconds))}s", "-s", script.name]
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{load.port}"], capture_output=True, text=True, timeout=limit(load), check=True
        )
    said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[7:])
    bad = said.pop("bad")
    return Result(requests=said.pop("answered") - bad, errors=bad, **said)


# -- Our own -------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """One connection: send, wait for the whole response, record the time, repeat."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.unread = b""
        self.waiting = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.send()

    def send(self) -> None:
        body = self.run.next_body()
        if body is None:
            self.transport.close()
            return
        self.waiting = True
        self.sent = time.perf_counter()
        self.transport.write(self.run.head + body)

    def data_received(self, data: bytes) -> None:
        self.unread = self.unread + data if self.unread else data
        if (answer := next_answer(self.unread)) is None:
            return
        self.unread, self.waiting = answer.rest, False
        self.run.answered(time.perf_counter() - self.sent, ok=200 <= answer.status < 300)
        if answer.closes:
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.waiting:
            self.run.errors += 1
        self.run.lost()


class Run:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.errors = 0
        self.times: list[float] = []
        self.silence = 0.0
        self.left = load.requests
        more = "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
        length = len(self.body())
        self.head = (
            f"POST {load.path} HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nContent-Type: application/json\r\n"
            f"{more}Content-Length: {length}\r\n\r\n"
        ).encode()

    def body(self) -> bytes:
        h = os.urandom(16).hex()
        correlation_id = f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"
        return f'{{"correlationId":"{correlation_id}",{self.load.fields}}}'.encode()

    def next_body(self) -> bytes | None:
        if self.over:
            return None
        self.left -= 1
        return self.body()

    @property
    def over(self) -> bool:
        return self.left <= 0 if self.load.requests else time.perf_counter() >= self.end

    def answered(self, seconds: float, *, ok: bool) -> None:
        if ok:
            now = time.perf_counter()
            self.silence, self.last = max(self.silence, now - self.last), now
            self.times.append(seconds)
        else:
            self.errors += 1

    def lost(self) -> None:
        if self.over:
            self.open -= 1
            if self.open == 0:
                self.done.set()
        else:
            self.loop.call_later(RECONNECT, lambda: self.loop.create_task(self.connect()))

    async def connect(self) -> None:
        try:
            await self.loop.create_connection(lambda: Client(self), "127.0.0.1", self.load.port)
        except OSError:
            self.errors += 1
            self.lost()

    async def go(self) -> Result:
        self.loop, self.done = asyncio.get_running_loop(), asyncio.Event()
        self.open = self.load.connections
        start = self.last = time.perf_counter()
        self.end = start + self.load.seconds
        async with asyncio.timeout(limit(self.load)):
            await asyncio.gather(*(self.connect() for _ in range(self.load.connections)))
            await self.done.wait()
        seconds = time.perf_counter() - start
        times = [1000 * t for t in self.times] or [0.0]
        points = (quantile(times, share) for share in (0.5, 0.9, 0.99, 1))
        return Result(len(self.times), self.errors, seconds, *points, silence=1000 * self.silence)


if __name__ == "__main__":
    import gc

    import uvloop

    gc.disable()  # the process stores numbers only; a collection would count as the service's latency
    print(json.dumps(asdict(uvloop.run(Run(Load(**json.loads(sys.argv[1]))).go()))))
