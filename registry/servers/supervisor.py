"""The service in the foreground: its parts as child processes, started, watched, restarted, stopped in order.

Knows commands and signals only. What the parts do is theirs; how many workers are wanted is asked of a callable.
"""

import argparse
import asyncio
import errno
import json
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from registry.servers import embedded, metric_files
from registry.servers.child import FIRST_PAUSE, PR_SET_CHILD_SUBREAPER, PROJECT, Keeper, Part, Process, gone, libc
from registry.servers.processes import POLL, children, descendants, parent_of, signal_process

log = logging.getLogger(__name__)

SWEEP_LIMIT = 1.0  # seconds for killed leftovers to vanish
PROBE_EVERY = 0.05  # seconds between two looks at /health/ready
PROBE_LIMIT = 2.0  # seconds for one look
SCALE_EVERY = 1.0  # seconds between two questions how many workers are wanted
SCALE_LIMIT = 5.0  # seconds for the answer
SHRINK_AFTER = 10.0  # seconds that fewer workers must be wanted before one is sent home: a start costs a second
REAP_EVERY = 5.0  # seconds between two burials of orphans
PORT_LIMIT = 3.0  # seconds for a predecessor that was killed to let go of the port
BACKLOG = 2048  # connections that wait while no web process accepts


Wanted = Callable[[int, int], Awaitable[int]]


class PortTaken(Exception):
    """Another program listens on the port."""


# What to run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What `up` was asked for."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8000
    web: int = 1
    workers: int = 1
    max_workers: int = 0  # 0: as many as there are cores, at least `workers`
    demo: bool = False
    host_header: str = "localhost"  # what the health check calls itself; must be allowed

    @property
    def most_workers(self) -> int:
        return max(self.workers, self.max_workers or os.cpu_count() or 1)

    @property
    def address(self) -> str:
        return http_address(self.host, self.port)

    @property
    def local_host(self) -> str:
        """Where this machine reaches it: nobody connects to a wildcard."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)

    @property
    def local_address(self) -> str:
        return http_address(self.local_host, self.port)


def http_address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    parser.add_argument("--web", type=int, default=1, help="web processes")
    parser.add_argument("--workers", type=int, default=1, help="workers at least")
    parser.add_argument("--max-workers", type=int, default=0, help="workers at most (default: one per core)")
    parser.add_argument("--demo", action=argparse.BooleanOptionalAction, default=False, help="demo tenant and payments")


def manage(name: str, *arguments: str) -> Part:
    return Part(name, (sys.executable, str(PROJECT / "manage.py"), *arguments))


def web(number: int, plan: Plan, handle: int) -> Part:
    name = "web" if plan.web == 1 else f"web-{number}"
    return Part(name, (sys.executable, "-m", "registry.servers.serve", str(handle)), (handle,))


def worker(slot: int) -> Part:
    return manage(f"worker-{slot}", "worker", "--slot", str(slot))


def stripe(plan: Plan) -> Part:
    """What plays Stripe for the demo, and tells the demo's account of what happens there."""
    told = f"{plan.local_address}/webhooks/stripe/demo.stripe"
    home = str(plan.data / "stripe")
    limits = ("--http", "registry.edge.protocol:BoundedProtocol")
    return Part("stripe", (sys.executable, "-m", "sandbox", "--home", home, "--webhook", told, *limits))


def parts(plan: Plan, listener: socket.socket) -> list[Part]:
    """Everything but the workers, whose number changes."""
    fronts = [web(number, plan, listener.fileno()) for number in range(1, plan.web + 1)]
    played = [stripe(plan)] if plan.demo else []  # first: whoever asks Stripe at the start is answered
    return [*played, *fronts, manage("housekeeping", "worker", "--housekeeping"), manage("cron", "cron")]


def environment(plan: Plan) -> dict[str, str]:
    """The children's: unbuffered lines, one folder of metrics for all, the demo's open tenant."""
    own = {"PYTHONUNBUFFERED": "1", "PROMETHEUS_MULTIPROC_DIR": str(metrics_folder(plan)), "PYTHONPATH": str(PROJECT)}
    demo = {"REGISTRY_OPEN_TENANT": os.environ.get("REGISTRY_OPEN_TENANT") or "demo"} if plan.demo else {}
    return {**os.environ, **own, **demo}


# All of them ----------------------------------------------------------------------------------------------------


