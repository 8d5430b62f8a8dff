"""Operators' pages of workers, queues, dead letters, webhooks, jobs and schedules. The console shows what is in the queues."""

from queueing.admin import dead_letters, jobs, outbound, queues, workers  # noqa: F401 - each registers its pages
