"""How partitions and leases are called outside: a partition's id is a UUID of version 8 that holds tenant and number."""

import os
import time
from uuid import UUID

_TENANT_BITS, _NUMBER_BITS = 48, 62


def partition_name(tenant_id: int, number: int) -> str:
    """The public id of a partition (RFC 9562, section 5.8)."""
    return str(UUID(int=(tenant_id << 80) | (8 << 76) | (2 << 62) | number))


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
