"""A queue under load while parts of the service, readers and PostgreSQL are killed: nothing is lost, order is kept."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.service import Service
from tests.chaos.test_outage import away
from tests.chaos.traffic import GROUPS, LEASE, Traffic, start_holding
from tests.chaos.victims import VICTIMS, Victim
from tests.conftest import eventually

OUTAGE = float(os.environ.get("CHAOS_OUTAGE", "4"))  # seconds that PostgreSQL is away under load
RETURN = 60.0  # seconds until messages flow again: PostgreSQL's own recovery is most of that
MORE = 100  # messages: so many before a strike, and after it

STRUCK = [victim for victim in VICTIMS if victim.name in ("web", "postmaster", "backend", "all connections")]


@pytest.fixture(scope="module")
async def traffic(service: Service) -> Traffic:
    """One queue for the whole module: every test also judges what the ones before left."""
    return Traffic(service.url, service.key)


def done_by_all(traffic: Traffic) -> int:
    return min(len(traffic.book.delivered[group]) for group in GROUPS)


async def more(count: Callable[[], int]) -> None:
    """Until there are MORE than now."""
    enough = count() + MORE
    await eventually(lambda: count() >= enough, within=RETURN)


async def flows(traffic: Traffic) -> None:
    await more(lambda: len(traffic.book.accepted))
    await more(lambda: done_by_all(traffic))


@pytest.mark.parametrize("victim", STRUCK, ids=str)
async def test_a_strike_loses_no_message_and_brings_none_twice_within_its_lease(
    service: Service, traffic: Traffic, victim: Victim
):
    async with traffic.flowing():
        await flows(traffic)
        assert await asyncio.to_thread(victim.strike, service)
        await flows(traffic)

    assert await traffic.faults() == []


async def test_what_a_killed_reader_had_in_hand_comes_to_others_once_its_lease_has_lapsed(
    traffic: Traffic, tmp_path: Path
):
    notes = tmp_path / "notes"

    async with traffic.flowing():
        reader = start_holding(traffic, GROUPS[0], notes)
        await eventually(lambda: notes.exists() and notes.read_bytes().endswith(b"\n"))
        reader.kill()
        reader.wait()
        [got] = traffic.book.copy(notes)
        await more(lambda: done_by_all(traffic))
    others = [hand.got for hand in traffic.book.hands.values() if hand.got.group == got.group]
    later = [other for other in others if other.received > got.received]  # some may have been given back before
    again = [other for other in later if {*other.messages} & {*got.messages}]

    assert again
    assert min(other.received for other in again) >= got.sent + LEASE
    assert await traffic.faults() == []


async def test_postgresql_stopped_under_load_delays_messages_and_loses_none(service: Service, traffic: Traffic):
    """With the spill in between, from whose other end they come in the order in which they were accepted."""
    async with traffic.flowing():
        await flows(traffic)
        async with away(service):
            await asyncio.sleep(OUTAGE)
            buffered = traffic.statuses["buffered"]
        await eventually(service.postgres.pid, within=RETURN)
        await flows(traffic)

    assert buffered > 0
    assert await traffic.faults() == []


async def test_a_web_process_killed_with_messages_in_its_spill_loses_none(service: Service, traffic: Traffic):
    buffered_before = traffic.statuses["buffered"]

    async with traffic.flowing():
        await flows(traffic)
        async with away(service):
            await eventually(lambda: traffic.statuses["buffered"] > buffered_before + MORE)
            web = service.part("registry.servers.serve")
            assert web
            os.kill(web, signal.SIGKILL)
            await eventually(lambda: service.part("registry.servers.serve") not in (None, web))
            left = service.spilled("push")
        await flows(traffic)

    assert left > 0
    assert await traffic.faults() == []
