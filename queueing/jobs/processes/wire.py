"""Messages between a worker, its fork server and the child processes of jobs.

The sockets are of type SOCK_SEQPACKET: one packet is one message, which arrives whole or not at all, even if several
processes write to the same socket.

    worker ── Fork (with three file descriptors), Kill ──► fork server
    worker ◄── ServerReady, Forked, Exited ────────────────────── fork server
    worker ── Assignment ──► child
    worker ◄── LogLine, then one Outcome ── child
"""

import socket
from typing import Any
from uuid import UUID

import msgspec

from queueing.jobs.processes.outcomes import Canceled, Failed, Interrupted, Succeeded

LARGEST_PACKET = 208 * 1024  # bytes; the kernel's default buffer of a socket, which no packet exceeds


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a job, as the child process gets it."""

    kind: str
    input: bytes  # JSON
    job_id: UUID
    row_id: int
    tenant_id: int
    attempt: int  # as it is shown
    fence: int  # number of the attempt, which its writes name
    key: str  # idempotency key for calls to other services
    timeout: float  # seconds
    memory: int  # bytes for the process and its children, beside those of the fork server, which they share
    result_ttl: int  # seconds that its file is kept


class LogLine(msgspec.Struct, frozen=True, tag=True):
    """A record of the child's log."""

    level: int
    logger: str
    text: str
    fields: dict[str, Any] = {}


class ServerReady(msgspec.Struct, frozen=True, tag=True):
    """The fork server has loaded the apps."""


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Start a child. File descriptors: its socket, the pipe for its output, its shared page."""

    number: int
    memory: int


class Kill(msgspec.Struct, frozen=True, tag=True):
    """Kill a child with all its descendants. A child that has ended already is ignored."""

    number: int


class Forked(msgspec.Struct, frozen=True, tag=True):
    """A child has started. It leads the process group of this number."""

    number: int
    pid: int


class Exited(msgspec.Struct, frozen=True, tag=True):
    """A child and all its descendants have ended."""

    number: int
    status: int = 0  # exit status; negative: the signal
    over_memory: bool = False  # it was killed for that
    error: str = ""  # it could not be started, or its fork server ended


encode = msgspec.msgpack.encode
assignments = msgspec.msgpack.Decoder(Assignment)
from_child = msgspec.msgpack.Decoder(LogLine | Succeeded | Failed | Canceled | Interrupted)
from_worker = msgspec.msgpack.Decoder(Fork | Kill)
from_server = msgspec.msgpack.Decoder(ServerReady | Forked | Exited)


def pair() -> tuple[socket.socket, socket.socket]:
    """The worker's end, which does not block, and the other one, which does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs
