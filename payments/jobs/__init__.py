"""Kinds of jobs of payments, one file each. The app of jobs imports this module at start."""

from payments.jobs import (  # noqa: F401 - registers them
    export,
    ledger,
    purge,
    reconcile,
    refund_many,
    replay_dead_letters,
    settlement,
)
