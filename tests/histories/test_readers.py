"""Watchers take events as the contract lets them: live ones may overtake the request to resume."""

import pytest

from tests.histories.entries import Seen
from tests.histories.readers import resumed


def came(*positions: int) -> list[Seen]:
    return [
        Seen(reader="x", connection=0, at=1.0, position=n, payment="p", sequence=1, status="queued") for n in positions
    ]


@pytest.mark.parametrize(
    ("positions", "early"),
    [
        ((), 0),
        ((5, 6, 7), 0),
        ((9, 5, 6, 7, 8, 9), 1),
        ((5, 6, 5, 6, 7), 2),
        ((8, 9, 5, 7, 8, 9), 2),  # 6 is missing, and stays missing
    ],
    ids=str,
)
def test_what_came_before_the_resume_began_was_early(positions: tuple[int, ...], early: int):
    found = resumed(came(*positions))

    assert [seen.position for seen in found] == list(positions)
    assert [seen.early for seen in found] == [True] * early + [False] * (len(positions) - early)
