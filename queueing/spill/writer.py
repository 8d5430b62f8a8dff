"""Writer of the file engine: appends records to the open segment, each append fsynced before it returns."""

import logging
import os
import secrets
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from queueing.spill.folder import Folder, sync_folder
from queueing.spill.frames import frame, pack
from queueing.spill.record import Record, check_room
from queueing.spill.segment import Segment

log = logging.getLogger(__name__)


class SegmentWriter:
    """Writes one process's segments of one kind. Not thread-safe: its caller holds a lock."""

    def __init__(self, root: Path, kind: str, *, segment_bytes: int, closed: deque[Segment]) -> None:
        self.root, self.kind, self.segment_bytes = root, kind, segment_bytes
        self.folder: Folder | None = None
        self.open: Segment | None = None
        self._closed = closed  # gets each segment that is closed
        self._handle = -1
        self._number = 0

    def append(self, records: Sequence[Record], *, held: int, limit: int) -> int:
        """Write all records durably, or none. Returns their size in bytes. Raises Full, OSError."""
        segment = self.open or self._begin()
        content = b"".join(frame(segment.marker, pack(record)) for record in records)
        check_room(held, len(content), limit)
        self._write(content, segment.size)
        segment.first_at = segment.first_at or records[0].at
        segment.size += len(content)
        if segment.size >= self.segment_bytes:
            self.close_segment()
        return len(content)

    def _begin(self) -> Segment:
        if self.folder is None:
            self.folder = Folder.create(self.root, self.kind)
        self._number += 1
        path = self.folder.path / f"{self._number:08}-{secrets.token_hex(8)}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            sync_folder(path.parent)
        except OSError:
            os.close(handle)
            raise
        self.open, self._handle = Segment(path), handle
        return self.open

    def _write(self, content: bytes, size: int) -> None:
        """Append after `size` bytes and fsync. On an error, cut the file back: a refused record must not be stored later."""
        try:
            at = 0
            while at < len(content):
                at += os.pwrite(self._handle, content[at:], size + at)
            os.fdatasync(self._handle)
        except OSError:
            try:
                os.ftruncate(self._handle, size)
                os.fsync(self._handle)
            except OSError as error:
                log.error("a segment of the spill is closed: it cannot be cut back", extra={"error": repr(error)})
                self.close_segment()
            raise

    def close_segment(self) -> None:
        """Close the open segment; the next append begins another one."""
        if self.open:
            os.close(self._handle)
            self._closed.append(self.open)
            self.open, self._handle = None, -1
