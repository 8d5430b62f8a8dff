"""Resources of an event loop: one for each loop, closed together at its end, in reverse order of declaration."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from registry.data import loop
from registry.data.loop import PerLoop, Tasks, end_loop, still_open


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the test declares, so that the session's own resources stay open."""
    monkeypatch.setattr(loop, "_declared", [])


class Journal:
    """What was closed, in order."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    def resource(self, name: str, meanwhile: Callable[[], Any] = lambda: None, **options: Any) -> PerLoop[list[str]]:
        async def close(resource: list[str]) -> None:
            meanwhile()
            self.closed += resource

        return PerLoop(lambda: [name], close=close, **options)


async def test_each_loop_has_a_resource_of_its_own(declared):
    resource = PerLoop(object)

    async def opened() -> object:
        return resource.get()

    assert resource.peek() is None
    assert resource.get() is resource.get() is resource.peek()
    assert await asyncio.to_thread(asyncio.run, opened()) is not resource.get()


def test_without_a_running_loop_there_is_no_resource(declared):
    with pytest.raises(RuntimeError):
        PerLoop(object).get()


async def test_resources_are_closed_in_reverse_order_of_declaration(declared):
    journal = Journal()
    pool, batcher, unused = journal.resource("pool"), journal.resource("batcher"), journal.resource("unused")
    batcher.get()
    pool.get()

    await end_loop()

    assert journal.closed == ["batcher", "pool"]
    assert (pool.peek(), batcher.peek(), unused.peek()) == (None, None, None)


async def test_all_resources_are_stopped_before_the_first_is_closed(declared):
    journal = Journal()
    lower = journal.resource("lower", stop=lambda _: journal.closed.append("stop"))
    upper = journal.resource("upper")
    lower.get(), upper.get()

    await end_loop()

    assert journal.closed == ["stop", "upper", "lower"]


async def test_errors_and_hanging_closers_are_logged_and_the_others_are_closed(declared, caplog):
    journal = Journal()

    async def hangs(_: object) -> None:
        await asyncio.Event().wait()

    resources = [
        journal.resource("pool"),
        PerLoop(object, close=hangs, within=0.01),
        journal.resource("broken", lambda: 1 / 0),
    ]
    for resource in resources:
        resource.get()

    await end_loop()

    assert (journal.closed, still_open()) == (["pool"], [])
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError, TimeoutError]


async def test_a_resource_reopened_by_a_closer_is_closed_before_those_it_uses(declared):
    journal = Journal()
    pool = journal.resource("pool")
    again = [1]
    spill = journal.resource("spill", lambda: again and again.pop() and batcher.get())
    batcher = journal.resource("batcher")
    pool.get(), spill.get()

    await end_loop()

    assert journal.closed == ["spill", "batcher", "pool"]


async def test_a_resource_that_is_reopened_forever_does_not_block_the_end_of_the_loop(declared, caplog):
    stubborn = Journal().resource("stubborn", lambda: stubborn.get())
    stubborn.get()

    await end_loop()

    assert "again and again" in caplog.text


async def test_background_tasks_get_a_grace_period_and_are_then_cancelled(declared, monkeypatch):
    monkeypatch.setattr(loop, "FINISH_LIMIT", 0.05)
    tasks, done = PerLoop(Tasks, close=Tasks.close), []

    async def short() -> None:
        await asyncio.sleep(0)
        done.append("short")

    kept = tasks.get().start(short())
    late = tasks.get().start(asyncio.Event().wait())
    await end_loop()

    assert (done, kept.cancelled(), late.cancelled()) == (["short"], False, True)
