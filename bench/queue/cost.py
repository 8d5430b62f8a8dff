"""Processor time of the service for a load, from /proc: more reliable than a rate on shared cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.place import Place, Process
from bench.queue.load import Report
from registry.servers.processes import children

TICK = os.sysconf("SC_CLK_TCK")
BACKENDS = "SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity WHERE datname = current_database()"


@dataclass
class Cost:
    """Seconds of the web process and of its PostgreSQL backends; 0 where PostgreSQL runs on another machine."""

    web: float = 0.0
    postgres: float = 0.0

    @property
    def service(self) -> float:
        return self.web + self.postgres

    def note(self, messages: int, *clients: Report) -> str:
        client = sum(report.cpu for report in clients)
        each = (1e6 * seconds / max(messages, 1) for seconds in (client, self.web, self.postgres))
        return "µs per message: client {:.0f}, web {:.0f}, PostgreSQL {:.0f}".format(*each)


@contextmanager
def counted(here: Place, web: Process) -> Iterator[Cost]:
    cost = Cost()
    before = backends(here)
    started = seconds_of(web.pid)
    yield cost
    cost.web = seconds_of(web.pid) - started
    cost.postgres = sum(spent - before.get(pid, 0.0) for pid, spent in backends(here).items())


def backends(here: Place) -> dict[int, float]:
    return {pid: seconds_of(pid) for pid in here.ask(BACKENDS) if is_postgres(pid)}


def is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("postgres")
    except OSError:
        return False


def seconds_of(pid: int) -> float:
    return _seconds(pid, fields=2)


def seconds_of_tree(pid: int) -> float:
    """Of a process, its children that ended, and those that run, with theirs."""
    return _seconds(pid, fields=4) + sum(map(seconds_of_tree, children(pid)))


def _seconds(pid: int, *, fields: int) -> float:
    """The first of user, system, and both of the children that ended (proc(5))."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, found[11 : 11 + fields])) / TICK
