"""`manage.py cron`: RQ's scheduler, which hands the chores to the housekeeping worker."""

import django_rq
from django.core.management.base import BaseCommand
from rq.cron import CronScheduler

from queueing.schedule import CHORES
from queueing.tasks import chore

CHORE_TIMEOUT = 600  # seconds


class Command(BaseCommand):
    help = "Schedule the chores (ledger proof, clean-up)."
    requires_system_checks = ()

    def handle(self, **_: object) -> None:
        scheduler = CronScheduler(connection=django_rq.get_connection("housekeeping"), logging_level="WARNING")
        for name, seconds in CHORES.items():
            scheduler.register(
                chore,
                "housekeeping",
                args=(name,),
                interval=seconds,
                job_timeout=CHORE_TIMEOUT,
                result_ttl=0,
                name=name,
            )
        scheduler.start()
