"""Arrays in PostgreSQL's binary format (array_recv), encoded as a whole: psycopg encodes each element on its own, which costs
more than the statement for batches of thousands. Only `Texts` may contain NULL.
"""

import struct
from collections.abc import Sequence
from itertools import repeat
from typing import Any

from psycopg import BaseConnection
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

_head = struct.Struct(">iiIii").pack  # dimensions, whether there are NULLs, element type, length, first index
_bigint = struct.Struct(">iq").pack  # an element: length and value
_length = struct.Struct(">i").pack
_NULL = _length(-1)

BIGINT, UUID, BYTEA, TEXT = 20, 2950, 17, 25  # element types


class _Array:
    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class Bigints(_Array):
    """bigint[]"""

    def __init__(self, values: Sequence[int]) -> None:
        super().__init__(_head(1, 0, BIGINT, len(values), 1) + b"".join(map(_bigint, repeat(8), values)))


class Uuids(_Array):
    """uuid[], of 16 bytes each"""

    def __init__(self, values: Sequence[bytes]) -> None:
        super().__init__(_head(1, 0, UUID, len(values), 1) + b"\0\0\0\x10".join((b"", *values)))


class Blobs(_Array):
    """bytea[]"""

    def __init__(self, values: Sequence[bytes]) -> None:
        out = [_head(1, 0, BYTEA, len(values), 1)]
        for value in values:
            out += (_length(len(value)), value)
        super().__init__(b"".join(out))


class Texts(_Array):
    """text[]; None is NULL"""

    def __init__(self, values: Sequence[str | None]) -> None:
        head = _head(1, None in values, TEXT, len(values), 1)
        if values and values.count(values[0]) == len(values):  # such as the key that pushed a batch
            super().__init__(head + _text(values[0]) * len(values))
            return
        out = [head]
        for value in values:
            if value is None:
                out.append(_NULL)
            else:
                encoded = value.encode()
                out += (_length(len(encoded)), encoded)
        super().__init__(b"".join(out))


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    encoded = value.encode()
    return _length(len(encoded)) + encoded


def unless_empty[T](column: list[T | None]) -> list[T | None] | None:
    """The column, or None when it has only NULLs: unnest() makes NULLs from NULL."""
    return column if any(value is not None for value in column) else None


def texts_unless_empty(values: Sequence[str | None]) -> Texts | None:
    """The column, or None when no value has a character."""
    return Texts(values) if any(values) else None


def _dumper(kind: type[_Array], array_oid: int) -> type[Dumper]:
    class ArrayDumper(Dumper):
        format = Format.BINARY
        oid = array_oid

        def dump(self, obj: _Array) -> Buffer:
            return obj.data

    return ArrayDumper


_DUMPERS = {
    Bigints: _dumper(Bigints, 1016),
    Uuids: _dumper(Uuids, 2951),
    Blobs: _dumper(Blobs, 1001),
    Texts: _dumper(Texts, 1009),
}


def register(connection: BaseConnection[Any]) -> None:
    """Register the dumpers of these arrays on a connection."""
    for kind, dumper in _DUMPERS.items():
        connection.adapters.register_dumper(kind, dumper)
