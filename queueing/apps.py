"""The app of work in tables, the message queue, the spill and outbound webhooks."""

from importlib import import_module

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class QueueingConfig(AppConfig):
    name = "queueing"
    verbose_name = "Workers and queues"

    def ready(self) -> None:
        from queueing.broker import books as _messages  # noqa: F401 - the part of check_books
        from queueing.broker import buffer, export, retention  # noqa: F401 - the spill's kind, what is exported, chores
        from queueing.jobs import books as _jobs_books  # noqa: F401 - the parts of check_books
        from queueing.jobs import builtin, webhooks  # noqa: F401 - kinds of jobs, the source of webhook events
        from queueing.jobs import export as _jobs_export  # noqa: F401 - what is exported and erased
        from queueing.jobs import retention as _jobs_retention  # noqa: F401 - the chore
        from queueing.jobs import work as _jobs  # noqa: F401 - the drain
        from queueing.outbound import deliveries, work  # noqa: F401 - the chore, the drain
        from queueing.outbound import export as _export  # noqa: F401 - what is exported and erased
        from queueing.spill import health as _spill  # noqa: F401 - checks and gauges
        from queueing.work import health  # noqa: F401 - the same of the workers

        for package in ("broker", "jobs", "outbound", "spill", "work"):
            import_module(f"queueing.{package}.attention")
            import_module(f"queueing.{package}.alerts")

        autodiscover_modules("jobs")  # kinds of jobs: `jobs.py` of any app
