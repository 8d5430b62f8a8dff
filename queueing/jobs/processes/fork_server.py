"""Fork server: a program that loads the apps once and forks a child process for each attempt of a job.

`python -m queueing.jobs.processes.fork_server SOCKET MODULE…`, started by a worker (forking.py), with the modules that register kinds. It
has one thread and no connections, so that a fork copies nothing that is in use. It ends with the worker, and the children
with it.
"""

import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "registry.settings")

import django
from django.apps import apps

if not apps.ready:
    django.setup(set_prefix=False)

from django.db import connections

from queueing.jobs.processes import child as job_process
from queueing.jobs.processes import wire
from queueing.jobs.processes.tree import children, descendants, own_memory, resident_memory
from queueing.jobs.processes.wire import Exited, Fork, Forked, Kill, ServerReady
from registry.servers.child import PR_SET_CHILD_SUBREAPER, libc

MEMORY_EVERY = 0.25  # seconds between two looks at the memory of the children and their descendants
ENDING_EVERY = 0.005  # seconds between two looks whether killed descendants have ended
ENDING_LIMIT = 1.0  # seconds for that; a process that waits for a disk may need longer, and is not waited for


@dataclass
class Child:
    """A child process, from its fork to the moment when its last descendant has ended."""

    number: int
    pid: int
    memory: int
    handle: int = field(init=False)  # readable once it has ended
    over_memory: bool = False

    def __post_init__(self) -> None:
        self.handle = os.pidfd_open(self.pid)

    def kill(self) -> None:
        """Kill its process group. The process id is still its own: `reap` comes later."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it was forked just now, and leads no group yet
            os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Its exit status, once it has ended. The rest of its group is killed first."""
        self.kill()
        os.close(self.handle)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class ForkServer:
    """`serve` returns when the worker has gone and all children are killed."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.children: dict[int, Child] = {}  # by number
        self.ending: list[tuple[float, Exited]] = []  # reports, and the times at which they are made at the latest
        self.shared = resident_memory(os.getpid())  # bytes, which children begin with
        self.look_at = 0.0  # time.monotonic() of the next look at the memory

    def serve(self) -> None:
        with suppress(ConnectionError):
            self.send(ServerReady())
            while self.step():
                pass
        self.end()

    def step(self) -> bool:
        """Wait for something and handle it. Returns False if the worker has gone."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        for child in self.children.values():
            poll.register(child.handle, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self.pause())}
        for child in [child for child in self.children.values() if child.handle in ready]:
            self.bury(child)
        if self.children and time.monotonic() >= self.look_at:
            self.look_at = time.monotonic() + MEMORY_EVERY
            self.check_memory()
        self.clear()
        return self.control.fileno() not in ready or self.receive()

    def pause(self) -> float | None:
        """Milliseconds until something has to be done without a message."""
        if self.ending:
            return ENDING_EVERY * 1000
        return MEMORY_EVERY * 1000 if self.children else None

    def receive(self) -> bool:
        packet, fds, _, _ = socket.recv_fds(self.control, wire.LARGEST_PACKET, 3)
        if not packet:
            return False
        match wire.from_worker.decode(packet):
            case Fork(number, memory):
                self.fork(number, memory, fds)
            case Kill(number):
                if child := self.children.get(number):
                    child.kill()
        return True

    def send(self, message: ServerReady | Forked | Exited) -> None:
        self.control.send(wire.encode(message))

    # -- Children -------------------------------------------------------------------------------------------

    def fork(self, number: int, memory: int, fds: list[int]) -> None:
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no memory, or too many processes
            self.send(Exited(number, error=str(error)))
        else:
            if pid == 0:
                self.become_child(fds, memory, server)
            self.children[number] = Child(number, pid, memory)
            self.send(Forked(number, pid))
        finally:
            for fd in fds:
                os.close(fd)

    def become_child(self, fds: list[int], memory: int, server: int) -> NoReturn:
        """Close what belongs to the fork server alone, and run the job."""
        try:
            self.control.close()
            for child in self.children.values():
                os.close(child.handle)
            channel, output, page = fds
            job_process.main(socket.socket(fileno=channel), output, page, memory=memory, server=server)
        finally:
            os._exit(job_process.UNREPORTED)

    def bury(self, child: Child) -> None:
        """Reap a child that has ended. Its descendants become ours, because we are the next subreaper."""
        del self.children[child.number]
        status = child.reap()
        self.ending.append((time.monotonic() + ENDING_LIMIT, Exited(child.number, status, child.over_memory)))

    def clear(self) -> None:
        """Kill what children left behind, also in other process groups, and report those that left nothing more.

        Descendants of a living child are its own: it adopts orphans.
        """
        if not self.ending:
            return
        left, now = self.kill_leftovers(), time.monotonic()
        for at, report in self.ending:
            if not left or at <= now:
                self.send(report)
        self.ending = [(at, report) for at, report in self.ending if left and at > now]

    def kill_leftovers(self) -> bool:
        """Returns whether some are left."""
        known = {child.pid for child in self.children.values()}
        for pid in children(os.getpid()) - known:
            os.kill(pid, signal.SIGKILL)  # a child of ours, whose process id is not used again before we reap it
            os.waitpid(pid, os.WNOHANG)
        return bool(children(os.getpid()) - known)

    def check_memory(self) -> None:
        for child in self.children.values():
            if self.uses_too_much(child):
                child.over_memory = True
                child.kill()

    def uses_too_much(self, child: Child) -> bool:
        most, processes = child.memory + self.shared, descendants(child.pid)
        # The sum counts shared pages once per process; the exact number takes milliseconds.
        return sum(map(resident_memory, processes)) > most and sum(map(own_memory, processes)) > most

    def end(self) -> None:
        """Kill everything."""
        deadline = time.monotonic() + ENDING_LIMIT
        for child in self.children.values():
            child.kill()
        self.children.clear()
        while self.kill_leftovers() and time.monotonic() < deadline:
            time.sleep(ENDING_EVERY)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        importlib.import_module(module)
    connections.close_all()  # a module may have asked the database something when it was imported
    sys.stdout.flush()  # else each child would write it again
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.collect()
    gc.freeze()  # the collector would write to every object, and so copy the memory that is shared
    ForkServer(control).serve()


if __name__ == "__main__":
    main()
