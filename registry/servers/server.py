"""One embedded server of one data folder: found, started, stopped. What PostgreSQL and Valkey need is in postgres.py and valkey.py.

No pid file is ever believed: a server of ours is a process whose working directory is its data folder, and which
answers on our port with our password.
"""

import logging
import os
import signal
import subprocess
from pathlib import Path
from typing import ClassVar

from registry.servers.binaries import EmbeddedError
from registry.servers.data_folder import DataFolder
from registry.servers.processes import command_of, holds_within, parent_of, port_is_free, processes_in, signal_process

log = logging.getLogger(__name__)

START_LIMIT = 120.0  # seconds; crash recovery replays up to max_wal_size before the first answer
STOP_LIMIT = 2.0  # seconds for a clean stop; the log makes a hard one safe, and `up` owes its exit within 10 s
HARD_STOP_LIMIT = 5.0  # seconds from the hard stop until nothing is left
TROUBLE_LIMIT = 5.0  # seconds that a command waits for a Valkey that runs and does not answer
ANSWER_LIMIT = 2.0  # seconds for a server on loopback to answer at all
PORT_TRIES = 5  # another program may take the port between our check and the server's bind
LOG_SIZE = 10 * 1024 * 1024  # bytes of an output file before the next start rotates it

_children: list[
    subprocess.Popen
] = []  # kept, so that ended servers are reaped and Popen does not warn about running ones


class Server:
    """One server of one data folder. `start` and `stop` may be called by anybody at any time, from any process."""

    name: ClassVar[str]
    variable: ClassVar[str]
    processes: ClassVar[tuple[str, ...]]
    stop_signal: ClassVar[int]
    hard_signal: ClassVar[int]

    def __init__(self, data: Path) -> None:
        self.data_folder = DataFolder(data)

    @property
    def folder(self) -> Path:
        return self.data_folder.folder / self.name

    @property
    def url(self) -> str:
        """The server's URL. Port and password are chosen at the first call."""
        raise NotImplementedError

    @property
    def taken_over(self) -> bool:
        """Whether a URL in the environment names another server than this one."""
        given = os.environ.get(self.variable)
        return bool(given) and (self.name not in self.data_folder.state() or given != self.url)

    @property
    def port(self) -> int:
        return self.data_folder.secrets_of(self.name)["port"]

    @property
    def password(self) -> str:
        return self.data_folder.secrets_of(self.name)["password"]

    def answers(self) -> bool:
        """Whether it accepts our password on our port and serves our folder."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """All running processes of this server; none for a folder that was never used (nothing is chosen here)."""
        if not self.data_folder.is_chosen:
            return []
        return [pid for pid in processes_in(self.folder) if command_of(pid) in self.processes]

    def pid(self) -> int | None:
        """The server's main process; None if only orphaned children run, or nothing."""
        pids = self.pids()
        return next((pid for pid in pids if parent_of(pid) not in pids and not self.is_child(pid)), None)

    def is_child(self, pid: int) -> bool:
        return False

    def start(self) -> None:
        """Start it unless it runs, with the port and password chosen before. Raises EmbeddedError."""
        with self.data_folder.lock():
            if self.answers() or self.lives_in_trouble():
                return
            self.clear_leftovers()
            if not self.answers():
                self.prepare()
                self.launch()
                self.after_start()

    def lives_in_trouble(self) -> bool:
        """Whether it runs without answering and callers can go on without it."""
        return False

    def stop(self) -> None:
        """Stop it cleanly within STOP_LIMIT, else hard; no process is left afterwards."""
        with self.data_folder.lock():
            self.ask_to_stop()
            self.see_gone()

    def ask_to_stop(self) -> None:
        if pid := self.pid():
            signal_process(pid, self.stop_signal)

    def see_gone(self) -> None:
        for limit, number in ((STOP_LIMIT, self.hard_signal), (HARD_STOP_LIMIT, signal.SIGKILL)):
            if holds_within(limit, lambda: not self.pids()):
                return
            for pid in self.pids():
                signal_process(pid, number)
        if not holds_within(HARD_STOP_LIMIT, lambda: not self.pids()):
            raise EmbeddedError(f"{self.name} does not stop: {self.pids()}")

    def clear_leftovers(self) -> None:
        """Wait for a server that is just starting or stopping; kill the orphaned children of one that was killed."""
        pid = self.pid()
        settled = lambda: self.answers() or self.pid() != pid  # noqa: E731
        if pid and not holds_within(TROUBLE_LIMIT, settled):
            log.warning("%s runs as process %d and does not answer; waiting %.0f s", self.name, pid, START_LIMIT)
        if pid and not holds_within(START_LIMIT, settled):
            raise EmbeddedError(f"{self.name} runs as process {pid} but does not answer on port {self.port}")
        if self.pid() is None:
            for pid in self.pids():
                signal_process(pid, self.hard_signal)
            self.see_gone()

    def prepare(self) -> None:
        """Make the data folder ready for the server."""
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def after_start(self) -> None:
        """Create what a new server lacks, such as the database."""

    def launch(self) -> None:
        for _ in range(PORT_TRIES):
            if not port_is_free(self.port):
                self.data_folder.move_port(self.name)
                log.warning("port of %s is taken by another program, moving to %d", self.name, self.port)
            self.configure()
            if self.comes_up(self.spawn()):
                return
            if port_is_free(self.port):  # the port was not the reason
                break
        raise EmbeddedError(f"{self.name} ended at start\n{self.last_words()}")

    def comes_up(self, process: subprocess.Popen) -> bool:
        """Wait until it answers; False if it ended instead. Raises EmbeddedError after START_LIMIT."""
        if not holds_within(START_LIMIT, lambda: self.answers() or process.poll() is not None):
            raise EmbeddedError(f"{self.name} does not answer after {START_LIMIT:.0f} s\n{self.last_words()}")
        return process.poll() is None

    def configure(self) -> None:
        raise NotImplementedError

    @property
    def output(self) -> Path:
        return self.data_folder.folder / f"{self.name}.log"

    def spawn(self) -> subprocess.Popen:
        rotate(self.output)
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C must reach only us; we stop the servers in order
                **self.data_folder.as_process,
            )
        _children.append(process)
        return process

    def last_words(self) -> str:
        return self.output.read_text(errors="replace")[-2000:] if self.output.exists() else ""


def rotate(path: Path) -> None:
    """Keep one older output file, so that output never fills the disk."""
    if path.exists() and path.stat().st_size > LOG_SIZE:
        path.rename(path.with_suffix(".log.1"))


def server_environment() -> dict[str, str]:
    """Our environment without variables that override the servers' configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "REGISTRY_"))}
    return {name: value for name, value in kept.items() if not name.endswith("_URL")} | {"LC_ALL": "C"}
