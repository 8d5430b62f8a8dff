"""The options of `up`, and the parts of the service that follow from them: their commands and their environment."""

import argparse
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry.servers.child import PROJECT, Part

# What a host of each role does. Hosts with workers also run the periodic tasks: one of all hosts is elected for each.
ROLES = {
    "all": frozenset({"web", "worker", "housekeeping"}),
    "web": frozenset({"web"}),
    "worker": frozenset({"worker", "housekeeping"}),
    "housekeeping": frozenset({"housekeeping"}),
}
APPLICATION, LISTENER = "registry.asgi:application", "registry.asgi:listener"


class PoolPlan(Protocol):
    """A pool of workers: queueing.work.pools.WorkerPool."""

    @property
    def name(self) -> str: ...

    @property
    def takes(self) -> tuple[str, ...]: ...

    @property
    def minimum(self) -> int: ...

    @property
    def maximum(self) -> int: ...


@dataclass(frozen=True)
class ServicePlan:
    """The options of `up`."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8000
    web: int = 1
    workers: int = 1
    max_workers: int = 0  # 0: as many as there are cores, at least `workers`
    pools: tuple[PoolPlan, ...] = ()
    demo: bool = False
    role: str = "all"  # a name of ROLES
    host_header: str = "localhost"  # Host header of the health check; must be in ALLOWED_HOSTS

    def does(self, what: str) -> bool:
        """Whether this host serves `web`, runs `worker`s, or does `housekeeping`."""
        return what in ROLES[self.role]

    @property
    def most_workers(self) -> int:
        return max(self.workers, self.max_workers or os.cpu_count() or 1)

    @property
    def address(self) -> str:
        return http_address(self.host, self.port)

    @property
    def local_host(self) -> str:
        """The address to connect to from this machine: a wildcard address cannot be connected to."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)

    @property
    def local_address(self) -> str:
        return http_address(self.local_host, self.port)


def http_address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on; 0 takes a free one")
    parser.add_argument(
        "--role",
        choices=sorted(ROLES),
        default=os.environ.get("REGISTRY_ROLE") or "all",
        help="what this host does, among several that share DATABASE_URL and REDIS_URL",
    )
    parser.add_argument("--web", type=int, default=1, help="web processes")
    parser.add_argument("--workers", type=int, default=1, help="workers at least")
    parser.add_argument("--max-workers", type=int, default=0, help="workers at most (default: one per core)")
    parser.add_argument(
        "--pool",
        action="append",
        default=[],
        metavar="NAME=KINDS:MIN-MAX",
        help="workers of their own for kinds of work, jobs/KIND or payments/PROCESSOR, separated by commas",
    )
    parser.add_argument("--demo", action=argparse.BooleanOptionalAction, default=False, help="demo tenant and payments")


def manage(name: str, *arguments: str) -> Part:
    return Part(name, (sys.executable, str(PROJECT / "manage.py"), *arguments))


def web(number: int, plan: ServicePlan, handle: int) -> Part:
    return _served("web" if plan.web == 1 else f"web-{number}", APPLICATION, handle)


def health(handle: int) -> Part:
    """Health and metrics of a host without web processes, on the same port; it also evaluates alerts."""
    return _served("health", LISTENER, handle)


def _served(name: str, application: str, handle: int) -> Part:
    return Part(name, (sys.executable, "-m", "registry.servers.serve", str(handle), application), (handle,))


def worker(slot: int) -> Part:
    return manage(f"worker-{slot}", "worker", "--slot", str(slot))


def pool_worker(pool: PoolPlan, slot: int) -> Part:
    takes = [word for one in pool.takes for word in ("--take", one)]
    size = f"{pool.minimum}-{pool.maximum}"
    name = f"worker-{pool.name}-{slot}"
    return manage(name, "worker", "--slot", str(slot), "--pool", pool.name, *takes, "--pool-size", size)


def stripe(plan: ServicePlan) -> Part:
    """The Stripe sandbox of the demo; it sends its webhooks to the demo's account."""
    told = f"{plan.local_address}/webhooks/stripe/demo.stripe"
    home = str(plan.data / "stripe")
    limits = ("--http", "registry.edge.protocol:BoundedProtocol")
    return Part("stripe", (sys.executable, "-m", "sandbox", "--home", home, "--webhook", told, *limits))


def parts(plan: ServicePlan, listener: socket.socket) -> list[Part]:
    """Everything but the workers, whose number changes."""
    handle = listener.fileno()
    fronts = [web(number, plan, handle) for number in range(1, plan.web + 1)] if plan.does("web") else [health(handle)]
    played = [stripe(plan)] if plan.demo else []  # first: parts that call Stripe at their start get an answer
    keeping = [manage("housekeeping", "worker", "--housekeeping"), manage("cron", "cron")]
    return [*played, *fronts, *(keeping if plan.does("housekeeping") else [])]


def environment(plan: ServicePlan) -> dict[str, str]:
    """Environment of the parts: unbuffered output, one metrics folder for all. With the demo: its tenant is open, and changes of
    state are not logged, because the lines of its own payments would hide the printed login within seconds."""
    path = os.pathsep.join(
        filter(None, [str(PROJECT), os.getenv("PYTHONPATH")])
    )  # Python's own variable, not a setting
    own = {
        "PYTHONUNBUFFERED": "1",
        "PROMETHEUS_MULTIPROC_DIR": str(metrics_folder(plan)),
        "PYTHONPATH": path,
        "REGISTRY_ROLE": plan.role,
    }
    defaults = {"REGISTRY_OPEN_TENANT": "demo", "LOG_CHANGES": "false"} if plan.demo else {}
    demo = {name: os.environ.get(name) or value for name, value in defaults.items()}
    return {**os.environ, **own, **demo}


def metrics_folder(plan: ServicePlan) -> Path:
    return plan.data / "metrics"
