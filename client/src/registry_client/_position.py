"""The position of a reader in a numbered stream: which events are new, and what to ask the service again.

A service sends everything above a number when asked to `resume`; events that happen meanwhile may overtake that. The position
lets through each number once and in order, without keeping events: one that comes too early is dropped, and asked for again.
"""


class Position:
    """The number of the latest event that was let through; None before the first, whose number is any."""

    def __init__(self, after: int | None = None) -> None:
        self.last = after
        self.resuming = False
        self._early: int | None = None  # the lowest number since the resume that came too early

    def takes(self, number: int) -> bool:
        """Whether the event with this number is the next one."""
        if self.last is not None and number <= self.last:
            return False
        if self.last is None or number == self.last + 1:
            self.last = number
            return True
        self._early = number if self._early is None else min(self._early, number)
        return False

    @property
    def lacks_events(self) -> bool:
        """Whether events are missing that no resume was asked for."""
        return self._early is not None and not self.resuming

    def starts_resume(self) -> int:
        """The number to resume after; `ends_resume` follows once the service has sent all."""
        self.resuming, self._early = True, None
        return self.last or 0

    def ends_resume(self) -> None:
        """All that exists above `last` was sent. Numbers that are still missing exist no more, as after a purge: skip them."""
        self.resuming = False
        if self._early is None or self.last is None:
            return
        if self._early > self.last:
            self.last = self._early - 1
        else:
            self._early = None
