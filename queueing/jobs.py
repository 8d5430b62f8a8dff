"""RQ's queues and connections under the service's own name, so that no other service on the same Redis runs its jobs."""

from django.conf import settings
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue

from queueing.worker import GentleWorker
from registry import identity

CONNECT_LIMIT = 2.0  # seconds


def connection() -> Redis:
    """What does not answer is not asked again: a worker has work to do without Redis."""
    return Redis.from_url(
        settings.RQ_REDIS_URL,
        socket_timeout=GentleWorker.connection_timeout,
        socket_connect_timeout=CONNECT_LIMIT,
        retry=Retry(NoBackoff(), 0),
    )


def queue_name(name: str) -> str:
    return f"{name}:{identity.name()}"


def queue(name: str, connection: Redis) -> Queue:
    return Queue(queue_name(name), connection=connection)
