"""Description of the machine."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from bench import load
from registry.servers import interpreter

DURABILITY = ("fsync", "synchronous_commit", "full_page_writes")


@dataclass(frozen=True)
class Machine:
    cores: int
    cpu: str
    memory: str
    system: str
    python: str
    postgresql: str
    valkey: str
    load_generator: str
    durability: dict[str, str]

    @property
    def lines(self) -> list[str]:
        settings = ", ".join(f"{name} {value}" for name, value in self.durability.items())
        return [
            f"{self.cores} cores for everything, {self.cpu}, {self.memory}, {self.system}",
            f"{self.python}; PostgreSQL {self.postgresql} ({settings}), Valkey {self.valkey}",
            f"load by {self.load_generator}",
        ]


def describe(database_url: str, redis_url: str) -> Machine:
    with psycopg.connect(database_url) as connection:
        postgresql = str(connection.execute("SHOW server_version").fetchone()[0])  # type: ignore[index]
        durability = durability_of(connection)
    with redis.Redis.from_url(redis_url) as client:
        info = client.info("server")
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=cpu_model(),
        memory=f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        system=f"{platform.system()} {platform.release()}",
        python=interpreter.describe(),
        postgresql=postgresql,
        valkey=str(info.get("valkey_version") or info["redis_version"]),
        load_generator="wrk" if load.wrk() else "bench/load.py",
        durability=durability,
    )


def durability_of(connection: psycopg.Connection) -> dict[str, str]:
    """Raises AssertionError if the server's settings allow a commit to be lost."""
    found = {name: str(connection.execute(f"SHOW {name}").fetchone()[0]) for name in DURABILITY}  # type: ignore[index]
    if weak := [name for name, value in found.items() if value != "on"]:
        raise AssertionError(f"not durable, {', '.join(weak)} is off: {found}")
    return found


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
