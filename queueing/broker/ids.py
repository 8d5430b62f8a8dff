"""Public ids: partitions as UUIDs of version 8 that contain tenant and number, messages and leases as UUIDs of version 7."""

import os
import random
from functools import lru_cache
from uuid import UUID

from registry.data import clock

_NUMBER_BITS = 62


def _partition_value(tenant_id: int, number: int) -> int:
    return (tenant_id << 80) | (8 << 76) | (2 << 62) | number


@lru_cache(65536)
def public_partition_id(tenant_id: int, number: int) -> str:
    """The public id of a partition (RFC 9562, section 5.8)."""
    return str(UUID(int=_partition_value(tenant_id, number)))


@lru_cache(65536)
def partition_number(tenant_id: int, public_id: str) -> int | None:
    """Inverse of `public_partition_id`; None for a malformed id and for another tenant's."""
    try:
        value = UUID(public_id).int
    except ValueError:
        return None
    number = value & ((1 << _NUMBER_BITS) - 1)
    return number if value == _partition_value(tenant_id, number) else None


def new_id() -> UUID:
    """A UUID of version 7, ordered by time to the millisecond."""
    bits = int.from_bytes(os.urandom(10))
    value = int(clock.timestamp() * 1000) << 80 | (7 << 76) | (bits >> 68) << 64 | (2 << 62) | bits & ((1 << 62) - 1)
    return UUID(int=value)


class IdSequence:
    """Consecutive UUIDs of version 7 for the messages of one request: one random draw, then counted up."""

    __slots__ = ("_bytes", "_last", "_text")

    def __init__(self) -> None:
        # Not from os.urandom, as `new_id`: these ids are no secrets, and a call of the system per push is dear.
        first = (
            int(clock.timestamp() * 1000) << 32
            | 7 << 28
            | random.getrandbits(12) << 16
            | 2 << 14
            | random.getrandbits(14)
        )
        text = f"{first:020x}"
        self._text, self._bytes = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:]}-", first.to_bytes(10)
        self._last = random.getrandbits(47)  # of 48 bits, with room to count

    def at(self, index: int) -> tuple[bytes, str]:
        """The id at an index, as 16 bytes and as text."""
        last = self._last + index
        return self._bytes + last.to_bytes(6), self._text + f"{last:012x}"
