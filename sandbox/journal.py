"""Append-only journal file of changes, one per line: [name, value]; the last line of a name counts, null removes it."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec


class Journal:
    """Read completely at the start, then rewritten without outdated lines. File access runs in threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._turn = asyncio.Lock()
        self._waiting: list[bytes] = []

    async def open(self) -> list[tuple[str, Any]]:
        """Current values, in order of their first line."""
        return list((await asyncio.to_thread(self._open)).items())

    async def write(self, changes: Mapping[str, Any]) -> None:
        """Append lines without fsync: they survive the death of the process, not of the machine."""
        self._waiting += [msgspec.json.encode(item) + b"\n" for item in changes.items()]
        async with self._turn:
            lines, self._waiting = self._waiting, []
            if lines and self._file:
                await asyncio.to_thread(self._append, self._file, b"".join(lines))

    async def close(self) -> None:
        async with self._turn:
            if self._file:
                await asyncio.to_thread(self._file.close)
                self._file = None

    def _open(self) -> dict[str, Any]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        known = self._read()
        fresh = self.path.with_suffix(".fresh")
        fresh.touch(mode=0o600)
        fresh.write_bytes(b"".join(msgspec.json.encode(item) + b"\n" for item in known.items()))
        fresh.replace(self.path)
        self._file = self.path.open("ab")
        return known

    def _read(self) -> dict[str, Any]:
        known: dict[str, Any] = {}
        if not self.path.exists():
            return known
        for line in self.path.read_bytes().splitlines():
            try:
                name, value = msgspec.json.decode(line)
            except (msgspec.DecodeError, ValueError):
                continue  # partial last line of a killed process
            known[name] = value
        return {name: value for name, value in known.items() if value is not None}

    @staticmethod
    def _append(file: BinaryIO, lines: bytes) -> None:
        file.write(lines)
        file.flush()
