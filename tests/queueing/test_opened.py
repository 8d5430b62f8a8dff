"""Kept resources: opened once, replaced when they do not fit, closed when idle."""

import asyncio
from typing import Self

import pytest

from queueing.work.opened import Opened


class Thing:
    def __init__(self, name: str = "") -> None:
        self.name = name
        self.opened = self.closed = 0

    async def __aenter__(self) -> Self:
        await asyncio.sleep(0)
        self.opened += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closed += 1


async def test_concurrent_callers_open_a_resource_once():
    opened: Opened[str, Thing] = Opened()

    things = await asyncio.gather(*(opened.get("a", Thing) for _ in range(5)))

    assert {id(thing) for thing in things} == {id(things[0])}
    assert things[0].opened == 1


async def test_a_resource_that_no_longer_fits_is_closed_and_replaced():
    opened: Opened[str, Thing] = Opened()
    before = await opened.get("a", lambda: Thing("old"))

    after = await opened.get("a", lambda: Thing("new"), fits=lambda thing: thing.name == "new")

    assert (before.closed, after.name, after.closed) == (1, "new", 0)


async def test_only_idle_resources_are_closed():
    opened: Opened[str, Thing] = Opened(keep=0.05)
    idle = await opened.get("idle", Thing)
    await asyncio.sleep(0.06)
    used = await opened.get("used", Thing)

    await opened.close_idle()

    assert (idle.closed, used.closed) == (1, 0)
    assert await opened.get("idle", Thing) is not idle


async def test_a_resource_that_is_used_while_another_one_closes_stays_open():
    class Slow(Thing):
        async def __aexit__(self, *_: object) -> None:
            assert await opened.get("again", Thing) is again

    opened: Opened[str, Thing] = Opened(keep=0.05)
    await opened.get("idle", Slow)
    again = await opened.get("again", Thing)
    await asyncio.sleep(0.06)

    await opened.close_idle()

    assert again.closed == 0


async def test_closing_closes_every_resource_once():
    opened: Opened[str, Thing] = Opened()
    things = [await opened.get(name, Thing) for name in "abc"]

    await opened.close()
    await opened.close()

    assert [thing.closed for thing in things] == [1, 1, 1]


async def test_after_a_failed_opening_the_next_caller_tries_again():
    opened: Opened[str, Thing] = Opened()

    def broken() -> Thing:
        raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        await opened.get("a", broken)

    assert (await opened.get("a", Thing)).opened == 1
