"""The files in which several processes keep their metrics (prometheus_client's multiprocess mode). Those of ended
processes are folded into one: each RQ job is a process, and a scrape that reads the files of all there ever were slows
down by the day."""

import fcntl
import logging
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

log = logging.getLogger(__name__)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Shared lock for readers: no file is folded meanwhile, so that nothing is counted twice or missed."""
    with _locked(folder, fcntl.LOCK_SH):
        yield


def fold(folder: Path, is_alive: Callable[[int], bool]) -> None:
    """Add the counts of ended processes to `<kind>_past.db`. Their gauges are dropped: an ended process has no open sockets."""
    ended = [path for path in folder.glob("*.db") if (number := _pid(path)) and not is_alive(number)]
    if ended:
        with _locked(folder, fcntl.LOCK_EX):
            for path in ended:
                if not path.name.startswith("gauge"):
                    _add(path, path.with_name(f"{path.stem.rpartition('_')[0]}_past.db"))
                path.unlink()


def _pid(path: Path) -> int:
    number = path.stem.rpartition("_")[2]
    return int(number) if number.isdigit() else 0


def _add(source: Path, target: Path) -> None:
    past = MmapedDict(str(target))
    try:
        for key, value, at, _ in MmapedDict.read_all_values_from_file(str(source)):
            past.write_value(key, past.read_value(key)[0] + value, at)
    except (RuntimeError, ValueError, struct.error) as error:  # killed in the middle of a write
        log.warning("metrics of an ended process are lost", extra={"file": source.name, "error": repr(error)})
    finally:
        past.close()


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, kind)
        yield
