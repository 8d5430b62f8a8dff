"""Lines to standard error that never wait for their reader.

A pipe takes 64 kB; whoever reads it may stand still (a suspended `up`, a pager, a full disk behind a collector). What does not fit is
kept, up to LIMIT bytes, and written by a thread that lives only as long; what exceeds LIMIT is dropped and counted.
"""

import os
import select
import socket
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from registry.telemetry import metrics

STDERR = 2
LIMIT = 4 * 1024 * 1024  # bytes that wait for the reader, per process
LOOK_EVERY = 1_000  # milliseconds between two looks at a reader that stands still
END_LIMIT = 1.0  # seconds that the end of a process waits for the reader


class LogOutput:
    """Writes lines to a file descriptor, which stays the caller's. For use by all threads.

    `dropped_line` makes the line that says how many lines were dropped, once the reader takes lines again.
    """

    def __init__(self, descriptor: int, dropped_line: Callable[[int], bytes] | None = None) -> None:
        self.dropped_line = dropped_line
        self._descriptor = descriptor
        self._send, self._wait_on = _without_waiting(descriptor)
        self._clear()
        os.register_at_fork(after_in_child=self._clear)

    def _clear(self) -> None:
        # In a child the thread does not exist, the lock may be held for ever, and the lines are the parent's to write.
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None

    def write(self, lines: bytes) -> None:
        """Write whole lines, now or later. Errors, such as of a closed terminal, are ignored."""
        with self._lock:
            if self._thread is None:
                lines = self._written(lines)
                if not lines:
                    return
                self._keep(lines)
                self._thread = threading.Thread(target=self._write_later, name="log output", daemon=True)
                self._thread.start()
            elif self._bytes + len(lines) > LIMIT:
                number = lines.count(b"\n")
                self._dropped += number
                metrics.LOG_DROPPED.inc(number)
            else:
                self._keep(lines)

    def flush(self, seconds: float = END_LIMIT) -> None:
        """Wait until everything is written, for at most `seconds`."""
        end = time.monotonic() + seconds
        while (thread := self._thread) and time.monotonic() < end:
            thread.join(max(0.0, end - time.monotonic()))

    def _keep(self, lines: bytes) -> None:
        self._waiting.append(lines)
        self._bytes += len(lines)

    def _written(self, lines: bytes) -> bytes:
        """Write as much as the reader takes now. Returns the rest."""
        try:
            while lines:
                lines = lines[self._send(lines) :]
        except BlockingIOError:
            return lines
        except OSError:  # nobody will ever read it
            return b""
        return lines

    def _write_later(self) -> None:
        poll = select.poll()
        poll.register(self._wait_on, select.POLLOUT)
        while True:
            with suppress(OSError):
                poll.poll(LOOK_EVERY)
            with self._lock:
                if self._thread is not threading.current_thread() or not self._write_waiting():
                    return

    def _write_waiting(self) -> bool:
        """Write what waits, as far as the reader takes it. Returns whether some is left."""
        while self._waiting:
            lines = self._waiting.popleft()
            rest = self._written(lines)
            self._bytes -= len(lines) - len(rest)
            if rest:
                self._waiting.appendleft(rest)
                return True
            if not self._waiting and self._dropped and self.dropped_line:
                self._keep(self.dropped_line(self._dropped))
                self._dropped = 0
        self._thread = None
        return False


def _without_waiting(descriptor: int) -> tuple[Callable[[bytes], int], int]:
    """A function that writes without waiting, or raises BlockingIOError, and the descriptor to poll.

    O_NONBLOCK is a property of the open file, which other processes may share: a pipe or a terminal is opened anew for it.
    A regular file makes nobody wait for a reader.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            connection = socket.socket(fileno=os.dup(descriptor))
            return lambda lines: connection.send(lines, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL), connection.fileno()
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            own = os.open(f"/dev/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            return lambda lines: os.write(own, lines), own
    except OSError:
        pass  # such as a descriptor of another user: then a reader that stands still makes us wait
    return lambda lines: os.write(descriptor, lines), descriptor


stderr = LogOutput(STDERR)
