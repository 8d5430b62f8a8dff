"""The worker's side of its fork server (fork_server.py): start it, have children forked and killed, learn of their ends."""

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from typing import Self

from django.conf import settings

from queueing.jobs.kinds import KINDS
from queueing.jobs.processes import wire
from queueing.jobs.processes.wire import Exited, Fork, Forked, Kill, ServerReady

log = logging.getLogger(__name__)

START_LIMIT = 30.0  # seconds to load the apps; one or two on a machine that does nothing else
STOP_LIMIT = 2.0  # seconds for the fork server to kill its children and to end


class NotForked(Exception):
    """No process could be started for a job; the text says why."""


class RunningForkServer:
    """A running fork server and its children, by number. `lost` is set when it has ended."""

    def __init__(self, process: Process, control: socket.socket) -> None:
        self.process = process
        self.ready = asyncio.Event()
        self.lost = False
        self._control = control
        self._numbers = itertools.count(1)
        self._exits: dict[int, asyncio.Future[Exited]] = {}
        self._groups: dict[int, int] = {}  # process groups
        asyncio.get_running_loop().add_reader(control, self._receive)

    @classmethod
    async def start(cls) -> Self:
        """Raises NotForked."""
        modules = sorted({kind.function.__module__ for kind in KINDS.values()})
        ours, theirs = wire.pair()
        with theirs:
            command = (sys.executable, "-m", "queueing.jobs.processes.fork_server", str(theirs.fileno()), *modules)
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, cwd=settings.BASE_DIR, stdin=DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True
                )
            except BaseException as error:
                ours.close()
                if isinstance(error, OSError):
                    raise NotForked(f"the fork server was not started: {error}") from error
                raise
        server = cls(process, ours)
        try:
            await server._until_ready()
        except BaseException:
            with suppress(ProcessLookupError):
                process.kill()
            await server.close()
            raise
        return server

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(START_LIMIT):
                await self.ready.wait()
        except TimeoutError:
            raise NotForked(f"the fork server was not ready within {START_LIMIT:g} s") from None
        if self.lost:
            raise NotForked("the fork server ended while it loaded the apps; the log says why")

    def fork(self, fds: tuple[int, int, int], memory: int) -> tuple[int, asyncio.Future[Exited]]:
        """Start a child with these file descriptors: its socket, pipe and shared page. Returns its number and a future
        of its end. Raises NotForked."""
        if self.lost:
            raise NotForked("the fork server has ended")
        number = next(self._numbers)
        exited = self._exits[number] = asyncio.get_running_loop().create_future()
        self._send(Fork(number, memory), fds)
        return number, exited

    def kill(self, number: int) -> None:
        """Kill a child and all its descendants at once. One that has ended is ignored."""
        if number in self._exits:
            self._send(Kill(number))

    def abandon(self) -> None:
        """Kill a fork server that does not answer, and all children."""
        log.error("the fork server of jobs does not answer; killing it", extra={"pid": self.process.pid})
        with suppress(ProcessLookupError):
            self.process.kill()
        self._kill_groups()
        self._lose()

    async def close(self) -> None:
        """End the fork server and all children."""
        self._lose()  # it kills them when it sees the end of our socket
        try:
            async with asyncio.timeout(STOP_LIMIT):
                await self.process.wait()
        except TimeoutError:
            self.abandon()
            await self.process.wait()

    # -- Messages -------------------------------------------------------------------------------------------

    def _send(self, message: Fork | Kill, fds: tuple[int, ...] = ()) -> None:
        if self.lost:
            return
        try:
            socket.send_fds(self._control, [wire.encode(message)], fds)
        except BlockingIOError:  # it has not read hundreds of messages
            self.abandon()
        except OSError:  # it has ended; `_receive` sees that as well
            self._kill_groups()
            self._lose()

    def _receive(self) -> None:
        while not self.lost:
            try:
                packet = self._control.recv(wire.LARGEST_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if packet:
                self._handle(wire.from_server.decode(packet))
            else:
                log.error("the fork server of jobs has ended", extra={"pid": self.process.pid})
                self._kill_groups()
                self._lose()

    def _handle(self, message: ServerReady | Forked | Exited) -> None:
        match message:
            case ServerReady():
                self.ready.set()
            case Forked(number, pid):
                self._groups[number] = pid
            case Exited(number):
                self._groups.pop(number, None)
                self._exited(message)

    def _exited(self, report: Exited) -> None:
        exited = self._exits.pop(report.number, None)
        if exited and not exited.done():
            exited.set_result(report)

    def _kill_groups(self) -> None:
        """Kill the children and their groups where the fork server cannot. The kernel kills the children when it has ended."""
        for group in self._groups.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)

    def _lose(self) -> None:
        """The fork server has ended, or is to end now: close its socket, and report the end of all children."""
        if self.lost:
            return
        self.lost = True
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self.ready.set()
        for number in list(self._exits):
            self._exited(Exited(number, error="the fork server ended"))
