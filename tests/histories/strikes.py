"""What a run does to a service: how each strike begins, and how it is healed. A seed chooses which, when and for how long."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import psycopg
import redis

from registry.servers.processes import children, signal_process
from tests.bed.clocks import LIBRARIES, reset_clock, set_clock
from tests.bed.stripe import SandboxStripe
from tests.bed.valkey import Troubled
from tests.chaos.outages import away, frozen, takes_writes
from tests.chaos.service import DELAY, RETURN, Service
from tests.chaos.victims import BYSTANDERS, EVERYTHING, TROUBLES, VICTIMS, Victim, strike_if_there
from tests.histories.disks import filled, may_mount
from tests.waiting import eventually

HELD = (0.4, 2.5)  # seconds that a strike lasts which somebody has to end
SKEW = 60  # seconds
WEB, WORKER = "registry.servers.serve", "worker"  # words of their command lines
AWAY = (OSError, psycopg.Error, redis.RedisError)


@dataclass(frozen=True)
class Site:
    """All that can be struck."""

    service: Service
    stripe: SandboxStripe


@dataclass(frozen=True)
class Strike[S]:
    """The service is struck while the block runs. `missing` says what this machine cannot do, if it cannot."""

    name: str
    during: Callable[[S, Random], AbstractAsyncContextManager[None]]
    missing: Callable[[], str] = lambda: ""

    def __str__(self) -> str:
        return self.name


class Planned[S](NamedTuple):
    strike: Strike[S]
    after: float  # seconds from the end of the strike before
    held: float  # seconds


# -- Kills ---------------------------------------------------------------------------------------------------


def killing(victim: Victim) -> Callable[[Site, Random], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def during(site: Site, dice: Random) -> AsyncIterator[None]:
        await asyncio.to_thread(strike_if_there, victim, site.service)
        yield

    return during


# -- Pauses --------------------------------------------------------------------------------------------------


def pausing(find: Callable[[Service], list[int]]) -> Callable[[Site, Random], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def during(site: Site, dice: Random) -> AsyncIterator[None]:
        pids = find(site.service)
        for pid in pids:
            signal_process(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                signal_process(pid, signal.SIGCONT)

    return during


@asynccontextmanager
async def pause_postgresql(site: Site, dice: Random) -> AsyncIterator[None]:
    async with frozen(site.service):
        yield


def horses(service: Service) -> list[int]:
    return [horse for worker in service.parts("worker", "--slot") for horse in children(worker)]


# -- Cuts ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def refuse_connections(site: Site, dice: Random) -> AsyncIterator[None]:
    """PostgreSQL runs, cuts every connection, and takes none to the service's database."""
    await asyncio.to_thread(_allow, site.service, "false")
    try:
        yield
    finally:
        await _until(lambda: _allow(site.service, "true"))


def _allow(service: Service, answer: str) -> None:
    with service.postgres.connect() as connection:
        connection.execute(f"ALTER DATABASE registry ALLOW_CONNECTIONS {answer}")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'registry'")


@asynccontextmanager
async def postgresql_is_away(site: Site, dice: Random) -> AsyncIterator[None]:
    """It has ended, and nobody starts it."""
    async with away(site.service):
        yield


