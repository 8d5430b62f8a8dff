"""The garbage collector of a service process: what was there at its start is left out, and its settings come back."""

import gc

from registry.data import garbage
from registry.data.garbage import calm


class Knot:
    """An object that refers to itself, so that only the collector removes it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_exists_at_the_start_is_looked_at_no_more_and_the_settings_come_back():
    settings, frozen = gc.get_threshold(), gc.get_freeze_count()

    with calm():
        there, thresholds = gc.get_freeze_count(), gc.get_threshold()
        Knot()
        collected = gc.collect()

    assert there > frozen + 10_000
    assert thresholds[0] == garbage.GARBAGE
    assert collected > 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == (settings, 0)