@dataclass
class Supervisor:
    """`run` returns when told to stop by SIGTERM or SIGINT, and leaves nothing but the embedded servers."""

    plan: Plan
    parts: list[Part]
    environ: dict[str, str]
    wanted: Wanted | None = None
    worker: Callable[[int], Part] = worker
    keepers: dict[str, Keeper] = field(default_factory=dict)
    workers: dict[int, Keeper] = field(default_factory=dict)
    helpers: set[int] = field(default_factory=set)  # processes that are nobody's part: not to be reaped as orphans

    async def run(self) -> None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what a killed part leaves behind comes to us, not to init
        told = self.listen_to_signals()
        self.start()
        duties = [self.announce(), self.scale(), self.reap(), *map(self.keep_server, embedded.servers(self.plan.data))]
        tasks = [asyncio.create_task(duty) for duty in duties]
        for task in tasks:
            task.add_done_callback(report)
        await told.wait()
        log.info("stopping")
        await self.stop(tasks)

    def listen_to_signals(self) -> asyncio.Event:
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        return told

    def start(self) -> None:
        self.keepers = {part.name: Keeper(part, self.environ) for part in self.parts}
        self.workers = {slot: Keeper(self.worker(slot), self.environ) for slot in range(1, self.plan.workers + 1)}

    def everybody(self) -> list[Keeper]:
        return [*self.keepers.values(), *self.workers.values()]

    async def stop(self, tasks: list[asyncio.Task]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(keeper.stop() for keeper in self.everybody()))
        await self.sweep()

    async def sweep(self) -> None:
        """Kill what parts have left in groups of their own, the embedded servers excepted."""
        deadline = time.monotonic() + SWEEP_LIMIT
        while (left := self.leftovers()) and time.monotonic() < deadline:
            for pid in left:
                signal_process(pid, signal.SIGKILL)
            self.reap_once()
            await asyncio.sleep(POLL)

    def leftovers(self) -> list[int]:
        servers = {pid for kind in (embedded.Postgres, embedded.Valkey) for pid in kind(self.plan.data).pids()}
        return [pid for pid in descendants(os.getpid()) if pid not in servers]

    # Duties

    async def announce(self) -> None:
        """The `ready` line, once every part lives and the web answers; then the demo."""
        while not await self.is_ready():  # noqa: ASYNC110 (nobody tells us when the web answers)
            await asyncio.sleep(PROBE_EVERY)
        print(f"ready {self.plan.address}", flush=True)
        if self.plan.demo:
            await self.show_demo()
            self.keepers["demo"] = Keeper(manage("demo", "demo", "--url", self.plan.local_address), self.environ)

    async def is_ready(self) -> bool:
        if not all(keeper.alive for keeper in self.everybody()):
            return False
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                return await answers_ok(self.plan, "/health/ready")
        except (OSError, TimeoutError):
            return False

    async def show_demo(self) -> None:
        said: list[bytes] = []
        prepare = manage("demo", "demo", "--prepare", "--stripe", "--json", "--url", self.plan.local_address)
        status = await self.run_helper(prepare, said.append)
        try:
            facts = json.loads(said[-1])
        except (IndexError, ValueError):
            log.error("the demo could not be prepared (status %d)", status)
            return
        show_panel(facts)

    async def run_helper(self, part: Part, on_line: Callable[[bytes], None] | None = None) -> int:
        """A command that ends by itself; killed if we are told to stop meanwhile."""
        process = Process(part, self.environ, on_line)
        self.helpers.add(process.pid)
        try:
            return await process.ended()
        finally:
            process.signal_group(signal.SIGKILL)
            process.popen.wait()
            self.helpers.discard(process.pid)

    async def scale(self) -> None:
        """As many workers as the queue wants. No answer, no change."""
        enough_since: float | None = None
        while self.wanted:
            await asyncio.sleep(SCALE_EVERY)
            count = await self.ask_wanted()
            have = len([keeper for keeper in self.workers.values() if not keeper.stopping.is_set()])
            if count is None or count >= have:
                enough_since = None
                self.grow((count or 0) - have)
            elif enough_since is None:
                enough_since = time.monotonic()
            elif time.monotonic() - enough_since > SHRINK_AFTER:
                self.shrink()

    async def ask_wanted(self) -> int | None:
        assert self.wanted
        try:
            async with asyncio.timeout(SCALE_LIMIT):
                count = await self.wanted(self.plan.workers, self.plan.most_workers)
        except Exception as error:  # a database that is away, whatever it raises
            log.debug("how many workers are wanted is unknown: %r", error)
            return None
        return min(max(count, self.plan.workers), self.plan.most_workers)

    def grow(self, by: int) -> None:
        for _ in range(by):
            slot = next(number for number in range(1, len(self.workers) + 2) if number not in self.workers)
            log.info("starting worker %d: the queue is long", slot)
            self.workers[slot] = Keeper(self.worker(slot), self.environ)

    def shrink(self) -> None:
        slot = max(slot for slot, keeper in self.workers.items() if not keeper.stopping.is_set())
        log.info("stopping worker %d: the queue is short", slot)
        leaving = asyncio.create_task(self.workers[slot].stop())
        leaving.add_done_callback(lambda _: self.workers.pop(slot, None))

    async def keep_server(self, server: embedded.Server) -> None:
        """Start an embedded server again when it dies; where it has to move, the parts move with it."""
        while True:
            if pid := server.pid():
                await gone(pid)
                log.warning("%s ended, starting it again", server.name)
            starting = (sys.executable, "-m", "registry.servers.embedded", "start", str(self.plan.data))
            if await self.run_helper(Part(server.name, starting)):
                await asyncio.sleep(FIRST_PAUSE)
            elif self.environ[server.variable] != server.url:
                self.move(server)

    def move(self, server: embedded.Server) -> None:
        os.environ[server.variable] = self.environ[server.variable] = server.url
        log.warning("%s is on port %d now, restarting every part", server.name, server.port)
        for keeper in self.everybody():
            keeper.restart()

    async def reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_EVERY)
            self.reap_once()
            metric_files.fold(metrics_folder(self.plan), lambda pid: parent_of(pid) > 0)

    def reap_once(self) -> None:
        """Bury orphans that came to us. Children that somebody waits for are left to them."""
        waited_for = {keeper.process.pid for keeper in self.everybody() if keeper.process} | self.helpers
        for pid in children(os.getpid()):
            if pid not in waited_for:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def report(task: asyncio.Task) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("a duty of the supervisor failed", exc_info=error)


