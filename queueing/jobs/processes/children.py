"""Child processes of jobs, as a worker sees them: each runs one attempt within limits of time and memory.

They are forked by a fork server (fork_server.py), which the first attempt starts.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Self

import msgspec
from msgspec import structs

from queueing.jobs.processes import outcomes, wire
from queueing.jobs.processes.forking import NotForked, RunningForkServer
from queueing.jobs.processes.outcomes import Canceled, Failed, Interrupted, Outcome, Succeeded
from queueing.jobs.processes.output import Output
from queueing.jobs.processes.page import Progress, SharedPage
from queueing.jobs.processes.wire import Assignment, Exited, LogLine
from registry.data.loop import Tasks

CANCEL_GRACE = 5.0  # seconds that a canceled job has to reach a checkpoint; then it is killed
KILL_LIMIT = (
    2.0  # seconds from a kill to the report of the end; then the fork server is killed, and with it all children
)
EXIT_LIMIT = 0.5  # seconds that a process which closed its socket has to end by itself
REST_LIMIT = 5.0  # seconds to read and log what an ended process has written
PROGRESS_EVERY = 0.25  # seconds between two looks at the progress
RESTART_PAUSE = 1.0  # seconds until a fork server that did not start is started again

type OnProgress = Callable[[int, int | None, str], None]


class Children:
    """The child processes of one worker and its event loop. Its owner closes it."""

    def __init__(self) -> None:
        self._server: RunningForkServer | None = None
        self._starting = asyncio.Lock()
        self._failure, self._failed_at = "", 0.0
        self._closed = False

    async def run(
        self, assignment: Assignment, *, progress: OnProgress, cancelled: asyncio.Event, kill: asyncio.Event
    ) -> Outcome:
        """Run one attempt. `cancelled` stops it at its next checkpoint, or kills it after CANCEL_GRACE; `kill` kills it at once.

        When it returns, no process of the attempt is left. If the calling task is cancelled, they are killed, too. `progress` is
        called on the loop, at most every PROGRESS_EVERY, with what the function reported last.
        """
        try:
            server = await self._running()
            if cancelled.is_set() or kill.is_set():
                return Canceled()
            with ChildProcess(server, assignment) as process:
                return await process.outcome(progress, cancelled, kill)
        except (NotForked, OSError) as error:  # no memory, too many processes or open files
            return Failed("process_not_started", f"its process was not started: {error}")

    async def close(self) -> None:
        """Kill everything. `run` starts nothing after that."""
        self._closed = True
        async with self._starting:
            if self._server:
                await self._server.close()

    async def _running(self) -> RunningForkServer:
        async with self._starting:
            if self._closed:
                raise NotForked("the worker is stopping")
            if not self._server or self._server.lost:
                await self._restart()
            assert self._server
            return self._server

    async def _restart(self) -> None:
        if self._failure and time.monotonic() < self._failed_at + RESTART_PAUSE:
            raise NotForked(self._failure)
        if self._server:
            await self._server.close()
        self._server, self._failure = None, ""
        try:
            self._server = await RunningForkServer.start()
        except NotForked as error:
            self._failure, self._failed_at = str(error), time.monotonic()
            raise


class ChildProcess:
    """One attempt in its process. Leaving the context kills what is left of it."""

    def __init__(self, server: RunningForkServer, assignment: Assignment) -> None:
        self.assignment = assignment
        self._output = Output(assignment)
        self._shown: Progress | None = None
        with ExitStack() as stack, ExitStack() as theirs:
            self._page, page = SharedPage.create()
            stack.callback(self._page.close)
            theirs.callback(os.close, page)
            self._channel, channel = wire.pair()
            stack.enter_context(self._channel)
            theirs.enter_context(channel)
            self._pipe, pipe = os.pipe()
            stack.callback(os.close, self._pipe)
            theirs.callback(os.close, pipe)
            os.set_blocking(self._pipe, False)
            self._channel.send(wire.encode(assignment))
            self._number, self._exited = server.fork((channel.fileno(), pipe, page), assignment.memory)
            self._server = server
            stack.callback(server.kill, self._number)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    async def outcome(self, progress: OnProgress, cancelled: asyncio.Event, kill: asyncio.Event) -> Outcome:
        tasks = Tasks()
        try:
            reported = tasks.start(self._reported())
            written = tasks.start(self._output.follow(self._pipe))
            stopped = tasks.start(self._stopped(cancelled, kill))
            tasks.start(self._follow_progress(progress))
            await _wait(reported, stopped, self._exited)
            if _is_silent(reported):  # it is about to end, and its exit status says why
                await _wait(stopped, self._exited, within=EXIT_LIMIT)
            cause = self._cause(_result(stopped))
            exited = await self._end()
            await asyncio.wait({reported, written}, timeout=REST_LIMIT)
            self._show_progress(progress)
            return self._verdict(exited, _result(reported), cause)
        finally:
            await tasks.cancel()

    async def _reported(self) -> Outcome | None:
        """Log what the child logs, and return the outcome it reports. None: it has closed its socket, and can report none."""
        loop = asyncio.get_running_loop()
        with suppress(OSError, msgspec.MsgspecError):
            while packet := await loop.sock_recv(self._channel, wire.LARGEST_PACKET):
                message = wire.from_child.decode(packet)
                if not isinstance(message, LogLine):
                    return message
                self._output.record(message)
                await asyncio.sleep(0)  # sock_recv gives no turn to others while there is more to read
        return None

    async def _stopped(self, cancelled: asyncio.Event, kill: asyncio.Event) -> Failed | Canceled:
        """Wait until the process has to be killed, and return the outcome that this has."""
        try:
            async with asyncio.timeout(self.assignment.timeout):
                await _first(cancelled, kill)
                self._page.cancel()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CANCEL_GRACE):
                        await kill.wait()
        except TimeoutError:
            return outcomes.timed_out(self.assignment.timeout)
        return Canceled()

    def _cause(self, stopped: Failed | Canceled | None) -> Failed | Canceled | None:
        """Why we kill it now, unless it has reported its outcome. None: it has ended by itself."""
        if stopped or self._exited.done():
            return stopped
        return outcomes.process_died("it closed its socket to the worker")

    async def _end(self) -> Exited:
        self._server.kill(self._number)
        await asyncio.wait({self._exited}, timeout=KILL_LIMIT)
        if not self._exited.done():
            self._server.abandon()
        return await self._exited

    async def _follow_progress(self, progress: OnProgress) -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY)
            self._show_progress(progress)

    def _show_progress(self, progress: OnProgress) -> None:
        written = self._page.read()
        if written and written != self._shown:
            self._shown, (done, total, message) = written, written
            progress(done, total, self._output.clean(message))

    def _verdict(self, exited: Exited, reported: Outcome | None, cause: Failed | Canceled | None) -> Outcome:
        match reported:
            case Succeeded() | Canceled() | Interrupted():
                return reported
            case Failed():
                clean = self._output.clean
                return structs.replace(reported, detail=clean(reported.detail), traceback=clean(reported.traceback))
        if exited.over_memory:
            return outcomes.out_of_memory(self.assignment.memory)
        if cause:
            return cause
        return outcomes.process_died(exited.error) if exited.error else outcomes.of_exit(exited.status)


async def _wait(*futures: asyncio.Future[Any], within: float | None = None) -> None:
    """Wait for the first of these futures."""
    await asyncio.wait(futures, timeout=within, return_when=asyncio.FIRST_COMPLETED)


async def _first(*events: asyncio.Event) -> None:
    """Wait for the first of these events."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await _wait(*waiting)
    finally:
        for task in waiting:
            task.cancel()


def _is_silent(reported: asyncio.Task[Outcome | None]) -> bool:
    return reported.done() and reported.result() is None


def _result[T](task: asyncio.Task[T]) -> T | None:
    return task.result() if task.done() else None
