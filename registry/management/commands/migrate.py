"""Django's `migrate`, one host at a time: several may start at once, and run the same migrations."""

from typing import Any

from django.core.management.commands import migrate
from django.db import connections

from registry.management.migrating import migrating_alone

READS = ("check_unapplied", "plan")  # options with which nothing is changed


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        if any(options[name] for name in READS):
            super().handle(*args, **options)
            return
        with migrating_alone(connections[options["database"]]):
            super().handle(*args, **options)
