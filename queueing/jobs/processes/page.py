"""Shared page: memory through which a child reports its progress and learns that it is canceled, without system calls.

The child writes the progress as often as it likes, and the worker looks a few times per second. A checksum tells a whole
record from one that is being written.
"""

import mmap
import os
import struct
from typing import Self
from zlib import crc32

import msgspec

SIZE = mmap.PAGESIZE
MESSAGE_LIMIT = 500  # characters of a progress message; in UTF-8 they fit the page
_HEAD = struct.Struct("<II")  # checksum and length of the record
_CANCELED, _RECORD = 0, 8  # offsets

type Progress = tuple[int, int | None, str]  # done, total, message

_decoder = msgspec.msgpack.Decoder(tuple[int, int | None, str])


class SharedPage:
    """A page that belongs to one attempt. The file descriptor is not needed once both sides have mapped it."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE)
        self.close = self._memory.close

    @classmethod
    def create(cls) -> tuple[Self, int]:
        """A new page, and its file descriptor for the child."""
        fd = os.memfd_create("job")
        os.ftruncate(fd, SIZE)
        return cls(fd), fd

    @property
    def canceled(self) -> bool:
        return self._memory[_CANCELED] != 0

    def cancel(self) -> None:
        self._memory[_CANCELED] = 1

    def write(self, done: int, total: int | None, message: str) -> None:
        record = msgspec.msgpack.encode((done, total, message[:MESSAGE_LIMIT]))
        whole = _HEAD.pack(crc32(record), len(record)) + record
        self._memory[_RECORD : _RECORD + len(whole)] = whole

    def read(self) -> Progress | None:
        """The progress written last; None: none yet, or another one is being written at this moment."""
        copy = self._memory[_RECORD:]
        checksum, length = _HEAD.unpack_from(copy)
        record = copy[_HEAD.size : _HEAD.size + length]
        return _decoder.decode(record) if length and crc32(record) == checksum else None
