"""Trees of processes and their memory, as the kernel reports them in /proc. A process that has ended has none."""

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")


def children(pid: int) -> set[int]:
    """The children of all threads of a process, also those that nobody has waited for."""
    found: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found.update(map(int, _read(f"/proc/{pid}/task/{thread}/children").split()))
    except OSError:
        pass
    return found


def descendants(pid: int) -> set[int]:
    """The process and all below it."""
    found, new = set[int](), {pid}
    while new:
        found |= new
        new = {child for parent in new for child in children(parent)} - found
    return found


def resident_memory(pid: int) -> int:
    """Bytes in physical memory, counting what it shares with others in full. Takes microseconds."""
    fields = _read(f"/proc/{pid}/statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def own_memory(pid: int) -> int:
    """Bytes in memory or swapped out, counting its part of what it shares with others. Takes milliseconds."""
    lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith((b"Pss:", b"SwapPss:")))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
