"""Quarantined records of the file engine, one file each: `<root>/aside/<kind>-<id>`."""

import os
from pathlib import Path

from queueing.spill.folder import sync_folder
from queueing.spill.record import Entry, QuarantinedRecord, decode_quarantined, encode_quarantined

FOLDER = "aside"


def add(root: Path, kind: str, entry: Entry, reason: str) -> None:
    """Write a record durably. The same record again, after a crash, is the same file."""
    folder = root / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = QuarantinedRecord.of(entry, reason)
    fresh = folder / f".{kind}-{kept.id}-{os.getpid()}"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(encode_quarantined(kept))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(folder / f"{kind}-{kept.id}")
    sync_folder(folder)


def listed(root: Path, kind: str) -> list[QuarantinedRecord]:
    """All of a kind, oldest first."""
    kept = []
    for path in (root / FOLDER).glob(f"{kind}-*"):
        try:
            kept.append(decode_quarantined(path.read_bytes()))
        except FileNotFoundError:  # dropped at this moment
            continue
    return sorted(kept, key=lambda one: one.at)


def count(root: Path, kind: str) -> int:
    return sum(1 for _ in (root / FOLDER).glob(f"{kind}-*"))


def drop(root: Path, kind: str, id: str) -> bool:
    """Delete one record. Returns whether it existed."""
    if not (id.isascii() and id.isalnum()):
        return False
    try:
        (root / FOLDER / f"{kind}-{id}").unlink()
    except FileNotFoundError:
        return False
    return True
