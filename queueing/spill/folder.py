"""Folders of the file engine: one per process and kind, locked (flock) for as long as its process lives."""

import fcntl
import os
import secrets
import shutil
from pathlib import Path

from django.conf import settings

from queueing.spill.segment import Segment


class Folder:
    """A folder whose lock this process holds: its own, or a dead process's that it took over."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self.lock = path, lock

    @classmethod
    def create(cls, root: Path, kind: str) -> "Folder":
        """Create and lock a folder. It has a hidden name until it is locked: else others would take it for a dead process's."""
        if not root.exists():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(root.parent)
        name = f"{kind}-{settings.REGISTRY_HOST}-{os.getpid()}-{secrets.token_hex(4)}"
        fresh = root / f".{name}"
        lock = -1
        try:
            fresh.mkdir(mode=0o700)
            lock = os.open(fresh / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fresh.rename(root / name)
            sync_folder(root)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if lock >= 0:
                os.close(lock)
            raise
        return cls(root / name, lock)

    @classmethod
    def take_over(cls, path: Path) -> "Folder | None":
        """Lock a dead process's folder. None where its process lives, or another one was faster."""
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (
                os.stat(path / "lock").st_ino == os.fstat(lock).st_ino
            ):  # else another process took it over and deleted it
                return cls(path, lock)
        except OSError:
            pass
        os.close(lock)
        return None

    def segments(self) -> list[Segment]:
        return [Segment(path) for path in sorted(self.path.glob("[0-9]*-*")) if path.suffix != ".done"]

    def release(self) -> None:
        """Unlock the folder. An empty one is deleted; another process takes over what waits in any other."""
        if not self.segments():
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def sync_folder(path: Path) -> None:
    """fsync a folder: a new name in it is durable only then."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
