"""Hosts as network namespaces on one switch, a bridge in a namespace of its own: nothing of it is in the machine's own network.

A name holds the number of the process that made it, so that what a killed laboratory left is known and removed by the next one.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from registry.servers.processes import signal_process
from tests.bed.running import PROJECT

PREFIX = "registry-lab-"
SUBNET = "10.77.0."
BRIDGE = "switch"
END_LIMIT = 20.0  # seconds from the signal to the end of every process of a host
DELAY, HELD, SHARE = (
    80,
    200,
    1,
)  # milliseconds that a slow link adds each way; milliseconds more for this share (per cent)


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """The switch, and the machines that are plugged into it."""

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}"
        self.switch = f"{self.name}-switch"
        self.machines: list[Machine] = []

    def open(self) -> None:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "name", BRIDGE, "type", "bridge", "forward_delay", "0")
        ip("-n", self.switch, "link", "set", BRIDGE, "up")

    def machine(self, name: str) -> "Machine":
        self.machines.append(Machine(self, name, len(self.machines) + 1))
        self.machines[-1].plug_in()
        return self.machines[-1]

    def close(self) -> None:
        take_down(self.name)


class Machine:
    """A host: a namespace with one address and one link, and every process in it."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.network, self.name, self.number = network, name, number
        self.namespace = f"{network.name}-{name}"
        self.address = f"{SUBNET}{number}"
        self.port = f"port-{number}"  # of the switch
        self.within = ("ip", "netns", "exec", self.namespace)

    def __str__(self) -> str:
        return self.name

    def plug_in(self) -> None:
        ip("netns", "add", self.namespace)
        ends = ("name", "eth0", "netns", self.namespace, "type", "veth", "peer", "name", self.port)
        ip("link", "add", *ends, "netns", self.network.switch)
        ip("-n", self.namespace, "link", "set", "lo", "up")
        ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        ip("-n", self.network.switch, "link", "set", self.port, "up", "master", BRIDGE)

    def start(
        self,
        command: Sequence[str | Path],
        *,
        log: IO[bytes],
        user: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        cwd: Path = PROJECT,
    ) -> subprocess.Popen[bytes]:
        """A process of this host, in a session of its own: ^C is for the laboratory, which ends it. `user`: as Popen takes it."""
        become = (
            ["setpriv", "--reuid", str(user["user"]), "--regid", str(user["group"]), "--clear-groups"] if user else []
        )
        return subprocess.Popen(
            [*self.within, *become, *map(str, command)],
            cwd=cwd, env=dict(environ or os.environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def pids(self) -> list[int]:
        return pids_in(self.namespace)

    def kill(self) -> None:
        """Every process at once, as a host that loses its power."""
        end_all(self.namespace)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Every process stands still; connections stay open and say nothing."""
        stopped: set[int] = set()
        try:
            while new := {*self.pids()} - stopped:  # some begin while others are stopped
                _send(signal.SIGSTOP, new)
                stopped |= new
            yield
        finally:
            _send(signal.SIGCONT, stopped)

    @contextmanager
    def cut_off(self) -> Iterator[None]:
        """The switch forwards nothing from or to it: packets vanish, and neither side is told."""
        self._out()
        try:
            yield
        finally:
            self._in()

    @contextmanager
    def cut_off_from(self, others: Sequence["Machine"]) -> Iterator[None]:
        """What it sends to these goes to an address that no link has; everything else reaches it, and is reached."""
        for other in others:
            nobody = ("lladdr", "02:00:00:00:00:00", "nud", "permanent", "dev", "eth0")
            ip("-n", self.namespace, "neighbour", "replace", other.address, *nobody)
        try:
            yield
        finally:
            for other in others:
                ip("-n", self.namespace, "neighbour", "del", other.address, "dev", "eth0")

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Its link delays what it carries, both ways: by netem where the kernel has it, else by a relay between port and switch."""
        with _by_netem(self) if has_netem() else _by_relay(self):
            yield

    def _out(self) -> None:
        ip("-n", self.network.switch, "link", "set", self.port, "nomaster")

    def _in(self) -> None:
        ip("-n", self.network.switch, "link", "set", self.port, "master", BRIDGE)


# -- Slow links ------------------------------------------------------------------------------------------------


@cache
def has_netem() -> bool:
    """Whether this kernel has netem; asked in a namespace that exists for the question."""
    name = f"{PREFIX}{os.getpid()}-netem"
    ip("netns", "add", name)
    try:
        tried = ["tc", "-n", name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]
        return subprocess.run(tried, capture_output=True).returncode == 0
    finally:
        ip("netns", "del", name)


@contextmanager
def _by_netem(machine: Machine) -> Iterator[None]:
    """A lost packet is sent again after 200 ms at the earliest: the writes behind it are held for as long."""
    ends = ((machine.namespace, "eth0"), (machine.network.switch, machine.port))
    for place, link in ends:
        netem = ("netem", "delay", f"{DELAY}ms", "loss", f"{SHARE}%")
        subprocess.run(["tc", "-n", place, "qdisc", "add", "dev", link, "root", *netem], check=True)
    try:
        yield
    finally:
        for place, link in ends:
            subprocess.run(["tc", "-n", place, "qdisc", "del", "dev", link, "root"], check=True)


@contextmanager
def _by_relay(machine: Machine) -> Iterator[None]:
    switch, inner, outer = machine.network.switch, f"relay-{machine.number}", f"far-{machine.number}"
    ip("-n", switch, "link", "add", "name", inner, "type", "veth", "peer", "name", outer)
    ip("-n", switch, "link", "set", inner, "up")
    ip("-n", switch, "link", "set", outer, "up", "master", BRIDGE)
    machine._out()
    command = ["ip", "netns", "exec", switch, sys.executable, "-m", "tests.lab.relay", machine.port, inner]
    relay = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        relay.kill()
        relay.wait()
        ip("-n", switch, "link", "del", inner)
        machine._in()


# -- The end ----------------------------------------------------------------------------------------------------


def pids_in(namespace: str) -> list[int]:
    return [int(pid) for pid in ip("netns", "pids", namespace).split() if int(pid) != os.getpid()]


def _send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        signal_process(pid, number)


def end_all(namespace: str) -> None:
    """Kill every process of a namespace, those too that are started meanwhile. Raises TimeoutError."""
    deadline = time.monotonic() + END_LIMIT
    while pids := pids_in(namespace):
        _send(signal.SIGKILL, pids)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{namespace}: {pids} do not end")
        time.sleep(0.02)


def take_down(name: str) -> None:
    """End every process in the namespaces of one laboratory, and remove them. The bridge and all links go with them."""
    namespaces = [one for one in _namespaces() if one.startswith(f"{name}-")]
    for namespace in namespaces:
        end_all(namespace)
    for namespace in namespaces:
        ip("netns", "del", namespace)


def left_behind() -> set[str]:
    """Names of laboratories whose process is gone: it was killed before it could take them down."""
    found = set()
    for namespace in _namespaces():
        number = namespace.removeprefix(PREFIX).partition("-")[0]
        if namespace.startswith(PREFIX) and number.isdigit() and not Path(f"/proc/{number}").exists():
            found.add(f"{PREFIX}{number}")
    return found


def _namespaces() -> list[str]:
    return [line.split()[0] for line in ip("netns", "list").splitlines() if line]


@contextmanager
def standing_in(machine: Machine) -> Iterator[None]:
    """This thread, and those that it starts, are in a machine's network while the block runs."""
    with Path("/proc/thread-self/ns/net").open() as own, Path(f"/run/netns/{machine.namespace}").open() as its:
        os.setns(its.fileno(), os.CLONE_NEWNET)
        try:
            yield
        finally:
            with suppress(OSError):
                os.setns(own.fileno(), os.CLONE_NEWNET)
