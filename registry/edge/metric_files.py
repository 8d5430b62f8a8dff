"""The files in which several processes keep their metrics (prometheus_client's multiprocess mode). Those of ended
processes are folded into one: each RQ job is a process, and a scrape that reads the files of all there ever were slows
down by the day."""

import fcntl
import logging
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

log = logging.getLogger(__name__)


class Processes:
    """Collector of the metrics of all processes that have files in the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> list[Metric]:
        return read(self.folder)


def read(folder: Path, kinds: Collection[str] = ("",)) -> list[Metric]:
    """The metrics of all processes, of these kinds only: counter, gauge, histogram. No file is folded meanwhile, so that nothing is
    counted twice or missed. A process that starts has made its file, and then makes it long enough: prometheus_client cannot read
    one in between, and nothing is counted there yet."""
    with _locked(folder, fcntl.LOCK_SH):
        files = [path for kind in kinds for path in folder.glob(f"{kind}*.db") if path.stat().st_size]
        return list(MultiProcessCollector.merge([str(path) for path in files]))


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
