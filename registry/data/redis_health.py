"""Health of Redis: classifies its errors, logs and counts changes, probes the servers. All users of Redis go on without it.

A Redis in trouble refuses connections, does not respond, or responds but refuses writes (full, replica, too few replicas).
"""

import asyncio
import logging
import time

import redis
from django.conf import settings
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from registry.data import identity, redis_servers
from registry.telemetry import metrics

log = logging.getLogger(__name__)

PROBE_LIMIT = 1.0  # seconds for a connection, and for an answer
PAUSE = 2.0  # seconds without attempts after a failure, so that not every request waits for a Redis that hangs
LOG_INTERVAL = 10.0  # seconds between log lines about one use, however often its state changes

# Class of the error → name of the trouble; the first match counts.
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
    """Classify an error; the result is a key of SENTENCES."""
    for kind, name in _BY_CLASS:
        if isinstance(error, kind):
            return name
    if name := _BY_WORD.get(str(error).partition(" ")[0], ""):
        return name
    return "unreachable" if isinstance(error, (redis.exceptions.ConnectionError, OSError)) else "refused"


# -- State of each use, in this process ----------------------------------------------------------------------------------


class _Use:
    """One use of Redis, such as rate limits."""

    def __init__(self) -> None:
        self.trouble = self.logged = ""
        self.logged_at = -LOG_INTERVAL
        self.failed_at = 0.0


_uses: dict[str, _Use] = {}


def record_error(use: str, error: BaseException) -> None:
    """Record a failed use; a new trouble is logged."""
    record_trouble(use, trouble_of(error))


def record_trouble(use: str, trouble: str) -> None:
    """Record a failed use by the name of the trouble; a new trouble is logged."""
    state = _uses.setdefault(use, _Use())
    state.trouble, state.failed_at = trouble, time.monotonic()
    metrics.REDIS_ERRORS.labels(use, trouble).inc()
    _log_change(use, state)


def record_success(use: str) -> None:
    if (state := _uses.get(use)) and (state.trouble or state.logged):
        state.trouble = ""
        _log_change(use, state)


def is_paused(use: str) -> bool:
    """Whether `use` failed within the last PAUSE seconds, so that callers should not try it."""
    state = _uses.get(use)
    return bool(state and state.trouble and time.monotonic() - state.failed_at < PAUSE)


def _log_change(use: str, state: _Use) -> None:
    now = time.monotonic()
    if state.trouble == state.logged or now - state.logged_at < LOG_INTERVAL:
        return
    state.logged, state.logged_at = state.trouble, now
    if state.trouble:
        log.warning("%s; going on without it", SENTENCES[state.trouble], extra={"use": use})
    else:
        log.warning("Redis serves again", extra={"use": use})


def reset() -> None:
    """Forget all failures. For tests."""
    _uses.clear()


class SparseFilter(logging.Filter):
    """Passes one line per LOG_INTERVAL, without its stack, of a library that logs every failed attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._logged_at = -LOG_INTERVAL

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._logged_at < LOG_INTERVAL:
            return False
        self._logged_at = now
        if record.exc_info and record.exc_info[1]:
            record.msg, record.args = f"{record.getMessage()}: {record.exc_info[1]!r}", ()
            record.exc_info = None
        return True


logging.getLogger("channels_redis.pubsub").addFilter(SparseFilter())


# -- Probes ------------------------------------------------------------------------------------------------------


def servers() -> dict[str, str]:
    """The URLs in use, by use; a URL with several uses is listed under the first."""
    urls = {"limits": settings.REDIS_URL, "live": settings.LIVE_REDIS_URL, "jobs": settings.RQ_REDIS_URL}
    if "stream" in (settings.SPILL, settings.INTAKE):
        urls["spill"] = settings.SPILL_REDIS_URL
    first: dict[str, str] = {}
    for use, url in urls.items():
        first.setdefault(url, use)
    return {use: url for url, use in first.items()}


async def probe(url: str) -> str:
    """Write a small key that expires. Returns the name of the trouble, or an empty text."""
    try:
        async with (
            asyncio.timeout(PROBE_LIMIT),
            redis_servers.connect(
                url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=PROBE_LIMIT,
                socket_connect_timeout=PROBE_LIMIT,
            ) as client,
        ):
            await client.set(f"{identity.prefix()}:probe", 1, ex=60)
    except (redis.exceptions.RedisError, OSError) as error:
        return trouble_of(error)
    return ""


def probe_sync(url: str) -> str:
    """`probe` for a process without an event loop."""
    return asyncio.run(probe(url))


async def troubles() -> dict[str, str]:
    """Probe each server in use; the results by use."""
    urls = servers()
    return dict(zip(urls, await asyncio.gather(*map(probe, urls.values())), strict=True))
