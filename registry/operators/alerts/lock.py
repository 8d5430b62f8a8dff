"""Election of one process of a host by a lock on a file: it needs no database, and the kernel releases it when the process ends."""

import asyncio
import fcntl
import logging
from pathlib import Path
from typing import IO

from registry.servers.data_folder import locked

log = logging.getLogger(__name__)


class HeldFile:
    """The lock as one process sees it. Call `hold` again and again, and `release` at the end."""

    def __init__(self, path: Path, holder: str) -> None:
        self.path, self.holder = path, holder
        self._file: IO[str] | None = None  # open: the lock is held

    async def hold(self) -> bool:
        """Whether this process holds the lock. Never raises."""
        if self._file is None:
            try:
                self._file = await asyncio.to_thread(self._take)
            except OSError as error:
                log.warning("a file cannot be locked", extra={"file": str(self.path), "error": repr(error)})
        return self._file is not None

    def _take(self) -> IO[str] | None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a")
        if locked(file, fcntl.LOCK_EX):
            return file
        file.close()
        return None

    async def release(self) -> None:
        if self._file:
            self._file.close()
            self._file = None
