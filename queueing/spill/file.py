"""File engine of the spill: a folder per process and kind with append-only segments; each append is fsynced before it returns.

    <root>/<kind>-<process>/lock                 held (flock) for as long as the process lives
                            00000001-<marker>    a segment: records in the format of frames.py
                            00000001-<marker>.done   how far it is settled; avoids most repetitions after a crash
    <root>/aside/<kind>-<id>                     a quarantined record, one file each

All disk access runs in threads.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from queueing.spill.folder import Folder
from queueing.spill.quarantine import Quarantine
from queueing.spill.record import Entry, Full, QuarantinedRecord, Record, StoreResult
from queueing.spill.segment import Segment
from queueing.spill.writer import SegmentWriter

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024  # size at which a segment is closed; it is read as a whole when it is drained
BATCH_BYTES = 4 * 1024 * 1024  # size of one batch to store; a single record may be larger
TAKEOVER_EVERY = 5.0  # seconds between searches for folders of dead processes


class FileEngine:
    """One process's files of one kind. Appending and draining may run in two threads at once."""

    idle = takeover_every = TAKEOVER_EVERY
    name = "file"
    shared = False

    def __init__(self, root: Path, kind: str, *, limit: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.root, self.kind, self.limit = root, kind, limit
        self.bytes = 0
        self._segments: deque[Segment] = deque()  # closed, to drain, oldest first
        self._writer = SegmentWriter(root, kind, segment_bytes=segment_bytes, closed=self._segments)
        self._taken_over: list[Folder] = []
        self._quarantine = Quarantine(root, kind)
        self._reading: Segment | None = None
        self._unread: deque[Entry] = deque()  # of the segment that is being read
        self._lock = threading.Lock()  # protects what both appending and draining change

    # -- Appending -----------------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record]) -> None:
        await asyncio.to_thread(self._append, records)

    def _append(self, records: Sequence[Record]) -> None:
        with self._lock:
            try:
                self.bytes += self._writer.append(records, held=self.bytes, limit=self.limit)
            except OSError as error:
                raise Full(f"the spill cannot be written: {error.strerror}") from error

    # -- Draining ------------------------------------------------------------------------------------------

    async def batch(self, limit: int) -> list[Entry]:
        return await asyncio.to_thread(self._batch, limit)

    def _batch(self, limit: int) -> list[Entry]:
        while not self._unread:
            if self._reading:  # it had no unsettled entries
                self._finish_segment()
            elif not self._read_segment():
                return []
        entries: list[Entry] = []
        room = BATCH_BYTES
        while self._unread and len(entries) < limit and (not entries or room >= len(self._unread[0].raw)):
            entry = self._unread.popleft()
            entries.append(entry)
            room -= len(entry.raw)
        return entries

    def _read_segment(self) -> bool:
        with self._lock:
            if not self._segments and self._writer.open and self._writer.open.size:
                self._writer.close_segment()
            if not self._segments:
                return False
            segment = self._segments[0]
        self._unread.extend(segment.unsettled())  # before it leaves the queue: a read error may be temporary
        with self._lock:
            self._segments.popleft()
            self._reading = segment
        return True

    async def settle(self, entries: Sequence[Entry], results: Sequence[StoreResult]) -> None:
        await asyncio.to_thread(self._settle, entries, results)

    def _settle(self, entries: Sequence[Entry], results: Sequence[StoreResult]) -> None:
        assert self._reading
        for entry, result in zip(entries, results, strict=True):
            if result.reason:
                self._quarantine.add(entry, result.reason)
        if not self._unread:
            self._finish_segment()
            return
        with suppress(OSError):  # the offset only saves repetitions, and the disk may be full
            self._reading.settle_until(entries[-1].position)

    def _finish_segment(self) -> None:
        """Delete the segment: all its entries are stored or quarantined."""
        assert self._reading
        self._reading.delete()
        with self._lock:
            self.bytes -= self._reading.size
            self._reading = None
        for folder in [folder for folder in self._taken_over if not folder.segments()]:
            self._taken_over.remove(folder)
            folder.release()

    # -- Taking over -----------------------------------------------------------------------------------------

    async def take_over(self) -> AsyncIterator[list[Entry]]:
        for folder in await asyncio.to_thread(self._folders_of_dead_processes):
            for segment in await asyncio.to_thread(folder.segments):
                yield await asyncio.to_thread(self._take_over, segment)

    def _folders_of_dead_processes(self) -> list[Folder]:
        found = []
        for path in sorted(self.root.glob(f"{self.kind}-*")):
            if folder := Folder.take_over(path):
                if folder.segments():
                    log.warning("taking over records of a dead process", extra={"folder": path.name})
                    found.append(folder)
                    self._taken_over.append(folder)
                else:
                    folder.release()
        return found

    def _take_over(self, segment: Segment) -> list[Entry]:
        """Queue a segment behind those taken over before and ahead of this process's own."""
        entries = list(segment.unsettled())
        segment.size = segment.path.stat().st_size
        segment.first_at = next((entry.record.at for entry in entries if entry.record), None)
        with self._lock:
            self.bytes += segment.size
            own = self._writer.folder
            number_of_own = sum(own is not None and one.path.parent == own.path for one in self._segments)
            self._segments.insert(len(self._segments) - number_of_own, segment)
        return entries

    # -- State -------------------------------------------------------------------------------------------------

    async def shared_length(self) -> int:
        raise NotImplementedError  # files are never shared

    async def oldest(self) -> datetime | None:
        if self._unread and self._unread[0].record:
            return self._unread[0].record.at
        return await asyncio.to_thread(self._oldest)  # an append holds the lock during its fsync

    def _oldest(self) -> datetime | None:
        with self._lock:
            segments = [self._reading, *self._segments, self._writer.open]
            return min((one.first_at for one in segments if one and one.first_at), default=None)

    async def heartbeat(self) -> None:
        """Nothing to renew: the file lock ends with the process."""

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._writer.close_segment()
            for segment in self._segments:
                if not segment.size:
                    segment.delete()
            for folder in (*self._taken_over, self._writer.folder):
                if folder:
                    with suppress(OSError):
                        folder.release()
            self._writer.folder, self._taken_over = None, []

    async def quarantined(self) -> list[QuarantinedRecord]:
        return await asyncio.to_thread(self._quarantine.listed)

    async def count_quarantined(self) -> int:
        return await asyncio.to_thread(self._quarantine.count)

    async def drop_quarantined(self, id: str) -> bool:
        return await asyncio.to_thread(self._quarantine.drop, id)

    async def holds(self, tenant_id: int) -> bool:
        return await asyncio.to_thread(self._holds, tenant_id)

    def _holds(self, tenant_id: int) -> bool:
        """Segments first: a record that leaves a segment meanwhile is stored or already quarantined."""
        for path in self.root.glob(f"{self.kind}-*/[0-9]*-*"):
            with suppress(FileNotFoundError):  # settled at this moment
                if path.suffix != ".done" and any(_is_of(tenant_id, one.record) for one in Segment(path).unsettled()):
                    return True
        return any(_is_of(tenant_id, one.record) for one in self._quarantine.listed())


def _is_of(tenant_id: int, record: Record | None) -> bool:
    return record is not None and record.tenant_id == tenant_id
