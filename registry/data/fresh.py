"""What the database said a moment ago, for callers who ask many times a second and may be a second behind."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from registry.data import reach
from registry.errors import Unavailable

FRESH = 0.4  # seconds that an answer is used without a second thought
STALE = 0.8  # seconds that it is used while being asked again; after that we wait. A change works within 1 s
KEPT = 10_000  # entries; a flood of invented names evicts, it does not grow


@dataclass(slots=True)
class _Entry[T]:
    value: T
    asked_at: float
    refresh: asyncio.Task | None = None


class Fresh[T]:
    """Answers by name, never older than a second. If the database is away, what it said last: nobody can change it then.

    Where nothing is known yet, a slow statement is waited for. Not so where callers have an answer of their own (`or_else`):
    they hear Unavailable soon, and at once for a moment after that.
    """

    def __init__(self, load: Callable[[str], Awaitable[T]], *, or_else: bool = False) -> None:
        self._load, self._or_else = load, or_else
        self._failed_at = -FRESH
        self._entries: dict[bytes, _Entry[T]] = {}

    async def get(self, name: str) -> T:
        key = hashlib.sha256(name.encode()).digest()  # names may be secrets: none of them in memory dumps
        entry = self._entries.get(key)
        if entry is None:
            return (await self._first(key, name)).value
        age = time.monotonic() - entry.asked_at
        if age < FRESH:
            return entry.value
        if entry.refresh is None:
            entry.refresh = asyncio.create_task(self._again(key, name, entry))
        if age > STALE:
            await asyncio.shield(entry.refresh)
        return self._entries.get(key, entry).value

    async def _first(self, key: bytes, name: str) -> _Entry[T]:
        if not self._or_else:
            return await self._ask(key, name)
        if time.monotonic() - self._failed_at < FRESH:
            raise Unavailable
        try:
            return await self._ask(key, name)
        except Unavailable:
            self._failed_at = time.monotonic()
            raise

    async def _ask(self, key: bytes, name: str) -> _Entry[T]:
        asked_at = time.monotonic()
        patient = key not in self._entries and not self._or_else
        value = await reach.attempt(lambda: self._load(name), writes=False, patient=patient)
        if len(self._entries) >= KEPT:
            self._entries.pop(next(iter(self._entries)))
        entry = self._entries[key] = _Entry(value, asked_at)
        return entry

    async def _again(self, key: bytes, name: str, entry: _Entry[T]) -> None:
        try:
            await self._ask(key, name)
        except Unavailable:
            entry.asked_at = time.monotonic()
        finally:
            entry.refresh = None