def troubling(trouble: Victim) -> Callable[[Site, Random], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def during(site: Site, dice: Random) -> AsyncIterator[None]:
        await asyncio.to_thread(strike_if_there, trouble, site.service)
        try:
            yield
        finally:
            await asyncio.to_thread(site.service.calm)

    return during


@asynccontextmanager
async def cut_processors(site: Site, dice: Random) -> AsyncIterator[None]:
    """In the middle of answers, at both."""
    for processor in site.service.processors.values():
        await asyncio.to_thread(processor.delays, 10 * DELAY)
    await asyncio.sleep(5 * DELAY / 1000)
    for processor in site.service.processors.values():
        with suppress(OSError):  # this very call is cut too
            await asyncio.to_thread(processor.cuts_connections)
    try:
        yield
    finally:
        await asyncio.to_thread(site.service.calm)


def stripe_failing(trouble: str, on: str) -> Callable[[Site, Random], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def during(site: Site, dice: Random) -> AsyncIterator[None]:
        site.stripe.fails(trouble, on=on, times=20)
        try:
            yield
        finally:
            site.stripe.recovers()

    return during


# -- Disks ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def fill_postgresql(site: Site, dice: Random) -> AsyncIterator[None]:
    with filled(site.service.postgres.folder):
        yield


@asynccontextmanager
async def fill_spill(site: Site, dice: Random) -> AsyncIterator[None]:
    """And PostgreSQL is away: nothing can take a payment then."""
    with filled(site.service.data / "spill"):
        async with away(site.service):
            yield


# -- Redis ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def empty_valkey(site: Site, dice: Random) -> AsyncIterator[None]:
    """It ends, and begins again with nothing."""
    valkey = site.service.valkey
    with valkey.data_folder.lock():
        if pid := valkey.pid():
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not valkey.pid(), within=RETURN)
        for path in valkey.folder.glob("appendonlydir*"):
            shutil.rmtree(path)
    yield


@asynccontextmanager
async def valkey_is_read_only(site: Site, dice: Random) -> AsyncIterator[None]:
    with Troubled(site.service.valkey) as valkey, valkey.of("read_only"):
        yield


# -- Clocks --------------------------------------------------------------------------------------------------


def skewing(word: str) -> Callable[[Site, Random], AbstractAsyncContextManager[None]]:
    """A part begins again with another clock, and once more with the right one."""

    @asynccontextmanager
    async def during(site: Site, dice: Random) -> AsyncIterator[None]:
        service = site.service
        set_clock(service.clocks, word, dice.choice((-SKEW, SKEW)))
        await _again(service, word)
        try:
            yield
        finally:
            reset_clock(service.clocks, word)
            await _again(service, word)

    return during


async def _again(service: Service, word: str) -> None:
    """End the parts with this word, and wait for others in their places."""
    before = service.parts(word)
    for pid in before:
        signal_process(pid, signal.SIGTERM)
    await eventually(lambda: (now := service.parts(word)) and not {*now} & {*before}, within=RETURN)


# -- A database that takes no writes ---------------------------------------------------------------------------


@asynccontextmanager
async def postgresql_is_read_only(site: Site, dice: Random) -> AsyncIterator[None]:
    await asyncio.to_thread(_takes_none, site.service)
    try:
        yield
    finally:
        await _until(lambda: takes_writes(site.service))


def _takes_none(service: Service) -> None:
    with service.connect() as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")


async def _until(heal: Callable[[], None]) -> None:
    """PostgreSQL may be away at this moment."""

    def healed() -> bool:
        with suppress(*AWAY):
            heal()
            return True
        return False

    async def trial() -> bool:
        return await asyncio.to_thread(healed)

    await eventually(trial, within=RETURN)


# -- All of them -----------------------------------------------------------------------------------------------


def no_disks() -> str:
    return "" if may_mount() else "this process may not mount a disk"


def no_clocks() -> str:
    return "" if LIBRARIES else "there is no libfaketime (Debian's package faketime)"


STRIKES = (
    *(Strike(f"kill: {one}", killing(one)) for one in (*VICTIMS, *BYSTANDERS, EVERYTHING)),
    Strike("pause: web", pausing(lambda service: service.parts(WEB))),
    Strike("pause: worker", pausing(lambda service: service.parts("worker", "--slot"))),
    Strike("pause: horse", pausing(horses)),
    Strike("pause: PostgreSQL", pause_postgresql),
    Strike("pause: Valkey", pausing(lambda service: service.valkey.pids())),
    Strike("cut: PostgreSQL refuses connections", refuse_connections),
    Strike("cut: PostgreSQL is away", postgresql_is_away),
    *(Strike(f"cut: {trouble}", troubling(trouble)) for trouble in TROUBLES),
    Strike("cut: processors in the middle of answers", cut_processors),
    Strike("cut: Stripe after a refund", stripe_failing("drop_after", "POST /v1/refunds*")),
    Strike("cut: Stripe after a payment", stripe_failing("drop_after", "POST /v1/payment_intents*")),
    Strike("cut: Stripe before anything", stripe_failing("drop_before", "*")),
    Strike("full disk: PostgreSQL", fill_postgresql, no_disks),
    Strike("full disk: spill, and PostgreSQL is away", fill_spill, no_disks),
    Strike("Redis loss: emptied", empty_valkey),
    Strike("Redis loss: read-only", valkey_is_read_only),
    Strike("clock: web", skewing(WEB), no_clocks),
    Strike("clock: worker", skewing("--slot"), no_clocks),
    Strike("read-only: PostgreSQL", postgresql_is_read_only),
)


def planned[S](
    dice: Random, *, strikes: int, seconds: float, of: Sequence[Strike[S]] = STRIKES, held: tuple[float, float] = HELD
) -> list[Planned[S]]:
    """So many strikes, over about so many seconds. None comes twice before each of them came."""
    chosen: list[Strike[S]] = []
    while len(chosen) < strikes:
        chosen += dice.sample(of, min(len(of), strikes - len(chosen)))
    return [Planned(one, dice.uniform(0.2, seconds / strikes), dice.uniform(*held)) for one in chosen]
