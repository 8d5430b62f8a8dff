"""File format of a spill segment: framed records with checksums, so that each record can be found in a torn or damaged file.

    marker (8) · length of the body (4) · CRC32 of the body (4) · CRC32 of these two (4) · body

The marker is random, one per file, and stands in the file's name. The client who supplies a record's data cannot know it, so that
no part of a body is ever taken for a record when the reader searches for the next record after damage. A record with a
complete header and a body cut off by the end of the file was never finished, so nobody was told that it is durable: it is
dropped. Any other mismatch is damage, and is quarantined.
"""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zlib import crc32

from queueing.spill.record import Record

MARKER = 8  # bytes
_SUMS = struct.Struct("<III")  # length, CRC of the body, CRC of the header's first two
HEADER = MARKER + _SUMS.size
_BODY = struct.Struct("<qqB")  # tenant, microseconds since 1970, length of the kind
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Frame(NamedTuple):
    """A range of a file: one record, or damage."""

    start: int
    end: int
    body: bytes | None  # None: damaged


def frame(marker: bytes, body: bytes) -> bytes:
    sums = struct.pack("<II", len(body), crc32(body))
    return b"".join((marker, sums, struct.pack("<I", crc32(sums)), body))


def frames(content: bytes, marker: bytes) -> Iterator[Frame]:
    """All records and all damage of a file, in order, without a record that its end cuts off."""
    at = 0
    while at < len(content):
        end = _end_of(content, at, marker)
        if end is None:
            following = content.find(marker, at + 1)
            if following < 0:
                if not _is_torn(content, at, marker):
                    yield Frame(at, len(content), None)
                return
            yield Frame(at, following, None)
            at = following
        else:
            yield Frame(at, end, content[at + HEADER : end])
            at = end


def _end_of(content: bytes, at: int, marker: bytes) -> int | None:
    """End of the record that begins at `at`; None where it is incomplete or damaged."""
    length = _length_at(content, at, marker)
    if length is None or at + HEADER + length > len(content):
        return None
    end = at + HEADER + length
    expected = _SUMS.unpack_from(content, at + MARKER)[1]
    return end if crc32(content[at + HEADER : end]) == expected else None


def _length_at(content: bytes, at: int, marker: bytes) -> int | None:
    if content[at : at + MARKER] != marker or at + HEADER > len(content):
        return None
    length, _, check = _SUMS.unpack_from(content, at + MARKER)
    return length if crc32(content[at + MARKER : at + MARKER + 8]) == check else None


def _is_torn(content: bytes, at: int, marker: bytes) -> bool:
    """Whether the file ends in the middle of a header, or of the body that an intact header announced."""
    rest = content[at : at + HEADER]
    if len(rest) < HEADER:
        return rest[:MARKER] == marker[: len(rest)]
    length = _length_at(content, at, marker)
    if length is not None:
        return at + HEADER + length > len(content)
    return not content[at:].strip(b"\0")  # after a power cut: the size reached the disk before the content


def pack(record: Record) -> bytes:
    kind = record.kind.encode()
    return _BODY.pack(record.tenant_id, (record.at - _EPOCH) // _MICROSECOND, len(kind)) + kind + record.data


def unpack(body: bytes) -> Record:
    """Inverse of `pack`. Raises ValueError."""
    try:
        tenant_id, at, length = _BODY.unpack_from(body)
        kind = body[_BODY.size : _BODY.size + length].decode()
        return Record(kind, tenant_id, _EPOCH + at * _MICROSECOND, body[_BODY.size + length :])
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise ValueError("not a record of the spill") from error
