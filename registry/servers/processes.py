"""Processes and ports as the kernel reports them (/proc), and waiting for a condition with a limit."""

import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

POLL = 0.01  # seconds between two looks
PORTS = range(20000, 32000)  # below Linux's ephemeral range: a reconnecting client must never sit on our port by chance


def processes_in(folder: Path) -> list[int]:
    """Process ids whose working directory is `folder`. Zombies have no working directory."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.readlink(f"/proc/{entry}/cwd") == str(folder):
                    found.append(int(entry))
            except OSError:
                continue
    return found


def read_proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def command_of(pid: int) -> str:
    return read_proc(pid, "comm").decode().strip()


def parent_of(pid: int) -> int:
    fields = read_proc(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def signal_process(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def port_is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    return next(port for port in random.sample(PORTS, len(PORTS)) if port_is_free(port))


def holds_within(limit: float, question: Callable[[], bool]) -> bool:
    """Poll a condition until it holds. False after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not question():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True


def children(pid: int) -> list[int]:
    numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [number for number in numbers if parent_of(number) == pid]


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]
