"""Operators' pages of workers, queues and dead letters. The console shows what is in the queues."""

from queueing.admin import dead_letters, queues, workers  # noqa: F401 - each registers its pages
