"""Kinds of jobs of payments, one file each. The app of jobs imports this module at start."""

from payments.jobs import export, purge, reconcile, refund_many, replay_dead_letters, settlement  # noqa: F401 - registers them
