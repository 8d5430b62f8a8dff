"""The app of work that survives."""

from django.apps import AppConfig


class QueueingConfig(AppConfig):
    name = "queueing"
    verbose_name = "Workers and queues"

    def ready(self) -> None:
        from queueing.broker import (  # noqa: F401 - registers its kind of spill, and the chores
            buffer,
            chores,
            export,
        )
        from queueing.spill import health as _spill  # noqa: F401 - the same of the spill
