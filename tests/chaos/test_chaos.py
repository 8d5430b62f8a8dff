"""Every part is killed under load: accepted payments are booked once, sums agree, no message is lost, and the service recovers by itself."""

import asyncio
import json
import os
import random
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest

from tests.chaos.flow import flows
from tests.chaos.sender import Sender
from tests.chaos.service import DELAY, RETURN, Service
from tests.chaos.traffic import Traffic
from tests.chaos.verdict import faults, until_settled
from tests.chaos.victims import EVERYTHING, HORSE, VICTIMS, Victim, storm, strike_if_there
from tests.conftest import eventually
from tests.depth import deep

MORE = 30  # payments: so many before a strike, and again once the service is whole
STRUCK_IN_QUEUES = ("web", "postmaster", "backend", "all connections")  # whose strikes messages feel too
REPLACED = ("valkey", "postmaster", "everything")  # after whose strikes a server is another process
IN_DOUBT = "SELECT count(*) FROM payments_payment WHERE status = 'uncertain'"
DOUBT_LIMIT = 90.0  # seconds: the horse's silence, a refusing processor, and the waits between questions
STRIKES = deep(6, 30)  # of the storm
PAUSES = deep((0.1, 0.8), (0.2, 1.5))  # seconds between two of them: less than most victims take to recover
STORM_LIMIT = 120.0  # seconds until all of it is settled


@pytest.fixture(scope="module")
async def sender(service: Service) -> Sender:
    """One client for the whole module: every test also judges what the ones before left."""
    return Sender(service.url, service.key, others=await asyncio.to_thread(service.booked))


@pytest.fixture(scope="module")
async def traffic(service: Service) -> Traffic:
    """One queue for the whole module."""
    return Traffic(service.url, service.key, queue="struck")


@pytest.mark.parametrize("victim", [*VICTIMS, EVERYTHING], ids=str)
async def test_a_strike_under_load_loses_nothing_and_heals_by_itself(
    service: Service, sender: Sender, traffic: Traffic, victim: Victim
):
    servers = service.servers()

    async with AsyncExitStack() as load:
        await load.enter_async_context(sender.sending())
        if victim.name in STRUCK_IN_QUEUES:
            await load.enter_async_context(traffic.flowing())
            await flows(traffic)
        await more_payments(sender)
        assert await asyncio.to_thread(victim.strike, service)
        await until_settled(service, before=datetime.now(UTC), within=victim.whole_within)
        if victim.name in STRUCK_IN_QUEUES:
            await flows(traffic)
        await more_payments(sender)

    assert len(servers) == 2
    assert (service.servers() != servers) == (victim.name in REPLACED)  # `up` uses those that its predecessor left
    assert await faults(service, sender, ledger=False) == []  # the storm proves the sums of all tests
    if victim.name in STRUCK_IN_QUEUES:
        assert await traffic.faults() == []


async def more_payments(sender: Sender) -> None:
    enough = len(sender.accepted) + MORE
    await eventually(lambda: len(sender.accepted) >= enough, within=RETURN)


async def test_uncertain_payments_stay_at_their_processor_while_others_change_theirs(service: Service, sender: Sender):
    elsewhere = len(service.fallback.ids)

    async with sender.sending():
        service.default.resets_connections()  # booked, and nobody is told
        await eventually(lambda: service.postgres_says(IN_DOUBT) > 0)
        service.default.answers(500)
        HORSE.strike(service)
        await eventually(lambda: len(service.fallback.ids) > elsewhere, within=DOUBT_LIMIT)
        service.default.recovers()
        await until_settled(service, before=datetime.now(UTC), within=DOUBT_LIMIT)

    service.default.delays(DELAY)
    assert await faults(service, sender) == []


async def test_a_storm_of_strikes_loses_nothing_and_heals_by_itself(service: Service, sender: Sender):
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1_000_000))
    print(f"CHAOS_SEED={seed} repeats this storm")  # shown when it fails
    dice = random.Random(seed)

    async with sender.sending():
        for victim in storm(dice, STRIKES):
            print(victim)
            await asyncio.to_thread(strike_if_there, victim, service)
            await asyncio.sleep(dice.uniform(*PAUSES))
        await until_settled(service, before=datetime.now(UTC), within=STORM_LIMIT)

    assert await faults(service, sender) == []
    assert json.loads(await service.manage("ledger", "verify", "--json"))["sound"]
