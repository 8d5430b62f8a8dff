"""What identifies a claimed row."""

from typing import Protocol
from uuid import UUID

type Key = tuple[int, int]  # tenant id, row id
type PublicId = tuple[int, UUID]  # tenant id, and the id by which the API knows the row


class Keyed(Protocol):
    """A claimed row, or an outcome of one."""

    @property
    def key(self) -> Key: ...
