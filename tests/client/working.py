"""A worker of jobs in the test's loop, and a kind of job that the documents name."""

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import msgspec

from queueing.jobs.kinds import KINDS, Context, kind
from queueing.jobs.work import JobWork
from queueing.work.drain import Drain
from tests.payments.refunding import draining


class Greeting(msgspec.Struct, forbid_unknown_fields=True):
    """The input of a greeting."""

    name: str


@contextmanager
def greetings() -> Iterator[None]:
    """There is a kind `shop.greet` for as long as the block runs."""

    @kind("shop.greet", input=Greeting, runs="loop")
    async def greet(context: Context, greeting: Greeting) -> dict[str, str]:
        """Greet."""
        return {"text": f"Hello {greeting.name}"}

    try:
        yield
    finally:
        del KINDS["shop.greet"]


def jobs_at_work() -> AbstractAsyncContextManager[Drain]:
    """A worker's drain of jobs in this loop; stopped gently on leaving."""
    return draining(JobWork())
