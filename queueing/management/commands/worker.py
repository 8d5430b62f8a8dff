"""`manage.py worker`: an RQ worker, for drains or for housekeeping."""

import os

import django_rq
from django.core.management.base import BaseCommand, CommandParser

from queueing.worker import DrainWorker, GentleWorker


class Command(BaseCommand):
    help = "Run an RQ worker that drains work tables (or, with --housekeeping, the scheduled chores)."
    requires_system_checks = ()  # they load every page; after a death each second counts

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--slot", type=int, default=0, help="which of several workers this is; shows in its name")
        parser.add_argument("--drain", action="append", default=[], help="queue to drain (all)")
        parser.add_argument("--housekeeping", action="store_true", help="run scheduled chores instead")

    def handle(self, *, slot: int, drain: list[str], housekeeping: bool, **_: object) -> None:
        name = "housekeeping" if housekeeping else "drain"
        kind = GentleWorker if housekeeping else DrainWorker
        connection = django_rq.get_connection(name)
        worker = kind([django_rq.get_queue(name)], connection=connection, name=f"{name}-{slot}-{os.getpid()}")
        if isinstance(worker, DrainWorker):
            worker.drains = tuple(drain)
        worker.work(logging_level="WARNING")