async def answers_ok(plan: Plan, path: str) -> bool:
    """GET `path` is 200."""
    reader, writer = await asyncio.open_connection(plan.local_host, plan.port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {plan.host_header}\r\nConnection: close\r\n\r\n".encode())
        return b" 200 " in await reader.readline()
    finally:
        writer.close()


def show_panel(facts: dict[str, str]) -> None:
    """Where to go and who to be."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    labels = {"url": "Page", "adminUrl": "Admin", "login": "Login", "password": "Password", "apiKey": "API key"}
    table = Table.grid(padding=(0, 2))
    for name, label in labels.items():
        if name in facts:
            table.add_row(label, str(facts[name]))
    Console().print(Panel(table, title="Registry", expand=False, subtitle="Ctrl-C stops everything; the data stays"))


# Before it starts -----------------------------------------------------------------------------------------------


def listen(host: str, port: int) -> socket.socket:
    """The listening socket of every web process: connections wait in it while one is restarted. Raises PortTaken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + PORT_LIMIT
    while True:
        try:
            return socket.create_server((host, port), family=family, backlog=BACKLOG)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise PortTaken(f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}") from None
        time.sleep(PROBE_EVERY)


def refuse_taken_port(arguments: list[str]) -> None:
    """`up` on a port that is taken starts nothing at all. Raises PortTaken."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    wanted, _ = parser.parse_known_args(arguments)
    listen(wanted.host, wanted.port).close()


def raise_file_limit() -> None:
    """Sockets are files; children inherit the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def metrics_folder(plan: Plan) -> Path:
    return plan.data / "metrics"


def clear_metrics(plan: Plan) -> None:
    """Counters begin at zero with each `up`, as Prometheus expects of a restart."""
    folder = metrics_folder(plan)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def run(plan: Plan, listener: socket.socket, wanted: Wanted | None = None) -> None:
    """The whole service until SIGTERM or SIGINT; embedded servers and the schema are there already."""
    raise_file_limit()
    clear_metrics(plan)
    asyncio.run(Supervisor(plan, parts(plan, listener), environment(plan), wanted).run())
