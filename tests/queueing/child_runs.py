"""Attempts of jobs in child processes, as a worker runs them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from queueing.jobs.processes.children import Children
from queueing.jobs.processes.outcomes import Outcome
from queueing.jobs.processes.wire import Assignment
from registry.servers.processes import read_proc

MIB = 2**20


def assignment(kind: str, given: dict[str, Any] | bytes = b"{}", **options: Any) -> Assignment:
    ids = {"job_id": uuid4(), "row_id": 1, "tenant_id": 7, "attempt": 2, "fence": 3, "key": "key-2"}
    defaults = {**ids, "timeout": 60.0, "memory": 256 * MIB, "result_ttl": 3600}
    encoded = given if isinstance(given, bytes) else msgspec.json.encode(given)
    return Assignment(**{"kind": f"child.{kind}", "input": encoded, **defaults, **options})


async def run(
    children: Children,
    kind: str,
    given: dict[str, Any] | bytes = b"{}",
    *,
    progress: Callable[[int, int | None, str], None] = lambda *_: None,
    cancelled: asyncio.Event | None = None,
    kill: asyncio.Event | None = None,
    **options: Any,
) -> Outcome:
    return await children.run(
        assignment(kind, given, **options),
        progress=progress,
        cancelled=cancelled or asyncio.Event(),
        kill=kill or asyncio.Event(),
    )


def living(pids: list[int]) -> list[int]:
    """Those of these processes that run; one that nobody has waited for does not."""
    return [pid for pid in pids if _state(pid) not in ("", "Z", "X")]


def _state(pid: int) -> str:
    return read_proc(pid, "stat").rpartition(b")")[2][1:2].decode()


def written_pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []
