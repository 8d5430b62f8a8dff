"""The processes that are killed, how, and the seconds until the service must have recovered by itself."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import psycopg
import redis

from registry.servers.processes import children, signal_process
from tests.chaos.service import Service


@dataclass(frozen=True)
class Victim:
    name: str
    strike: Callable[[Service], bool]  # whether there was anybody to strike
    whole_within: float  # seconds; ten times what it takes on two idle cores, for the suite runs on busy ones

    def __str__(self) -> str:
        return self.name


def killing(find: Callable[[Service], int | None]) -> Callable[[Service], bool]:
    def strike(service: Service) -> bool:
        pid = find(service)
        if pid:
            os.kill(pid, signal.SIGKILL)
        return pid is not None

    return strike


def kill_the_supervisor(service: Service) -> bool:
    """Nobody is above it: here, and only here, somebody has to call `up` again."""
    service.popen.kill()
    service.popen.wait()
    service.up()
    return True


def kill_everything(service: Service) -> bool:
    """Both servers and every part; the supervisor is left, which starts them again."""
    for pid in [*service.servers(), *children(service.popen.pid)]:
        signal_process(pid, signal.SIGKILL)
    return True


def flush_valkey(service: Service) -> bool:
    with redis.Redis.from_url(service.valkey.url) as client:
        return bool(client.flushall())


def terminate_connections(service: Service) -> bool:
    with service.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    return True


# Its payments in flight are in doubt until its heartbeat has been missing for 5 s.
HORSE = Victim("horse", killing(Service.horse), 60)
VICTIMS = (
    HORSE,
    Victim("worker", killing(lambda service: service.part("worker", "--slot")), 60),
    Victim("web", killing(lambda service: service.part("registry.servers.serve")), 45),
    Victim("valkey", killing(lambda service: service.valkey.pid()), 45),
    Victim("emptied valkey", flush_valkey, 30),
    Victim("postmaster", killing(lambda service: service.postgres.pid()), 60),
    Victim("backend", killing(Service.backend), 60),
    Victim("all connections", terminate_connections, 30),
    Victim("supervisor", kill_the_supervisor, 90),
)
EVERYTHING = Victim("everything", kill_everything, 90)
# Struck in storms too: alone they would show little, for they hold nothing.
BYSTANDERS = (
    Victim("housekeeping", killing(lambda service: service.part("worker", "--housekeeping")), 60),
    Victim("cron", killing(lambda service: service.part("cron")), 60),
)


def troubling(name: str, **options: int) -> Callable[[Service], bool]:
    def strike(service: Service) -> bool:
        getattr(service.default, name)(**options)
        return True

    return strike


# Of the cheaper processor, so that payments change roads while others are in doubt there: that is how one is paid twice.
TROUBLES = (
    Victim("refusing processor", troubling("answers", status=500, times=60), 60),
    Victim("processor that hangs up", troubling("resets_connections", times=30), 60),
    Victim("silent processor", troubling("books_but_never_answers", times=10), 60),
)


def storm(dice: Random, strikes: int) -> list[Victim]:
    """A row of victims, about one in four of them a processor."""
    troubles = round(strikes / 4)
    struck = dice.choices((*VICTIMS, *BYSTANDERS), k=strikes - troubles) + dice.choices(TROUBLES, k=troubles)
    dice.shuffle(struck)
    return struck


def strike_if_there(victim: Victim, service: Service) -> None:
    """In a storm a victim, or who is needed to reach it, may be down already."""
    with suppress(OSError, psycopg.OperationalError, redis.exceptions.ConnectionError):
        victim.strike(service)
