"""Waiting until an object ends, by long polls."""

from collections.abc import Awaitable, Callable, Sequence

from registry_client._calls import LONGEST_POLL
from registry_client._io.asynchronous import sleep
from registry_client._retry import Deadline
from registry_client.errors import WaitTimeout


async def until[T](
    current: T,
    after: int,
    *,
    ended: Callable[[T], bool],
    later: Callable[[int, int, Deadline], Awaitable[tuple[Sequence[T], int]]],
    deadline: Deadline,
) -> T:
    """The object once it has `ended`: `later` gets its states above a number, and the number to go on with.

    Raises WaitTimeout with its latest state.
    """
    while not ended(current):
        left = deadline.left
        if not left:
            raise WaitTimeout("it did not end in time", current)
        wait = int(min(LONGEST_POLL, left))  # the service takes whole seconds
        if not wait:
            await sleep(left)
        found, after = await later(after, wait, deadline)
        current = found[-1] if found else current
    return current
