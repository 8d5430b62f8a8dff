"""What a run does, one thing after the other, and the seconds that each took."""

import time
from collections import Counter
from collections.abc import Callable

STRUCK = "strikes"  # all of them together


class Phases:
    def __init__(self, first: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.now = self._under = first
        self._seconds: Counter[str] = Counter()
        self._clock, self._began = clock, clock()

    def begin(self, what: str, *, under: str = "") -> None:
        """End what is done now. `under`: the name that its seconds are added up under."""
        now = self._clock()
        self._seconds[self._under] += now - self._began
        self.now, self._under, self._began = what, under or what, now

    def __str__(self) -> str:
        """Each with its seconds, in the order in which they began for the first time."""
        seconds = self._seconds + Counter({self._under: self._clock() - self._began})
        return ", ".join(f"{what} {took:.0f}" for what, took in seconds.items() if took >= 0.5)
