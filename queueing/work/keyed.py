"""What identifies a claimed row."""

from typing import Protocol

type Key = tuple[int, int]  # tenant id, row id


class Keyed(Protocol):
    """A claimed row, or an outcome of one."""

    @property
    def key(self) -> Key: ...
