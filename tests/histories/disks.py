"""Small disks in memory for PostgreSQL and for the spill, to be filled; where this process may mount them."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

SIZES = {"postgres": "640m", "spill": "8m"}  # by folder; PostgreSQL keeps 256 MB of its log
BALLAST = "ballast"
PIECE = 64 * 1024  # bytes


@cache
def may_mount() -> bool:
    with TemporaryDirectory() as folder:
        if subprocess.run(mounting(Path(folder), "64k"), capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


@contextmanager
def small_disks(data: Path) -> Iterator[None]:
    """Mount a disk on each of these folders of a service's folder while the block runs."""
    mounted = []
    try:
        for name, size in SIZES.items() if may_mount() else ():
            (data / name).mkdir()
            subprocess.run(mounting(data / name, size), check=True)
            mounted.append(data / name)
        yield
    finally:
        for folder in mounted:
            subprocess.run(["umount", str(folder)], check=True)


def mounting(folder: Path, size: str) -> list[str]:
    return ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Not a byte is left on the disk of the folder while the block runs."""
    ballast = folder / BALLAST
    try:
        with ballast.open("wb") as file, suppress(_Full):
            space, end = os.statvfs(folder), 0
            while True:
                end += _grown(file.fileno(), end, max(space.f_bavail * space.f_frsize // 8, PIECE))
                space = os.statvfs(folder)
        yield
    finally:
        ballast.unlink(missing_ok=True)


class _Full(Exception):
    pass


def _grown(file: int, end: int, more: int) -> int:
    """How many bytes the file grew by; raises _Full."""
    while more:
        try:
            os.posix_fallocate(file, end, more)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            more //= 2
            if more < 4096:
                raise _Full from error
        else:
            return more
    raise _Full
