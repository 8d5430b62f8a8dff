"""Registry of periodic tasks ("chores") by name. Each app registers its own; queueing runs them, with or without Redis."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Chore(NamedTuple):
    """A coroutine function, and the seconds between its runs."""

    every: int
    run: Callable[[], Awaitable[object]]


CHORES: dict[str, Chore] = {}


def chore[Run: Callable[[], Awaitable[object]]](name: str, *, every: int) -> Callable[[Run], Run]:
    """Run the decorated coroutine function every `every` seconds."""

    def register(run: Run) -> Run:
        CHORES[name] = Chore(every, run)
        return run

    return register
