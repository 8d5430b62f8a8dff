"""Operators' pages of workers, queues, dead letters and webhooks. The console shows what is in the queues."""

from queueing.admin import dead_letters, outbound, queues, workers  # noqa: F401 - each registers its pages
