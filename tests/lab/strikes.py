"""What the laboratory does to its machines. A seed chooses which, when and for how long."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import cache
from random import Random
from typing import Protocol

from tests.histories.disks import filled
from tests.histories.strikes import Planned, Strike, planned
from tests.lab.laboratory import LabHost, Laboratory
from tests.lab.network import Machine
from tests.lab.servers import Postgres

HELD = (3.0, 30.0)  # seconds of a strike: longer and shorter than Patroni's 20 s until another server is the primary
GAP = 4.0  # seconds between a recovery and the next strike, on the average


class Struck(Protocol):
    """A machine with its programs."""

    machine: Machine

    def boot(self) -> object: ...


type Find[T] = Callable[[Laboratory, Random], T]
type Way = Callable[[Struck], AbstractContextManager[None]]


@contextmanager
def kill(target: Struck) -> Iterator[None]:
    """Its power fails, and comes back."""
    target.machine.kill()
    try:
        yield
    finally:
        target.boot()


def striking[T](find: Find[T], way: Callable[[T], AbstractContextManager[None]]) -> Callable[
    [Laboratory, Random], AbstractAsyncContextManager[None]
]:  # fmt: skip
    @asynccontextmanager
    async def during(lab: Laboratory, dice: Random) -> AsyncIterator[None]:
        target = await asyncio.to_thread(find, lab, dice)
        lab.struck = str(getattr(target, "machine", target))
        struck = way(target)
        await asyncio.to_thread(struck.__enter__)
        try:
            yield
        finally:
            await asyncio.to_thread(struck.__exit__, None, None, None)

    return during


@asynccontextmanager
async def switch_over(lab: Laboratory, dice: Random) -> AsyncIterator[None]:
    lab.struck = str((await asyncio.to_thread(lab.primary)).machine)
    await lab.switch_over()
    yield


# -- All of them -----------------------------------------------------------------------------------------------

WAYS: dict[str, Way] = {
    "kill": kill,
    "pause": lambda target: target.machine.paused(),
    "cut": lambda target: target.machine.cut_off(),
    "slow link": lambda target: target.machine.slow(),
}
SERVICE: dict[str, Find[LabHost]] = {
    "web host": lambda lab, dice: dice.choice(lab.web),
    "worker host": lambda lab, dice: dice.choice(lab.workers),
}
DATABASES: dict[str, Find[Postgres]] = {
    "PostgreSQL primary": lambda lab, dice: lab.primary(),
    "PostgreSQL replica": lambda lab, dice: dice.choice(lab.replicas()),
}
SERVERS: dict[str, Find[Struck]] = {
    "etcd": lambda lab, dice: dice.choice(lab.etcd),
    "Valkey master and its Sentinel": lambda lab, dice: lab.cache_master(),
    "Valkey replica and its Sentinel": lambda lab, dice: dice.choice(lab.cache_replicas()),
}
PROXY: dict[str, Find[Struck]] = {"HAProxy": lambda lab, dice: lab.proxy}


@cache
def strikes(way: str) -> tuple[Strike[Laboratory], ...]:
    """All of them, where the service reaches the primary in this way."""
    targets: dict[str, Find] = {**SERVICE, **DATABASES, **SERVERS, **(PROXY if way == "haproxy" else {})}
    return (
        *(Strike(f"{how}: {what}", striking(find, WAYS[how])) for how in WAYS for what, find in targets.items()),
        *(Strike(f"cut from PostgreSQL: {what}", striking(find, _from_databases)) for what, find in SERVICE.items()),
        *(
            Strike(f"full disk: {what}", striking(find, lambda one: filled(one.disk)))
            for what, find in DATABASES.items()
        ),
        Strike("full disk: web host's spill", striking(SERVICE["web host"], lambda host: filled(host.disk))),
        Strike("switch-over: PostgreSQL primary", switch_over),
    )


def _from_databases(host: LabHost) -> AbstractContextManager[None]:
    return host.machine.cut_off_from(host.lab.database_machines)


def plan(
    seed: int, *, number: int, way: str, held: float | None = None, only: list[str] | None = None
) -> list[Planned[Laboratory]]:
    """`only`: these, in this order. `held`: seconds of each."""
    dice, known = Random(seed), {one.name: one for one in strikes(way)}
    if only:
        chosen = [Planned(known[name], GAP, dice.uniform(*HELD)) for name in only]
    else:
        chosen = planned(dice, strikes=number, seconds=2 * GAP * number, of=strikes(way), held=HELD)
    return [one._replace(held=held) if held else one for one in chosen]
