"""The supervisor of `up`: starts the parts as child processes, restarts them when they die, scales workers, stops all in order.

It handles commands and signals only. A callable returns the wanted number of workers.
"""

import asyncio
import json
import logging
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from registry.data.loop import end_loop
from registry.edge import metric_files
from registry.servers import embedded
from registry.servers.child import FIRST_PAUSE, PR_SET_CHILD_SUBREAPER, Keeper, Part, PartState, Process, gone, libc
from registry.servers.listening import PROBE_EVERY, answers_ok
from registry.servers.plan import PoolPlan, ServicePlan, environment, manage, metrics_folder, parts, pool_worker, worker
from registry.servers.processes import POLL, children, descendants, parent_of, signal_process
from registry.servers.worker_group import Wanted, WorkerGroup

log = logging.getLogger(__name__)

SWEEP_LIMIT = 1.0  # seconds for killed leftover processes to end
PROBE_LIMIT = 2.0  # seconds for one check
REAP_EVERY = 5.0  # seconds between two waitpid() calls for orphans


class Reports(Protocol):
    """Tells the other hosts and the operators what runs here: registry.operators.hosts.Heartbeat. Never raises."""

    every: float  # seconds between two reports

    async def beat(self, processes: Sequence[PartState]) -> None: ...

    async def leave(self) -> None:
        """This host stops in order."""


Scales = Callable[[Sequence[str], Sequence[str]], Wanted]  # (what a pool takes, what the other pools take)


@dataclass
class Supervisor:
    """`run` returns when told to stop by SIGTERM or SIGINT, and leaves nothing but the embedded servers."""

    plan: ServicePlan
    parts: list[Part]
    environ: dict[str, str]
    scales: Scales | None = None
    reports: Reports | None = None
    worker: Callable[[int], Part] = worker
    keepers: dict[str, Keeper] = field(default_factory=dict)
    groups: list[WorkerGroup] = field(default_factory=list)
    helpers: set[int] = field(default_factory=set)  # short-lived commands: not to be reaped as orphans
    demo_shown: bool = False

    async def run(self) -> None:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # children of a killed part become ours, not init's
        told = self.listen_to_signals()
        self.start()
        scaling = [group.scale() for group in self.groups]
        duties = [
            self.announce(),
            *scaling,
            self.report(),
            self.reap(),
            *map(self.keep_server, embedded.servers(self.plan.data)),
        ]
        tasks = [asyncio.create_task(duty) for duty in duties]
        for task in tasks:
            task.add_done_callback(report)
        try:
            await told.wait()
            log.info("stopping")
            await self.stop(tasks)
        finally:
            if self.reports:
                await self.reports.leave()
            await end_loop()  # the question how many workers are wanted and the reports open a pool

    def listen_to_signals(self) -> asyncio.Event:
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, told.set)
        return told

    def start(self) -> None:
        self.keepers = {part.name: Keeper(part, self.environ) for part in self.parts}
        pools = [self.group_of_no_pool(), *map(self.group_of, self.plan.pools)]
        self.groups = pools if self.plan.does("worker") else []
        for group in self.groups:
            group.start()

    def group_of_no_pool(self) -> WorkerGroup:
        wanted = self.scales and self.scales((), [one for pool in self.plan.pools for one in pool.takes])
        return WorkerGroup(self.worker, self.environ, self.plan.workers, self.plan.most_workers, wanted)

    def group_of(self, pool: PoolPlan) -> WorkerGroup:
        wanted = self.scales and self.scales(pool.takes, ())
        return WorkerGroup(partial(pool_worker, pool), self.environ, pool.minimum, pool.maximum, wanted)

    def everybody(self) -> list[Keeper]:
        return [*self.keepers.values(), *(keeper for group in self.groups for keeper in group.workers.values())]

    async def stop(self, tasks: list[asyncio.Task]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(keeper.stop() for keeper in self.everybody()))
        await self.sweep()

    async def sweep(self) -> None:
        """Kill descendants that are left in process groups of their own, except the embedded servers."""
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
        """Print the `ready` line once every part runs and the web answers; then start the demo."""
        while not await self.is_ready():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(PROBE_EVERY)
        print(f"ready {self.plan.address}", flush=True)
        if self.plan.demo:
            demo = manage("demo", "demo", "--stripe", "--json", "--url", self.plan.local_address)
            self.keepers["demo"] = Keeper(demo, self.environ, on_line=self.show_demo)

    async def report(self) -> None:
        while self.reports:
            await self.reports.beat([keeper.state for keeper in self.everybody()])
            await asyncio.sleep(self.reports.every)

    async def is_ready(self) -> bool:
        if not all(keeper.alive for keeper in self.everybody()):
            return False
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                return await answers_ok(self.plan, "/health/ready")
        except (OSError, TimeoutError):
            return False

    def show_demo(self, line: bytes) -> None:
        """Show the facts that the demo prints each time it starts, once."""
        if not self.demo_shown:
            show_panel(json.loads(line))
            self.demo_shown = True

    async def run_helper(self, part: Part) -> int:
        """Run a short-lived command; it is killed when this task is cancelled. Returns its exit status."""
        process = Process(part, self.environ)
        self.helpers.add(process.pid)
        try:
            return await process.ended()
        finally:
            process.signal_group(signal.SIGKILL)
            process.popen.wait()
            self.helpers.discard(process.pid)

    async def keep_server(self, server: embedded.Server) -> None:
        """Restart an embedded server when it dies; if its port changes, restart all parts with the new URL."""
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
        """Reap orphans that became our children, except processes that a keeper or helper waits for."""
        waited_for = {keeper.process.pid for keeper in self.everybody() if keeper.process} | self.helpers
        for pid in children(os.getpid()):
            if pid not in waited_for:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def report(task: asyncio.Task) -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("a task of the supervisor failed", exc_info=error)


def show_panel(facts: dict[str, str]) -> None:
    """Print the addresses and the logins of the demo."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table

    labels = {"url": "Page", "adminUrl": "Admin", "login": "Login", "password": "Password", "apiKey": "API key"}
    table = Table.grid(padding=(0, 2))
    for name, label in labels.items():
        if name in facts:
            table.add_row(label, str(facts[name]))
    Console().print(Panel(table, title="Registry", expand=False, subtitle="Ctrl-C stops everything; the data stays"))


def raise_file_limit() -> None:
    """Raise the limit of open files, which includes sockets, to the hard limit; children inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def clear_metrics(plan: ServicePlan) -> None:
    """Delete old metric files: counters begin at zero with each `up`, as Prometheus expects of a restart."""
    folder = metrics_folder(plan)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def run(
    plan: ServicePlan, listener: socket.socket, scales: Scales | None = None, reports: Reports | None = None
) -> None:
    """Run the whole service until SIGTERM or SIGINT. Embedded servers run and migrations are applied already."""
    raise_file_limit()
    clear_metrics(plan)
    asyncio.run(Supervisor(plan, parts(plan, listener), environment(plan), scales, reports).run())
