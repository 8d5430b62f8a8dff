"""Decisions about retries: which errors, after which pause, within which time budget. Nothing here sleeps or sends."""

import random
import time
from collections.abc import Callable
from enum import Enum

import msgspec

from registry_client.errors import (
    ConnectionFailed,
    NotConnected,
    RateLimited,
    RegistryError,
    ResponseError,
    ServiceUnavailable,
)


class Safety(Enum):
    """When a request may be sent again."""

    REPEATABLE = "its id, key or lease makes a second execution impossible or harmless"
    ONCE = "a second execution would have a second effect: only if the first certainly was not executed"


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """The retry policy. All times are seconds."""

    budget: float = 30.0  # from the first try; no try begins later
    first: float = 0.1  # the longest pause before the second try; doubles with every try
    longest: float = 5.0  # the longest pause, unless the service asks for a longer one by Retry-After

    def __post_init__(self) -> None:
        if self.budget < 0 or self.first < 0 or self.longest < 0:
            raise ValueError("times of a retry policy are not negative")


DEFAULT_RETRY = Retry()
RECONNECT = Retry(budget=300.0, longest=10.0)  # of a lost websocket: its reader can wait longer than a request
NO_RETRY = Retry(budget=0)


def allows(error: RegistryError, safety: Safety) -> bool:
    """Whether a request that ended in `error` may be sent again."""
    if isinstance(error, (NotConnected, RateLimited)):  # certainly not executed
        return True
    return safety is Safety.REPEATABLE and isinstance(error, (ConnectionFailed, ServiceUnavailable))


class Tries:
    """The tries of one request."""

    def __init__(
        self,
        policy: Retry,
        safety: Safety = Safety.REPEATABLE,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy, self._safety, self._clock, self._jitter = policy, safety, clock, jitter
        self._deadline = clock() + policy.budget
        self._failed = 0

    def pause_after(self, error: RegistryError) -> float | None:
        """Seconds to wait before the next try; None if there is none: then raise the error."""
        if not allows(error, self._safety):
            return None
        pause = max(self._backoff(), _asked_for(error))
        self._failed += 1
        return pause if self._clock() + pause < self._deadline else None

    def _backoff(self) -> float:
        """Exponential backoff with full jitter, so that clients that failed together do not come back together."""
        return self._jitter(0, min(self._policy.longest, self._policy.first * 2 ** min(self._failed, 30)))


def _asked_for(error: RegistryError) -> float:
    return (error.retry_after or 0.0) if isinstance(error, ResponseError) else 0.0


class Deadline:
    """The end of a wait."""

    def __init__(self, seconds: float, policy: Retry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy, self._clock = policy, clock
        self._at = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds until then, never negative."""
        return max(0.0, self._at - self._clock())

    @property
    def retry(self) -> Retry:
        """The policy of a request within the wait: it may be tried again until its end, if the client tries again at all."""
        return msgspec.structs.replace(self._policy, budget=self.left) if self._policy.budget else self._policy
