"""Operators' pages of workers, queues and dead letters. Looking into queues is the console's matter: queueing/console/pages.py."""

from queueing.admin import deadletters, outbound, queues, workers  # noqa: F401 - each registers its pages
