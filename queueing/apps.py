"""The app of work that survives."""

from django.apps import AppConfig


class QueueingConfig(AppConfig):
    name = "queueing"
    verbose_name = "Workers and queues"

    def ready(self) -> None:
        from queueing import health, takeout  # noqa: F401 - register checks and gauges, what is exported and erased
        from queueing.broker import buffer, chores  # noqa: F401 - registers its kind of spill, and the chores
        from queueing.spill import health as _spill  # noqa: F401 - the same of the spill
