"""Rate limiter in Redis. Callers name the limit and the subject that it applies to.

Nothing is limited while Redis is unavailable: a refused payment is worse than one too many.
"""

import asyncio
from contextlib import suppress

from django.conf import settings
from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from limits.util import WindowStats

from registry.data import identity, redis_health, redis_servers
from registry.data.loop import PerLoop

TIMEOUT = 1.0  # seconds for Redis
USE = "limits"


def open_limiter() -> MovingWindowRateLimiter:
    storage = RedisStorage(
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
