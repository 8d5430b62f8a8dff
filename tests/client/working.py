"""A worker of jobs in the test's loop."""

from contextlib import AbstractAsyncContextManager

from queueing.jobs.work import JobWork
from queueing.work.drain import Drain
from tests.payments.refunding import draining


def jobs_at_work() -> AbstractAsyncContextManager[Drain]:
    """A worker's drain of jobs in this loop; stopped gently on leaving."""
    return draining(JobWork())
