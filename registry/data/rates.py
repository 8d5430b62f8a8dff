"""Counting against rate limits in Redis. Whom and what they limit, the callers know.

Without Redis nothing is limited: a payment refused is worse than one too many.
"""

import asyncio
from contextlib import suppress

from django.conf import settings
from limits import RateLimitItem
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.util import WindowStats

from registry.data import identity, redis_trouble
from registry.data.loop import PerLoop

WITHIN = 1.0  # seconds for Redis. A burst must not be able to outwait it
USE = "limits"


def open_limiter() -> MovingWindowRateLimiter:
    storage = RedisStorage(
        f"async+{settings.REDIS_URL}", implementation="redispy", key_prefix=f"{identity.prefix()}:limits"
    )
    return MovingWindowRateLimiter(storage)


async def close_limiter(limiter: MovingWindowRateLimiter) -> None:
    with suppress(Exception):  # Redis may be away
        await limiter.storage.bridge.storage.aclose()  # type: ignore[attr-defined]


limiters: PerLoop[MovingWindowRateLimiter] = PerLoop(open_limiter, close=close_limiter)


async def count(item: RateLimitItem, *of: str, cost: int = 1) -> tuple[bool, WindowStats] | None:
    """Count `cost` against the limit of `of`: whether it is within it, and the window. None while Redis does not serve."""
    if redis_trouble.rests(USE):
        return None
    try:
        async with asyncio.timeout(WITHIN):
            allowed = await limiters.get().hit(item, *of, cost=cost)
            window = await limiters.get().get_window_stats(item, *of)
    except Exception as error:
        redis_trouble.failed(USE, error)
        return None
    redis_trouble.served(USE)
    return allowed, window
