"""The spill in files: a folder per process and kind, append-only segments in it, each append on the disk before it returns.

    <root>/<kind>-<process>/lock                 held (flock) for as long as the process lives
                            00000001-<marker>    a segment: records as frames.py writes them
                            00000001-<marker>.done   how far it is stored; a hint that saves repetitions after a crash
    <root>/aside/<kind>-<id>                     a record that was set aside, one file each

Everything that touches the disk runs in a thread.
"""

import asyncio
import fcntl
import logging
import os
import secrets
import shutil
import socket
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import queueing.spill.set_aside as asides
from queueing.spill.frames import Frame, frame, frames, pack, unpack
from queueing.spill.record import Aside, Full, Item, Record, Verdict

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024  # a segment is closed beyond that; it is read as a whole when it is drained
BATCH_BYTES = 4 * 1024 * 1024  # of one batch to store; one record may be larger
LOOK_EVERY = 5.0  # seconds between looks for folders of dead processes
_OFFSET = struct.Struct("<Q")


class Segment:
    """One file of records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.marker = bytes.fromhex(path.name.partition("-")[2])
        self.first_at: datetime | None = None
        self.size = 0  # bytes that count against the limit

    @property
    def done(self) -> Path:
        return self.path.with_name(f"{self.path.name}.done")

    def left(self) -> Iterator[Item]:
        """What of it is not settled yet."""
        content = self.path.read_bytes()
        stored = self.stored()
        for part in frames(content, self.marker):
            if part.end > stored:
                yield self.item(content, part)

    def item(self, content: bytes, part: Frame) -> Item:
        raw = content[part.start : part.end]
        if part.body is None:
            return Item(None, raw, part.end, "damaged on the disk: its checksum is wrong")
        try:
            return Item(unpack(part.body), raw, part.end)
        except ValueError as error:
            return Item(None, raw, part.end, str(error))

    def stored(self) -> int:
        try:
            [offset] = _OFFSET.unpack(self.done.read_bytes())
        except (OSError, struct.error):
            return 0
        return offset if offset <= self.path.stat().st_size else 0

    def settle_until(self, offset: int) -> None:
        """Not synced: what a power cut takes back is stored once more, which its owner knows to recognise."""
        with open(os.open(self.done, os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as file:
            file.write(_OFFSET.pack(offset))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.done.unlink(missing_ok=True)


class Folder:
    """A folder whose lock this process holds, its own or a dead one's."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self.lock = path, lock

    @classmethod
    def create(cls, root: Path, kind: str) -> "Folder":
        """Under another name until it is locked, or another process would take it for a dead one's."""
        if not root.exists():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(root.parent)
        name = f"{kind}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        fresh = root / f".{name}"
        lock = -1
        try:
            fresh.mkdir(mode=0o700)
            lock = os.open(fresh / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fresh.rename(root / name)
            sync_folder(root)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            if lock >= 0:
                os.close(lock)
            raise
        return cls(root / name, lock)

    @classmethod
    def of_the_dead(cls, path: Path) -> "Folder | None":
        """Taken over, if nobody lives in it."""
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path / "lock").st_ino == os.fstat(lock).st_ino:  # else somebody was faster and removed it
                return cls(path, lock)
        except OSError:
            pass
        os.close(lock)
        return None

    def segments(self) -> list[Segment]:
        return [Segment(path) for path in sorted(self.path.glob("[0-9]*-*")) if path.suffix != ".done"]

    def let_go(self) -> None:
        """An empty folder goes; what waits in another is found by whoever looks next."""
        if not self.segments():
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def sync_folder(path: Path) -> None:
    """A new name is safe only once its folder is."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class FileEngine:
    """One process's files of one kind. Appends and drains may run in two threads at once."""

    idle = look_every = LOOK_EVERY
    name = "file"
    shared = False

    def __init__(self, root: Path, kind: str, *, limit: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.root, self.kind, self.limit, self.segment_bytes = root, kind, limit, segment_bytes
        self.bytes = 0
        self._own: Folder | None = None
        self._adopted: list[Folder] = []
        self._segments: deque[Segment] = deque()  # to drain, oldest first
        self._open: tuple[Segment, int] | None = None  # where appends go
        self._number = 0
        self._reading: Segment | None = None
        self._left: deque[Item] = deque()  # of the segment that is read
        self._lock = threading.Lock()  # over what appends and drains both change

    # -- Appending -----------------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record]) -> None:
        await asyncio.to_thread(self._append, records)

    def _append(self, records: Sequence[Record]) -> None:
        with self._lock:
            try:
                segment, handle = self._open or self._begin_segment()
                content = b"".join(frame(segment.marker, pack(record)) for record in records)
                if self.bytes + len(content) > self.limit:
                    raise Full(f"the spill holds {self.bytes} bytes of at most {self.limit}")
                self._write(handle, content, segment.size)
            except OSError as error:
                raise Full(f"the spill cannot be written: {error.strerror}") from error
            segment.first_at = segment.first_at or records[0].at
            segment.size += len(content)
            self.bytes += len(content)
            if segment.size >= self.segment_bytes:
                self._seal()

    def _begin_segment(self) -> tuple[Segment, int]:
        if self._own is None:
            self._own = Folder.create(self.root, self.kind)
        self._number += 1
        path = self._own.path / f"{self._number:08}-{secrets.token_hex(8)}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            sync_folder(path.parent)
        except OSError:
            os.close(handle)
            raise
        self._open = Segment(path), handle
        return self._open

    def _write(self, handle: int, content: bytes, size: int) -> None:
        """All of it on the disk, or nothing: callers who were refused must not find themselves stored by half."""
        try:
            at = 0
            while at < len(content):
                at += os.pwrite(handle, content[at:], size + at)
            os.fdatasync(handle)
        except OSError:
            try:
                os.ftruncate(handle, size)
                os.fsync(handle)
            except OSError as error:
                log.error("a segment of the spill is closed: it cannot be cut back", extra={"error": repr(error)})
                self._seal()
            raise

    def _seal(self) -> None:
        """The next append begins another segment."""
        if self._open:
            segment, handle = self._open
            self._open = None
            os.close(handle)
            self._segments.append(segment)

    # -- Draining ------------------------------------------------------------------------------------------

    async def batch(self, limit: int) -> list[Item]:
        return await asyncio.to_thread(self._batch, limit)

    def _batch(self, limit: int) -> list[Item]:
        while not self._left:
            if self._reading:  # nothing was left in it
                self._finish()
            elif not self._read_next():
                return []
        taken: list[Item] = []
        room = BATCH_BYTES
        while self._left and len(taken) < limit and (not taken or room >= len(self._left[0].raw)):
            item = self._left.popleft()
            taken.append(item)
            room -= len(item.raw)
        return taken

    def _read_next(self) -> bool:
        with self._lock:
            if not self._segments and self._open and self._open[0].size:
                self._seal()
            if not self._segments:
                return False
            segment = self._segments[0]
        self._left.extend(segment.left())  # before it is taken: a disk that fails to read may do better next time
        with self._lock:
            self._segments.popleft()
            self._reading = segment
        return True

    async def settle(self, items: Sequence[Item], verdicts: Sequence[Verdict]) -> None:
        await asyncio.to_thread(self._settle, items, verdicts)

    def _settle(self, items: Sequence[Item], verdicts: Sequence[Verdict]) -> None:
        assert self._reading
        for item, verdict in zip(items, verdicts, strict=True):
            if verdict.reason:
                asides.keep(self.root, self.kind, item, verdict.reason)
        if not self._left:
            self._finish()
            return
        with suppress(OSError):  # a hint, and the disk may be full
            self._reading.settle_until(items[-1].place)

    def _finish(self) -> None:
        """Everything in the segment is stored or set aside."""
        assert self._reading
        self._reading.remove()
        with self._lock:
            self.bytes -= self._reading.size
            self._reading = None
        for folder in [folder for folder in self._adopted if not folder.segments()]:
            self._adopted.remove(folder)
            folder.let_go()

    # -- The dead ------------------------------------------------------------------------------------------

    async def adopt(self) -> AsyncIterator[list[Item]]:
        for folder in await asyncio.to_thread(self._dead_folders):
            for segment in await asyncio.to_thread(folder.segments):
                yield await asyncio.to_thread(self._take_over, segment)

    def _dead_folders(self) -> list[Folder]:
        found = []
        for path in sorted(self.root.glob(f"{self.kind}-*")):
            if folder := Folder.of_the_dead(path):
                if folder.segments():
                    log.warning("taking over what a dead process left", extra={"folder": path.name})
                    found.append(folder)
                    self._adopted.append(folder)
                else:
                    folder.let_go()
        return found

    def _take_over(self, segment: Segment) -> list[Item]:
        found = list(segment.left())
        segment.size = segment.path.stat().st_size
        segment.first_at = next((item.record.at for item in found if item.record), None)
        with self._lock:
            self.bytes += segment.size
            behind = [own for own in self._segments if self._own and own.path.parent == self._own.path]
            self._segments.insert(len(self._segments) - len(behind), segment)
        return found

    # -- How it is -----------------------------------------------------------------------------------------

    async def waits(self) -> int:
        raise NotImplementedError  # nobody shares files

    async def oldest(self) -> datetime | None:
        if self._left and self._left[0].record:
            return self._left[0].record.at
        return await asyncio.to_thread(self._oldest)  # whoever syncs holds the lock meanwhile

    def _oldest(self) -> datetime | None:
        with self._lock:
            segments = [*([self._reading] if self._reading else []), *self._segments]
            segments += [self._open[0]] if self._open else []
            return min((s.first_at for s in segments if s.first_at), default=None)

    async def beat(self) -> None:
        """The lock says it."""

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            self._seal()
            for segment in self._segments:
                if not segment.size:
                    segment.remove()
            for folder in (*self._adopted, *([self._own] if self._own else [])):
                with suppress(OSError):
                    folder.let_go()
            self._own, self._adopted = None, []

    async def asides(self) -> list[Aside]:
        return await asyncio.to_thread(asides.found, self.root, self.kind)

    async def count_asides(self) -> int:
        return await asyncio.to_thread(asides.count, self.root, self.kind)

    async def drop_aside(self, id: str) -> bool:
        return await asyncio.to_thread(asides.drop, self.root, self.kind, id)

    async def holds(self, tenant_id: int) -> bool:
        return await asyncio.to_thread(self._holds, tenant_id)

    def _holds(self, tenant_id: int) -> bool:
        """Segments first: what leaves one meanwhile is stored, or aside by then."""
        for path in self.root.glob(f"{self.kind}-*/[0-9]*-*"):
            with suppress(FileNotFoundError):  # stored at this moment
                if path.suffix != ".done" and any(_is_of(tenant_id, item.record) for item in Segment(path).left()):
                    return True
        return any(_is_of(tenant_id, aside.record) for aside in asides.found(self.root, self.kind))


def _is_of(tenant_id: int, record: Record | None) -> bool:
    return record is not None and record.tenant_id == tenant_id
