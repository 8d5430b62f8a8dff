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


async def test_a_loop_has_one_of_it_and_another_loop_has_another(declared):
    resource = PerLoop(object)

    async def opened() -> object:
        return resource.get()

    assert resource.peek() is None
    assert resource.get() is resource.get() is resource.peek()
    assert await asyncio.to_thread(asyncio.run, opened()) is not resource.get()


def test_without_a_running_loop_there_is_none(declared):
    with pytest.raises(RuntimeError):
        PerLoop(object).get()


async def test_what_was_declared_last_closes_first_however_they_were_opened(declared):
    journal = Journal()
    pool, batcher, unused = journal.resource("pool"), journal.resource("batcher"), journal.resource("unused")
    batcher.get()
    pool.get()

    await end_loop()

    assert journal.closed == ["batcher", "pool"]
    assert (pool.peek(), batcher.peek(), unused.peek()) == (None, None, None)


async def test_all_are_told_to_stop_before_the_first_is_closed(declared):
    journal = Journal()
    lower = journal.resource("lower", stop=lambda _: journal.closed.append("stop"))
    upper = journal.resource("upper")
    lower.get(), upper.get()

    await end_loop()

    assert journal.closed == ["stop", "upper", "lower"]


async def test_an_error_and_a_closer_that_hangs_are_logged_and_hide_no_other(declared, caplog):
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


async def test_what_a_last_write_opens_again_is_closed_before_what_it_stands_on(declared):
    journal = Journal()
    pool = journal.resource("pool")
    again = [1]
    spill = journal.resource("spill", lambda: again and again.pop() and batcher.get())
    batcher = journal.resource("batcher")
    pool.get(), spill.get()

    await end_loop()

    assert journal.closed == ["spill", "batcher", "pool"]


async def test_what_is_opened_again_and_again_does_not_keep_the_loop_from_its_end(declared, caplog):
    stubborn = Journal().resource("stubborn", lambda: stubborn.get())
    stubborn.get()

    await end_loop()

    assert "again and again" in caplog.text


async def test_background_tasks_get_a_moment_and_are_cancelled_after_it(declared, monkeypatch):
    monkeypatch.setattr(loop, "FINISH_LIMIT", 0.05)
    tasks, done = PerLoop(Tasks, close=Tasks.close), []

    async def short() -> None:
        await asyncio.sleep(0)
        done.append("short")

    kept = tasks.get().start(short())
    late = tasks.get().start(asyncio.Event().wait())
    await end_loop()

    assert (done, kept.cancelled(), late.cancelled()) == (["short"], False, True)
