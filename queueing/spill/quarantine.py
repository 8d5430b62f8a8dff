"""Quarantined records of the file engine, one file each: `<root>/aside/<kind>-<id>`."""

import os
from pathlib import Path

from queueing.spill.folder import sync_folder
from queueing.spill.record import Entry, QuarantinedRecord, decode_quarantined, encode_quarantined

FOLDER = "aside"


class Quarantine:
    """The quarantined records of one kind, of all processes on this machine."""

    def __init__(self, root: Path, kind: str) -> None:
        self.folder, self.kind = root / FOLDER, kind

    def add(self, entry: Entry, reason: str) -> None:
        """Write a record durably. The same record again, after a crash, is the same file."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = QuarantinedRecord.of(entry, reason)
        fresh = self.folder / f".{self.kind}-{kept.id}-{os.getpid()}"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(encode_quarantined(kept))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self.folder / f"{self.kind}-{kept.id}")
        sync_folder(self.folder)

    def listed(self) -> list[QuarantinedRecord]:
        """All records, oldest first."""
        kept = []
        for path in self.folder.glob(f"{self.kind}-*"):
            try:
                kept.append(decode_quarantined(path.read_bytes()))
            except FileNotFoundError:  # dropped at this moment
                continue
        return sorted(kept, key=lambda one: one.at)

    def count(self) -> int:
        return sum(1 for _ in self.folder.glob(f"{self.kind}-*"))

    def drop(self, id: str) -> bool:
        """Delete one record. Returns whether it existed."""
        if not (id.isascii() and id.isalnum()):
            return False
        try:
            (self.folder / f"{self.kind}-{id}").unlink()
        except FileNotFoundError:
            return False
        return True
