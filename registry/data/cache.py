"""Single-flight cache in memory: concurrent callers share one load, and its result is reused for `fresh` seconds."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Hashable

from registry.data import db_breaker, orm
from registry.data.loop import PerLoop, Tasks
from registry.errors import Unavailable

FRESH = 0.4  # seconds that a value is used without a reload
STALE = 0.8  # seconds that it is used while a reload runs; then callers wait. A change takes effect within 1 s
KEPT = 10_000  # entries at most: many unknown keys evict others, memory does not grow
NEVER = float("-inf")


class _Entry[T]:
    """A value with the time its load began, and the running load."""

    __slots__ = ("asked_at", "began_at", "changed_at", "loading", "value")

    def __init__(self) -> None:
        self.value: T | None = None  # set once asked_at > NEVER
        self.asked_at = NEVER
        self.loading: asyncio.Task[T] | None = None
        self.began_at = NEVER  # of that load
        self.changed_at = NEVER  # loads that began before do not know of a change

    @property
    def known(self) -> bool:
        return self.asked_at > NEVER


class _Loop[T]:
    """The entries of a cache on one event loop."""

    def __init__(self) -> None:
        self.entries: dict[Hashable, _Entry[T]] = {}
        self.loads = Tasks()
        self.failed_at = NEVER

    async def close(self) -> None:
        await self.loads.cancel()


class Cached[K: Hashable, T]:
    """Values by key. Callers share the values and must not change them.

    A value is used for `fresh` seconds after its load began, and until `stale` while one load renews it; then callers wait
    for that load. A cancelled caller does not cancel the load for others. Errors go to the waiting callers and are not cached.

    `while_away`: serve the last value, however old, while the database is unavailable or slow. Without a last value callers
    wait for a slow statement, unless they are not `patient` because they have a default: then they get Unavailable (503)
    after a short wait, and at once for `fresh` seconds after that. `hashed`: store keys as hashes because they are secrets.
    """

    def __init__(
        self,
        load: Callable[[K], Awaitable[T]],
        *,
        fresh: float = FRESH,
        stale: float = STALE,
        while_away: bool = False,
        patient: bool = True,
        hashed: bool = False,
        kept: int = KEPT,
    ) -> None:
        self.load, self.fresh, self.stale = load, fresh, max(fresh, stale)
        self._while_away, self._patient, self._hashed, self._kept = while_away, patient, hashed, kept
        self.loops: PerLoop[_Loop[T]] = PerLoop(_Loop, close=_Loop.close)

    async def get(self, key: K, *, since: float = NEVER) -> T:
        """The value of `key`, loaded at `since` (time.monotonic()) or later. Raises what the load raised."""
        mine = self.loops.get()
        entry = mine.entries.get(self._kept_as(key)) or self._add(mine, key)
        now, since = time.monotonic(), max(since, entry.changed_at)
        if entry.asked_at >= since and (age := now - entry.asked_at) < self.stale:
            if age >= self.fresh and entry.loading is None:
                self._begin(mine, key, entry)
            return entry.value  # type: ignore[return-value]
        if not self._patient and not entry.known and now - mine.failed_at < self.fresh:
            raise Unavailable
        if entry.loading is None or entry.began_at < since:
            self._begin(mine, key, entry)
        return await asyncio.shield(entry.loading)  # type: ignore[arg-type]

    def peek(self, key: K) -> T | None:
        """The last value, however old, or None."""
        entry = self.loops.get().entries.get(self._kept_as(key))
        return entry.value if entry else None

    def change(self, key: K, change: Callable[[T], T]) -> None:
        """Apply a change that was committed to the value known last, and load anew for whoever asks from now on."""
        if (entry := self.loops.get().entries.get(self._kept_as(key))) is not None:
            entry.changed_at = time.monotonic()
            if entry.known:
                entry.value = change(entry.value)  # type: ignore[arg-type]

    def forget(self, key: K) -> None:
        """Drop a value: later calls start a new load, also while an older load runs."""
        self.loops.get().entries.pop(self._kept_as(key), None)

    def _kept_as(self, key: K) -> Hashable:
        return hashlib.sha256(str(key).encode()).digest() if self._hashed else key

    def _add(self, mine: _Loop[T], key: K) -> _Entry[T]:
        if len(mine.entries) >= self._kept:
            del mine.entries[next(iter(mine.entries))]
        entry = mine.entries[self._kept_as(key)] = _Entry()
        return entry

    def _begin(self, mine: _Loop[T], key: K, entry: _Entry[T]) -> None:
        entry.began_at = time.monotonic()
        entry.loading = mine.loads.start(self._renew(mine, key, entry, entry.began_at))
        entry.loading.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # retrieve the error: no caller may be waiting

    async def _renew(self, mine: _Loop[T], key: K, entry: _Entry[T], began_at: float) -> T:
        served = self._while_away and entry.known
        try:
            async with orm.own_connection():
                value = await db_breaker.attempt(
                    lambda: self.load(key), writes=False, patient=self._patient and not served
                )
        except Unavailable:
            mine.failed_at = time.monotonic()
            if not served:
                raise
            entry.asked_at = time.monotonic()
            return entry.value  # type: ignore[return-value]
        except Exception:
            if mine.entries.get(self._kept_as(key)) is entry:
                self.forget(key)
            raise
        finally:
            if entry.began_at == began_at:
                entry.loading = None
        if began_at >= max(entry.asked_at, entry.changed_at):  # a load that began later may have ended earlier
            entry.value, entry.asked_at = value, began_at
        return value


class Bounded[K: Hashable, V]:
    """A bounded dictionary of facts that do not change; evicts the oldest entry."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._items: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        return self._items.get(key)

    def put(self, key: K, value: V) -> None:
        if len(self._items) >= self._kept:
            del self._items[next(iter(self._items))]
        self._items[key] = value

    def drop(self, key: K) -> None:
        self._items.pop(key, None)
