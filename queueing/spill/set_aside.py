"""Records that were set aside, one file each: whoever lists, replays or drops one touches no other."""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from queueing.spill.record import Aside, Item, aside_id

FOLDER = "aside"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Aside).decode


def keep(root: Path, kind: str, item: Item, reason: str) -> None:
    """On the disk when it returns. The same record again, after a crash, is the same file."""
    folder = root / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    id = aside_id(item)
    path = folder / f"{kind}-{id}"
    fresh = folder / f".{kind}-{id}-{os.getpid()}"
    content = _encode(Aside(id, datetime.now(UTC), reason, item.record, item.raw if item.record is None else b""))
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def found(root: Path, kind: str) -> list[Aside]:
    kept = []
    for path in (root / FOLDER).glob(f"{kind}-*"):
        try:
            kept.append(_decode(path.read_bytes()))
        except FileNotFoundError:  # dropped at this moment
            continue
    return sorted(kept, key=lambda aside: aside.at)


def count(root: Path, kind: str) -> int:
    return sum(1 for _ in (root / FOLDER).glob(f"{kind}-*"))


def drop(root: Path, kind: str, id: str) -> bool:
    if not (id.isascii() and id.isalnum()):
        return False
    try:
        (root / FOLDER / f"{kind}-{id}").unlink()
    except FileNotFoundError:
        return False
    return True
