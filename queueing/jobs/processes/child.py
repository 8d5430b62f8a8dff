"""Child process: runs the function of one attempt of a job, and reports its outcome to the worker. Forked by fork_server.py.

It leads a session and a process group of its own, adopts its orphaned descendants, and dies with the fork server.
"""

import asyncio
import contextlib
import faulthandler
import inspect
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

import msgspec
import uvloop
from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, connections

from queueing.jobs.files import JobFileWriter
from queueing.jobs.kinds import KINDS, JobCanceled, JobFileOutput, JobLog
from queueing.jobs.processes import outcomes, wire
from queueing.jobs.processes.outcomes import Failed, Interrupted, Outcome
from queueing.jobs.processes.page import SharedPage
from queueing.jobs.processes.wire import Assignment, LogLine
from registry.data.loop import end_loop
from registry.servers.child import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, libc

FIRST_VICTIM = b"1000"  # oom_score_adj: the kernel kills a job before a database if the machine's memory ends
RESERVE = 16 * outcomes.MIB  # bytes above the memory limit, with which a MemoryError is reported
LOG_LIMIT = 512 * 1024  # bytes of log records that are sent, more than the worker writes; the rest is dropped
TEXT_LIMIT = 16 * 1024  # characters of a log record
UNREPORTED = 70  # exit status if the outcome could not be sent: EX_SOFTWARE of sysexits.h

STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime"}


class ChildContext:
    """The `Context` of a function in a child process (kinds.py). Its methods may be called from any thread."""

    def __init__(self, assignment: Assignment, page: SharedPage) -> None:
        self.job_id: UUID = assignment.job_id
        self.tenant_id = assignment.tenant_id
        self.attempt = assignment.attempt
        self.key = assignment.key
        self.log = JobLog(logging.getLogger("queueing.jobs"), {})  # the worker adds the job
        self._assignment, self._page = assignment, page

    @property
    def cancelled(self) -> bool:
        return self._page.canceled

    def check(self) -> None:
        if self._page.canceled:
            raise JobCanceled

    def progress(self, done: int, total: int | None = None, message: str = "") -> None:
        self._page.write(int(done), None if total is None else int(total), str(message))
        self.check()

    def file(self, name: str, content_type: str, *, gzip: bool = False) -> AbstractAsyncContextManager[JobFileOutput]:
        about = self._assignment
        return JobFileWriter(
            tenant_id=about.tenant_id,
            job_id=about.row_id,
            attempt=about.fence,
            name=name,
            content_type=content_type,
            gzip=gzip,
            seconds=about.result_ttl,
        )


class ToWorker(logging.Handler):
    """Logging handler that sends records to the worker, which cleans them, adds the job and writes them."""

    def __init__(self, channel: socket.socket) -> None:
        super().__init__()
        self._channel, self._left = channel, LOG_LIMIT

    def emit(self, record: logging.LogRecord) -> None:
        if self._left <= 0:
            return
        try:
            packet = wire.encode(
                LogLine(record.levelno, record.name, self.format(record)[:TEXT_LIMIT], _fields(record))
            )
            self._left -= len(packet)
            self._channel.send(packet)
        except OSError:  # the function closed the socket, or the fields are too large for a packet
            self._left -= 1
        except Exception:
            self.handleError(record)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What `extra` gave to the record."""
    plain = (str, int, float, bool, type(None))
    extra = {name: value for name, value in vars(record).items() if name not in STANDARD_FIELDS}
    return {name: value if isinstance(value, plain) else repr(value) for name, value in extra.items()}


def main(channel: socket.socket, output: int, page: int, *, memory: int, server: int) -> NoReturn:
    """Everything a child does. `server`: the process id of the fork server."""
    status = UNREPORTED
    try:
        _become_leader(server)
        _redirect(output)
        logging.getLogger().handlers = [ToWorker(channel)]
        _limit_memory(memory)
        shared = SharedPage(page)
        os.close(page)
        assignment = wire.assignments.decode(channel.recv(wire.LARGEST_PACKET))
        me = os.getpid()
        outcome = _perform(assignment, shared)
        if os.getpid() == me:  # a function that forks returns twice
            _flush()
            channel.send(wire.encode(outcome))
            status = 0
    except BaseException:
        logging.getLogger(__name__).exception("the outcome of a job could not be reported")
    finally:
        os._exit(status)  # waits for no thread, and runs nothing that the fork server registered


def _become_leader(server: int) -> None:
    os.setsid()
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != server:  # it died before we asked
        os._exit(UNREPORTED)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_bytes(FIRST_VICTIM)


def _redirect(output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    # New ones: those of the fork server may expect a file or a terminal. By lines, so that a crash loses none.
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    faulthandler.enable()  # a crash in C code writes where it was


def _limit_memory(memory: int) -> None:
    """Limit private writable memory, so that Python raises MemoryError. The fork server watches the memory of all descendants."""
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + memory, used + memory + RESERVE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold secrets


def _perform(assignment: Assignment, page: SharedPage) -> Outcome:
    kind = KINDS.get(assignment.kind)
    if kind is None:
        return Failed("unknown_kind", f"this worker does not know the kind {assignment.kind!r}")
    try:
        given = kind.decoder.decode(assignment.input)
    except msgspec.MsgspecError as error:
        return outcomes.of_bad_input(error)
    try:
        value = kind.function(ChildContext(assignment, page), given)
        if inspect.iscoroutine(value):
            value = _run(value)
        return outcomes.of_value(value)
    except BaseException as error:
        if isinstance(error, MemoryError):
            _, most = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        return Interrupted() if _is_outage(error) else outcomes.of_error(error)
    finally:
        connections.close_all()


def _is_outage(error: BaseException) -> bool:
    """As for functions on the loop. A function may also have lost a database of its own, which is no reason to repeat it for ever: ours
    is asked."""
    return outcomes.is_outage(error, away=False) and not _has_database()


def _has_database() -> bool:
    """Whether the service's database takes a new connection."""
    connection = connections[DEFAULT_DB_ALIAS]
    try:
        connection.close()
        connection.ensure_connection()
        return connection.is_usable()
    except (DatabaseError, InterfaceError):
        return False


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run an async function on a new loop, and close what it opened there."""

    async def whole() -> Any:
        try:
            return await coroutine
        finally:
            await end_loop()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
