"""Connections to Redis: every use makes its own here, whether its URL names a server or the Sentinels that know the master."""

from contextlib import suppress
from typing import Any

from redis import Redis
from redis.asyncio import ConnectionPool as AsyncPool
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from registry.data.addresses import sentinels

SENTINEL_LIMIT = 0.3  # seconds for one Sentinel: the next one is asked after that


class MasterPool(AsyncSentinelPool):
    """Connections to the master; the pool closes those to the Sentinels too."""

    async def aclose(self) -> None:
        """Close all connections. Errors are ignored: a connection that does not close in time, as on a busy loop, is dropped anyway."""
        for closing in (super().aclose, self.sentinel_manager.aclose):
            with suppress(RedisError):
                await closing()


class BlockingMasterPool(SentinelConnectionPool):
    """The same for threads and commands."""

    def close(self) -> None:
        super().close()
        self.sentinel_manager.close()


def is_replicated(url: str) -> bool:
    """Whether another server takes over, which may lack the last writes."""
    return sentinels(url) is not None


def pool(url: str, **options: Any) -> AsyncPool:
    """A pool of connections for an event loop; `options` as of redis.asyncio.Redis. The caller closes it."""
    found = sentinels(url)
    if found is None:
        return AsyncPool.from_url(url, **options)
    limits = {"socket_timeout": SENTINEL_LIMIT, "socket_connect_timeout": SENTINEL_LIMIT}
    known_by = AsyncSentinel(
        found.sentinels, sentinel_kwargs={**limits, "retry": AsyncRetry(NoBackoff(), 0), **found.sentinel}
    )
    return MasterPool(found.name, known_by, **{**found.server, **options})


def connect(url: str, **options: Any) -> AsyncRedis:
    """A client for an event loop, which closes its pool with itself."""
    return AsyncRedis.from_pool(pool(url, **options))


def connect_blocking(url: str, **options: Any) -> Redis:
    """A client for threads and commands, which closes its pool with itself."""
    found = sentinels(url)
    if found is None:
        return Redis.from_url(url, **options)
    limits = {"socket_timeout": SENTINEL_LIMIT, "socket_connect_timeout": SENTINEL_LIMIT}
    known_by = Sentinel(found.sentinels, sentinel_kwargs={**limits, "retry": Retry(NoBackoff(), 0), **found.sentinel})
    return Redis.from_pool(BlockingMasterPool(found.name, known_by, **{**found.server, **options}))
