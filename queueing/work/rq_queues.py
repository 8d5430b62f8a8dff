"""RQ's queues and connections. Names in Redis include the service's, so that no other service on that Redis runs its jobs."""

from typing import Any

import django_rq
from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue

from queueing.work.worker import GentleWorker
from registry.data import identity, redis_servers

CONNECT_LIMIT = 2.0  # seconds


def connection() -> Redis:
    """A connection without retries: workers continue without Redis (without_redis.py)."""
    return redis_servers.connect_blocking(
        settings.RQ_REDIS_URL,
        socket_timeout=GentleWorker.connection_timeout,
        socket_connect_timeout=CONNECT_LIMIT,
        retry=Retry(NoBackoff(), 0),
    )


def queue_name(name: str) -> str:
    """The queue's name in Redis."""
    ours = f":{identity.name()}"
    return name if name.endswith(ours) else name + ours


class ServiceQueue(Queue):
    """An RQ queue under the service's name, as RQ_QUEUES names it for django-rq.

    django-rq's own class looks up its settings by the name in Redis, and waits for commits of Django's connection, which jobs here
    do not depend on.
    """

    def __init__(
        self, name: str, *args: Any, autocommit: bool | None = None, commit_mode: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(queue_name(name), *args, **kwargs)


def queue(name: str, connection: Redis) -> Queue:
    """The queue that RQ_QUEUES names, or one of a pool, which it does not know."""
    if name in settings.RQ_QUEUES:
        return django_rq.get_queue(name, connection=connection)
    return ServiceQueue(name, connection=connection)
