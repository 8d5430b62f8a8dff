"""Behaviours that the demo can switch a sandbox processor to: their options and descriptions. sandbox.py implements them."""

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One position of the switch."""

    word: str
    effect: str  # what the visitor will notice
    delay: int = 0  # milliseconds before it answers
    fail: bool = False
    hang: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The behaviour as Processor.options."""
        return {"delay": self.delay, "failing": self.fail, "hang": self.hang}

    @property
    def bad(self) -> bool:
        return self.fail or self.hang


BEHAVIOURS: Final[dict[str, Behaviour]] = {
    "work": Behaviour("work", "It books every payment at once."),
    "slow": Behaviour("+200 ms", "Its answers take 200 ms: not enough to be worth a dearer fee.", delay=200),
    "slower": Behaviour(
        "+2 s", "Its answers take 2 s: payments move to a quicker processor, dearer or not.", delay=2000
    ),
    "fail": Behaviour(
        "fail",
        "It refuses every payment: its breaker opens after a few failures, and payments go to other processors.",
        fail=True,
    ),
    "hang": Behaviour(
        "hang",
        "It never answers: its payments become uncertain and are looked up at this processor only, so that nobody is charged twice.",
        hang=True,
    ),
}


def behaviour_of(options: dict[str, Any]) -> str:
    """The behaviour of `options`; the nearest one for options set by hand."""
    if options.get("hang"):
        return "hang"
    if options.get("failing"):
        return "fail"
    delay = options.get("delay") or 0
    return "slower" if delay >= 1000 else "slow" if delay else "work"
