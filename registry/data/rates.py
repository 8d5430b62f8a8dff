"""Rate limiter in Redis. Callers name the limit and the subject that it applies to.

Nothing is limited while Redis is unavailable: a refused payment is worse than one too many.
"""

import asyncio
from contextlib import suppress

from django.conf import settings
from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.storage.redis.redispy import RedispyBridge
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from limits.util import WindowStats

from registry.data import clock, identity, redis_health, redis_servers
from registry.data.loop import PerLoop

TIMEOUT = 1.0  # seconds for Redis
USE = "limits"


class _Storage(RedisStorage):
    """The library's, with moving windows by the service's clock: all hosts count calls in the same ones."""

    bridge: RedispyBridge

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        named = [self.bridge.prefixed_key(key)]
        return bool(await self.bridge.lua_acquire_moving_window(named, [clock.timestamp(), limit, expiry, amount]))

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        at, named = clock.timestamp(), [self.bridge.prefixed_key(key)]
        window = await self.bridge.lua_moving_window(named, [at - expiry, limit])
        return (float(window[0]), window[1]) if window else (at, 0)


def open_limiter() -> MovingWindowRateLimiter:
    storage = _Storage(
        "async+redis://",  # where it is, the pool knows
        implementation="redispy",
        key_prefix=f"{identity.prefix()}:limits",
        connection_pool=redis_servers.pool(settings.REDIS_URL),  # type: ignore[arg-type]  # documented, but not in its type
    )
    return MovingWindowRateLimiter(storage)


async def close_limiter(limiter: MovingWindowRateLimiter) -> None:
    with suppress(Exception):  # Redis may be unavailable
        await limiter.storage.bridge.storage.aclose(close_connection_pool=True)  # type: ignore[attr-defined]


limiters: PerLoop[MovingWindowRateLimiter] = PerLoop(open_limiter, close=close_limiter)


async def count(limit: RateLimitItem, *subject: str, cost: int = 1) -> tuple[bool, WindowStats] | None:
    """Count `cost` against the limit of `subject`: whether it is allowed, and the window. None while Redis is unavailable."""
    if redis_health.is_paused(USE):
        return None
    try:
        async with asyncio.timeout(TIMEOUT):
            allowed = await limiters.get().hit(limit, *subject, cost=cost)
            window = await limiters.get().get_window_stats(limit, *subject)
    except Exception as error:
        redis_health.record_error(USE, error)
        return None
    redis_health.record_success(USE)
    return allowed, window


async def spend(limit: RateLimitItem, *subject: str, cost: int = 1) -> bool:
    """Whether `cost` more fits into the window of `limit`, which begins with the first call. One number is stored per subject,
    where `count` stores each call. True while Redis is unavailable."""
    if redis_health.is_paused(USE):
        return True
    try:
        async with asyncio.timeout(TIMEOUT):
            fits = await FixedWindowRateLimiter(limiters.get().storage).hit(limit, *subject, cost=cost)
    except Exception as error:
        redis_health.record_error(USE, error)
        return True
    redis_health.record_success(USE)
    return fits
