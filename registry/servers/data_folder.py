"""The data folder of one pair of embedded servers: lock, ports, passwords, and copies of programs the account may run."""

import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from registry.servers.binaries import EmbeddedError, Program, unprivileged_account
from registry.servers.processes import free_port, holds_within

log = logging.getLogger(__name__)

LOCK_LIMIT = 180.0  # seconds to wait for another process that starts or stops the same servers
HOMES_OF_ROOT = (
    Path("/var/lib"),
    Path("/var/tmp"),
)  # where server data goes when the servers' account may not enter root's project

_held: set[Path] = set()  # locks this process holds; servers are never started from several threads


class DataFolder:
    """The data folder of one pair of servers, and the account that owns it."""

    def __init__(self, data: Path) -> None:
        self.data = data.absolute()
        self.account = unprivileged_account() if os.geteuid() == 0 else None

    @property
    def as_process(self) -> dict[str, Any]:
        return self.account.as_process if self.account else {}

    @property
    def is_chosen(self) -> bool:
        return "folder" in self.state()

    @property
    def folder(self) -> Path:
        """Where the servers' data is: the data folder itself, or a replacement when the servers' account may not enter it."""
        state = self.state()
        if "folder" not in state:
            with self.lock():
                state = self.state()
                if "folder" not in state:
                    self.keep(state | {"folder": str(self.choose_folder())})
        return Path(self.state()["folder"])

    def choose_folder(self) -> Path:
        if self.account is None or self.lets_in(self.data):
            return self.data.resolve()
        folder = home_of_root() / f"registry-{hashlib.sha256(str(self.data).encode()).hexdigest()[:12]}"
        folder.mkdir(mode=0o711, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != 0:
            raise EmbeddedError(f"{folder} belongs to another user")
        log.warning("%s is closed to user %s: the servers' data is in %s", self.data, self.account.name, folder)
        return folder

    def lets_in(self, path: Path) -> bool:
        question = ["/bin/sh", "-c", 'cd "$1"', "sh", str(path)]
        done = subprocess.run(question, cwd="/", capture_output=True, **self.as_process)
        return done.returncode == 0

    def usable(self, program: Program) -> Path:
        """The executable as the account can run it: copied once into the data folder if its own location is closed."""
        if self.account is None or self.runs(program.executable):
            return program.executable
        if program.root is None:
            raise EmbeddedError(f"user {self.account.name} cannot run {program.executable}")
        copy = self.copied(program, program.root)
        if not self.runs(copy):
            raise EmbeddedError(f"user {self.account.name} cannot run {copy}")
        return copy

    def runs(self, executable: Path) -> bool:
        try:
            done = subprocess.run([executable, "--version"], cwd="/", capture_output=True, **self.as_process)
        except OSError:
            return False
        return done.returncode == 0

    def copied(self, program: Program, root: Path) -> Path:
        facts = program.executable.stat()
        version = hashlib.sha256(f"{program.executable} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:12]
        target = self.folder / "programs" / version
        if not target.exists():
            fresh = target.with_name(f"new-{secrets.token_hex(4)}")
            for tree in program.trees:
                shutil.copytree(tree, fresh / tree.relative_to(root), ignore=shutil.ignore_patterns("include", "*.a"))
            fresh.rename(target)
            log.warning("%s is closed to user %s: copied to %s", root, self.account and self.account.name, target)
        return target / program.executable.relative_to(root)

    def make_folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        self.give(folder)
        return folder

    def write(self, path: Path, text: str) -> None:
        """Write a file that only the servers' account may read (mode 0600)."""
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        self.give(path)

    def give(self, path: Path) -> None:
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)

    # Ports, passwords and the folder are chosen once and kept in embedded.json.

    def secrets_of(self, name: str) -> dict:
        state = self.state()
        if name not in state:
            with self.lock():
                state = self.state()
                if name not in state:
                    state = self.invent(name)
        return state[name]

    def invent(self, name: str) -> dict:
        if (self.folder / name).exists():
            raise EmbeddedError(f"{self.folder / name} has data, but its password was in {self.data}/embedded.json")
        return self.keep(self.state() | {name: {"port": free_port(), "password": secrets.token_hex(24)}})

    def move_port(self, name: str) -> None:
        state = self.state()
        self.keep(state | {name: state[name] | {"port": free_port()}})

    def state(self) -> dict:
        try:
            return json.loads((self.data / "embedded.json").read_text())
        except FileNotFoundError:
            return {}

    def keep(self, state: dict) -> dict:
        path = self.data / "embedded.json"
        fresh = path.with_suffix(f".{os.getpid()}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(state, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        return state

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Exclusive lock for starting, stopping and choosing ports; re-entrant within a process."""
        if self.data in _held:
            yield
            return
        self.open_data()
        with open(self.data / "embedded.lock", "a") as file:
            lock_within(LOCK_LIMIT, file, fcntl.LOCK_EX)
            _held.add(self.data)
            try:
                yield
            finally:
                _held.discard(self.data)

    def open_data(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        if self.account:  # the servers need only pass through; a umask of 077 would forbid that
            self.data.chmod(self.data.stat().st_mode | 0o011)


def home_of_root() -> Path:
    return next((home for home in HOMES_OF_ROOT if os.access(home, os.W_OK)), HOMES_OF_ROOT[-1])


def lock_within(limit: float, file, kind: int) -> None:
    if not holds_within(limit, lambda: locked(file, kind)):
        raise EmbeddedError(f"{file.name} is locked by another process for more than {limit:.0f} s")


def locked(file, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
