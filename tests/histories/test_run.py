"""One short run: its history is what the service promises, and the checker finds each fault that is planted in it."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.histories import entries
from tests.histories.checker import Kind, check
from tests.histories.entries import Booked, Line, Operation, Returned, Seen, Struck
from tests.histories.run import Run

SEED = 14
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
async def recorded() -> list[Line]:
    return await Run(SEED, seconds=4.0, strikes=(3, 3)).record()


def test_a_short_run_with_three_strikes_is_what_the_service_promises(recorded: list[Line]):
    struck = [line for line in recorded if isinstance(line, Struck)]
    requests = [line for line in recorded if isinstance(line, Operation)]

    assert check(recorded) == []
    assert len(struck) == 3
    assert {(one.method, one.path) for one in requests} >= {
        ("POST", "/payments"),
        ("POST", "/payments/batch"),
        ("GET", "/payments"),
        ("GET", "/payments-summary"),
        ("POST", "/jobs"),
        ("POST", "/api/v1/push"),
        ("POST", "/api/v1/ack/batch"),
    }


def test_a_history_is_read_back_as_it_was_written(recorded: list[Line], tmp_path: Any):
    entries.write(tmp_path / "history", recorded)

    assert entries.read(tmp_path / "history") == recorded


# -- Planted faults ----------------------------------------------------------------------------------------------


def booked_twice(lines: list[Line]) -> list[Line]:
    """The other processor books a payment too."""
    one = next(line for line in lines if isinstance(line, Booked) and line.processor == "default")
    return [*lines, msgspec.structs.replace(one, processor="fallback")]


def lost_after_202(lines: list[Line]) -> list[Line]:
    """A payment is accepted, and nothing is ever heard of it again."""
    one = next(line for line in lines if is_accepted(line))
    body = {"correlationId": NOBODY}
    changed = {"asked": {**one.asked, **body}, "answer": {**one.answer, **body}}
    return [*lines, msgspec.structs.replace(one, **changed)]


def is_accepted(line: Line) -> Any:
    return isinstance(line, Operation) and (line.method, line.path, line.status) == ("POST", "/payments", 202)


def event_gap(lines: list[Line]) -> list[Line]:
    """A reader of the tenant's events does not get one of them."""
    places = [place for place, line in enumerate(lines) if isinstance(line, Seen) and line.reader == "gina"]
    place = places[len(places) // 2]
    return [*lines[:place], *lines[place + 1 :]]


def stale_answer(lines: list[Line]) -> list[Line]:
    """A payment that was shown as succeeded is queued to the next who asks."""
    line = next(line for line in lines if shows_success(line))
    assert isinstance(line, Operation)
    asked, old = line.completed + 0.001, {**line.answer, "status": "queued", "sequence": 1}
    return [*lines, msgspec.structs.replace(line, invoked=asked, completed=asked + 0.001, answer=old)]


def shows_success(line: Line) -> Any:
    status = isinstance(line, Operation) and line.path.endswith("/status") and line.status == 200
    return status and line.answer["status"] == "succeeded"


def refunded_twice(lines: list[Line]) -> list[Line]:
    """The processor returns a refund again."""
    return [*lines, next(line for line in lines if isinstance(line, Returned))]


PLANTED = {
    booked_twice: Kind.BOOKED_TWICE,
    lost_after_202: Kind.LOST,
    event_gap: Kind.GAP,
    stale_answer: Kind.STALE,
    refunded_twice: Kind.REFUNDED_TWICE,
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_named_and_nothing_else(recorded: list[Line], plant: Callable[[list[Line]], list[Line]]):
    assert {fault.kind for fault in check(plant(recorded))} == {PLANTED[plant]}
