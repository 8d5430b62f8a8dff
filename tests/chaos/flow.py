"""Waits until messages flow."""

from collections.abc import Callable

from tests.chaos.service import RETURN
from tests.chaos.traffic import GROUPS, Traffic
from tests.conftest import eventually

MORE = 100  # messages: so many before a strike, and after it


def done_by_all(traffic: Traffic) -> int:
    return min(len(traffic.book.delivered[group]) for group in GROUPS)


async def more(count: Callable[[], int]) -> None:
    """Until there are MORE than now."""
    enough = count() + MORE
    await eventually(lambda: count() >= enough, within=RETURN)


async def flows(traffic: Traffic) -> None:
    await more(lambda: len(traffic.book.accepted))
    await more(lambda: done_by_all(traffic))
