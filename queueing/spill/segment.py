"""A segment of the file engine: one append-only file of records, and beside it how far they are settled."""

import os
import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from queueing.spill.frames import Frame, frames, unpack
from queueing.spill.record import Entry

_OFFSET = struct.Struct("<Q")


class Segment:
    """One file of records. Its marker, which separates the records, stands in the file's name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.marker = bytes.fromhex(path.name.partition("-")[2])
        self.first_at: datetime | None = None  # when its first record was appended
        self.size = 0  # bytes that count against the limit

    @property
    def offset_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.done")

    def unsettled(self) -> Iterator[Entry]:
        content = self.path.read_bytes()
        settled = self.settled_offset()
        for part in frames(content, self.marker):
            if part.end > settled:
                yield self._entry(content, part)

    def _entry(self, content: bytes, part: Frame) -> Entry:
        raw = content[part.start : part.end]
        if part.body is None:
            return Entry(None, raw, part.end, "damaged on the disk: its checksum is wrong")
        try:
            return Entry(unpack(part.body), raw, part.end)
        except ValueError as error:
            return Entry(None, raw, part.end, str(error))

    def settled_offset(self) -> int:
        try:
            [offset] = _OFFSET.unpack(self.offset_path.read_bytes())
        except (OSError, struct.error):
            return 0
        return offset if offset <= self.path.stat().st_size else 0

    def settle_until(self, offset: int) -> None:
        """Write the offset without fsync: after a power cut some records are stored again, and storing is idempotent."""
        with open(os.open(self.offset_path, os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as file:
            file.write(_OFFSET.pack(offset))

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self.offset_path.unlink(missing_ok=True)
