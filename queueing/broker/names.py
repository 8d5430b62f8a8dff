"""How partitions and leases are called outside: a partition's id is a UUID of version 8 that holds tenant and number."""

import os
import time
from functools import lru_cache
from uuid import UUID

_NUMBER_BITS = 62


@lru_cache(65536)
def partition_name(tenant_id: int, number: int) -> str:
    """The public id of a partition (RFC 9562, section 5.8)."""
    return str(UUID(int=(tenant_id << 80) | (8 << 76) | (2 << 62) | number))


@lru_cache(65536)
def partition_number(tenant_id: int, name: str) -> int | None:
    """The partition that `name` means to this tenant; None for another tenant's, and for what is no such id."""
    try:
        value = UUID(name).int
    except ValueError:
        return None
    number = value & ((1 << _NUMBER_BITS) - 1)
    same = value == (tenant_id << 80) | (8 << 76) | (2 << 62) | number
    return number if same else None


def new_id() -> UUID:
    """A UUID of version 7: in the order of time, to the millisecond."""
    random = int.from_bytes(os.urandom(10))
    value = (
        (time.time_ns() // 1_000_000) << 80 | (7 << 76) | (random >> 68) << 64 | (2 << 62) | random & ((1 << 62) - 1)
    )
    return UUID(int=value)


class Run:
    """UUIDs of version 7 for the messages of one request, in its order: one draw, then counted up."""

    __slots__ = ("_bytes", "_last", "_text")

    def __init__(self) -> None:
        first = new_id()
        self._text, self._bytes = str(first)[:24], first.bytes[:10]
        self._last = int.from_bytes(first.bytes[10:]) >> 1  # the last 48 bits, with room to count

    def at(self, place: int) -> tuple[bytes, str]:
        """The id at a place, as 16 bytes and as text."""
        last = self._last + place
        return self._bytes + last.to_bytes(6), f"{self._text}{last:012x}"
