"""Whether Redis serves. Everybody who uses it goes on without it; here its trouble gets a name, one line in the log, a count.

A Redis in trouble may refuse connections, answer nothing, or answer and take no writes: full, a replica, short of replicas.
"""

import asyncio
import logging
import time
from typing import Any

import redis
from django.conf import settings
from redis.asyncio import Redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from registry import telemetry
from registry.data import identity

log = logging.getLogger(__name__)

PROBE_LIMIT = 1.0  # seconds for a connection, and for an answer
REST = 2.0  # seconds that a use which failed is left alone, so that requests do not all wait for a Redis that hangs
SAY_EVERY = 10.0  # seconds between lines about one use, however often it changes

# What Redis answers → the name of the trouble. The first that fits.
_BY_CLASS: tuple[tuple[type[BaseException], str], ...] = (
    (redis.exceptions.OutOfMemoryError, "full"),
    (redis.exceptions.ReadOnlyError, "read_only"),
    (redis.exceptions.BusyLoadingError, "loading"),
    (redis.exceptions.NoPermissionError, "not_permitted"),
    (redis.exceptions.MaxConnectionsError, "too_many_clients"),
    (redis.exceptions.AuthenticationError, "password_refused"),
    (redis.exceptions.TimeoutError, "no_answer"),
    (TimeoutError, "no_answer"),
)
_BY_WORD = {
    "MISCONF": "cannot_save",
    "NOREPLICAS": "too_few_replicas",
    "BUSY": "busy",
    "NOAUTH": "password_refused",
    "WRONGPASS": "password_refused",
    "max": "too_many_clients",  # number of clients reached
}
SENTENCES = {
    "full": "Redis is full and takes no writes",
    "read_only": "Redis is a read-only replica",
    "loading": "Redis is loading its data",
    "not_permitted": "Redis does not permit the service's user to write",
    "too_many_clients": "Redis has no room for another client",
    "password_refused": "Redis refuses the service's password",
    "no_answer": "Redis does not answer",
    "cannot_save": "Redis takes no writes because it cannot save them",
    "too_few_replicas": "Redis takes no writes because it has too few replicas",
    "busy": "Redis is busy with a script",
    "unreachable": "Redis cannot be reached",
    "refused": "Redis refuses to write",
}


def trouble_of(error: BaseException) -> str:
    """The name of the trouble, one of SENTENCES."""
    for kind, name in _BY_CLASS:
        if isinstance(error, kind):
            return name
    if name := _BY_WORD.get(str(error).partition(" ")[0], ""):
        return name
    return "unreachable" if isinstance(error, (redis.exceptions.ConnectionError, OSError)) else "refused"


# -- What this process has seen ----------------------------------------------------------------------------------


class _Use:
    """One use of Redis, such as rate limits."""

    def __init__(self) -> None:
        self.trouble = self.said = ""
        self.said_at = -SAY_EVERY
        self.failed_at = 0.0


_uses: dict[str, _Use] = {}


def failed(use: str, error: BaseException) -> None:
    """`use` could not be had. Says so in the log when that is new."""
    noted(use, trouble_of(error))


def noted(use: str, trouble: str) -> None:
    """`failed`, by the trouble's name."""
    found = _uses.setdefault(use, _Use())
    found.trouble, found.failed_at = trouble, time.monotonic()
    telemetry.REDIS_ERRORS.labels(use, found.trouble).inc()
    _say(use, found)


def served(use: str) -> None:
    """`use` was had."""
    if (found := _uses.get(use)) and (found.trouble or found.said):
        found.trouble = ""
        _say(use, found)


def rests(use: str) -> bool:
    """Whether `use` failed a moment ago: then it is not even tried."""
    found = _uses.get(use)
    return bool(found and found.trouble and time.monotonic() - found.failed_at < REST)


def _say(use: str, found: _Use) -> None:
    now = time.monotonic()
    if found.trouble == found.said or now - found.said_at < SAY_EVERY:
        return
    found.said, found.said_at = found.trouble, now
    if found.trouble:
        log.warning("%s; going on without it", SENTENCES[found.trouble], extra={"use": use})
    else:
        log.warning("Redis serves again", extra={"use": use})


def forget() -> None:
    """For tests: as if nothing had failed."""
    _uses.clear()


class Sparing(logging.Filter):
    """At most one line in SAY_EVERY seconds of a library that would log each failed try, and without its stack."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at = -SAY_EVERY

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._said_at < SAY_EVERY:
            return False
        self._said_at = now
        if record.exc_info and record.exc_info[1]:
            record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]!r}", ()
            record.exc_info = None
        return True


logging.getLogger("channels_redis.pubsub").addFilter(Sparing())


# -- Asking it ------------------------------------------------------------------------------------------------------


def servers() -> dict[str, str]:
    """The URLs in use, by what they are for; one that serves several purposes is named by the first."""
    wanted = {"limits": settings.REDIS_URL, "live": settings.LIVE_REDIS_URL, "jobs": settings.RQ_REDIS_URL}
    if "stream" in (settings.SPILL, settings.INTAKE):
        wanted["spill"] = settings.SPILL_REDIS_URL
    first: dict[str, str] = {}
    for use, url in wanted.items():
        first.setdefault(url, use)
    return {use: url for url, use in first.items()}


LIMITS: dict[str, Any] = {"socket_timeout": PROBE_LIMIT, "socket_connect_timeout": PROBE_LIMIT}


async def probe(url: str) -> str:
    """Write one small key that lapses; the name of the trouble, empty where there is none."""
    try:
        async with (
            asyncio.timeout(PROBE_LIMIT),
            Redis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **LIMITS) as client,
        ):
            await client.set(f"{identity.prefix()}:probe", 1, ex=60)
    except (redis.exceptions.RedisError, OSError) as error:
        return trouble_of(error)
    return ""


def probe_sync(url: str) -> str:
    """`probe` for a process without a loop."""
    try:
        with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **LIMITS) as client:
            client.set(f"{identity.prefix()}:probe", 1, ex=60)
    except (redis.exceptions.RedisError, OSError) as error:
        return trouble_of(error)
    return ""


async def troubles() -> dict[str, str]:
    """Of each server in use, by what it is used for."""
    found = servers()
    return dict(zip(found, await asyncio.gather(*map(probe, found.values())), strict=True))
