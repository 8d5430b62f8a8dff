"""`manage.py worker`: an RQ worker, for drains or for housekeeping."""

import os
import secrets

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from queueing.work import entry, rq_queues, without_redis
from queueing.work.worker import DrainWorker, GentleWorker
from registry.management.base import service_name


class Command(BaseCommand):
    help = "Run an RQ worker that drains work tables (or, with --housekeeping, the scheduled chores)."
    requires_system_checks = ()  # they load all pages; a worker has to be replaced within a second

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--slot", type=int, default=0, help="which of several workers this is; shows in its name")
        parser.add_argument("--drain", action="append", default=[], help="queue to drain (all)")
        parser.add_argument("--pool", default="", help="the pool that it belongs to")
        parser.add_argument("--take", action="append", default=[], help="what its pool takes: webhooks, jobs/KIND, …")
        parser.add_argument("--pool-size", default="", help="MIN-MAX workers of its pool, for the pages of workers")
        parser.add_argument("--housekeeping", action="store_true", help="run scheduled chores instead")

    def handle(
        self,
        *,
        slot: int,
        drain: list[str],
        pool: str,
        take: list[str],
        pool_size: str,
        housekeeping: bool,
        **_: object,
    ) -> None:
        queue = "housekeeping" if housekeeping else f"drain-{pool}" if pool else "drain"
        drain = drain or list(dict.fromkeys(one.partition("/")[0] for one in take))
        # Unique, also between containers with the same process ids: RQ refuses a name that is in use.
        name = f"{service_name()}-{queue}-{slot}-{settings.REGISTRY_HOST}-{os.getpid()}"

        def worker() -> GentleWorker:
            connection = rq_queues.connection()
            kind = GentleWorker if housekeeping else DrainWorker
            found = kind(
                [rq_queues.queue(queue, connection)], connection=connection, name=f"{name}-{secrets.token_hex(3)}"
            )
            if isinstance(found, DrainWorker):
                found.drains, found.pool, found.takes = tuple(drain), pool, tuple(take)
                found.pool_size = pool_size
            return found

        def work() -> None:
            if housekeeping:
                entry.housekeep()
            else:
                entry.drain(*(drain or entry.DRAINS), pool=pool, takes=take, pool_size=pool_size)

        without_redis.serve(worker, work)
