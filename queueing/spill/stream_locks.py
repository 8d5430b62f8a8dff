"""Locks of the stream engine: a Redis key per stream that names its owner and expires when the owner falls silent."""

import time
from typing import Any

from redis.exceptions import OutOfMemoryError

_RENEW = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"


class StreamLocks:
    """The streams that this process owns, in the order in which it drains them. Methods raise RedisError, OSError."""

    def __init__(self, redis: Any, prefix: str, owner: str, *, own: str, ttl: float) -> None:
        self._redis, self._prefix, self._owner, self._own, self._ttl = redis, prefix, owner, own, ttl
        self.owned: list[str] = []  # streams of dead processes first, the own one last
        self._renewed_at = time.monotonic()

    def _key(self, stream: str) -> str:
        return f"{self._prefix}{stream}:owner"

    async def acquire(self, stream: str) -> bool:
        """Returns whether this process owns the stream now."""
        if stream in self.owned:
            return True
        try:
            free = await self._redis.set(self._key(stream), self._owner, nx=True, px=int(self._ttl * 1000))
        except OutOfMemoryError:
            # A lock is a new key, but draining needs no new memory and frees some. Where two processes drain one stream for
            # that reason, they share its entries; only the order between their batches is lost.
            free = not await self._redis.exists(self._key(stream))
        if free:
            self.owned.insert(len(self.owned) if stream == self._own else 0, stream)
        return bool(free)

    async def renew(self) -> None:
        """Renew all locks, at most every fifth of their lifetime. One that expired (after a long pause) is somebody else's."""
        if not self.owned or time.monotonic() - self._renewed_at < self._ttl / 5:
            return
        self._renewed_at = time.monotonic()
        for stream in list(self.owned):
            if not await self._redis.eval(_RENEW, 1, self._key(stream), self._owner, int(self._ttl * 1000)):
                self.owned.remove(stream)
                if stream == self._own:
                    await self.acquire(stream)

    async def release(self, stream: str) -> None:
        await self._redis.eval(_RELEASE, 1, self._key(stream), self._owner)

    def drop(self, pipe: Any, stream: str) -> None:
        """Delete the lock of a stream that is deleted by the same pipeline."""
        pipe.delete(self._key(stream))
